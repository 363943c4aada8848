"""What a training tells of its steps: metrics by source and topic, each sequence's loss, validation, progress."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from curricula import checkpoint as checkpoints
from curricula.checkpoint import State
from curricula.job import Job
from curricula.loader import Step, Track
from curricula.metrics import FORMULA, Bar, Log, Tally, append, device_name, truncate
from curricula.parallel import World
from curricula.validation import Group, group_of
from curricula.workbench import Bench
from mixer.ordering import ORDERS
from mixer.run import read_json, write_json


class Losses:
    """Mean loss of every sequence, float32 in the stage's order, NaN where it was not trained on.

    Args:
        folder: `<stage>.npy` go here.
        tracks: The stages.
        position: Sequences that are trained on; what a killed process wrote of later ones is forgotten.
        order: Gives a hash of a stage's order, which is kept beside its losses: a place means nothing without it.
    """

    def __init__(self, folder: Path, tracks: tuple[Track, ...], *, position: int, order: Callable[[int], str]) -> None:
        self._folder, self._tracks, self._order = folder, tracks, order
        self._found: dict[int, np.ndarray] = {}
        for stage, track in enumerate(tracks):
            if position > 0 and (folder / f"{track.name}.npy").is_file():
                losses = np.load(folder / f"{track.name}.npy")
                if len(losses) == track.sequences:
                    losses[max(0, position) :] = np.nan
                    self._found[stage] = losses
            position -= track.sequences

    def put(self, step: Step, sums: np.ndarray, weights: np.ndarray) -> None:
        """Note a step's rows; one without a target has no loss."""
        if step.stage not in self._found:
            self._found[step.stage] = np.full(self._tracks[step.stage].sequences, np.nan, np.float32)
        with np.errstate(invalid="ignore"):
            self._found[step.stage][step.first : step.first + step.count] = sums / weights

    def write(self) -> None:
        """Bring the files up to date, each whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for stage, losses in self._found.items():
            target = self._folder / f"{self._tracks[stage].name}.npy"
            scratch = target.with_suffix(".partial")
            with scratch.open("wb") as file:
                np.save(file, losses)
            scratch.replace(target)
        write_json(self._folder / ORDERS, {self._tracks[stage].name: self._order(stage) for stage in self._found})


class Recorder:
    """Takes every step, and writes what the first process has to tell.

    Args:
        job: What is trained.
        bench: What with.
        world: The processes.
    """

    def __init__(self, job: Job, bench: Bench, world: World) -> None:
        state = bench.state
        self._job, self._bench, self._world, self._is_first = job, bench, world, world.is_first
        self._losses = Losses(
            job.folder / "losses", job.loader.tracks, position=state.position, order=job.loader.fingerprint
        )
        self._log: Log | None = None
        if world.is_first:
            # At the very beginning there is nothing to keep: the first validation is about to be made anew.
            truncate(job.folder / "validation.jsonl", "step", state.step or -1)
            tensorboard = job.settings.tensorboard
            self._log = Log(job.folder / "metrics.jsonl", step=state.step, tensorboard=tensorboard)
        self._bar = Bar(job.folder.name, total=job.tokens, done=state.tokens, is_shown=world.is_first)
        self._sources, self._topics = Tally(), Tally()
        self._total = np.zeros(2)
        self._load(checkpoints.latest(job.folder))
        self._rate: float | None = None
        self._read, self._seconds = 0.0, 0.0
        self._is_warm = False

    def step(self, step: Step, state: State, rows: np.ndarray, *, rate: float, norm: float, seconds: float) -> None:
        """Note a step.

        Args:
            step: Its sequences.
            state: After it.
            rows: (3, count) as `Batch.by_row`, of all processes.
            rate: The learning rate.
            norm: Of the gradient, before it was clipped.
            seconds: That it took.
        """
        sums, weights, read = rows
        self._losses.put(step, sums, weights)
        groups = [group_of(self._job.loader.rows, *pair) for pair in self._job.loader.picked(step).tolist()]
        self._sources.add((source for source, _ in groups), sums, weights)
        self._topics.add((topic for _, topic in groups), sums, weights)
        self._total += sums.sum(), weights.sum()
        if self._is_warm:
            self._read, self._seconds = self._read + read.sum(), self._seconds + seconds
            self._rate = self._read / self._seconds
        # The first step of a process warms up caches and compilers; rates leave it out.
        self._is_warm = True
        loss = sums.sum() / max(1.0, weights.sum())
        self._bar.show(tokens=state.tokens, loss=loss, rate=self._rate or 0.0)
        is_end = step.first + step.count == self._job.loader.tracks[step.stage].sequences
        if state.step % self._job.settings.log_every == 0 or is_end:
            self._tell(state, step.name, {"learning_rate": rate, "gradient_norm": norm})

    def tallies(self) -> dict[str, Any]:
        """What the next line begins with, for a checkpoint: lines then do not depend on where a training stopped."""
        kinds = {"sources": self._sources, "topics": self._topics}
        return {"total": self._total.tolist(), **{kind: tally.saved() for kind, tally in kinds.items()}}

    def _load(self, checkpoint: Path | None) -> None:
        saved = read_json(checkpoint / checkpoints.TALLIES) if checkpoint else None
        if saved:
            self._total += saved["total"]
            self._sources.load(saved["sources"])
            self._topics.load(saved["topics"])

    def _tell(self, state: State, stage: str, facts: Mapping[str, Any]) -> None:
        began = time.perf_counter()
        figures = dict(self._job.method.figures(self._bench.model))
        spent = time.perf_counter() - began
        total, weight = self._total
        line = {
            "step": state.step,
            "tokens": state.tokens,
            "stage": stage,
            "loss": float(total / max(1.0, weight)),
            **facts,
            "tokens_per_second": self._rate,
            "mfu": self._bench.mfu((self._rate or 0.0) / self._world.size),
            "mfu_formula": FORMULA,
            "device": device_name(self._world.device),
            "peak_flops": self._bench.peak,
            "sources": self._sources.means(),
            "topics": {topic: loss for topic, loss in self._topics.means().items() if topic is not None},
            "method": figures,
        }
        self._total[:] = 0.0
        # What the method's figures cost is paid for by the next line.
        self._read, self._seconds = 0.0, spent
        if self._log:
            self._log.write(line)

    def validated(self, losses: Mapping[Group, float], state: State, stage: str) -> None:
        """Append a line to `validation.jsonl`."""
        told = [
            {"source": source, "topic": topic, "loss": loss}
            for (source, topic), loss in sorted(losses.items(), key=lambda item: (item[0][0], item[0][1] or ""))
        ]
        if self._is_first and told:
            line = {"tokens": state.tokens, "step": state.step, "stage": stage, "losses": told}
            append(self._job.folder / "validation.jsonl", line)

    def write(self) -> None:
        """Bring on the disk what a checkpoint goes with; before it, as what is ahead of a checkpoint is taken back."""
        if self._is_first:
            self._losses.write()

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()
