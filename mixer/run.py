"""The Run folder: results appear whole or not at all, and every step knows what it was made from.

A result is written under a temporary name, synced and renamed, so a kill leaves either the old state or the new one.
`record` keeps, for each step, the inputs that decide its output; a rerun compares them and says why it skips or
redoes the step.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import xxhash

from mixer.errors import SourceError

_SCRATCH = ".partial-"
_TRASH = ".trash-"


def digest(value: Any) -> str:
    """A hash of any JSON-like value; equal values give equal hashes on any machine."""
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode())


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """The xxh3_128 of a file's bytes, as hex: fast, and no safeguard against forgery."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


@contextlib.contextmanager
def staged(target: Path, *, keep: bool = False) -> Iterator[Path]:
    """A scratch folder that becomes `target` when the block ends well; an older `target` is replaced.

    Args:
        target: The folder to make.
        keep: Leave a `target` that another process finished meanwhile, for a result that its content names: the two
            are equal, and that process may be reading its own.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f"{_SCRATCH}{os.getpid()}-{target.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
        _sync(scratch)
        if target.exists() and not keep:
            old = target.parent / f"{_SCRATCH}old-{os.getpid()}-{target.name}"
            target.rename(old)
            scratch.rename(target)
            shutil.rmtree(old)
        else:
            with contextlib.suppress(OSError):
                scratch.rename(target)
            if not target.exists():
                raise OSError(f"cannot write {target}")
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole: temporary name, sync, rename."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file of bytes whole: temporary name, sync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{_SCRATCH}{os.getpid()}-{path.name}")
    with scratch.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole, sorted and indented, so that two equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value of a file, or None where there is no such file."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the Run for one build; a second one is refused. The lock ends with the process, however it ends.

    Raises:
        SourceError: Another process builds this Run.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as file:
        try:
            # Not flock: that would pass to forked helpers, which may outlive a killed build and keep the Run locked.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SourceError(
                f"{run}: got a Run that another process is building, expected it to be free",
                hint="wait for it, or build elsewhere with --run",
            ) from error
        yield


def sweep(run: Path) -> None:
    """Remove what a killed build left half-written."""
    for pattern in (
        f"{_SCRATCH}*",
        f"*/{_SCRATCH}*",
        f".cache/*/{_SCRATCH}*",
        f"{_TRASH}*",
        f"*/{_TRASH}*",
        f".cache/*/{_TRASH}*",
    ):
        for path in run.glob(pattern):
            discard(path)


def keep_only(folder: Path, names: Set[str]) -> None:
    """Remove every entry of a folder that is not named."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in names:
            discard(path)


def discard(path: Path) -> None:
    """Remove a file or folder, if there is one, at once: a worker that outlived its build may still write into it."""
    trash = path.with_name(f"{_TRASH}{os.getpid()}-{path.name.removeprefix(_TRASH)}")
    with contextlib.suppress(OSError):
        path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True) if trash.is_dir() else trash.unlink()


def link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system knows no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def relink(source: Path, target: Path) -> None:
    """Let `target` be a second name of a file, whatever it named before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"{_SCRATCH}{os.getpid()}-{target.name}")
    scratch.unlink(missing_ok=True)
    link(source, scratch)
    scratch.replace(target)


def scratch_owners(folder: Path) -> set[int]:
    """Process ids that are writing results into a folder."""
    names = [path.name.removeprefix(_SCRATCH).partition("-")[0] for path in folder.glob(f"{_SCRATCH}*")]
    return {int(name) for name in names if name.isdigit()}


def changed(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """Why a step must run again, in a few words; empty when nothing changed.

    Example:
        >>> changed({"sequence_length": 1024}, {"sequence_length": 2048})
        'sequence_length 1024 -> 2048'
    """
    if before is None:
        return "not done yet"
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return ", ".join(_change(key, before.get(key), now.get(key)) for key in differing)


def _change(key: str, before: Any, now: Any) -> str:
    short = all(isinstance(v, int | float | str | None) and len(str(v)) < 24 for v in (before, now))
    return f"{key} {before} -> {now}" if short else f"{key} changed"


def files_of(folder: Path) -> dict[str, int]:
    """Relative name -> bytes of every file below a folder."""
    if folder.is_file():
        return {folder.name: folder.stat().st_size}
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
