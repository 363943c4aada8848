"""What is known of documents, and what a source's `where` makes of it: between cleaning and packing."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixer.context import Context
from mixer.execute import execute
from mixer.run import digest
from mixer.score import ScoreDocuments, ScoreTask, Scoring, failing, release
from mixer.select import select


@dataclass(frozen=True, slots=True)
class Prepared:
    """One source, ready to pack: folders of cleaned rows, documents and tokens, one each a unit, in order.

    Args:
        scores: Score -> folders with its values, one a unit; also of documents that a filter then kept out.
        excluded: Folders with the places that held benchmark text, one a unit.
    """

    cleaned: tuple[Path, ...]
    documents: tuple[Path, ...]
    tokens: tuple[Path, ...]
    inputs: Mapping[str, Any]
    scores: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    excluded: tuple[Path, ...] = ()


def assess(context: Context, ready: Mapping[str, Prepared], scorings: Mapping[str, Scoring]) -> dict[str, Prepared]:
    """The sources with their scores taken, and without the documents that `where` keeps out."""
    found = dict(ready)
    for score, scoring in scorings.items():
        wanted = context.recipe.scores.taken[score].sources
        names = [name for name in found if wanted is None or name in wanted]
        if not names:
            continue
        folders = [folder for name in names for folder in found[name].documents]
        sides = _score(context, score, scoring, folders)
        for name in names:
            taken = tuple(sides[folder] for folder in found[name].documents)
            found[name] = replace(found[name], scores={**found[name].scores, score: taken})
    return {name: _filtered(context, name, its) for name, its in found.items()}


def _score(context: Context, score: str, scoring: Scoring, folders: Sequence[Path]) -> dict[Path, Path]:
    """Folder of documents -> folder of values; takes what is not there yet."""
    inputs = digest(dict(scoring.inputs))
    targets = {folder: context.cache / "scores" / digest([folder.name, inputs]) for folder in folders}
    tasks = [
        ScoreTask(folder / "documents.parquet", target) for folder, target in targets.items() if not target.is_dir()
    ]
    if not tasks:
        context.say(f"skip score {score}: nothing changed")
        return targets
    context.say(f"make score {score}: {len(tasks):,} of {len(targets):,} units")
    began, made = time.monotonic(), [task.target for task in tasks]
    ScoreDocuments.scored = 0
    # One process: the model's own threads use the cores, and it is loaded once.
    execute(
        [ScoreDocuments(tasks, score, scoring)],
        targets=made,
        workers=1,
        logs=context.cache / "logs" / f"score {score}",
        label=f"score {score}",
        watch=lambda: (sum(target.is_dir() for target in made), ScoreDocuments.scored),
    )
    release()
    context.steps.note(f"score {score}", {}, context.cache / "none", time.monotonic() - began)
    return targets


def _filtered(context: Context, name: str, source: Prepared) -> Prepared:
    where = context.recipe.filters[name]
    if where is None:
        return source
    documents = []
    for number, folder in enumerate(source.documents):
        sides = {score: folders[number] for score, folders in source.scores.items()}
        removed = failing(folder / "documents.parquet", sides, where)
        target = context.cache / "documents" / digest([folder.name, sorted(removed.items())])
        if not target.is_dir():
            select(folder, target, removed)
        documents.append(target)
    return replace(source, documents=tuple(documents))
