"""The trainer's own library asked what an export holds, in a process of its own, and held against the Run."""

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixer.errors import ExportError
from mixer.exports import theirs
from mixer.exports.expected import Verified, documents_of, tokens_of
from mixer.exports.nanotron import place
from mixer.exports.rows import Rows
from mixer.exports.target import Told, document_lengths, lines
from mixer.recipe.exports import Export

_HINT = "export it again"


def interpreter_for(name: str, pythons: Sequence[str]) -> str | None:
    """The first interpreter that has the library which reads a format, or None."""
    needed = theirs.LIBRARIES.get(name, ())
    code = "; ".join(["import importlib.metadata as m", *(f"m.version({library!r})" for library in needed)])
    return next((each for each in pythons if needed and _runs(each, code)), None)


def _runs(python: str, code: str) -> bool:
    return subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0


def with_theirs(target: Path, wanted: Export, record: Told, sets: Mapping[str, Rows], python: str) -> list[Verified]:
    """What the trainer's library reads of an export, in a process of an interpreter that has it.

    Raises:
        ExportError: It fails, or reads otherwise.
    """
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
    _check_blends(target, record, answers)
    return found


def _check_blends(target: Path, record: Told, answers: Iterable[Mapping[str, Any]]) -> None:
    library = theirs.LIBRARIES[record["format"]][0]
    for answer in (answer for answer in answers if "blend" in answer):
        shares = record["blend"]["stages"][answer["stage"]].values()
        if answer["blend"] != [share["predicted"] for share in shares]:
            raise ExportError(
                f"{target}: stage `{answer['stage']}`: {library} blends {answer['blend']}, expected"
                f" {[share['predicted'] for share in shares]}",
                hint="please report it: the rule in mixer/exports/realised.py is not this version's",
            )


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
        return documents_of(wanted, rows)
    premixed = wanted.mode == "premixed"
    return document_lengths(rows.ordered(place(len(rows), wanted.shuffle_seed)) if premixed else rows, merge=False)


def _their_stream(wanted: Export, rows: Rows) -> Iterator[np.ndarray]:
    if wanted.is_text:
        texts = (json.loads(line)["text"] for block in lines(rows) for line in block.splitlines())
        return (np.frombuffer(text.encode(), np.uint8) for text in texts)
    return (block.reshape(-1) for block in tokens_of(wanted, rows))


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
