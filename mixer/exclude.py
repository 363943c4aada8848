"""Benchmark text taken out of a build's documents, and what the build found out about its own recall.

The index is built once a set of benchmark files; each unit is searched once an index; what is done with a hit (drop the
document, or cut the sentences) is decided last, so that changing it searches nothing again.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mixer import benchmark, decontaminate
from mixer.assess import Prepared
from mixer.benchmark import Fields, Item, read_items
from mixer.context import Context
from mixer.decontaminate import Hit, Index, cut
from mixer.errors import SourceError
from mixer.execute import Step, execute
from mixer.injection import Report, measure
from mixer.read import matches
from mixer.run import digest, sha256, staged
from mixer.select import select
from mixer.table import TableWriter, scan

_HITS = pa.schema(
    [
        ("row", pa.int64()),
        *((name, pa.string()) for name in ("id", "benchmark", "item", "part", "text")),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("share", pa.float64()),
    ]
)
FILE = "hits.parquet"
_SHOWN = 300
_BATCH_ROWS = 200
_CLEAN_TEXTS = 200
_MOST_ITEMS = 1000
_HELD_TO = ("verbatim", "rewrapped", "embedded")


@dataclass(frozen=True)
class Benchmarks:
    """The benchmark files of a recipe, indexed.

    Args:
        folder: Where the index lies.
        files: The files, and where their rows hold what.
    """

    folder: Path
    files: tuple[Path, ...]
    fields: Fields

    @cached_property
    def index(self) -> Index:
        """The index, read once."""
        return Index.load(self.folder)

    def items(self) -> Iterator[Item]:
        """Every item of every file."""
        for path in self.files:
            yield from read_items(path, self.fields)


def open_index(context: Context) -> Benchmarks | None:
    """The index of the recipe's benchmark files, built if it is new; None where the recipe names none.

    Raises:
        SourceError: A file is missing, or a row is no item.
    """
    rules = context.recipe.clean.decontaminate
    if rules is None:
        return None
    spot = "clean.decontaminate.against"
    names = sorted({name for pattern in rules.against for name in matches(spot, pattern, context.base)})
    files = tuple(context.base / name for name in names)
    fields = Fields(**rules.fields.model_dump())
    inputs = [
        [sha256(path) for path in files],
        names,
        asdict(fields),
        rules.ngram,
        benchmark.VERSION,
        decontaminate.VERSION,
    ]
    found = Benchmarks(context.cache / "benchmarks" / digest(inputs), files, fields)
    if not found.folder.is_dir():
        context.say(f"make benchmark index: {len(files):,} files")
        Index.build(found.items(), rules.ngram).save(found.folder)
    return found


@dataclass(frozen=True, slots=True)
class SearchTask:
    """One unit to search: its documents, and the folder to make."""

    documents: Path
    target: Path


class FindBenchmarks(Step):
    """Looks for benchmark items in one unit's documents."""

    name = "find benchmarks"

    def __init__(self, tasks: Sequence[SearchTask], index: Path) -> None:
        super().__init__()
        self.tasks, self.folder = tasks, index

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        task, index = self.tasks[rank], Index.load(self.folder)
        with staged(task.target) as scratch, TableWriter(scratch / FILE, _HITS) as out:
            for row, identity, text in _rows(task.documents):
                for hit in index.find(text):
                    shown = text[hit.start : hit.end][:_SHOWN]
                    out.write(row=row, id=identity, text=shown, **asdict(hit))


def _rows(documents: Path) -> Iterator[tuple[int, str, str]]:
    first = 0
    with pq.ParquetFile(documents) as table:
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=["id", "text"]):
            pairs = zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
            yield from ((first + row, *pair) for row, pair in enumerate(pairs))
            first += batch.num_rows


def exclude(context: Context, ready: Mapping[str, Prepared], benchmarks: Benchmarks | None) -> dict[str, Prepared]:
    """The sources without what overlaps the benchmarks; `excluded` says where the hits of each lie."""
    if benchmarks is None:
        return dict(ready)
    folders = [folder for source in ready.values() for folder in source.documents]
    hits = _search(context, folders, benchmarks)
    return {
        name: replace(
            source,
            documents=tuple(_excluded(context, folder, hits[folder], benchmarks.index) for folder in source.documents),
            excluded=tuple(hits[folder] for folder in source.documents),
        )
        for name, source in ready.items()
    }


def _search(context: Context, folders: Sequence[Path], benchmarks: Benchmarks) -> dict[Path, Path]:
    """Folder of documents -> folder of hits; searches what was not searched for these items yet."""
    key = benchmarks.index.fingerprint
    targets = {folder: context.cache / "hits" / digest([folder.name, key]) for folder in folders}
    tasks = [
        SearchTask(folder / "documents.parquet", target) for folder, target in targets.items() if not target.is_dir()
    ]
    context.say(f"make decontaminate: {len(tasks):,} units" if tasks else "skip decontaminate: nothing changed")
    began, made = time.monotonic(), [task.target for task in tasks]
    execute(
        [FindBenchmarks(tasks, benchmarks.folder)],
        targets=made,
        workers=context.workers,
        logs=context.cache / "logs" / "decontaminate",
        label="decontaminate",
        watch=lambda: (sum(target.is_dir() for target in made), 0),
    )
    if tasks:
        context.steps.note("decontaminate", {}, context.cache / "none", time.monotonic() - began)
    return targets


def _excluded(context: Context, folder: Path, hits: Path, index: Index) -> Path:
    rules = context.recipe.clean.decontaminate
    assert rules is not None
    table = scan(hits / FILE).collect()
    removed: dict[int, tuple[str, str]] = {}
    changed: dict[int, str] = {}
    texts = _texts(folder, set(table["row"].to_list())) if rules.action == "cut" else {}
    for (row,), its in table.group_by("row", maintain_order=True):
        number, first = int(str(row)), its.row(0, named=True)
        found = [Hit(**{key: hit[key] for key in Hit.__dataclass_fields__}) for hit in its.to_dicts()]
        rest = cut(texts[number], found) if rules.action == "cut" else ""
        if rest and not index.find(rest):
            changed[number] = rest
        else:
            removed[number] = ("decontaminate", f"{first['benchmark']}: {first['part']} of {first['item']}")
    target = context.cache / "documents" / digest([folder.name, sorted(removed.items()), sorted(changed.items())])
    if not target.is_dir():
        select(folder, target, removed, changed)
    return target


def _texts(folder: Path, rows: set[int]) -> dict[int, str]:
    return {row: text for row, _, text in _rows(folder / "documents.parquet") if row in rows} if rows else {}


def report(context: Context, prepared: Mapping[str, Prepared], benchmarks: Benchmarks) -> dict[str, Any]:
    """What `decontamination/report.json` holds: recall by form on injected items, and what was found where.

    Raises:
        SourceError: Recall lies below the recipe's floor.
    """
    rules = context.recipe.clean.decontaminate
    assert rules is not None
    clean = _sample(context, prepared)
    measured = measure(benchmarks.index, list(benchmarks.items()), clean, context.recipe.seed, most=_MOST_ITEMS)
    _check_floor(measured, rules.floor)
    found = {
        name: pl.concat([scan(folder / FILE) for folder in source.excluded]).collect()
        for name, source in prepared.items()
        if source.excluded
    }
    return {
        "items": measured.items,
        "unmatchable": measured.unmatchable,
        "recall": {each.form: asdict(each) | {"share": each.share} for each in measured.recall},
        "hits": {name: _counts(table) for name, table in found.items()},
        "examples": {name: _examples(table, context.recipe.seed) for name, table in found.items()},
    }


def _check_floor(measured: Report, floor: float) -> None:
    low = [each for each in measured.recall if each.form in _HELD_TO and each.tried and each.share < floor]
    if low:
        told = ", ".join(f"{each.form} {each.share:.3f} ({each.caught} of {each.tried})" for each in low)
        raise SourceError(
            f"clean.decontaminate: got a recall of {told}, expected at least {floor:g}",
            hint="set a smaller `ngram`, check `fields`, or lower the `floor`",
        )


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
