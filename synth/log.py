"""The response log: every answer of a model, once, under the address of what was asked. The source of truth.

Append-only files of one JSON object a line, one file a writer. A rebuild reads answers here and asks for nothing that
lies here, so a model that never answers twice alike still gives the same bytes. A line that a kill cut short is
removed before anything is added; a line that is damaged in another way is refused by name.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mixer.errors import SourceError
from synth.request import REFUSED, Request, Response

_SYNC_EVERY = 64


class ResponseLog:
    """Answers by address, from all files of a folder.

    Only addresses and places are held in memory, some hundreds of bytes an answer; texts are read when asked for.

    Args:
        folder: Holds `*.jsonl`; made when the first answer is added.
        model: Fingerprint of the model, part of every address.
        writer: Name of the file that this process adds to; None only reads.
        served: Stands for how the model is served; a request that was refused otherwise counts as never asked.

    Raises:
        SourceError: A line in the middle is damaged.
    """

    def __init__(self, folder: Path, model: str, writer: str | None = None, *, served: str = "") -> None:
        self.folder, self.model, self._writer, self._served = folder, model, writer, served
        self._files: list[Path] = []
        self._places: dict[str, tuple[int, int]] = {}
        for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else []:
            self._index(path)
        self._out: Any = None
        self._unsynced = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, request: Request) -> bool:
        return request.key(self.model) in self._places

    def find(self, request: Request) -> Response | None:
        """The answer to a request, or None when it was never asked."""
        key = request.key(self.model)
        place = self._places.get(key)
        if place is None:
            return None
        record = self._record(*place)
        return Response(
            record["text"], record["finish_reason"], key, record["prompt_tokens"], record["completion_tokens"]
        )

    def add(self, request: Request, response: Response) -> None:
        """Write an answer down; the first answer under an address stays."""
        if response.key in self._places:
            return
        if self._out is None:
            self._open()
        start = self._out.tell()
        record = {
            "key": response.key,
            "model": self.model,
            "prompt": request.prompt,
            "messages": list(request.messages),
            "schema": request.schema,
            "parameters": dict(request.parameters),
            "index": request.index,
            "text": response.text,
            "finish_reason": response.finish_reason,
            "prompt_tokens": response.prompt_tokens,
            "completion_tokens": response.completion_tokens,
            "served": self._served,
        }
        # One write of one whole line; flushed, so that a killed process loses nothing that it wrote.
        self._out.write(json.dumps(record, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace") + b"\n")
        self._out.flush()
        self._places[response.key] = (self._files.index(Path(self._out.name)), start)
        self._unsynced += 1
        if self._unsynced >= _SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        """Put on disk what was added."""
        if self._out is not None:
            os.fsync(self._out.fileno())
            self._unsynced = 0

    def records(self) -> Iterator[Mapping[str, Any]]:
        """All answers with what was asked, in the order of their addresses."""
        for key in sorted(self._places):
            yield self._record(*self._places[key])

    def close(self) -> None:
        """Close the file that was added to."""
        if self._out is not None:
            self.sync()
            self._out.close()
            self._out = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        assert self._writer is not None, "a log without a writer's name is only read"
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._writer}.jsonl"
        repair(path)
        self._out = path.open("ab")
        if path not in self._files:
            self._files.append(path)

    def _index(self, path: Path) -> None:
        number = len(self._files)
        self._files.append(path)
        with path.open("rb") as file:
            start = 0
            for line_number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    record = json.loads(line)
                    is_other = record["finish_reason"] == REFUSED and record.get("served", "") != self._served
                    if record["model"] == self.model and not is_other:
                        self._places.setdefault(record["key"], (number, start))
                except (ValueError, KeyError, TypeError) as error:
                    raise SourceError(
                        f"{path}:{line_number}: got a damaged line, expected one answer as JSON",
                        hint="remove that line; its answer is asked for again",
                    ) from error
                start += len(line)

    def _record(self, number: int, start: int) -> dict[str, Any]:
        with self._files[number].open("rb") as file:
            file.seek(start)
            record: dict[str, Any] = json.loads(file.readline())
            return record


def repair(path: Path) -> None:
    """Cut off a last line that a kill left unfinished."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
