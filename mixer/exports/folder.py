"""The folder of an export while it is filled: each file appears whole, and a kill costs no file that was finished.

What was finished is kept in a journal with its hash. A long flat file goes on where it was last synced, because what
stands at a place of it depends on the place alone.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import xxhash

from mixer.run import discard

JOURNAL = ".journal.jsonl"
_WRITING = ".writing-"
_SYNC_BYTES = 1 << 26
_COPY_BYTES = 1 << 23


class Output:
    """A file being written, by a thread of its own, so that the next block is gathered meanwhile; hashed on the way.

    A long one is synced now and then by another thread: the disk works while blocks are gathered, not after the last.

    Args:
        file: Open for writing at its end, unbuffered.
        prefix: Bytes that it holds already.
        synced: Told how many bytes the disk has, now and then.
    """

    def __init__(self, file: FileIO, prefix: int = 0, synced: Callable[[int], None] | None = None) -> None:
        self._file, self._synced = file, synced
        self.bytes = self._written = self._asked = prefix
        self._syncing = ThreadPoolExecutor(1)
        self._sync: Future[None] = Future()
        self._sync.set_result(None)
        self.closed = False
        self._digest = xxhash.xxh3_128()
        self._error: BaseException | None = None
        self._queue: Queue[memoryview | None] = Queue(maxsize=8)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (block := self._queue.get()) is not None:
            # After an error the queue is emptied, or the one who fills it would wait for ever.
            if self._error is None:
                try:
                    self._store(block)
                except BaseException as error:
                    self._error = error

    def _store(self, block: memoryview) -> None:
        self._digest.update(block)
        left = block
        while left:
            left = left[self._file.write(left) :]
        self._written += len(block)
        if self._written - self._asked >= _SYNC_BYTES and self._sync.done():
            # The disk tells of an error once.
            self._sync.result()
            self._asked = self._written
            self._sync = self._syncing.submit(self._make_safe, self._written)

    def _make_safe(self, written: int) -> None:
        os.fsync(self._file.fileno())
        if self._synced:
            self._synced(written)

    def write(self, block: Any) -> int:
        """Append bytes, or an array's; they must not change afterwards."""
        if self._error is not None:
            raise self._error
        # Bytes that a library lends may change; an array is one of ours.
        view = memoryview(np.ascontiguousarray(block).data if isinstance(block, np.ndarray) else bytes(block)).cast("B")
        if len(view):
            self._queue.put(view)
        self.bytes += len(view)
        return len(view)

    def seen(self, block: bytes) -> None:
        """Take bytes that the file holds already into the hash; before anything is written."""
        self._digest.update(block)

    def tell(self) -> int:
        """Bytes so far."""
        return self.bytes

    def flush(self) -> None:
        """Nothing: what was written is on its way, and whoever packs may ask."""

    def finish(self) -> str:
        """Sync, and the xxh3_128 of the whole file."""
        self._end()
        if self._error is not None:
            raise self._error
        self._sync.result()
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """End the threads; a file that can go on later is synced as far as it is written."""
        self._end()
        if self._synced and self._error is None and self._sync.exception() is None:
            self._make_safe(self._written)

    def _end(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._syncing.shutdown()


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
            if "xxh3_128" not in line:
                self._synced[name] = line["synced"]
            elif (self.path / name).is_file() and (self.path / name).stat().st_size == line["bytes"]:
                self.files[name] = {"bytes": line["bytes"], "xxh3_128": line["xxh3_128"]}

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
        with FileIO(scratch, "w") as file:
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
        with FileIO(scratch, "r+" if keep else "w") as file:
            file.truncate(keep)
            output = Output(file, keep, lambda synced: self._note(name=name, synced=synced))
            try:
                while file.tell() < keep:
                    output.seen(file.read(min(_COPY_BYTES, keep - file.tell())))
                if not row:
                    output.write(head)
                for block in blocks(row):
                    output.write(block)
                output.write(tail)
            except BaseException:
                output.abandon()
                raise
            self._publish(name, scratch, output)

    def text(self, name: str, text: str) -> None:
        """Write a small file, whatever stood there."""
        with self.file(name) as output:
            output.write(text.encode())

    def _scratch(self, name: str) -> Path:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        return place.with_name(f"{_WRITING}{place.name}")

    def _publish(self, name: str, scratch: Path, output: Output) -> None:
        found = output.finish()
        scratch.replace(self.path / name)
        self.files[name] = {"bytes": output.bytes, "xxh3_128": found}
        self._note(name=name, **self.files[name])

    def __contains__(self, name: str) -> bool:
        """Whether the file was finished by an earlier attempt."""
        return name in self.files

    def close(self) -> None:
        """Stop writing; the journal stays, for a later attempt."""
        self._journal.close()


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
