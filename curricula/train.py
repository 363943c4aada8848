"""The loop: any causal language model of Hugging Face in, one out. Read `train` from top to bottom.

Everything is counted in tokens seen. A step's loss is the sum of the losses of its target tokens over all micro-batches
and processes, divided by their number: how a step is cut does not change what it computes. Position, order and rate are
pure functions, so a resume is exact: on a CPU to the last bit with as many threads and processes; on CUDA it reads the
same tokens at the same rates, with the noise of kernels that add in no fixed order.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

import numpy as np
import torch

from curricula import checkpoint as checkpoints
from curricula.checkpoint import State
from curricula.job import Job
from curricula.methods.weights import whole
from curricula.order import seed_of
from curricula.parallel import World, synchronised
from curricula.recorder import Recorder
from curricula.validation import on_device, validate
from curricula.workbench import Bench, open_bench, seal_of, settled
from mixer.errors import CheckpointError, RecipeError, SourceError
from mixer.run import locked, sweep

Told = Callable[[str, State], None]
"""Takes the name of a stage, and where training stands."""
Turn = Literal["on", "save", "stop"]
"""What follows from a step: go on, save and go on (what comes was planned anew), or end here."""


class Watch(Protocol):
    """Watches a training."""

    turn: Turn
    """What followed from the last step before a resume."""

    def __call__(self, stage: str, state: State) -> Turn:
        """What follows from a step; asked on every process, and the same on each."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to.

    Args:
        folder: The model, ready to be loaded; None when training was told to stop before its end.
        state: Where it stands.
        signal: The signal that told it to stop.
        is_cut: Whether who watched ended it before its end; the model is that of its last step.
    """

    folder: Path | None
    state: State
    signal: int | None = None
    is_cut: bool = False


def train(  # noqa: C901, PLR0915 - the loop reads as one
    job: Job,
    *,
    world: World,
    say: Callable[[str], None],
    next_stage: Told | None = None,
    after_step: Told | None = None,
    watched: Callable[[Bench], Watch | None] | None = None,
) -> Trained:
    """Train to the end of the last stage, from the newest checkpoint where there is one.

    Args:
        job: What to train, on what, and how.
        world: The processes that train; each of them calls this.
        say: Takes a line for people.
        next_stage: Told of each stage before its order is opened, on every process: it may make the order. Told again
            at a resume there.
        after_step: Told of the stage after every step.
        watched: Opens what watches the training, once its model is there.

    Raises:
        CheckpointError: The newest checkpoint is of another training, or damaged.
        RecipeError: The model cannot be trained as the recipe says, or the loss is no number any more.
        ShardError: The Run lacks an order, or its shards are damaged.
    """
    loader, settings, length = job.loader, job.settings, job.loader.rows.sequence_length
    with contextlib.ExitStack() as stack:
        stack.enter_context(_owned(job.folder, world))
        stack.enter_context(settled(world))
        signals = stack.enter_context(_stoppable())
        bench = open_bench(job, world=world, say=say if world.is_first else lambda _: None)
        recorder = stack.enter_context(contextlib.closing(Recorder(job, bench, world)))
        model, optimizer, state = bench.model, bench.optimizer, bench.state
        watch = watched(bench) if watched else None
        turn: Turn = watch.turn if watch else "on"
        stop, checkpoint = False, checkpoints.latest(job.folder)

        def announced() -> None:
            """What comes next may follow from the losses so far; where it fails, they and a checkpoint are there."""
            upcoming = None if stop or turn == "stop" else loader.step(state.position)
            if next_stage and upcoming and upcoming.first == 0:
                with world.together():
                    next_stage(upcoming.name, state)

        if checkpoint is None:
            _validate(job, bench, world, recorder, state, loader.tracks[0].name)
        announced()
        while not stop and turn != "stop" and (step := loader.step(state.position)):
            began = time.perf_counter()
            batches = list(loader.batches(step, rank=world.rank, size=world.size, micro_batch=bench.micro_batch))
            targets = world.sum(np.array([sum(float(batch.weights.sum()) for batch in batches)]))[0]
            # DDP and FSDP2 divide the sum of gradients by the number of processes.
            scale = world.size / max(1.0, targets)
            nats = []
            with bench.objective.computing():
                for number, batch in enumerate(batches):
                    # What is drawn (dropout) depends on the place in training, not on what was drawn before.
                    torch.manual_seed(seed_of(job.seed, "draws", step.position, world.rank, number))
                    with synchronised(bench.wrapped, is_last=number == len(batches) - 1):
                        loss, found = bench.wrapped(on_device(batch, world.device, scale=scale))
                        loss.backward()
                    nats.append(found)
            job.method.before_step(model)
            norm = _clip(model, settings.clip)
            state = State(step.position + step.count, state.step + 1, state.tokens + step.count * length)
            rate = job.schedule(state.tokens)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            job.method.after_step(model)
            optimizer.zero_grad(set_to_none=True)

            by_row = np.zeros((3, step.count))
            for batch, found in zip(batches, nats, strict=True):
                by_row += batch.by_row(found.double().cpu().numpy(), step.count)
            summed = world.sum(np.append(by_row, bool(signals)))
            rows, stop = summed[:-1].reshape(by_row.shape), bool(summed[-1])
            if not math.isfinite(rows[0].sum()) or not math.isfinite(norm):
                raise _not_finite(step.name, state, norm, checkpoint)
            recorder.step(step, state, rows, rate=rate, norm=norm, seconds=time.perf_counter() - began)
            if after_step:
                after_step(step.name, state)
            turn = watch(step.name, state) if watch else "on"

            is_end = step.first + step.count == loader.tracks[step.stage].sequences
            if is_end or _is_due(settings.validate_every, state, step.count * length):
                _validate(job, bench, world, recorder, state, step.name)
            if stop or turn != "on" or is_end or _is_due(settings.checkpoint_every, state, step.count * length):
                recorder.write()
                checkpoint = _save(job, bench, world, state, recorder.tallies())
            if is_end:
                announced()
        is_cut = turn == "stop" and loader.step(state.position) is not None
        if (loader.step(state.position) and not is_cut) or checkpoint is None:
            return Trained(None, state, signals[0] if signals else signal.SIGTERM)
        with world.together():
            if world.is_first:
                checkpoints.publish(checkpoint, job.folder / "final")
        return Trained(job.folder / "final", state, is_cut=is_cut)


def _validate(job: Job, bench: Bench, world: World, recorder: Recorder, state: State, stage: str) -> None:
    if job.held_out:
        rows, micro_batch = job.loader.rows, bench.micro_batch
        found = validate(bench.objective, rows, job.held_out, world=world, micro_batch=micro_batch)
        recorder.validated(found, state, stage)


def _save(job: Job, bench: Bench, world: World, state: State, tallies: Mapping[str, Any]) -> Path:
    return checkpoints.save(
        job.folder,
        state,
        seal_of(job, state, bench.machine),
        model=bench.model,
        optimizer=bench.optimizer,
        method=job.method,
        base=job.base,
        world=world,
        keep=job.settings.keep,
        tallies=tallies,
    )


@contextlib.contextmanager
def _owned(folder: Path, world: World) -> Iterator[None]:
    """The training's folder, for this training alone and without what a killed one left half-written."""
    with contextlib.ExitStack() as stack:
        with world.together():
            if world.is_first:
                stack.enter_context(_locked(folder))
                sweep(folder)
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except SourceError as error:
            raise CheckpointError(
                f"{folder}: got a training that another process runs, expected it to be free",
                hint="wait for it, or train under another name (`--name`)",
            ) from error
        yield


def _clip(model: Any, most: float | None) -> float:
    """Scale gradients down to a norm of at most `most`; the norm that they had."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if most is None else most)
    return float(whole(norm))


def _is_due(every: int | None, state: State, tokens: int) -> bool:
    """Whether the last step, of so many tokens, passed a multiple of `every`."""
    return every is not None and state.tokens // every != (state.tokens - tokens) // every


@contextlib.contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Signals to stop are noted in a list instead of ending the process; only a second Ctrl-C ends it at once.

    A batch system may send SIGTERM to every process of a group, and a launcher sends it on: that is one wish to stop.
    """
    found: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in found:
            raise KeyboardInterrupt
        found.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _not_finite(stage: str, state: State, norm: float, checkpoint: Path | None) -> RecipeError:
    saved = f"{checkpoint.name} was saved before it" if checkpoint else "no checkpoint was saved before it"
    return RecipeError(
        f"train: got a loss that is no number, or a gradient of norm {norm}, in step {state.step} of stage `{stage}`"
        f" ({state.tokens:,} tokens), expected numbers",
        hint=f"lower learning_rate, or set `dtype: float32`, under another name (`--name`); {saved}",
    )
