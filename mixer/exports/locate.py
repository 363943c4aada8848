"""From a token of an exported file to the training sequence that it lies in: the way back of `mixer export`."""

import struct
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixer.errors import ExportError, SourceError
from mixer.exports import megatron, nanotron
from mixer.exports.export import RECORD
from mixer.exports.policy import module
from mixer.exports.rows import Rows
from mixer.exports.target import Told
from mixer.exports.training import Training, training
from mixer.readers.flat import mapped
from mixer.recipe.exports import Export
from mixer.recipe.recipe import Recipe
from mixer.run import read_json
from mixer.shard import Sequences
from mixer.tokens import Encoder
from mixer.trace import Trace, asked, origins, trace_stage

_HEADER = {"megatron": 0, "nanotron": 0, "torchtitan": 0, "olmo": 0, "llmc": 1024}
"""Formats whose files are ids after so many bytes."""
_ENDINGS = {
    "megatron": ".bin",
    "nanotron": ".ds",
    "torchtitan": ".bin",
    "olmo": ".npy",
    "llmc": ".bin",
    "mds": ".mds",
    "litdata": ".bin",
    "parquet": ".parquet",
    "arrow": ".arrow",
    "webdataset": ".tar",
}
_NAMED = f"{RECORD} of the export names its files"
_COUNTED = "ids of a file count from 0, headers left out"
_IN_FOLDERS = ("nanotron", "torchtitan", "mds", "litdata", "arrow")


def trace_file(run: Path, recipe: Recipe, encoder: Encoder, *, file: Path, offset: int) -> Trace:
    """What the training sequence around a token of an exported file holds.

    Args:
        run: The Run that was exported.
        recipe: Its recipe.
        encoder: Its tokenizer.
        file: A file with ids, where it was written, `export.json` above it.
        offset: Which id of the file, headers not counted; in a table or an archive, row x sequence_length + place.

    Raises:
        ExportError: The file is of no export of this Run, or is damaged.
        SourceError: It holds no such token, or no ids.
    """
    target, name, record = _export_of(file)
    wanted = Export(**record["export"])
    if wanted.is_text:
        raise SourceError(f"--file: got {file}, a file of texts", hint="a row names its document: mixer why RUN ID")
    if not name.endswith(_ENDINGS[wanted.format]):
        raise SourceError(f"--file: got {file}, expected a file with ids, `{_ENDINGS[wanted.format]}`", hint=_NAMED)
    _check_size(file, offset, record["files"][name]["bytes"])
    with tempfile.TemporaryDirectory() as scratch:
        exported = training(run, recipe, Path(scratch))
        if exported.fingerprint != record["training"]:
            raise ExportError(f"{target}: got an export of another build, expected one of {run}", hint="export again")
        sets = exported.sets(wanted, staged=module(wanted.format).staged)
        own = _set_of(name, wanted)
        row, place = _row_of(file, own, offset, sets[own], record)
        row += sum(_rows_in(target / each, record) for each in _files_before(name, own, wanted, record))
        found = _sequence(exported, wanted, own, sets[own], row, (run, recipe, encoder))
    if wanted.format in _HEADER and _id_at(file, offset, record) != (ids := _ids(run, found))[place]:
        raise ExportError(f"{file}: got another id at {offset:,}, expected {ids[place]}", hint="export it again")
    return asked(run, encoder, found, place)


def _export_of(file: Path) -> tuple[Path, str, Told]:
    """The export's folder, the file's name in it, and the record."""
    path = file.absolute()
    for folder in list(path.parents)[:3]:
        record = read_json(folder / RECORD)
        if record is not None and path.relative_to(folder).as_posix() in record["files"]:
            return folder, path.relative_to(folder).as_posix(), record
    raise ExportError(f"--file: got {file}, expected a file that an {RECORD} above it names", hint="run mixer export")


def _check_size(file: Path, offset: int, expected: int) -> None:
    if not file.is_file() or offset < 0:
        told = f"--file: got {file} at {offset:,}, expected a file that is there, and 0 or more"
        raise SourceError(told, hint=_NAMED)
    if file.stat().st_size != expected:
        raise ExportError(f"{file}: got {file.stat().st_size:,} bytes, expected {expected:,}", hint="export it again")


def _set_of(name: str, wanted: Export) -> str:
    """The set that a file belongs to, by its name."""
    if wanted.format in _IN_FOLDERS:
        return name.partition("/")[0]
    stem = name.removesuffix(_ENDINGS[wanted.format])
    return stem if wanted.format == "megatron" else stem.rpartition("_" if wanted.format == "llmc" else "-")[0]


def _files_before(name: str, own: str, wanted: Export, record: Told) -> list[str]:
    """The files of the same set that come before one."""
    ending = _ENDINGS[wanted.format]
    files = [each for each in record["files"] if each.endswith(ending) and not each.startswith("config/")]
    same = sorted((each for each in files if _set_of(each, wanted) == own), key=lambda each: (len(each), each))
    return same[: same.index(name)]


def _rows_in(path: Path, record: Told) -> int:
    """How many rows a file holds, by its size or its header."""
    form = record["format"]
    if form == "parquet":
        return int(pq.read_metadata(path).num_rows)
    if form == "arrow":
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            return sum(len(batch) for batch in stream)
    if form in ("mds", "litdata"):
        with path.open("rb") as head:
            return int(struct.unpack("<I", head.read(4))[0])
    if form == "webdataset":
        with tarfile.open(path) as members:
            return sum(member.name.endswith(".npy") for member in members)
    size = record["sequence_length"] * np.dtype(record["dtype"]).itemsize
    return int(path.stat().st_size - _HEADER[form]) // int(size)


def _row_of(file: Path, own: str, offset: int, rows: Rows, record: Told) -> tuple[int, int]:
    """The row of a file that holds an id, and the id's place in it."""
    length = record["sequence_length"]
    if (record["format"], record["mode"]) == ("megatron", "blended"):
        return _without_padding(own, offset, rows)
    before = int(record["format"] == "llmc" and record["frame"] == "before")
    last = _rows_in(file, record) * length - 1 + before
    if not before <= offset <= last:
        raise SourceError(f"--offset: got {offset:,}, expected {before:,} to {last:,}", hint=_COUNTED)
    return (offset - before) // length, (offset - before) % length


def _without_padding(own: str, offset: int, rows: Rows) -> tuple[int, int]:
    """The same where padding was left out: counted piece by piece."""
    length, held, first = rows.facts.sequence_length, 0, 0
    for found in rows.pieces():
        ends = held + np.cumsum(np.where(found.padding, 0, found.length))
        if offset < ends[-1]:
            at = int(np.searchsorted(ends, offset, side="right"))
            place = int(found.length[:at].sum()) + offset - (int(ends[at - 1]) if at else held)
            return first + place // length, place % length
        held, first = int(ends[-1]), first + int(found.sequence[-1]) + 1
    raise SourceError(f"--offset: got {offset:,}, expected 0 to {held - 1:,} of `{own}`", hint=_COUNTED)


def _sequence(
    exported: Training, wanted: Export, own: str, rows: Rows, row: int, opened: tuple[Path, Recipe, Encoder]
) -> Trace:
    """The row of a set, counted in the file's order."""
    run, recipe, encoder = opened
    if wanted.mode == "blended":
        [[number, sequence]] = next(rows.slice(row, 1).pairs()).tolist()
        source = rows.shards.names[number]
        return Trace(None, None, source, sequence, list(origins(run, encoder, source, sequence)))
    placed: Mapping[str, Any] = {"megatron": megatron.place, "nanotron": nanotron.place}
    if wanted.format in placed:
        row = int(placed[wanted.format](len(rows), wanted.shuffle_seed)[row])
    if row == len(rows):
        told = "--offset: got a token of the entry that is padding, expected one of a sequence"
        raise SourceError(told, hint="nothing is trained on it; ask for another place")
    names = list(exported.stages)
    staged = module(wanted.format).staged
    for stage in [names[int(own.partition("-")[0])]] if staged else names:
        if row < len(exported.stages[stage]):
            return trace_stage(run, recipe, encoder, stage=stage, index=row)
        row -= len(exported.stages[stage])
    raise ExportError(f"set `{own}`: got more rows than its Run trains on", hint="export it again")


def _id_at(file: Path, offset: int, record: Told) -> int:
    return int(mapped(file, np.dtype(record["dtype"]), _HEADER[record["format"]])[offset])


def _ids(run: Path, found: Trace) -> np.ndarray:
    return Sequences(run / "shards" / found.source)[found.sequence]
