"""What a build tells of benchmarks in its text: what was found where, and how much of them it would find.

The recall is that of items injected into the build's own text; each benchmark is held to the floor by itself, and one
of which nothing can be found is below any.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from mixer.assess import Prepared
from mixer.benchmark import Item
from mixer.context import Context
from mixer.errors import SourceError
from mixer.exclude import FILE, Benchmarks
from mixer.injection import Measured, Recall, Report, measure
from mixer.run import digest
from mixer.steps import Say
from mixer.table import scan

HELD_TO = ("verbatim", "rewrapped", "embedded", "reordered")
"""The forms that a recipe's floor is for."""
_CLEAN_TEXTS = 200
_MOST_ITEMS = 1000
_SHOWN = 300


def report(context: Context, prepared: Mapping[str, Prepared], benchmarks: Benchmarks) -> dict[str, Any]:
    """What `decontamination/report.json` holds: recall by benchmark and form, and what was found where.

    Raises:
        SourceError: Recall of a benchmark lies below the recipe's floor.
    """
    rules = context.recipe.clean.decontaminate
    assert rules is not None
    clean, items = _sample(context, prepared), list(benchmarks.known.values())
    measured = measure(benchmarks.index, items, clean, context.recipe.seed, most=_MOST_ITEMS)
    unmatchable = _unmatchable(benchmarks, context.say)
    _check_floor(measured, rules.floor)
    found = {
        name: pl.concat([scan(folder / FILE) for folder in source.excluded]).collect()
        for name, source in prepared.items()
        if source.excluded
    }
    return {
        **_told(measured.together),
        "benchmarks": {
            name: {"in_all": unmatchable[name], **_told(own), "example": _shown(items, name)}
            for name, own in measured.benchmarks.items()
        },
        "hits": {name: _counts(table) for name, table in found.items()},
        "examples": {name: _examples(table, context.recipe.seed) for name, table in found.items()},
    }


def _told(measured: Measured) -> dict[str, Any]:
    return {
        "items": measured.items,
        "unmatchable": measured.unmatchable,
        "recall": {each.form: asdict(each) | {"share": each.share} for each in measured.recall},
    }


def _shown(items: Sequence[Item], benchmark: str) -> dict[str, Any]:
    """The first item of a benchmark as it was read, so that a wrong field is seen at once."""
    first = next(item for item in items if item.benchmark == benchmark)
    texts = {key: value[:_SHOWN] for key, value in asdict(first).items() if isinstance(value, str)}
    return texts | {"choices": [choice[:_SHOWN] for choice in first.choices]}


def _unmatchable(benchmarks: Benchmarks, say: Say) -> dict[str, dict[str, int]]:
    """By benchmark how many items there are, and how many cannot be found in any form; says where there are some."""
    counts: dict[str, dict[str, int]] = {}
    for (benchmark, _), parts in benchmarks.index.findable.items():
        own = counts.setdefault(benchmark, {"items": 0, "unmatchable": 0})
        own["items"] += 1
        own["unmatchable"] += not parts
    for name, own in sorted(counts.items()):
        if own["unmatchable"]:
            say(
                f"decontaminate: {own['unmatchable']:,} of {own['items']:,} items of `{name}` cannot be found: "
                "too short, or nothing that other texts do not say"
            )
    return counts


def _check_floor(measured: Report, floor: float) -> None:
    low = [
        f"{name}: {each.form} {each.share:.3f} ({each.caught} of {each.tried or each.unmatchable})"
        for name, own in measured.benchmarks.items()
        for each in own.recall
        if each.form in HELD_TO and _is_low(each, floor)
    ]
    if low:
        raise SourceError(
            f"clean.decontaminate: got a recall of {', '.join(low)}, expected at least {floor:g} of each benchmark",
            hint="set a smaller `ngram`, check `fields`, take the benchmark out of `against`, or lower the `floor`",
        )


def _is_low(recall: Recall, floor: float) -> bool:
    """Whether a form is found too seldom; one that no item takes has nothing to be found."""
    return recall.share < floor and recall.tried + recall.unmatchable > 0


def _counts(table: pl.DataFrame) -> dict[str, int]:
    """Documents with a hit, by benchmark."""
    counts = table.group_by("benchmark").agg(pl.col("id").n_unique()).sort("benchmark")
    return dict(counts.iter_rows())


def _examples(table: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Some hits, by hash, for a person to judge."""
    rows = table.sort("id", "start", "item").unique(["id", "start"], keep="first", maintain_order=True).to_dicts()
    chosen = sorted(rows, key=lambda hit: digest([seed, hit["id"], hit["start"]]))[:10]
    return [{key: hit[key] for key in ("id", "benchmark", "item", "part", "share", "text")} for hit in chosen]


def _sample(context: Context, prepared: Mapping[str, Prepared]) -> list[str]:
    """Texts of the corpus by hash, from what was left in it: items are put into them, and looked for."""
    ids = [
        (digest([context.recipe.seed, name, identity]), folder, identity)
        for name, source in prepared.items()
        if source.excluded
        for folder in source.documents
        for identity in scan(folder / "documents.parquet").select("id").collect()["id"]
    ]
    chosen = sorted(ids)[:_CLEAN_TEXTS]
    tables = {
        folder: scan(folder / "documents.parquet").filter(pl.col("id").is_in(its)).collect()
        for folder, its in _grouped(chosen).items()
    }
    return [table["text"][row] for _, table in sorted(tables.items()) for row in range(len(table))]


def _grouped(chosen: Sequence[tuple[str, Path, str]]) -> dict[Path, list[str]]:
    found: dict[Path, list[str]] = {}
    for _, folder, identity in chosen:
        found.setdefault(folder, []).append(identity)
    return found
