"""Documents that are token ids already: where a file's documents lie, one after the other, whatever the file holds.

Nothing is held whole but a document. What a file says and what it holds are compared: every id belongs to one document,
in order, and damage is the file's last row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixer.errors import SourceError
from mixer.readers import flat
from mixer.readers.flat import Places, mapped
from mixer.readers.streams import DAMAGE, MAX_ROW_BYTES, DamagedError, damaged, too_long
from mixer.recipe.sources import TokensSource
from mixer.types import Failure

COLUMN = "input_ids"
_LLMC = {(20240520, 1): "<u2", (20240801, 7): "<u4"}
_LLMC_BYTES = 1024
_ROWS = 1000
_INDEX = {"megatron": ".idx", "nanotron": ".index", "olmo": ".csv.gz", "torchtitan": "document_offsets.npy"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """One document as a file has it.

    Args:
        id: `file#number`; documents are counted from 0.
        ids: Its token ids.
        place: The first of them in its file, counted in tokens.
    """

    id: str
    ids: np.ndarray
    place: int


@dataclass(frozen=True, slots=True)
class Ids:
    """What the recipe's tokenizer says of ids."""

    vocab_size: int
    eos: int | None


Found = Iterator[tuple[int, np.ndarray | None]]
"""The place of a document and its ids; None where it is too long to be held."""


def documents(path: str, name: str, source: TokensSource, ids: Ids) -> Iterator[Encoded | Failure]:
    """Every document of a file, in order; one that cannot be read is a Failure, and damage is the last row."""
    number = 0
    try:
        for place, found in _table(path, source, ids) if source.is_table else _flat(path, source, ids):
            own = f"{name}#{number}"
            yield too_long(own) if found is None else Encoded(own, found, place)
            number += 1
    except DAMAGE as error:
        yield damaged(name, error)


def beside(path: str, source: TokensSource) -> tuple[Path, ...]:
    """The files beside a file that are read with it."""
    file = Path(path)
    needed = [] if source.is_cut_at_eos and source.format != "megatron" else _index_of(file, source)
    optional = [file.with_name(f"{file.name}.metadata")] if source.format == "nanotron" else []
    return (*needed, *(each for each in optional if each.is_file()))


def check_beside(spot: str, path: str, source: TokensSource) -> None:
    """Refuse a file whose index is not there.

    Raises:
        SourceError: It is not.
    """
    for each in beside(path, source):
        if not each.is_file():
            hint = "name the files with the ids; " + (
                "its index must be there" if source.format == "megatron" else "without an index, set `boundaries: eos`"
            )
            raise SourceError(f"{spot}: {path}: got no {each.name} beside it, expected one", hint=hint)


def _index_of(file: Path, source: TokensSource) -> list[Path]:
    kind = _INDEX.get(source.format)
    if kind is None:
        return []
    if source.format == "nanotron":
        return [file.with_name(file.name + kind)]
    return [file.with_name(kind) if source.format == "torchtitan" else file.with_suffix(kind)]


def count(path: str, source: TokensSource, ids: Ids) -> int:
    """Tokens of a file, by what it says of itself; 0 where it is damaged."""
    try:
        if source.is_table:
            return sum(len(values) for _, values in _lists(path, source))
        return len(_stream(path, source, ids))
    except DAMAGE:
        return 0


def _flat(path: str, source: TokensSource, ids: Ids) -> Found:
    stream = _stream(path, source, ids)
    end = 0
    for starts, ends in _places(path, source, stream, ids):
        _check(starts, ends, end)
        end = int(ends[-1]) if len(ends) else end
        if end > len(stream):
            whole = int(np.searchsorted(ends, len(stream), side="right"))
            yield from _cut(stream, starts[:whole], ends[:whole])
            raise DamagedError(f"its index says {end:,} tokens and more, the file holds {len(stream):,}")
        yield from _cut(stream, starts, ends)
    if end < len(stream):
        raise DamagedError(f"{len(stream) - end:,} of {len(stream):,} tokens are in no document of its index")


def _check(starts: np.ndarray, ends: np.ndarray, end: int) -> None:
    """Documents must follow one another without a gap."""
    wrong = np.flatnonzero((starts != np.r_[end, ends[:-1]]) | (ends < starts)) if len(starts) else starts
    if len(wrong):
        at = int(wrong[0])
        before = int(ends[at - 1]) if at else end
        raise DamagedError(f"a document from token {starts[at]:,} to {ends[at]:,} follows one that ends at {before:,}")


def _cut(stream: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Found:
    most = MAX_ROW_BYTES // stream.itemsize
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield start, (stream[start:end] if end - start <= most else None)


def _stream(path: str, source: TokensSource, ids: Ids) -> np.ndarray:
    """All ids of a file, by memory map."""
    file = Path(path)
    if source.format == "megatron":
        return _whole(file, flat.read_index(file.with_suffix(".idx"))[0])
    if source.format == "nanotron":
        metadata = file.with_name(f"{file.name}.metadata")
        size = flat.metadata_of(metadata)[1] if metadata.is_file() else None
        return _whole(file, np.dtype(f"<u{size}") if size else _dtype(ids, ("uint16", "uint32")))
    if source.format == "torchtitan":
        return _whole(file, np.dtype("<u4"))
    if source.format == "llmc":
        return _behind_header(file)
    known = source.dtype or _dtype(ids, ("uint8", "uint16", "uint32"))
    return flat.ids_of(file, np.dtype(known).newbyteorder("<"))


def _whole(file: Path, dtype: np.dtype) -> np.ndarray:
    if file.stat().st_size % dtype.itemsize:
        raise DamagedError(f"{file.stat().st_size:,} bytes are no whole number of {dtype.name} ids")
    return mapped(file, dtype)


def _dtype(ids: Ids, kinds: tuple[str, ...]) -> np.dtype:
    return next(np.dtype(kind) for kind in kinds if ids.vocab_size - 1 <= np.iinfo(kind).max)


def _behind_header(file: Path) -> np.ndarray:
    head = np.fromfile(file, "<i4", _LLMC_BYTES // 4)
    if len(head) < _LLMC_BYTES // 4 or (kind := _LLMC.get((int(head[0]), int(head[1])))) is None:
        raise DamagedError("it does not begin with llm.c's header")
    found = mapped(file, np.dtype(kind), _LLMC_BYTES) if file.stat().st_size % np.dtype(kind).itemsize == 0 else head
    if len(found) != head[2]:
        raise DamagedError(f"its header says {head[2]:,} tokens, the file holds another number")
    return found


def _places(path: str, source: TokensSource, stream: np.ndarray, ids: Ids) -> Places:
    if source.is_cut_at_eos:
        assert ids.eos is not None
        return flat.eos_places(stream, ids.eos)
    [index] = _index_of(Path(path), source)
    if source.format == "megatron":
        return flat.index_places(flat.read_index(index))
    if source.format == "nanotron":
        return flat.ends_places(index)
    return flat.csv_places(index) if source.format == "olmo" else flat.offsets_places(index)


def _table(path: str, source: TokensSource, ids: Ids) -> Found:
    if source.is_cut_at_eos:
        assert ids.eos is not None
        yield from _rejoined((values for _, values in _lists(path, source)), ids.eos)
        return
    place = 0
    for lengths, values in _lists(path, source):
        ends = np.cumsum(lengths)
        for start, row in _cut(values, ends - lengths, ends):
            yield place + start, row
        place += len(values)


def _rejoined(parts: Iterator[np.ndarray], eos: int) -> Found:
    """Documents that end at a token, of a stream that comes in parts and may part anywhere."""
    held: list[np.ndarray] = []
    size, place = 0, 0
    for part in parts:
        ends = np.flatnonzero(part == eos) + 1
        for piece in np.split(part, ends):
            held, size = [*held, piece], size + len(piece)
            if size * part.itemsize > MAX_ROW_BYTES:
                held = []
            if len(piece) and piece[-1] == eos:
                yield place, _joined(held, size)
                held, size, place = [], 0, place + size
    if size:
        yield place, _joined(held, size)


def _joined(held: list[np.ndarray], size: int) -> np.ndarray | None:
    return np.concatenate(held) if sum(map(len, held)) == size else None


def _lists(path: str, source: TokensSource) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the lengths of some rows, and their ids one after the other; an id that is missing is -1."""
    column = source.column or COLUMN
    with _damage():
        for batch in (_parquet if source.format == "parquet" else _arrow)(path, column):
            kind = batch.type
            is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
            if not is_list or not pa.types.is_integer(kind.value_type):
                raise DamagedError(f"column `{column}` holds {kind}, expected lists of whole numbers")
            batch.validate(full=True)
            values = batch.flatten()
            if values.null_count:
                values = pc.fill_null(values.cast(pa.int64()), -1)
            lengths = pc.fill_null(pc.list_value_length(batch), 0)
            yield lengths.to_numpy(zero_copy_only=False).astype(np.int64), values.to_numpy()


@contextmanager
def _damage() -> Iterator[None]:
    """What pyarrow raises at damaged bytes, a name that is no text among it, as damage."""
    try:
        yield
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise DamagedError(str(error)) from error


def _parquet(path: str, column: str) -> Iterator[Any]:
    with pq.ParquetFile(path) as file:
        _named(file.schema_arrow.names, column)
        for batch in file.iter_batches(_ROWS, columns=[column], use_threads=False):
            yield batch.column(0)


def _arrow(path: str, column: str) -> Iterator[Any]:
    """Of a stream, as `datasets` saves it, or a file."""
    with pa.memory_map(path) as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(file) as reader:
            _named(reader.schema.names, column)
            groups = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
            for group in groups:
                yield from (group.column(column).slice(first, _ROWS) for first in range(0, len(group), _ROWS))


def _named(names: list[str], column: str) -> None:
    if column not in names:
        raise DamagedError(f"got no column `{column}`, only {', '.join(names)}")
