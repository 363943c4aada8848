"""Documents that are token ids already: checked, framed as the recipe says, and laid down as encoded ones are.

Their rows in `documents/` have no text. The metadata says where a document's first token lies in its file, what it
lacked of the frame, and the hash of its ids.
"""

import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from mixer.clean import rows_of
from mixer.errors import SourceError
from mixer.execute import Step
from mixer.readers import flat
from mixer.readers.rows import declared
from mixer.readers.streams import DamagedError
from mixer.readers.tokens import Encoded, Ids, count, documents
from mixer.recipe.recipe import Recipe, TokenizerSpec
from mixer.recipe.sources import TokensSource
from mixer.run import read_json, staged, write_json
from mixer.table import DOCUMENTS, DROPPED, TableWriter
from mixer.tokens import Encoder, load
from mixer.types import Failure, Unit

VERSION = 1
"""Raise it when the same files would give other documents."""
_PROGRESS_EVERY = 4096
_RECORD = "export.json"


@dataclass(frozen=True, slots=True)
class Task:
    """One unit to take in, and the folder for its documents, its tokens and its ledger."""

    unit: Unit
    source: TokensSource
    target: Path


@dataclass(frozen=True, slots=True)
class Framed:
    """A document's ids with the recipe's frame, and which of its ends were added: `bos`, `eos`, both or none."""

    ids: np.ndarray
    added: tuple[str, ...]


class ImportTokens(Step):
    """Takes in one unit's documents: kept ones with their ids, the others with the reason."""

    name = "import tokens"

    def __init__(self, tasks: Sequence[Task], spec: TokenizerSpec, folders: tuple[Path, Path]) -> None:
        super().__init__()
        self.tasks, self.spec, self.folders = tasks, spec, folders

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        task, encoder = self.tasks[rank], load(self.spec, *self.folders)
        progress = task.target.parent / f"{task.target.name}.progress"
        lengths, read, framed = array("q"), 0, 0
        with staged(task.target) as scratch:
            with (
                TableWriter(scratch / "documents.parquet", DOCUMENTS) as kept,
                TableWriter(scratch / "dropped.parquet", DROPPED) as dropped,
                (scratch / "tokens.bin").open("wb") as out,
            ):
                for read, document in enumerate(read_documents(task.unit, task.source, encoder), start=1):
                    found = document if isinstance(document, Failure) else frame(document, encoder)
                    if isinstance(found, Failure):
                        dropped.write(id=found.id, step="failed", reason=found.reason, url=None)
                    elif not len(found.ids):
                        dropped.write(id=document.id, step="read", reason="no token", url=None)
                    else:
                        assert isinstance(document, Encoded)
                        _write(document, found, task, kept, out)
                        lengths.append(len(found.ids))
                        framed += bool(found.added)
                    if read % _PROGRESS_EVERY == 0:
                        progress.write_text(str(read))
            np.save(scratch / "lengths.npy", np.array(lengths, np.int64))
            write_json(scratch / "ledger.json", {"read": read, "framed": framed})
        progress.unlink(missing_ok=True)


def _write(document: Encoded, found: Framed, task: Task, kept: TableWriter, out: BinaryIO) -> None:
    told = {"first_token": str(document.place), "xxh3_64": xxhash.xxh3_64_hexdigest(found.ids.data)}
    told |= declared(task.source) | ({"added": ",".join(found.added)} if found.added else {})
    metadata = json.dumps(told, ensure_ascii=False, sort_keys=True)
    kept.write(id=document.id, text="", url=None, source=task.unit.source, metadata=metadata)
    out.write(found.ids.data)


def read_documents(unit: Unit, source: TokensSource, encoder: Encoder) -> Iterator[Encoded | Failure]:
    """Every document of a unit, in order, at most `max_documents`."""
    files = zip(unit.files, unit.names, strict=True)
    every = chain.from_iterable(documents(path, name, source, _ids(encoder)) for path, name in files)
    return islice(every, source.max_documents)


def _ids(encoder: Encoder) -> Ids:
    return Ids(encoder.vocab_size, encoder.eos)


def frame(document: Encoded, encoder: Encoder) -> Framed | Failure:
    """The ids in the encoder's dtype, between BOS and EOS where the recipe has them; none where there is nothing else.

    A Failure where an id is not in the vocabulary, or a frame's token stands inside the document.
    """
    ids = document.ids
    if _reaches(ids, encoder.vocab_size):
        at = int(np.flatnonzero((ids < 0) | (ids >= encoder.vocab_size))[0])
        told = f"id {ids[at]:,} at token {document.place + at:,} of the file, expected below {encoder.vocab_size:,}"
        return Failure(document.id, f"not in the vocabulary: {told}")
    head = int(encoder.bos is not None and len(ids) > 0 and ids[0] == encoder.bos)
    tail = int(encoder.eos is not None and len(ids) > head and ids[-1] == encoder.eos)
    inner = ids[head : len(ids) - tail]
    for name, token in (("bos", encoder.bos), ("eos", encoder.eos)):
        inside = np.flatnonzero(inner == token) if token is not None else inner[:0]
        if 0 < len(inside) == len(inner):
            return Framed(inner[:0], ())
        if len(inside):
            at = document.place + head + int(inside[0])
            hint = "" if name == "bos" else "; `boundaries: eos` would end a document there"
            return Failure(document.id, f"{name} inside: id {token} at token {at:,} of the file{hint}")
    if not len(inner):
        return Framed(inner, ())
    ends = ("bos", encoder.bos, head), ("eos", encoder.eos, tail)
    before, after = (np.array([] if token is None else [token], encoder.dtype) for _, token, _ in ends)
    added = tuple(name for name, token, is_there in ends if token is not None and not is_there)
    return Framed(np.concatenate([before, inner.astype(encoder.dtype), after]), added)


def _reaches(ids: np.ndarray, vocab_size: int) -> bool:
    """Whether an id may lie outside the vocabulary: told by the greatest and the least alone."""
    return len(ids) > 0 and bool(ids.max() >= vocab_size or (ids.dtype.kind == "i" and ids.min() < 0))


def tokens_of(source: TokensSource, units: Sequence[Unit], encoder: Encoder) -> int:
    """Tokens of a source as its files tell, damaged ones left out; read through where `max_documents` cuts it."""
    if source.max_documents is None:
        return sum(count(path, source, _ids(encoder)) for unit in units for path in unit.files)
    found = (document for unit in units for document in read_documents(unit, source, encoder))
    return sum(len(document.ids) for document in found if isinstance(document, Encoded))


def check_tokenizer(recipe: Recipe, listed: Mapping[str, Sequence[Unit]], encoder: Encoder) -> None:
    """Refuse files whose metadata name another tokenizer than the recipe's.

    Raises:
        SourceError: They do, and the source's `tokenizer` does not say that it is the same.
    """
    for name, units in listed.items():
        source = recipe.token_sources[name]
        for path in (path for unit in units for path in unit.files):
            told, expected = _tokenizer_of(Path(path), source, (recipe.tokenizer.path, encoder.digest))
            if told not in (None, expected, source.tokenizer):
                raise SourceError(
                    f"sources.{name}: {path}: tokenizer: got `{told}`, expected `{expected}`",
                    hint=f"if the two are the same, say so with `tokenizer: {told}`; else tokenize the text anew",
                )


def _tokenizer_of(path: Path, source: TokensSource, own: tuple[str, str]) -> tuple[str | None, str]:
    """What the files say of their tokenizer, and what the recipe would have them say: a digest, else a name."""
    for folder in list(path.absolute().parents)[:3]:
        record = read_json(folder / _RECORD) if (folder / _RECORD).is_file() else None
        if isinstance(record, dict) and path.absolute().relative_to(folder).as_posix() in record.get("files", {}):
            return record.get("tokenizer_digest"), own[1]
    metadata = path.with_name(f"{path.name}.metadata")
    if source.format == "nanotron" and metadata.is_file():
        try:
            return flat.metadata_of(metadata)[0], own[0]
        except DamagedError:
            return None, own[0]
    return None, own[0]


def say_framed(say: Callable[[str], None], folders: Mapping[str, Sequence[Path]]) -> None:
    """Tell where documents lacked the recipe's frame."""
    for name, units in folders.items():
        framed = sum(int(read_json(unit / "ledger.json")["framed"]) for unit in units)
        if framed:
            read = sum(map(rows_of, units))
            say(f"source `{name}`: {framed:,} of {read:,} documents lacked the recipe's frame, and got it")
