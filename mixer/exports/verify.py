"""An export read back and held against its Run: token by token, document by document, with our readers and with theirs.

Our readers (`read` of each format) share nothing with the writers but the layout. The trainer's own library is asked in
a process of its own, by whichever interpreter has it.
"""

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from mixer.errors import ExportError
from mixer.exports import theirs
from mixer.exports.export import RECORD, scratch_folder
from mixer.exports.nanotron import place
from mixer.exports.policy import module
from mixer.exports.rows import Rows
from mixer.exports.target import Told, document_lengths, lines, without_padding
from mixer.exports.training import training
from mixer.recipe import Recipe
from mixer.recipe_exports import Export
from mixer.run import read_json

_MERGED = ("megatron", "olmo", "nanotron", "torchtitan")
"""Formats whose blended documents are whole though a sequence ended in them."""
_HINT = "export it again"


@dataclass(frozen=True, slots=True)
class Verified:
    """One thing that was read back: with what, how many tokens, and whether documents were compared too."""

    set: str
    reader: str
    tokens: int
    documents: int | None


def verify(run: Path, recipe: Recipe, target: Path, *, python: str | None = None) -> list[Verified]:
    """Read an export back and compare it with its Run.

    Args:
        run: The Run folder.
        recipe: Its recipe.
        target: The export's folder.
        python: An interpreter that has the trainer's library (`interpreter_for`); None asks our readers alone.

    Raises:
        ExportError: A file, a token or a boundary is not what it should be.
    """
    record = read_json(target / RECORD)
    if record is None:
        raise ExportError(f"{target}: got no {RECORD}, expected a finished export", hint=_HINT)
    wanted = Export(**record["export"])
    _check_files(target, record)
    with scratch_folder(target) as scratch:
        run_training = training(run, recipe, scratch)
        if run_training.fingerprint != record["training"]:
            raise ExportError(f"{target}: got an export of another build, expected one of {run}", hint=_HINT)
        sets = run_training.sets(wanted, staged=module(wanted.format).staged)
        found = [_with_ours(target, wanted, record, name, rows) for name, rows in sets.items()]
        if python is not None:
            found += _with_theirs(target, wanted, record, sets, python)
    return found


def _check_files(target: Path, record: Told) -> None:
    for name, file in record["files"].items():
        path = target / name
        # Configuration is there to be edited.
        if not name.startswith("config/") and (not path.is_file() or _hash(path) != file["xxh3_128"]):
            raise ExportError(
                f"{path}: got a file that is gone or changed, expected {file['xxh3_128'][:12]}", hint=_HINT
            )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _with_ours(target: Path, wanted: Export, record: Told, name: str, rows: Rows) -> Verified:
    form: Any = module(wanted.format)
    if wanted.is_text:
        return _texts(name, form.texts(target, name, record), rows)
    tokens = _same(f"{target}: set `{name}`: token", _tokens(wanted, rows), form.read(target, name, record))
    lengths = form.documents(target, name, record)
    if lengths is None:
        return Verified(name, "ours", tokens, None)
    documents = _same(f"{target}: set `{name}`: document", _documents(wanted, rows), lengths)
    return Verified(name, "ours", tokens, documents)


def _tokens(wanted: Export, rows: Rows) -> Iterator[np.ndarray]:
    """The ids that a set must hold."""
    return without_padding(rows) if (wanted.format, wanted.mode) == ("megatron", "blended") else rows.tokens()


def _documents(wanted: Export, rows: Rows) -> Iterator[np.ndarray]:
    """The lengths that a set's documents must have."""
    merge = wanted.mode == "blended" and wanted.format in _MERGED
    if wanted.format == "nanotron" and not merge:
        rows = rows.ordered(place(len(rows), wanted.shuffle_seed))
    return document_lengths(rows, merge=merge, padding=wanted.format != "megatron")


def _same(what: str, expected: Iterable[np.ndarray], found: Iterable[np.ndarray]) -> int:
    """How many numbers two streams hold, cut as they may be; they must be equal."""
    ours, his = (_flat(stream) for stream in (expected, found))
    left, right = np.empty((2, 0), np.int64)
    count = 0
    while True:
        left = next(ours, left) if not len(left) else left
        right = next(his, right) if not len(right) else right
        size = min(len(left), len(right))
        if not size:
            break
        differing = np.flatnonzero(left[:size] != right[:size])
        if len(differing):
            at = int(differing[0])
            raise ExportError(f"{what} {count + at:,}: got {right[at]}, expected {left[at]}", hint=_HINT)
        left, right, count = left[size:], right[size:], count + size
    if len(left) or len(right):
        raise ExportError(f"{what} {count:,}: got {'an end' if len(left) else 'more'}, expected otherwise", hint=_HINT)
    return count


def _flat(stream: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    return (block.reshape(-1) for block in stream if block.size)


def _texts(name: str, found: Iterator[tuple[str, str]], rows: Rows) -> Verified:
    count = 0
    for block in lines(rows):
        for line in block.splitlines():
            row = json.loads(line)
            if next(found, None) != (row["id"], row["text"]):
                raise ExportError(f"set `{name}`: document {count:,}: got another, expected {row['id']!r}", hint=_HINT)
            count += 1
    if next(found, None) is not None:
        raise ExportError(f"set `{name}`: got more than {count:,} documents, expected no more", hint=_HINT)
    return Verified(name, "ours", 0, count)


def interpreter_for(name: str, pythons: Sequence[str]) -> str | None:
    """The first interpreter that has the library which reads a format, or None."""
    needed = theirs.LIBRARIES.get(name, ())
    code = "; ".join(["import importlib.metadata as m", *(f"m.version({library!r})" for library in needed)])
    return next((each for each in pythons if needed and _runs(each, code)), None)


def _runs(python: str, code: str) -> bool:
    return subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0


def _with_theirs(target: Path, wanted: Export, record: Told, sets: Mapping[str, Rows], python: str) -> list[Verified]:
    library = theirs.LIBRARIES[wanted.format][0]
    answers = _ask(python, target, record)
    found = []
    for name, rows in sets.items():
        answer = next(answer for answer in answers if answer.get("set") == name)
        reader = f"{library} {answer['version']}"
        _agree(f"{target}: set `{name}`: {reader}: tokens", _their_stream(wanted, rows), "<i4", answer["tokens"])
        documents = answer.get("documents")
        if documents:
            _agree(f"{target}: set `{name}`: {reader}: documents", _their_documents(wanted, rows), "<i8", documents)
        tokens = 0 if wanted.is_text else answer["tokens"]["count"]
        found.append(Verified(name, reader, tokens, documents and documents["count"]))
    for answer in (answer for answer in answers if "blend" in answer):
        shares = record["blend"]["stages"][answer["stage"]].values()
        if answer["blend"] != [share["predicted"] for share in shares]:
            raise ExportError(
                f"{target}: stage `{answer['stage']}`: {library} blends {answer['blend']}, expected"
                f" {[share['predicted'] for share in shares]}",
                hint="please report it: the rule in mixer/exports/realised.py is not this version's",
            )
    return found


def _agree(what: str, expected: Iterable[np.ndarray], kind: str, answer: Mapping[str, Any]) -> None:
    """A stream's numbers are those that the library gave out."""
    digest, count = hashlib.sha256(), 0
    for block in expected:
        digest.update(np.ascontiguousarray(block, kind).data)
        count += block.size
    if (count, digest.hexdigest()) != (answer["count"], answer["sha256"]):
        raise ExportError(f"{what}: got {answer['count']:,} others, expected the Run's {count:,}", hint=_HINT)


def _their_documents(wanted: Export, rows: Rows) -> Iterator[np.ndarray]:
    """As ours; datatrove tells them window by window."""
    if wanted.format != "nanotron":
        return _documents(wanted, rows)
    premixed = wanted.mode == "premixed"
    return document_lengths(rows.ordered(place(len(rows), wanted.shuffle_seed)) if premixed else rows, merge=False)


def _their_stream(wanted: Export, rows: Rows) -> Iterator[np.ndarray]:
    if wanted.is_text:
        texts = (json.loads(line)["text"] for block in lines(rows) for line in block.splitlines())
        return (np.frombuffer(text.encode(), np.uint8) for text in texts)
    return _flat(_tokens(wanted, rows))


def _ask(python: str, target: Path, record: Told) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder) / "request.json"
        request.write_text(json.dumps({**record, "folder": str(target.resolve())}), "utf-8")
        script = theirs.copy_to(Path(folder))
        done = subprocess.run([python, str(script), str(request)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise ExportError(
            f"{python}: {theirs.LIBRARIES[record['format']][0]} fails on {target}:\n{done.stderr[-2000:]}", hint=_HINT
        )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
