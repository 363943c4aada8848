"""The folder of an export while it is filled: each file appears whole, and a kill costs no file that was finished.

What was finished is kept in a journal with its hash. A long flat file goes on where it was last synced, because what
stands at a place of it depends on the place alone.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any, BinaryIO

import numpy as np

from mixer.run import discard

JOURNAL = ".journal.jsonl"
_WRITING = ".writing-"
_SYNC_BYTES = 1 << 28
_COPY_BYTES = 1 << 23


class Output:
    """A file being written, hashed by a thread of its own meanwhile.

    Args:
        file: Open for writing, at its end.
        prefix: Bytes that it holds already.
    """

    def __init__(self, file: BinaryIO, prefix: int = 0) -> None:
        self._file = file
        self.bytes = prefix
        self._digest = hashlib.sha256()
        self._queue: Queue[Any] = Queue(maxsize=4)
        self._thread = threading.Thread(target=self._hash, daemon=True)
        self._thread.start()
        self.closed = False

    def _hash(self) -> None:
        while (block := self._queue.get()) is not None:
            self._digest.update(block)

    def write(self, block: Any) -> int:
        """Append bytes, or an array's; the block must not change afterwards."""
        view = memoryview(np.ascontiguousarray(block).data if isinstance(block, np.ndarray) else block).cast("B")
        self._file.write(view)
        self._queue.put(view)
        self.bytes += len(view)
        return len(view)

    def seen(self, block: bytes) -> None:
        """Take bytes that the file holds already into the hash."""
        self._queue.put(block)

    def tell(self) -> int:
        """Bytes so far."""
        return self.bytes

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def sync(self) -> None:
        """Wait until the disk has everything."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> str:
        """Sync, and the SHA-256 of the whole file."""
        self.sync()
        self.abandon()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """End the thread."""
        self._queue.put(None)
        self._thread.join()


class Folder:
    """Where an export is written.

    Args:
        path: The folder; made if it is not there.
        fingerprint: Of everything that decides the files. Files of another fingerprint are removed.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.files: dict[str, dict[str, Any]] = {}
        self._synced: dict[str, int] = {}
        path.mkdir(parents=True, exist_ok=True)
        lines = _lines(path / JOURNAL)
        known = lines[1:] if lines and lines[0] == {"fingerprint": fingerprint} else None
        if known is None:
            self._clear(lines)
        else:
            self._recall(known)
        # Written anew: a kill may have cut its last line short.
        text = "".join(json.dumps(line) + "\n" for line in ({"fingerprint": fingerprint}, *(known or ())))
        (path / JOURNAL).write_text(text, "utf-8")
        self._journal = (path / JOURNAL).open("a", encoding="utf-8")

    def _recall(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            name = line["name"]
            if "sha256" not in line:
                self._synced[name] = line["synced"]
            elif (self.path / name).is_file() and (self.path / name).stat().st_size == line["bytes"]:
                self.files[name] = {"bytes": line["bytes"], "sha256": line["sha256"]}

    def _clear(self, lines: list[dict[str, Any]]) -> None:
        for line in lines[1:]:
            remove(self.path, line["name"])
        for path in self.path.rglob(f"{_WRITING}*"):
            discard(path)

    def _note(self, **line: Any) -> None:
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    @contextmanager
    def file(self, name: str) -> Iterator[Output]:
        """A file to write from its start; it gets its name when the block ends well. Ask `name in folder` first."""
        scratch = self._scratch(name)
        with scratch.open("wb") as file:
            output = Output(file)
            try:
                yield output
            except BaseException:
                output.abandon()
                raise
            self._publish(name, scratch, output)

    def flat(
        self,
        name: str,
        blocks: Callable[[int], Iterator[np.ndarray]],
        row_bytes: int,
        *,
        head: bytes = b"",
        tail: bytes = b"",
    ) -> None:
        """Write `head`, then rows of equal size, then `tail`, going on where an earlier attempt was last synced.

        Args:
            name: Of the file.
            blocks: From the number of a row to arrays that hold that row and all after it.
            row_bytes: Size of a row.
            head: What stands before the rows.
            tail: What stands after them.
        """
        if name in self:
            return
        scratch = self._scratch(name)
        held = min(self._synced.get(name, 0), scratch.stat().st_size if scratch.is_file() else 0)
        row = max(0, held - len(head)) // row_bytes
        keep = len(head) + row * row_bytes if row else 0
        with scratch.open("r+b" if keep else "wb") as file:
            file.truncate(keep)
            output = Output(file, keep)
            try:
                while file.tell() < keep:
                    output.seen(file.read(min(_COPY_BYTES, keep - file.tell())))
                file.seek(keep)
                if not row:
                    output.write(head)
                self._pour(name, output, blocks(row))
                output.write(tail)
            except BaseException:
                output.abandon()
                raise
            self._publish(name, scratch, output)

    def _pour(self, name: str, output: Output, blocks: Iterator[np.ndarray]) -> None:
        synced = output.bytes
        for block in blocks:
            output.write(block)
            if output.bytes - synced >= _SYNC_BYTES:
                output.sync()
                synced = output.bytes
                self._note(name=name, synced=synced)

    def text(self, name: str, text: str) -> None:
        """Write a small file, whatever stood there."""
        with self.file(name) as output:
            output.write(text.encode())

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder that is gone when the block ends."""
        path = self.path / f"{_WRITING}scratch"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _scratch(self, name: str) -> Path:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        return place.with_name(f"{_WRITING}{place.name}")

    def _publish(self, name: str, scratch: Path, output: Output) -> None:
        found = output.finish()
        scratch.replace(self.path / name)
        self.files[name] = {"bytes": output.bytes, "sha256": found}
        self._note(name=name, **self.files[name])

    def __contains__(self, name: str) -> bool:
        """Whether the file was finished by an earlier attempt."""
        return name in self.files

    def close(self) -> None:
        """Stop writing; the journal stays, for a later attempt."""
        self._journal.close()

    def finish(self) -> None:
        """The export is whole: the journal goes."""
        self._journal.close()
        (self.path / JOURNAL).unlink()


def remove(folder: Path, name: str) -> None:
    """Remove a file that a record names, if it is there and inside the folder: a record may come from elsewhere."""
    if (folder / name).resolve().is_relative_to(folder.resolve()):
        (folder / name).unlink(missing_ok=True)


def _lines(journal: Path) -> list[dict[str, Any]]:
    """The journal's lines; one that a kill cut short is left out."""
    if not journal.is_file():
        return []
    found = []
    for line in journal.read_text("utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found
