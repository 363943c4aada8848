"""The guard in the loop: slices measured every so many tokens, paired with the first model, and what follows from it.

It acts when a general slice can no longer be shown to have lost at most what is allowed, the same verdict as the gate's
at the end. Lines of `guard.jsonl` are its whole memory, beside the first model's bits a document; a resume takes back
what lies ahead of its checkpoint and finds the same again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curricula.causal import frame_token
from curricula.checkpoint import State
from curricula.job import Job
from curricula.metrics import append, truncate
from curricula.order import seed_of
from curricula.parallel import World
from curricula.retention.best import Best
from curricula.retention.measure import write_table
from curricula.retention.pieces import Pieces, bits_of
from curricula.retention.raised import Rest, Stock, forget, raise_replay, restore, stock_of
from curricula.retention.slices import Texts, texts_of
from curricula.retention.statistics import Difference, non_inferior, paired_bootstrap
from curricula.train import Turn
from curricula.workbench import Bench
from mixer.errors import CheckpointError
from mixer.mixture import leaves
from mixer.recipe.recipe import Recipe, TokenizerSpec
from mixer.recipe.retention import Retention
from mixer.run import digest
from mixer.tokens import load

_LINES, _FIRST = "guard.jsonl", "guard-first.parquet"
Say = Callable[[str], None]


def open_guard(
    job: Job, bench: Bench, *, run: Path, recipe: Recipe, base: Path, world: World, say: Say
) -> "Guard | None":
    """The recipe's guard over a training that is about to go on; None where the recipe has none.

    Args:
        job: What is trained.
        bench: What with.
        run: The Run folder.
        recipe: As it is in the Run, with overrides.
        base: Folder that the recipe's relative paths start from.
        world: The processes.
        say: Takes a line for people.

    Raises:
        CheckpointError: The training began without a guard, or with one of other slices.
        SourceError: A slice has nothing to measure.
    """
    rules = recipe.retention
    if rules is None or rules.guard is None:
        return None
    names = rules.guard.slices or tuple(rules.slices)
    texts = [texts_of(name, rules.slices[name], run=run, base=base).most(rules.guard.max_documents) for name in names]
    replay = rules.guard.replay or tuple(replay_sources(recipe))
    stock = stock_of(run, recipe)
    return Guard(job, bench, rules=rules, slices=texts, stock=stock, replay=replay, world=world, say=say)


def replay_sources(recipe: Recipe) -> list[str]:
    """The sources that the stages' own `replay` draws from, at any depth."""
    parts = [stage.replay.mixture for stage in recipe.mixed_stages if stage.replay]
    return list(dict.fromkeys(name for part in parts for name in leaves(part, recipe.sources)))


@dataclass(frozen=True, slots=True)
class Found:
    """One measurement.

    Args:
        bits_per_byte: Slice -> bits per byte.
        changes: Slice -> what it lost against the first model.
        forgotten: General slices that may have lost more than is allowed.
        gain: Bits per byte gained over all domain text; None without any.
    """

    bits_per_byte: Mapping[str, float]
    changes: Mapping[str, Difference] = field(default_factory=dict)
    forgotten: tuple[str, ...] = ()
    gain: float | None = None


class Guard:
    """Asked after every step: whether to go on, to save (what comes is planned anew), or to stop.

    Args:
        job: What is trained.
        bench: What with.
        rules: The recipe's `retention`.
        slices: What is measured.
        stock: What replay can be drawn from.
        replay: Sources that are replay.
        world: The processes.
        say: Takes a line for people.
    """

    def __init__(
        self,
        job: Job,
        bench: Bench,
        *,
        rules: Retention,
        slices: Sequence[Texts],
        stock: Stock,
        replay: Sequence[str],
        world: World,
        say: Say,
    ) -> None:
        assert rules.guard is not None
        self._job, self._bench, self._world, self._say = job, bench, world, say
        self._rules, self._own, self._slices = rules, rules.guard, tuple(slices)
        self._stock, self._replay = stock, replay
        self._owner = np.repeat(np.arange(len(slices)), [len(texts.ids) for texts in slices])
        self._sizes = np.concatenate([texts.sizes for texts in slices])
        most = getattr(bench.model.config, "max_position_embeddings", None) or rules.window + 1
        self._pieces = Pieces(_encoded(job.base, bench, slices), min(rules.window + 1, most))
        self._seen = bench.state.tokens
        with world.together():
            if world.is_first:
                truncate(job.folder / _LINES, "step", bench.state.step)
                forget(job.folder, bench.state.position)
        lines = _read(job.folder / _LINES)
        self._before = lines[-1] if lines else None
        self._best = Best(job, lines, world)
        self.turn: Turn = "stop" if was_stopped(job.folder) and self._own.on_forgetting == "stop" else "on"
        """What followed from the last measurement."""
        self._first = self._begun()

    def __call__(self, stage: str, state: State) -> Turn:
        """What follows from a step."""
        before, self._seen = self._seen, state.tokens
        is_due = state.tokens // self._own.every != before // self._own.every
        is_last = self._job.loader.step(state.position) is None
        if not is_due and not is_last and state.step not in self._own.first_steps:
            return "on"
        found = self.measure(self._bits())
        action = self._action(found, state, is_last=is_last)
        self._tell(found, stage, state, action)
        turns: dict[str, Turn] = {"stop": "stop", "raise_replay": "save"}
        self.turn = turns.get(action, "on")
        return self.turn

    def measure(self, bits: np.ndarray) -> Found:
        """What bits a document say against the first model's.

        Args:
            bits: (documents,) of all slices, one after another.
        """
        rates, changes, forgotten = {}, {}, []
        for number, texts in enumerate(self._slices):
            own = self._owner == number
            rates[texts.name] = float(bits[own].sum() / self._sizes[own].sum())
            change = paired_bootstrap(
                self._first[own],
                bits[own],
                self._sizes[own],
                confidence=self._rules.confidence,
                replicates=self._rules.replicates,
                seed=seed_of(self._job.seed, "guard", texts.name),
            )
            changes[texts.name] = change
            verdict = non_inferior(change, limit=self._rules.max_forgetting, worse="higher")
            if texts.kind == "general" and verdict != "kept":
                forgotten.append(texts.name)
        domain = np.array([texts.kind == "domain" for texts in self._slices])[self._owner]
        lost = (bits - self._first)[domain].sum()
        gain = float(-lost / self._sizes[domain].sum()) if domain.any() else None
        return Found(rates, changes, tuple(forgotten), gain)

    def _action(self, found: Found, state: State, *, is_last: bool) -> str:
        if not found.forgotten:
            if self._own.keep_best and found.gain is not None and found.gain > self._best.gain:
                self._best.keep(self._bench, step=state.step, gain=found.gain)
                return "best"
            return "on"
        if is_last or self._own.on_forgetting == "warn":
            return "warn"
        if self._own.on_forgetting == "stop":
            return "stop"
        if self._is_recovering(found):
            return "wait"
        return "raise_replay" if self._raise(state) else "warn"

    def _is_recovering(self, found: Found) -> bool:
        """Whether replay was raised, and what was lost is less than at the last measurement: it takes its time."""
        if self._before is None or self._before["action"] not in ("raise_replay", "wait"):
            return False
        lost = self._before["lost"]
        return all(found.changes[name].value < lost[name]["value"] for name in found.forgotten)

    def _raise(self, state: State) -> bool:
        """Plan what is left with more replay; whether there was any room for it."""
        rests: list[Rest] = []
        with self._world.together():
            if self._world.is_first:
                where = self._job.loader, self._job.folder, state.position
                rests = raise_replay(*where, self._stock, replay=self._replay, by=self._own.raise_by)
        for rest in rests:
            self._say(f"{rest.stage}: " + _told(rest))
        is_raised = self._world.sum(np.array([len(rests)]))[0] > 0
        if is_raised:
            restore(self._job.loader, self._job.folder, state.position)
        return bool(is_raised)

    def _tell(self, found: Found, stage: str, state: State, action: str) -> None:
        lost = {name: change for name, change in found.changes.items() if name in found.forgotten}
        if lost:
            told = ", ".join(f"{name} lost {one.value:.4f} (at most {one.most:.4f})" for name, one in lost.items())
            self._say(f"guard: step {state.step}: {told}, allowed {self._rules.max_forgetting:g}: {action}")
        line = {
            "step": state.step,
            "tokens": state.tokens,
            "stage": stage,
            "bits_per_byte": dict(found.bits_per_byte),
            "lost": {
                name: {"value": one.value, "least": one.least, "most": one.most} for name, one in found.changes.items()
            },
            "forgotten": list(found.forgotten),
            "gain": found.gain,
            "action": action,
        }
        self._before = line
        with self._world.together():
            if self._world.is_first:
                append(self._job.folder / _LINES, line)

    def _bits(self) -> np.ndarray:
        return bits_of(self._bench.objective, self._pieces, world=self._world, micro_batch=self._micro_batch())

    def _micro_batch(self) -> int:
        """As many tokens at once as in training."""
        tokens = self._bench.micro_batch * self._job.loader.rows.sequence_length
        return max(1, tokens // self._pieces.sequence_length)

    def _begun(self) -> np.ndarray:
        """(documents,) bits of the first model: measured now, or when the training began."""
        path, state = self._job.folder / _FIRST, self._bench.state
        slices = [[texts.name, texts.kind, texts.fingerprint] for texts in self._slices]
        told = digest([slices, self._rules.window])
        if state.step == 0:
            bits = self._bits()
            with self._world.together():
                if self._world.is_first:
                    write_table(path, pl.DataFrame({"bits": bits, "of": [told] * len(bits)}))
                    (self._job.folder / _LINES).unlink(missing_ok=True)
            rates = np.bincount(self._owner, bits) / np.bincount(self._owner, self._sizes)
            names = [texts.name for texts in self._slices]
            self._tell(Found(dict(zip(names, rates.tolist(), strict=True))), "", state, "on")
            return bits
        if not path.is_file():
            raise CheckpointError(
                f"{path}: got no such file, expected what the first model needed for the guard's slices",
                hint="this training began without a guard; train under another name (`--name`)",
            )
        table = pl.read_parquet(path, glob=False)
        if table["of"][0] != told:
            raise CheckpointError(
                f"{path}: got readings of other slices than the guard's, expected the same",
                hint="go on with the slices it began with, or train under another name (`--name`)",
            )
        return np.array(table["bits"].to_numpy())


def _encoded(base: Path, bench: Bench, slices: Sequence[Texts]) -> list[np.ndarray]:
    """Ids of every document behind the frame token."""
    encoder = load(TokenizerSpec(path=str(base.absolute()), bos=False, eos=False), base, base)
    frame = frame_token(bench.model.config, base)
    encoded = encoder.encode([text for texts in slices for text in texts.texts])
    return [np.concatenate([[frame], ids]).astype(np.int64) for ids in encoded]


def _told(rest: Rest) -> str:
    total = sum(rest.counts_now.values())
    changed = [pool for pool, count in rest.counts_now.items() if count != rest.counts_before[pool]]
    return ", ".join(
        f"{pool} {rest.counts_before[pool] / total:.3f} -> {rest.counts_now[pool] / total:.3f}" for pool in changed
    )


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def was_stopped(training: Path) -> bool:
    """Whether the guard's last measurement in a training's folder ended it."""
    lines = _read(training / _LINES)
    return bool(lines) and lines[-1]["action"] == "stop"
