"""From a Run to what another trainer reads: files, their hashes, the trainer's configuration, a record of it all.

Data and configuration are told apart: what decides the data has a fingerprint of its own, so that other options of the
configuration, or another version of it, write no data again; and a configuration that somebody edited stays.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixer.errors import ExportError
from mixer.exports import configuration
from mixer.exports.configuration import CONFIG
from mixer.exports.folder import JOURNAL, Folder, remove
from mixer.exports.policy import module
from mixer.exports.record import blend_of, record_of, text_tokens
from mixer.exports.rows import Rows
from mixer.exports.target import Told
from mixer.exports.training import Training, training
from mixer.recipe.exports import Export
from mixer.recipe.recipe import Recipe
from mixer.run import digest, discard, files_of, read_json, write_json
from mixer.steps import Say

RECORD = "export.json"
DAMAGED = ".damaged"
"""Stands in an export that was found to be damaged: it is written anew."""
VERSION = 2
"""Raise it when the same Run would be exported otherwise."""


def export(
    run: Path,
    recipe: Recipe,
    wanted: Export,
    target: Path,
    *,
    say: Say,
    tokenizer: Mapping[str, str] | None = None,
) -> Told:
    """Write a Run for another trainer; returns the record, `export.json`.

    A finished export of the same content is left alone; one that was cut short goes on.

    Args:
        run: The Run folder.
        recipe: Its recipe.
        wanted: Format and options.
        target: The folder to fill.
        say: Takes a line for people.
        tokenizer: Name -> text of the tokenizer's files; None keeps those that are there.

    Raises:
        ShardError: The Run's shards are missing or damaged, or the format cannot hold its vocabulary.
        ExportError: The folder is another Run's, or another process fills it.
    """
    if wanted.is_text and recipe.token_sources:
        raise ExportError(
            f"export {wanted.folder}: got `{next(iter(recipe.token_sources))}`, a source of token ids, expected text",
            hint="choose a format of tokens",
        )
    with claimed(target), scratch_folder(target) as scratch:
        exported = training(run, recipe, scratch)
        sets = exported.sets(wanted, staged=module(wanted.format).staged)
        record = record_of(exported, wanted, sets) | {"run": _run_of(run, target)}
        beside = configuration.tokenizer_beside(target) if tokenizer is None else dict(tokenizer)
        record["configuration"] = digest([VERSION, record, beside])
        before = _own(target, record)
        why = _why(target, before, record)
        if before is not None and not why:
            if configuration.is_current(target, before, record):
                say(f"skip export {wanted.folder}: nothing changed")
                return before
            say(f"renew export {wanted.folder}: its configuration alone")
            data = _data(before)
        else:
            _clear(target, before)
            say(f"make export {wanted.folder}: {why}")
            data = _write(target, sets, wanted, record["fingerprint"])
        return _finish(target, exported, wanted, sets, record | {"files": data}, (before, beside, say))


@contextmanager
def claimed(target: Path) -> Iterator[None]:
    """Hold an export's folder for one process; the claim ends with it, however it ends.

    Raises:
        ExportError: Another process holds it.
    """
    target.mkdir(parents=True, exist_ok=True)
    folder = os.open(target, os.O_RDONLY)
    try:
        # The folder itself: a file would be one more in it.
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        told = f"{target}: got a folder that another process exports to or reads, expected it to be free"
        raise ExportError(told, hint="wait for it, or export elsewhere with --out") from error
    finally:
        os.close(folder)


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside an export's files, gone when the block ends."""
    scratch = target / ".scratch"
    discard(scratch)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        discard(scratch)


def _run_of(run: Path, target: Path) -> str | None:
    """Which Run an export outside of it belongs to."""
    run = run.resolve()
    return None if target.resolve().is_relative_to(run) else digest(str(run))


def _own(target: Path, record: Told) -> Told | None:
    """The record of an earlier export, which must be of the same Run."""
    before: Told | None = read_json(target / RECORD)
    if before is not None and before.get("run", record["run"]) != record["run"]:
        raise ExportError(
            f"{target}: got an export of another Run, of recipe `{before['recipe']}`, expected one of this Run",
            hint="export to another --out, or remove that folder",
        )
    return before


def _why(target: Path, before: Told | None, record: Told) -> str:
    """Why data must be written; empty where all of it is there."""
    if before is None:
        return "not done yet" if not (target / JOURNAL).is_file() else "not finished yet"
    if (target / DAMAGED).is_file():
        return "it was found damaged"
    sizes = files_of(target)
    if any(sizes.get(name) != file["bytes"] for name, file in _data(before).items()):
        return "its files are gone or changed"
    return "" if before["fingerprint"] == record["fingerprint"] else "the Run or the options changed"


def _data(record: Told) -> dict[str, dict[str, Any]]:
    """The files of a record that hold data."""
    return {name: file for name, file in record["files"].items() if not name.startswith(CONFIG)}


def _clear(target: Path, before: Told | None) -> None:
    """Remove an earlier export: its record last, or a kill would leave files that nothing names."""
    if before is not None:
        for name in _data(before):
            remove(target, name)
        configuration.clear(target, before)
        (target / RECORD).unlink()
    (target / DAMAGED).unlink(missing_ok=True)


def _write(target: Path, sets: Mapping[str, Rows], wanted: Export, fingerprint: str) -> dict[str, dict[str, Any]]:
    """Write the data; name -> bytes and hash of its files."""
    folder = Folder(target, digest([VERSION, fingerprint]))
    try:
        for name, rows in sets.items():
            module(wanted.format).write(rows, folder, name, wanted)
    finally:
        folder.close()
    return dict(sorted(folder.files.items()))


def _finish(
    target: Path,
    exported: Training,
    wanted: Export,
    sets: Mapping[str, Rows],
    record: dict[str, Any],
    earlier: tuple[Told | None, Mapping[str, str], Say],
) -> Told:
    """Write the configuration, then the record of everything."""
    before, tokenizer, say = earlier
    if wanted.is_text:
        record["text"] = {name: text_tokens(rows) for name, rows in sets.items()}
        record["warnings"] += [
            f"no document begins in set `{name}`: it is empty" for name, held in record["text"].items() if not held
        ]
    if wanted.mode == "blended":
        record["blend"], warnings = blend_of(exported, wanted, sets)
        record["warnings"] += warnings
    files = configuration.write(target, wanted, record, tokenizer, before=before, say=say)
    record["files"] = dict(sorted((record["files"] | files).items()))
    write_json(target / RECORD, record)
    (target / JOURNAL).unlink(missing_ok=True)
    return record
