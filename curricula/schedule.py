"""The learning rate as a pure function of tokens seen: one segment after another, each of a known shape.

Nothing is counted in steps, so another batch size or number of devices trains at the same rate at the same token. A
step uses the rate at its last token: the first step has some rate though the warm-up begins at zero, and the last has
the final one.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mixer.errors import RecipeError
from mixer.recipe.recipe import Recipe
from mixer.recipe.train import Segment

_SHARES = {"cooldown": 0.3, "decay": 0.1}
_RATES = {"hold": 0.5, "final": 0.1}
_USED = {
    "constant": ("warmup",),
    "wsd": ("warmup", "decay"),
    "cosine": ("warmup",),
    "infinite": ("warmup", "cooldown", "decay"),
}


@dataclass(frozen=True, slots=True)
class Leg:
    """A segment with everything resolved: tokens and rates, no shares.

    Args:
        name: Where the recipe says it, for messages.
        tokens: How long it is.
        warmup: Tokens from `start` to `peak`, in a line.
        cooldown: Tokens from `peak` to `hold`, by a cosine (`infinite`).
        decay: Tokens down to `final` at the end (`wsd`, `infinite`).
    """

    name: str
    schedule: str
    tokens: int
    peak: float
    start: float
    hold: float
    final: float
    warmup: int
    cooldown: int
    decay: int

    def rate(self, seen: int) -> float:
        """The learning rate when `seen` of the leg's tokens have been seen."""
        if seen < self.warmup:
            return _line(self.start, self.peak, seen / self.warmup)
        after = seen - self.warmup
        if self.schedule == "cosine":
            return _cosine(self.peak, self.final, after / max(1, self.tokens - self.warmup))
        # Where the last part begins; the anneal's formula calls it N_d.
        falling = seen - (self.tokens - self.decay)
        if self.schedule == "wsd":
            return self.peak if falling <= 0 else _line(self.peak, self.final, falling / self.decay)
        if self.schedule == "infinite":
            return self._infinite(after, falling)
        return self.peak

    def _infinite(self, after: int, falling: int) -> float:
        """Cool down, hold, anneal (Singh et al., arXiv 2503.02844).

        The anneal is hold * (final / hold) ** ((n - N_d) / t_a). An implementer's code divides by t_a + N_d instead,
        with which the rate never comes down to `final`; the natural exponent reaches it after t_a tokens.
        """
        if after < self.cooldown:
            return _cosine(self.peak, self.hold, after / self.cooldown)
        if falling <= 0:
            return self.hold
        return float(self.hold * (self.final / self.hold) ** (falling / self.decay))


def _line(begin: float, end: float, part: float) -> float:
    return begin + (end - begin) * min(1.0, part)


def _cosine(begin: float, end: float, part: float) -> float:
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))


class Schedule:
    """Legs one after another; `schedule(tokens)` is the learning rate when so many tokens have been seen in all."""

    def __init__(self, legs: Sequence[Leg]) -> None:
        self.legs = tuple(legs)
        self._ends = [sum(leg.tokens for leg in legs[: number + 1]) for number in range(len(legs))]

    @property
    def tokens(self) -> int:
        """How many tokens the schedule covers."""
        return self._ends[-1] if self._ends else 0

    def __call__(self, seen: int) -> float:
        number = min(bisect_right(self._ends, max(0, seen - 1)), len(self.legs) - 1)
        leg = self.legs[number]
        return leg.rate(seen - (self._ends[number] - leg.tokens))

    def table(self, points: int = 20) -> Iterator[tuple[int, float]]:
        """Yield (tokens seen, rate) at the corners of every leg and at places between, to print or to plot."""
        places = {round(self.tokens * part / points) for part in range(points + 1)}
        for end, leg in zip(self._ends, self.legs, strict=True):
            first = end - leg.tokens
            places |= {first + 1, first + leg.warmup, first + leg.warmup + leg.cooldown, end - leg.decay, end}
        for seen in sorted(place for place in places if place):
            yield seen, self(seen)


def leg_of(segment: Segment, *, peak: float, tokens: int, name: str) -> Leg:
    """A segment over so many tokens.

    Args:
        segment: As the recipe has it.
        peak: The highest rate, which the segment's rates are shares of.
        tokens: The segment's length.
        name: Where the recipe says it, for messages.

    Raises:
        RecipeError: Warm-up, cool-down and decay together are longer than the segment.
    """
    used = _USED[segment.schedule]
    spans = {key: _tokens(segment, key, tokens) if key in used else 0 for key in ("warmup", "cooldown", "decay")}
    rates = {key: share if (share := getattr(segment, key)) is not None else _RATES[key] for key in _RATES}
    if sum(spans.values()) > tokens:
        parts = " + ".join(f"{key} {spans[key]:,}" for key in used)
        raise RecipeError(
            f"{name}: got {parts} tokens, expected at most {tokens:,}, which is all that this segment trains on",
            hint="say them as shares, such as `warmup: 0.01`, or raise the stage's token_budget",
        )
    return Leg(
        name=name,
        schedule=segment.schedule,
        tokens=tokens,
        peak=peak,
        start=peak * segment.start,
        hold=peak * rates["hold"],
        final=peak * rates["final"],
        **spans,
    )


def _tokens(segment: Segment, key: str, tokens: int) -> int:
    amount = getattr(segment, key)
    amount = _SHARES[key] if amount is None else amount
    return round(amount * tokens) if isinstance(amount, float) else int(amount)


def schedule_of(recipe: Recipe, tokens: Sequence[int]) -> Schedule:
    """The schedule of a recipe's stages.

    Stages with `learning_rate` have a segment each; stages without that follow one another share one.

    Args:
        recipe: With `train`.
        tokens: Of each stage, in their order.
    """
    train = recipe.train
    assert train is not None
    legs: list[Leg] = []
    shared = 0
    for stage, length in [*zip(recipe.stages, tokens, strict=True), (None, 0)]:
        own = stage.learning_rate if stage else None
        if stage and own is None:
            shared += length
            continue
        if shared:
            legs.append(leg_of(train, peak=train.learning_rate, tokens=shared, name="train"))
            shared = 0
        if stage and own and length:
            name = f"stages.{stage.name}.learning_rate"
            legs.append(leg_of(own, peak=own.peak or train.learning_rate, tokens=length, name=name))
    return Schedule(legs)
