"""When a source has less than a stage asks for: what the recipe's policy makes of it."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mixer.mixture import Span, exact, leaves, source_of, split
from mixer.recipe.recipe import Recipe
from mixer.recipe.stage import Stage
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


def fit(recipe: Recipe, stage: Stage, asked: Asked, room: Mapping[str, int]) -> tuple[list[Segment], list[str]]:
    """What the pools can give under `cap` or `redistribute`, segment after segment, and words for what changed.

    Args:
        recipe: Whose policy it is; not `fail`.
        stage: Whose mixture it is.
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
    given = {pool: sum(segment.counts[pool] for segment in fitted) for pool in asked.counts}
    return [each for each in fitted if each.sequences], [
        *_told(recipe, asked, given),
        *_replay(recipe, stage, asked, given),
    ]


def _told(recipe: Recipe, asked: Asked, given: Mapping[str, int]) -> Iterator[str]:
    """What the policy moved: from which pools, and to which."""
    counts, total = asked.counts, sum(given.values())
    listed = [
        ", ".join(
            f"{pool} ({counts[pool]:,} -> {given[pool]:,})" for pool in counts if is_of(given[pool], counts[pool])
        )
        for is_of in (operator.lt, operator.gt)
    ]
    if recipe.on_shortfall == "cap":
        yield f"{asked.where}: capped at max_epochs, {total:,} of {asked.sequences:,} sequences: {listed[0]}"
    else:
        moved = sum(max(0, counts[pool] - given[pool]) for pool in counts)
        yield f"{asked.where}: {moved:,} of {total:,} sequences moved at max_epochs: from {listed[0]} to {listed[1]}"


def _replay(recipe: Recipe, stage: Stage, asked: Asked, given: Mapping[str, int]) -> Iterator[str]:
    """What became of the replay share, which holds off forgetting."""
    if stage.replay is None:
        return
    names = set(leaves(stage.replay.mixture, recipe.sources))
    share = sum(count for pool, count in given.items() if source_of(pool) in names) / max(1, sum(given.values()))
    wanted = stage.replay.share
    if abs(share - wanted) * asked.sequences >= 1:
        yield f"{asked.where}: replay comes to {share:.3f} of the stage instead of {wanted:g}"


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
