"""The model with the most domain gain among those that had forgotten no more than allowed, and which step it is of.

`best.json` beside the folder names the step. A resume takes lines of `guard.jsonl` back, and another training of the
same name begins without any; a model that no line names then is of neither, and goes.
"""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from curricula import checkpoint as checkpoints
from curricula.job import Job
from curricula.parallel import World
from curricula.workbench import Bench
from mixer.run import read_json, write_json

_FOLDER, _RECORD = "best", "best.json"


class Best:
    """What `checkpoints/<name>/best` holds.

    Args:
        job: What is trained.
        lines: Of `guard.jsonl`, up to where the training goes on.
        world: The processes.
    """

    def __init__(self, job: Job, lines: Sequence[Mapping[str, Any]], world: World) -> None:
        self._job, self._world = job, world
        self._folder, self._record = job.folder / _FOLDER, job.folder / _RECORD
        named = [line for line in lines if line["action"] == "best"]
        record = read_json(self._record)
        is_known = bool(named) and record is not None and record["step"] == named[-1]["step"]
        self.gain: float = named[-1]["gain"] if is_known and self._folder.is_dir() else 0.0
        """Bits per byte gained by it; what another one must be above."""
        with world.together():
            if world.is_first and not self.gain:
                self._record.unlink(missing_ok=True)
                shutil.rmtree(self._folder, ignore_errors=True)

    def keep(self, bench: Bench, *, step: int, gain: float) -> None:
        """Let the model as it is be the best."""
        self.gain = gain
        with self._world.together():
            if self._world.is_first:
                self._record.unlink(missing_ok=True)
        own = {"model": bench.model, "method": self._job.method, "base": self._job.base}
        checkpoints.export(self._folder, **own, world=self._world)
        with self._world.together():
            if self._world.is_first:
                write_json(self._record, {"step": step, "gain": gain})
