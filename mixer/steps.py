"""What was done from what: the record that lets a rerun skip a step, or say why it redoes it."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixer.run import changed, files_of, read_json, sha256, staged, write_json

Say = Callable[[str], None]


class Steps:
    """The steps of one Run, by name.

    Args:
        run: The Run folder.
        say: Takes one line for people about each step.
    """

    def __init__(self, run: Path, say: Say) -> None:
        self._path = run / ".cache" / "steps.json"
        self._say = say
        self._record: dict[str, dict[str, Any]] = read_json(self._path) or {}

    def reason(self, name: str, inputs: Mapping[str, Any], target: Path) -> str:
        """Why the step must run, in a few words; empty when its result is there and was made from these inputs."""
        record = self._record.get(name)
        # As they will be read back: a tuple becomes a list.
        why = changed(record and record["inputs"], json.loads(json.dumps(dict(inputs), default=str)))
        if not why and record and {n: size for n, (size, _) in record["files"].items()} != files_of(target):
            return "its files are gone or changed"
        return why

    @contextmanager
    def folder(self, name: str, inputs: Mapping[str, Any], target: Path) -> Iterator[Path | None]:
        """A scratch folder to fill when the step must run, else None; says which. The record follows the rename."""
        why = self.reason(name, inputs, target)
        if not why:
            self._say(f"skip {name}: nothing changed")
            yield None
            return
        self._say(f"{'make' if name not in self._record else 'redo'} {name}: {why}")
        self._record.pop(name, None)
        write_json(self._path, self._record)
        began = time.monotonic()
        with staged(target) as scratch:
            yield scratch
        self.note(name, inputs, target, time.monotonic() - began)

    def note(self, name: str, inputs: Mapping[str, Any], target: Path, seconds: float) -> None:
        """Remember that the step's result at `target` was made from these inputs."""
        sizes = files_of(target) if target.exists() else {}
        files = {file: (size, sha256(target / file)) for file, size in sizes.items()}
        self._record[name] = {"inputs": dict(inputs), "files": files, "seconds": round(seconds, 3)}
        write_json(self._path, self._record)

    def recorded(self, name: str) -> Mapping[str, Any] | None:
        """What the step's result was made from, or None when it was never finished."""
        return self._record.get(name, {}).get("inputs")

    def files(self, name: str) -> Mapping[str, tuple[int, str]]:
        """Name -> bytes and SHA-256 of the files that the step made."""
        files: Mapping[str, tuple[int, str]] = self._record[name]["files"]
        return files

    def keep_only(self, names: Set[str]) -> None:
        """Forget all other steps."""
        self._record = {name: record for name, record in self._record.items() if name in names}
        write_json(self._path, self._record)

    def timings(self) -> dict[str, float]:
        """Seconds that each step took when it last ran."""
        return {name: record["seconds"] for name, record in sorted(self._record.items()) if record["seconds"]}
