"""When a source has less than a stage asks for: what would mend it, or what the recipe's policy makes of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mixer.mixture import Span, exact, split
from mixer.recipe import Recipe
from mixer.recipe_stage import Preset, Stage
from mixer.types import Segment


@dataclass(frozen=True, slots=True)
class Asked:
    """What one stage, or one round of it, asks for.

    Args:
        name: Its name in the plan.
        where: What messages call it.
        round: Which round it is, or None.
        spans: Its shares.
        segments: The same in whole sequences.
    """

    name: str
    where: str
    round: int | None
    spans: Sequence[Span]
    segments: Sequence[Segment]

    @property
    def sequences(self) -> int:
        """Sequences in all."""
        return sum(segment.sequences for segment in self.segments)

    @property
    def counts(self) -> dict[str, int]:
        """Pool -> sequences in all."""
        return {pool: sum(segment.counts[pool] for segment in self.segments) for pool in self.segments[0].counts}

    @property
    def shares(self) -> dict[str, Fraction]:
        """Pool -> share in all, before anything was rounded."""
        total = self.sequences
        return {
            pool: sum((span.mean[pool] * span.sequences for span in self.spans), Fraction(0)) / total
            for pool in self.spans[0].start
        }


def room_of(available: int, max_epochs: float) -> int:
    """Sequences that a pool may give in all."""
    return int(exact(max_epochs) * available)


def remedy(recipe: Recipe, stage: Stage, asked: Asked, pool: str, available: int, used: int) -> str:
    """One sentence on what is missing, and the numbers that would each mend it."""
    count, total = asked.counts[pool], asked.sequences
    room = max(0, room_of(available, recipe.max_epochs) - used)
    need = Fraction(used + count, available)
    remedies = [f"raise max_epochs to {math.ceil(need * 100) / 100:g}"]
    share, whole = asked.shares[pool], stage.token_budget // recipe.sequence_length
    budget = int(Fraction(room) / share * Fraction(whole, total)) * recipe.sequence_length
    if budget >= recipe.sequence_length:
        remedies.append(f"cut token_budget from {short(stage.token_budget)} to {short(budget)}")
    weight = _weight_that_fits(stage, pool, Fraction(room, total))
    if weight:
        remedies.insert(0, weight)
    return (
        f"source `{pool}` needs {float(need):.2f} epochs, max_epochs is {recipe.max_epochs:g};"
        f" {', '.join(remedies[:-1])}{' or ' if len(remedies) > 1 else ''}{remedies[-1]}"
    )


def _weight_that_fits(stage: Stage, pool: str, fraction: Fraction) -> str:
    """Of a plain mixture, the weight at which the pool's share is small enough."""
    numbers = _numbers(stage)
    others = sum(exact(value) for name, value in numbers.items() if name != pool)
    if pool not in numbers or not others or not 0 < fraction < 1:
        return ""
    return f"lower its weight from {numbers[pool]:g} to {_floor(float(fraction / (1 - fraction) * others)):g}"


def _numbers(stage: Stage) -> dict[str, float]:
    """The weights of a mixture of plain numbers; none where it is anything more."""
    if stage.replay is not None or isinstance(stage.mixture, Preset):
        return {}
    numbers = {name: value for name, value in stage.mixture.items() if isinstance(value, float)}
    return numbers if len(numbers) == len(stage.mixture) else {}


def fit(recipe: Recipe, asked: Asked, room: Mapping[str, int]) -> tuple[list[Segment], str]:
    """What the pools can give under `cap` or `redistribute`, segment after segment, and words for what changed.

    Args:
        recipe: Whose policy it is; not `fail`.
        asked: What is asked for.
        room: Pool -> sequences that it may still give; under `redistribute` enough in all.
    """
    left, fitted = dict(room), []
    for span, segment in zip(asked.spans, asked.segments, strict=True):
        if all(count <= left[pool] for pool, count in segment.counts.items()):
            fitted.append(segment)
        elif recipe.on_shortfall == "cap":
            counts = {pool: min(count, left[pool]) for pool, count in segment.counts.items()}
            fitted.append(Segment(sum(counts.values()), counts))
        else:
            fitted.append(Segment(segment.sequences, _redistribute(span.mean, segment, left)))
        for pool, count in fitted[-1].counts.items():
            left[pool] -= count
    given = sum(segment.sequences for segment in fitted)
    if recipe.on_shortfall == "cap":
        return [each for each in fitted if each.sequences], (
            f"{asked.where}: capped at max_epochs, {given:,} of {asked.sequences:,} sequences"
        )
    moved = sum(max(0, asked.counts[pool] - sum(segment.counts[pool] for segment in fitted)) for pool in asked.counts)
    return fitted, f"{asked.where}: {moved:,} of {given:,} sequences moved to other sources at max_epochs"


def _redistribute(shares: Mapping[str, Fraction], segment: Segment, room: Mapping[str, int]) -> dict[str, int]:
    """Fill pools up to their room, then share the rest by weight among the others, until all fit."""
    full: dict[str, int] = {}
    while True:
        weights = {pool: share for pool, share in shares.items() if pool not in full}
        total = sum(weights.values())
        if not total:
            # What is left has no weight here: any pool with room may fill in.
            weights = {pool: Fraction(room[pool]) for pool in weights}
            total = sum(weights.values()) or Fraction(1)
        rest = segment.sequences - sum(full.values())
        parts = split({pool: weight / total for pool, weight in weights.items()}, rest)
        over = [pool for pool, count in parts.items() if count > room[pool]]
        if not over:
            return {pool: full.get(pool, parts.get(pool, 0)) for pool in shares}
        full |= {pool: room[pool] for pool in over}


def _floor(value: float) -> float:
    """Rounded down to three significant digits, so that the advice still fits."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.floor(value / scale) * scale


def short(tokens: int, *, up: bool = False) -> str:
    """A token count as a recipe would write it, to three decimals: `46.125M`; rounded down unless `up`."""
    for suffix, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if tokens >= size:
            unit = size // 1000
            whole = -(-tokens // unit) if up else tokens // unit
            return f"{whole / 1000:.10g}{suffix}"
    return str(tokens)
