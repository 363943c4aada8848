"""An export read back and held against its Run: token by token, document by document, with our readers and with theirs.

Our readers (`read` of each format) share nothing with the writers but the layout. The trainer's own library is asked in
a process of its own, by whichever interpreter has it.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mixer.errors import ExportError
from mixer.exports.asked import with_theirs
from mixer.exports.configuration import CONFIG
from mixer.exports.expected import Verified, column_of, documents_of, tokens_of
from mixer.exports.export import DAMAGED, RECORD, claimed, scratch_folder
from mixer.exports.policy import module
from mixer.exports.rows import Rows
from mixer.exports.target import Told, lines
from mixer.exports.training import training
from mixer.readers.streams import DamagedError
from mixer.recipe.exports import Export
from mixer.recipe.recipe import Recipe
from mixer.run import file_hash, files_of, read_json

_HINT = "export it again"


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
    with claimed(target), scratch_folder(target) as scratch:
        run_training = training(run, recipe, scratch)
        documents = run_training.documents_digest() if wanted.is_text else None
        if (run_training.fingerprint, documents) != (record["training"], record.get("documents")):
            raise ExportError(f"{target}: got an export of another build, expected one of {run}", hint=_HINT)
        sets = run_training.sets(wanted, staged=module(wanted.format).staged)
        _check_strangers(target, record)
        with _marking(target):
            _check_files(target, record)
            found = [_with_ours(target, wanted, record, name, rows) for name, rows in sets.items()]
        if python is not None:
            found += with_theirs(target, wanted, record, sets, python)
    return found


@contextmanager
def _marking(target: Path) -> Iterator[None]:
    """Mark an export that is not what it should be, so that the next `mixer export` writes it anew."""
    try:
        yield
    except DamagedError as error:
        (target / DAMAGED).touch()
        raise ExportError(f"{target}: got a file that is damaged: {error}, expected its own", hint=_HINT) from error
    except ExportError:
        (target / DAMAGED).touch()
        raise


def _check_strangers(target: Path, record: Told) -> None:
    """No file that the export did not write looks like one of its own: a trainer would read it."""
    data = {name for name in record["files"] if not name.startswith(CONFIG)}
    endings = {Path(name).suffix for name in data}
    for name in files_of(target):
        own = (
            name in data
            or name.startswith(CONFIG)
            or name == RECORD
            or any(p.startswith(".") for p in Path(name).parts)
        )
        if not own and Path(name).suffix in endings:
            raise ExportError(
                f"{target / name}: got a file that {RECORD} does not name, expected the export's own", hint="remove it"
            )


def _check_files(target: Path, record: Told) -> None:
    for name, file in record["files"].items():
        path = target / name
        # Configuration is there to be edited.
        if not name.startswith(CONFIG) and (not path.is_file() or file_hash(path) != file["xxh3_128"]):
            raise ExportError(
                f"{path}: got a file that is gone or changed, expected {file['xxh3_128'][:12]}", hint=_HINT
            )


def _with_ours(target: Path, wanted: Export, record: Told, name: str, rows: Rows) -> Verified:
    form: Any = module(wanted.format)
    if wanted.is_text:
        return _texts(name, form.texts(target, name, record), rows)
    tokens = _same(f"{target}: set `{name}`: token", tokens_of(wanted, rows), form.read(target, name, record))
    for column, found in (form.columns(target, name, record) if hasattr(form, "columns") else {}).items():
        _same(f"{target}: set `{name}`: {column}", column_of(rows, column), found)
    lengths = form.documents(target, name, record)
    if lengths is None:
        return Verified(name, "ours", tokens, None)
    documents = _same(f"{target}: set `{name}`: document", documents_of(wanted, rows), lengths)
    return Verified(name, "ours", tokens, documents)


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


def _texts(name: str, found: Iterator[tuple[str, str, str]], rows: Rows) -> Verified:
    count = 0
    for block in lines(rows):
        for line in block.splitlines():
            row = json.loads(line)
            if next(found, None) != (row["id"], row["text"], row["source"]):
                raise ExportError(f"set `{name}`: document {count:,}: got another, expected {row['id']!r}", hint=_HINT)
            count += 1
    if next(found, None) is not None:
        raise ExportError(f"set `{name}`: got more than {count:,} documents, expected no more", hint=_HINT)
    return Verified(name, "ours", 0, count)
