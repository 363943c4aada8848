"""Benchmark text taken out of a build's documents.

The index is built once a set of benchmark files; each unit is searched once an index; what is done with a hit (drop the
document, or cut the sentences) is decided last, so that changing it searches nothing again. What was written stands by
itself, so it is dropped in any case: a cut would leave an answer without its question.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mixer import benchmark, decontaminate
from mixer.assess import Prepared
from mixer.benchmark import Fields, Item, read_items
from mixer.context import Context
from mixer.cut import cut
from mixer.decontaminate import Hit, Index
from mixer.execute import Step, execute
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


@dataclass(frozen=True)
class Benchmarks:
    """The benchmark files of a recipe, indexed.

    Args:
        folder: Where the index lies.
        files: The files, and where the rows of each hold what.
    """

    folder: Path
    files: Mapping[Path, Fields]

    @cached_property
    def index(self) -> Index:
        """The index, read once."""
        return Index.load(self.folder)

    @cached_property
    def known(self) -> dict[tuple[str, str], Item]:
        """The items by (benchmark, id), read once."""
        return {(item.benchmark, item.id): item for item in self.items()}

    def items(self) -> Iterator[Item]:
        """Every item of every file."""
        for path, fields in self.files.items():
            yield from read_items(path, fields)


def open_index(context: Context) -> Benchmarks | None:
    """The index of the recipe's benchmark files, built if it is new; None where the recipe names none.

    Raises:
        SourceError: A file is missing, or a row is no item.
    """
    rules = context.recipe.clean.decontaminate
    if rules is None:
        return None
    spot = "clean.decontaminate.against"
    named = {
        name: Fields(**(entry.fields or rules.fields).model_dump())
        for entry in rules.against
        for name in matches(spot, entry.path, context.base)
    }
    files = {context.base / name: named[name] for name in sorted(named)}
    inputs = [
        [sha256(path) for path in files],
        [(name, asdict(named[name])) for name in sorted(named)],
        rules.ngram,
        benchmark.VERSION,
        decontaminate.VERSION,
    ]
    found = Benchmarks(context.cache / "benchmarks" / digest(inputs), files)
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
    _loaded: ClassVar[dict[Path, Index]] = {}
    """The index that this process has read; there is one at a time."""

    def __init__(self, tasks: Sequence[SearchTask], index: Path) -> None:
        super().__init__()
        self.tasks, self.folder = tasks, index

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        task = self.tasks[rank]
        if self.folder not in self._loaded:
            self._loaded.clear()
            self._loaded[self.folder] = Index.load(self.folder)
        index = self._loaded[self.folder]
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
            documents=tuple(
                _excluded(context, folder, hits[folder], benchmarks, is_written=name in context.recipe.synth_sources)
                for folder in source.documents
            ),
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


def _excluded(context: Context, folder: Path, hits: Path, benchmarks: Benchmarks, *, is_written: bool) -> Path:
    rules = context.recipe.clean.decontaminate
    assert rules is not None
    table = scan(hits / FILE).collect()
    cuts = rules.action == "cut" and not is_written and len(table) > 0
    rests = _rests(folder, table, benchmarks) if cuts else {}
    removed: dict[int, tuple[str, str]] = {}
    for hit in table.unique("row", keep="first", maintain_order=True).iter_rows(named=True):
        if hit["row"] not in rests:
            removed[hit["row"]] = ("decontaminate", f"{hit['benchmark']}: {hit['part']} of {hit['item']}")
    decided = [folder.name, sorted(removed.items()), sorted(rests.items())]
    target = context.cache / "documents" / digest(decided)
    if not target.is_dir():
        select(folder, target, removed, rests)
    return target


def _rests(folder: Path, table: pl.DataFrame, benchmarks: Benchmarks) -> dict[int, str]:
    """Row -> what is left of a document after the cut, where something without any item is."""
    found: dict[int, list[Hit]] = {}
    for hit in table.iter_rows(named=True):
        found.setdefault(hit["row"], []).append(Hit(**{key: hit[key] for key in Hit.__dataclass_fields__}))
    texts = _texts(folder, set(found))
    rests = {row: cut(texts[row], hits, benchmarks.known) for row, hits in found.items()}
    return {row: rest for row, rest in rests.items() if rest and not benchmarks.index.find(rest)}


def _texts(folder: Path, rows: set[int]) -> dict[int, str]:
    return {row: text for row, _, text in _rows(folder / "documents.parquet") if row in rows}
