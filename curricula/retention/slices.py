"""The documents of a slice: read, shortened, and chosen by hash, so that the same files give the same ones anywhere."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curricula.held import held_out
from curricula.order import seed_of
from mixer.errors import SourceError
from mixer.extract import Rejected, extract
from mixer.read import read, units
from mixer.recipe.recipe import Clean
from mixer.recipe.retention import Slice
from mixer.recipe.retention_problems import kind_of
from mixer.recipe.sources import Columns, JsonlSource, PageSource, ParquetSource, TextSource
from mixer.run import digest
from mixer.types import Failure, Page, Skipped

_LEAST = 2
"""Documents of a slice: of one alone nothing tells how sure its loss is."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A slice's documents.

    Args:
        name: The slice's.
        kind: `general` or `domain`.
        ids: Where each document comes from.
        texts: As models read them.
        stage: Which stage teaches them.
    """

    name: str
    kind: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    stage: str | None = None

    @property
    def sizes(self) -> np.ndarray:
        """(documents,) int64 UTF-8 bytes."""
        return np.array([len(text.encode()) for text in self.texts], np.int64)

    @property
    def fingerprint(self) -> str:
        """A hash of all that is measured."""
        return digest([list(self.ids), list(self.texts)])

    def most(self, count: int) -> "Texts":
        """The first documents alone; they are in no order of their own, so any part is a fair one."""
        return Texts(self.name, self.kind, self.ids[:count], self.texts[:count], self.stage)


def texts_of(name: str, own: Slice, *, run: Path, base: Path) -> Texts:
    """A slice's documents, chosen by a hash of id and text from all that are long enough.

    Args:
        name: The slice's.
        own: What the recipe says of it.
        run: The Run, for documents that it holds out.
        base: Folder of the recipe.

    Raises:
        SourceError: Files are missing or damaged, or fewer than two documents are long enough.
    """
    found = _held_out(name, own, run) if own.source is not None else _from_files(name, own, base)
    chosen = _chosen(((key, _shortened(text, own.max_bytes)) for key, text in found), own)
    if len(chosen) < _LEAST:
        got = f"{len(chosen) or 'no'} document of {own.min_bytes} bytes or more"
        told = f"got {got}, expected two at least: intervals are drawn over documents"
        raise SourceError(f"retention.slices.{name}: {told}", hint=_remedy(own))
    ids, texts = zip(*chosen, strict=True)
    return Texts(name, own.kind, ids, texts, own.stage)


def _remedy(own: Slice) -> str:
    """How a slice gets more documents."""
    if own.source is not None:
        return "lower `min_bytes`, or hold more out (`validation: {sequences: 64}`, at most a twentieth of a source)"
    paths = (own.path,) if isinstance(own.path, str) else own.path or ()
    if own.split == "file" and "text" in map(kind_of, paths):
        return "`split: blank_line` makes each paragraph a document; or lower `min_bytes`, or name more files"
    return "lower `min_bytes`, or name more files"


def _chosen(found: Iterable[tuple[str, str]], own: Slice) -> list[tuple[str, str]]:
    """So many documents in the order of their hashes, each text once."""
    by_hash = {seed_of(0, "slice", text): (key, text) for key, text in found if len(text.encode()) >= own.min_bytes}
    return [by_hash[place] for place in heapq.nsmallest(own.max_documents, by_hash)]


def _shortened(text: str, most: int) -> str:
    """The text's first bytes, no character cut."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def _from_files(name: str, own: Slice, base: Path) -> Iterator[tuple[str, str]]:
    source = _source_of(own)
    spot = f"retention.slices.{name}"
    try:
        listed = units(name, source, base)
    except SourceError as error:
        from_where = "; `--base` names the recipe's folder" if "no file" in str(error) else ""
        raise SourceError(str(error).replace(f"sources.{name}", spot), hint=error.hint + from_where) from None
    limits = Clean()
    for unit in listed:
        for row in read(unit, source):
            if isinstance(row, Failure):
                told = f"{spot}: got {row.id}: {row.reason}, expected a document"
                is_named = row.reason.startswith("missing field")
                hint = (
                    f"`{spot}.field` names what to read" if is_named else "mend the file, or leave it out of the slice"
                )
                raise SourceError(told, hint=hint)
            if isinstance(row, Page) and (text := _text(row, limits)):
                yield row.id, text
            else:
                assert isinstance(row, Page | Skipped)


def _text(page: Page, limits: Clean) -> str:
    try:
        return extract(
            page, engine=limits.extract, max_bytes=limits.max_page_bytes, max_elements=limits.max_page_elements
        )
    except Rejected:
        return ""


def _source_of(own: Slice) -> PageSource:
    """The source that reads the slice's files."""
    assert own.path is not None
    first = own.path if isinstance(own.path, str) else own.path[0]
    kind, columns = kind_of(first), Columns(text=own.field)
    if kind == "parquet":
        return ParquetSource(kind="parquet", path=own.path, columns=columns, format=own.format)
    if kind == "text":
        return TextSource(kind="text", path=own.path, split=own.split, format=own.format)
    return JsonlSource(kind="jsonl", path=own.path, columns=columns, format=own.format)


def _held_out(name: str, own: Slice, run: Path) -> Iterator[tuple[str, str]]:
    """The documents behind the sequences that the Run holds out of a source."""
    assert own.source is not None
    found = held_out(run, own.source, own.topic)
    if found is None:
        told = f"topic `{own.topic}` of `{own.source}`" if own.topic else f"`{own.source}`"
        raise SourceError(
            f"retention.slices.{name}: got nothing held out of {told}, expected some documents",
            hint="if `validation` is new, build and train again; at most a twentieth is held out, in whole documents:"
            " where none is that small, add to the source, or measure files (`path`)",
        )
    yield from found.select("id", "text").collect().iter_rows()
