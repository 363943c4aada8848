"""From sources to encoded documents: clean, deduplicate, select, tokenize, unit by unit, each at most once.

A unit's result lies under a name that hashes its content and every rule that matters, in the Run's `.cache`. So a
rerun after a kill or a change redoes exactly the units whose input or rules are new.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixer import clean, dedup, imported
from mixer.assess import Prepared, assess
from mixer.context import Context, OpenScore, Synthesize
from mixer.corpus import corpus_of, identity, inputs_of, list_units, rules_of, stop_on_failures
from mixer.exclude import exclude, open_index
from mixer.execute import execute
from mixer.run import digest, write_json
from mixer.select import select
from mixer.table import scan
from mixer.tokens import EncodeDocuments, Encoder, TokenTask
from mixer.types import Unit


def prepare(context: Context, encoder: Encoder, synthesize: Synthesize, open_score: OpenScore) -> dict[str, Prepared]:
    """Every source's units cleaned, deduplicated or written by a model, and encoded.

    Raises:
        SourceError: Input is missing; or some could not be read and the recipe says to stop; or ids repeat.
        EngineError: A model cannot be asked.
    """
    taken = _import(context, encoder)
    ready = prepare_texts(context, synthesize, open_score)
    texts = [name for name in context.recipe.sources if name in ready]
    tokens = _encode(context, [folder for name in texts for folder in ready[name].documents], encoder)
    encoded = {
        name: replace(ready[name], tokens=tuple(tokens[folder] for folder in ready[name].documents)) for name in texts
    }
    return {name: (encoded | taken)[name] for name in context.recipe.sources}


def prepare_texts(context: Context, synthesize: Synthesize, open_score: OpenScore) -> dict[str, Prepared]:
    """All sources of text, not encoded yet: first those that are read, then those that are written from them.

    Scores are taken and filters applied to pages before anything is written from them, and to what was written after.
    """
    index = open_index(context)
    pages = exclude(context, prepare_pages(context), index)
    documents = {name: its.documents for name, its in pages.items()}
    scorings = {score: open_score(context, score, documents) for score in context.recipe.scores.taken}
    for score, scoring in scorings.items():
        write_json(context.cache / "reports" / f"{score}.json", scoring.report)
    ready = assess(context, pages, scorings)
    written = {}
    for name, source in context.recipe.synth_sources.items():
        folder = synthesize(context, name, ready[source.source].documents)
        written[name] = Prepared((folder,), (folder,), (), {"synth": folder.name})
    written = exclude(context, written, index)
    return ready | assess(context, written, scorings)


def prepare_pages(context: Context) -> dict[str, Prepared]:
    """The sources that are read, cleaned and deduplicated, not encoded yet.

    Raises:
        SourceError: Input is missing; or some could not be read and the recipe says to stop.
    """
    listed = list_units(context)
    context.steps.note("corpus", corpus_of(context.recipe, listed), context.cache / "none", 0.0)
    sources = context.recipe.page_sources
    cleaned = _clean(context, {name: listed[name] for name in sources})
    stop_on_failures(context, cleaned)
    removed = _deduplicate(context, [target for targets in cleaned.values() for target in targets])
    documents = {name: [_select(context, t, removed.get(t, {})) for t in ts] for name, ts in cleaned.items()}
    return {
        name: Prepared(
            cleaned=tuple(cleaned[name]),
            documents=tuple(folders),
            tokens=(),
            inputs=inputs_of(context.recipe, sources[name], listed[name]),
        )
        for name, folders in documents.items()
    }


def _import(context: Context, encoder: Encoder) -> dict[str, Prepared]:
    """The sources that are token ids already, ready to pack."""
    sources = context.recipe.token_sources
    if not sources:
        return {}
    listed = {name: its for name, its in list_units(context).items() if name in sources}
    imported.check_tokenizer(context.recipe, listed, encoder)
    folders: dict[str, list[Path]] = {}
    tasks: list[imported.Task] = []
    for name, its_units in listed.items():
        rules = [rules_of(context.recipe, sources[name]), encoder.digest]
        folders[name] = [context.cache / "imported" / digest([identity(unit), rules]) for unit in its_units]
        pairs = zip(its_units, folders[name], strict=True)
        pending = [imported.Task(unit, sources[name], folder) for unit, folder in pairs if not clean.is_done(folder)]
        made = f"make import {name}: {len(pending):,} of {len(its_units):,} units"
        context.say(made if pending else f"skip import {name}: nothing changed")
        tasks += pending
    began = time.monotonic()
    step = imported.ImportTokens(tasks, context.recipe.tokenizer, (context.base, context.store))
    targets = [task.target for task in tasks]
    _execute(context, [step], "import", targets, lambda: clean.progress_of(targets))
    if tasks:
        context.steps.note("import", {}, context.cache / "none", time.monotonic() - began)
    stop_on_failures(context, folders)
    imported.say_framed(context.say, folders)
    return {
        name: Prepared(its := tuple(folders[name]), its, its, inputs_of(context.recipe, sources[name], listed[name]))
        for name in sources
    }


def _clean(context: Context, listed: Mapping[str, Sequence[Unit]]) -> dict[str, list[Path]]:
    recipe = context.recipe
    targets: dict[str, list[Path]] = {}
    tasks: list[clean.Task] = []
    for name, its_units in listed.items():
        source, rules = recipe.page_sources[name], rules_of(recipe, recipe.page_sources[name])
        filters = tuple(rules["filters"])
        folders = [context.cache / "clean" / digest([identity(unit), rules]) for unit in its_units]
        pending = [
            clean.Task(unit, source, folder, filters)
            for unit, folder in zip(its_units, folders, strict=True)
            if not clean.is_done(folder)
        ]
        _say_clean(context, name, rules, len(pending), len(folders))
        targets[name], tasks = folders, tasks + pending
    began = time.monotonic()
    tally = clean.Tally()
    steps = [
        clean.ReadPages(tasks, tally),
        clean.CleanPages(tasks, recipe.clean),
        clean.WriteUnit(tasks, recipe.clean, tally),
    ]
    folders = [task.target for task in tasks]
    _execute(context, steps, "clean", folders, lambda: clean.progress_of(folders))
    for name in targets:
        context.steps.note(f"clean {name}", rules_of(recipe, recipe.page_sources[name]), context.cache / "none", 0.0)
    if tasks:
        context.steps.note("clean", {}, context.cache / "none", time.monotonic() - began)
    return targets


def _say_clean(context: Context, name: str, rules: Mapping[str, Any], pending: int, total: int) -> None:
    if not pending:
        return context.say(f"skip clean {name}: nothing changed ({total:,} units)")
    why = context.steps.reason(f"clean {name}", rules, context.cache / "none") or "input changed"
    verb = "make" if why == "not done yet" else "redo"
    return context.say(f"{verb} clean {name}: {why} ({pending:,} of {total:,} units)")


def _execute(context: Context, steps: list[Any], label: str, targets: Sequence[Path], watch: Any) -> None:
    logs = context.cache / "logs" / label
    execute(steps, targets=targets, workers=context.workers, logs=logs, label=label, watch=watch)
    missing = [target for target in targets if not target.is_dir()]
    if missing:
        raise RuntimeError(f"{label}: {len(missing)} of {len(targets)} units left no result; see {logs}")


def _deduplicate(context: Context, cleaned: Sequence[Path]) -> dict[Path, dict[int, tuple[str, str]]]:
    """Rows to remove from each unit, with step and reason."""
    rules = context.recipe.clean.dedup
    units_now = digest([folder.name for folder in cleaned])
    inputs = {"units": units_now, **rules.model_dump(mode="json"), "version": dedup.VERSION}
    target = context.cache / "dedup"
    with context.steps.folder("dedup", inputs, target) as scratch:
        if scratch is not None:
            dedup.frame(dedup.find(cleaned, rules)).write_parquet(scratch / "removed.parquet")
    return _by_unit(cleaned, scan(target / "removed.parquet").collect())


def _by_unit(cleaned: Sequence[Path], removed: pl.DataFrame) -> dict[Path, dict[int, tuple[str, str]]]:
    counts = [scan(folder / "documents.parquet").select(pl.len()).collect().item() for folder in cleaned]
    ends = np.cumsum(counts)
    names = _names_of(cleaned, ends, removed["witness"].unique().sort().to_numpy())
    found: dict[Path, dict[int, tuple[str, str]]] = defaultdict(dict)
    for document, witness, step, share in removed.iter_rows():
        unit = int(np.searchsorted(ends, document, side="right"))
        row = document - int(ends[unit] - counts[unit])
        how = "same text as" if step == "exact_dedup" else f"{share:.3f} of it in"
        found[cleaned[unit]][row] = (step, f"{how} {names[witness]}")
    return found


def _names_of(cleaned: Sequence[Path], ends: np.ndarray, documents: np.ndarray) -> dict[int, str]:
    """Position -> `source/id` of the documents asked for."""
    names: dict[int, str] = {}
    unit_of = np.searchsorted(ends, documents, side="right")
    for unit in np.unique(unit_of).tolist():
        wanted = documents[unit_of == unit]
        first = int(ends[unit - 1]) if unit else 0
        table = scan(cleaned[unit] / "documents.parquet").select("source", "id").collect()
        for document in wanted.tolist():
            names[document] = "/".join(table.row(document - first))
    return names


def _select(context: Context, cleaned: Path, removed: Mapping[int, tuple[str, str]]) -> Path:
    target = context.cache / "documents" / digest([cleaned.name, sorted(removed.items())])
    if not target.is_dir():
        select(cleaned, target, removed)
    return target


def _encode(context: Context, documents: Sequence[Path], encoder: Encoder) -> dict[Path, Path]:
    targets = {folder: context.cache / "tokens" / digest([folder.name, encoder.digest]) for folder in documents}
    tasks = [
        TokenTask(folder / "documents.parquet", target) for folder, target in targets.items() if not target.is_dir()
    ]
    verb = f"make tokens: {len(tasks):,} of {len(targets):,} units" if tasks else "skip tokens: nothing changed"
    context.say(verb)
    began = time.monotonic()
    # One process: the tokenizer's own threads use the cores, and starting a pool would cost more than it saves.
    alone = replace(context, workers=1)
    step = EncodeDocuments(tasks, context.recipe.tokenizer, (context.base, context.store), context.workers)
    folders = [task.target for task in tasks]
    _execute(alone, [step], "tokens", folders, lambda: (sum(f.is_dir() for f in folders), 0))
    if tasks:
        context.steps.note("tokens", {}, context.cache / "none", time.monotonic() - began)
    return targets
