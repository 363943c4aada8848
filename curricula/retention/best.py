"""The model with the most domain gain among those that had forgotten no more than allowed, and which step it is of.

`best.json` beside the folder names the step. A resume takes lines of `guard.jsonl` back, and another training of the
same name begins without any; a model that no line names then is of neither, and goes. The one before it is kept
(`best-before`) as long as a resume may begin between the two.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curricula import checkpoint as checkpoints
from curricula.job import Job
from curricula.parallel import World
from curricula.workbench import Bench
from mixer.run import read_json, write_json


class Best:
    """What `checkpoints/<name>/best` holds.

    Args:
        job: What is trained.
        lines: Of `guard.jsonl`, up to where the training goes on.
        world: The processes.
    """

    def __init__(self, job: Job, lines: Sequence[Mapping[str, Any]], world: World) -> None:
        self._job, self._world = job, world
        self._folder, self._before = job.folder / "best", job.folder / "best-before"
        named = [line for line in lines if line["action"] == "best"]
        wanted = named[-1]["step"] if named else None
        with world.together():
            if world.is_first:
                self._go_back(wanted)
        self.gain: float = named[-1]["gain"] if named and _step(self._folder) == wanted else 0.0
        """Bits per byte gained by it; what another one must be above."""

    def _go_back(self, wanted: int | None) -> None:
        """Have the folder hold the model of a step, or nothing."""
        if wanted is None or _step(self._folder) != wanted:
            _remove(self._folder)
            if wanted is not None and _step(self._before) == wanted:
                _move(self._before, self._folder)
        if wanted is None:
            _remove(self._before)

    def keep(self, bench: Bench, *, step: int, gain: float) -> None:
        """Let the model as it is be the best."""
        self.gain = gain
        with self._world.together():
            if self._world.is_first:
                held = _step(self._folder)
                if held is not None and held <= self._saved():
                    _move(self._folder, self._before)
                _record(self._folder).unlink(missing_ok=True)
        own = {"model": bench.model, "method": self._job.method, "base": self._job.base}
        checkpoints.export(self._folder, **own, world=self._world)
        with self._world.together():
            if self._world.is_first:
                write_json(_record(self._folder), {"step": step, "gain": gain})

    def _saved(self) -> int:
        """The step that a resume would begin at: a best model of a later one would be made again."""
        newest = checkpoints.latest(self._job.folder)
        return -1 if newest is None else checkpoints.read(newest)[0].step


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _step(folder: Path) -> int | None:
    record = read_json(_record(folder))
    return record["step"] if record is not None and folder.is_dir() else None


def _remove(folder: Path) -> None:
    _record(folder).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _move(old: Path, new: Path) -> None:
    _remove(new)
    # The record last: a folder without one is no model that is known.
    old.rename(new)
    _record(old).rename(_record(new))
