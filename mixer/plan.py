"""Token budgets in whole sequences, exactly: what each pool gives to each stage, or why it cannot.

Weights are relative and count tokens. A stage of budget B holds floor(B / sequence_length) sequences; they are
split by largest remainder (Hamilton), in rational arithmetic, so the sum is exact and no float is ever rounded.
A pool is a source, or one topic of a source that is mixed by topic.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from fractions import Fraction

from mixer.baselines import effective_tokens, fresh_equivalent
from mixer.errors import PlanError
from mixer.mixture import Sizes, Span, apportion, exact, source_of, spans, split
from mixer.recipe.recipe import Recipe
from mixer.recipe.stage import Part, Ramp, ResampleStage, Stage
from mixer.remedy import Problem, Short, short_of, told
from mixer.shortfall import Asked, fit, room_of
from mixer.types import Plan, Segment, Share, StagePlan

MANY_EPOCHS = 4.0
"""Up to about so many, repeated text is worth nearly as much as fresh text (Muennighoff et al., arXiv 2305.16264)."""
Revisions = Mapping[str, Mapping[str, Mapping[str, Fraction]]]
"""Round -> source -> share of each of its pools: what `mixer adapt` found."""


def plan(
    recipe: Recipe, available: Mapping[str, int], *, estimated: Iterable[str] = (), revisions: Revisions | None = None
) -> Plan:
    """The recipe's stages in whole sequences, within `max_epochs` of every pool.

    Args:
        recipe: The recipe.
        available: Pool -> whole sequences that one epoch holds.
        estimated: Pools whose `available` was sampled or declared, not counted.
        revisions: Topic shares of later rounds; a round without one takes those of the round before.

    Raises:
        PlanError: A budget below one sequence, a source that gets or has none, or a source that would pass
            `max_epochs`; every such problem at once, with the remedy computed.
    """
    books, stages = _drafted(recipe, available, revisions or {})
    if books.problems:
        raise _refusal(books, lambda other: _drafted(other, available, revisions or {})[0].problems)
    return Plan(
        stages=tuple(stages),
        available=dict(available),
        sequence_length=recipe.sequence_length,
        estimated=frozenset(estimated),
        warnings=(*books.warnings, *_repeats(books), *_idle(books)),
    )


def _drafted(recipe: Recipe, available: Mapping[str, int], revisions: Revisions) -> tuple["_Books", list[StagePlan]]:
    """All stages, as far as they can be planned, and what was found wrong."""
    books = _Books(recipe, dict(available))
    stages: list[StagePlan] = []
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, ResampleStage):
            stages.append(_resampled(books, stage, index, stages))
        else:
            stages += [_planned(books, stage, index, asked) for asked in _asked(books, stage, index, revisions)]
    return books, stages


def _refusal(books: "_Books", replan: Callable[[Recipe], list[Problem]]) -> PlanError:
    recipe, problems = books.recipe, books.problems
    is_mixed = any(each.short and isinstance(recipe.stages[each.short.index], Stage) for each in problems)
    policies = " or set `on_shortfall: cap` or `redistribute`"
    hint = "add data, raise `max_epochs` or cut the token budget"
    if recipe.on_shortfall == "fail":
        hint = f"change the numbers above, add data{',' + policies if is_mixed else ''}"
    return PlanError("\n".join(told(recipe, each, problems, replan) for each in problems), hint=hint)


@dataclass(slots=True)
class _Books:
    """What the stages so far have used, and what is to be told."""

    recipe: Recipe
    available: Mapping[str, int]
    used: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def room(self, pool: str) -> int:
        """Sequences that a pool may still give."""
        return max(0, room_of(self.available[pool], self.recipe.max_epochs) - self.used.get(pool, 0))

    def use(self, counts: Mapping[str, int]) -> None:
        """Note what a stage takes."""
        for pool, count in counts.items():
            self.used[pool] = self.used.get(pool, 0) + count

    @property
    def excused(self) -> Set[str]:
        """Sources that may turn out empty: how much a model writes that is accepted is not known before."""
        return set(self.recipe.synth_sources) if self.recipe.on_shortfall == "redistribute" else set()


def rounds_of(stage: Stage) -> int:
    """How many rounds a stage is cut into."""
    return stage.adapt.rounds if stage.adapt else 1


def round_name(stage: Stage, number: int) -> str:
    """What a round is called in the plan: `adapt-2`; a stage of one keeps its name."""
    return f"{stage.name}-{number}" if stage.adapt else stage.name


def _asked(books: _Books, stage: Stage, index: int, revisions: Revisions) -> Iterator[Asked]:
    """Yield what a stage asks for, round by round."""
    total, rounds = stage.token_budget // books.recipe.sequence_length, rounds_of(stage)
    topics: Mapping[str, Mapping[str, Fraction]] = {}
    found: list[tuple[str, list[Span]]] = []
    for number in range(1, rounds + 1):
        name = round_name(stage, number)
        topics = {**topics, **revisions.get(name, {})}
        part = Fraction(number - 1, rounds), Fraction(number, rounds)
        sequences = int(part[1] * total) - int(part[0] * total)
        if sequences == 0:
            need = rounds * books.recipe.sequence_length
            text = f"token_budget: got {stage.token_budget:,}, expected at least one sequence"
            text += "" if rounds == 1 else " a round"
            books.problems.append(Problem(f"stages.{index} ({name})", "token_budget", f"{text} ({need:,})"))
            return
        sizes = Sizes(books.available, topics, books.recipe.sequence_length)
        found.append((name, spans(stage, sizes, sequences, part, whole=total)))
    # All rounds at once, so that what rounding leaves over in one is made up for in the next.
    segments = iter(apportion([span for _, own in found for span in own]))
    for number, (name, own) in enumerate(found, start=1):
        mine = [next(segments) for _ in own]
        yield Asked(name, f"stages.{index} ({name})", number if stage.adapt else None, own, mine)


def _planned(books: _Books, stage: Stage, index: int, asked: Asked) -> StagePlan:
    segments, counts = list(asked.segments), asked.counts
    found = list(_empty(books, stage, asked))
    scarce = [pool for pool, count in counts.items() if count > books.room(pool)]
    if found:
        books.problems += found
    elif scarce and books.recipe.on_shortfall == "fail":
        books.problems += [_too_few(books, stage, index, asked, pool) for pool in scarce]
    elif scarce:
        segments = _fitted(books, stage, index, asked)
    books.use(_totals(segments, counts))
    return _stage_plan(books, stage, asked, segments)


def _too_few(books: _Books, stage: Stage, index: int, asked: Asked, pool: str) -> Problem:
    """A pool that would pass `max_epochs`."""
    whole = stage.token_budget // books.recipe.sequence_length
    need = Fraction(books.used.get(pool, 0) + asked.counts[pool], books.available[pool])
    share = asked.shares[pool] * asked.sequences / whole
    text = f"source `{pool}` needs {float(need):.2f} epochs, max_epochs is {books.recipe.max_epochs:g}"
    return Problem(asked.where, pool, text, Short(index, books.room(pool), need, share, pool))


def _totals(segments: Iterable[Segment], pools: Iterable[str]) -> dict[str, int]:
    own = list(segments)
    return {pool: sum(segment.counts[pool] for segment in own) for pool in pools}


def _fitted(books: _Books, stage: Stage, index: int, asked: Asked) -> list[Segment]:
    """The segments as far as the pools go, by the recipe's policy; says what it changed."""
    room = {pool: books.room(pool) for pool in asked.counts}
    if books.recipe.on_shortfall == "redistribute" and sum(room.values()) < asked.sequences:
        books.problems.append(_all_too_few(books, stage, index, asked))
        return list(asked.segments)
    segments, changes = fit(books.recipe, stage, asked, room)
    books.warnings += changes
    for pool, count in _totals(segments, asked.counts).items():
        if count or not asked.counts[pool]:
            continue
        if source_of(pool) in books.excused:
            books.warnings.append(f"{asked.where}: `{pool}` has no whole sequence left and gets none")
        else:
            text = f"source `{pool}` is used up: 0 sequences are left within max_epochs {books.recipe.max_epochs:g}"
            books.problems.append(Problem(asked.where, pool, text))
    return segments


def _all_too_few(books: _Books, stage: Stage, index: int, asked: Asked) -> Problem:
    """Pools that are too few together."""
    whole = stage.token_budget // books.recipe.sequence_length
    room = sum(books.room(pool) for pool in asked.counts)
    used = sum(books.used.get(pool, 0) for pool in asked.counts)
    need = Fraction(used + asked.sequences, max(1, sum(books.available[pool] for pool in asked.counts)))
    text = f"asks for {asked.sequences:,} sequences, all its sources together have {room:,} left"
    return Problem(asked.where, "", text, Short(index, room, need, Fraction(asked.sequences, whole)))


_FAR = 1000
"""A budget so many times as large is no advice."""


def _empty(books: _Books, stage: Stage, asked: Asked) -> Iterator[Problem]:
    """Why a pool would contribute nothing; a weight without effect is an error, never a silent zero."""
    total, length = asked.sequences, books.recipe.sequence_length
    for pool, share in asked.shares.items():
        if source_of(pool) in books.excused:
            continue
        if share == 0:
            if books.available[pool] == 0 and source_of(pool) == pool:
                books.warnings.append(f"{asked.where}: source `{pool}` has no whole sequence and gets none")
            continue
        if books.available[pool] == 0:
            yield Problem(asked.where, pool, f"source `{pool}` has no whole sequence of {length:,} tokens")
        if asked.counts[pool] == 0:
            need = math.ceil(1 / share) * length * rounds_of(stage)
            raised = f"token_budget to {short_of(need, up=True)} or " if need < _FAR * stage.token_budget else ""
            text = f"source `{pool}` gets 0 of {total:,} sequences; raise {raised}its weight, or drop it"
            yield Problem(asked.where, pool, text)


def _resampled(books: _Books, stage: ResampleStage, index: int, planned: Iterable[StagePlan]) -> StagePlan:
    """A part of an earlier stage's sequences again, of every pool the same."""
    own, where = stage.resample, f"stages.{index} ({stage.name})"
    earlier = [each for each in planned if each.stage == own.stage]
    before: dict[str, int] = {}
    for each in earlier:
        for pool, share in each.sources.items():
            before[pool] = before.get(pool, 0) + share.sequences
    # The total follows from the earlier stage alone: rounds change what each pool gives, never how much in all.
    total = int(exact(own.fraction) * sum(before.values()))
    counts = split({pool: Fraction(count, max(1, sum(before.values()))) for pool, count in before.items()}, total)
    if not total:
        text = f"got {own.fraction:g} of {sum(before.values()):,} sequences, expected one at least"
        books.problems.append(Problem(where, "fraction", text))
    for pool, count in counts.items():
        if count > books.room(pool):
            need = Fraction(books.used.get(pool, 0) + count, books.available[pool])
            text = f"source `{pool}` needs {float(need):.2f} epochs, max_epochs is {books.recipe.max_epochs:g}"
            short = Short(index, books.room(pool), need, Fraction(before[pool]), pool)
            books.problems.append(Problem(where, pool, text, short))
    books.use(counts)
    shares = {pool: Fraction(count, total) if total else Fraction(0) for pool, count in counts.items()}
    sources = {pool: _share(books, pool, None, shares[pool], count) for pool, count in counts.items()}
    tokens = total * books.recipe.sequence_length
    return StagePlan(stage.name, tokens, total, sources, (Segment(total, counts),), stage.name, resample=own.stage)


def _stage_plan(books: _Books, stage: Stage, asked: Asked, segments: list[Segment]) -> StagePlan:
    counts, shares = _totals(segments, asked.counts), asked.shares
    total = sum(counts.values())
    sources = {pool: _share(books, pool, _weight(stage, pool), shares[pool], count) for pool, count in counts.items()}
    is_round = asked.round is not None
    budget = total * books.recipe.sequence_length if is_round else stage.token_budget
    return StagePlan(asked.name, budget, total, sources, tuple(segments), stage.name, asked.round)


def _weight(stage: Stage, pool: str) -> float | None:
    """The weight that stands in the recipe, where one stands there for the pool; among replay it is another scale."""
    entry = stage.mixture.get(pool) if isinstance(stage.mixture, dict) and stage.replay is None else None
    return entry.start if isinstance(entry, Ramp) else None if isinstance(entry, Part) else entry


def _share(books: _Books, pool: str, weight: float | None, fraction: Fraction, count: int) -> Share:
    length, available = books.recipe.sequence_length, books.available[pool]
    epochs = books.used[pool] / available if available else 0.0
    fresh = effective_tokens(available * length, epochs)
    return Share(weight, float(fraction), count, count * length, epochs, fresh)


def _repeats(books: _Books) -> Iterator[str]:
    """What repeats, and what that is worth."""
    for pool, used in books.used.items():
        available = books.available[pool]
        if used > available > 0:
            epochs = used / available
            worth = fresh_equivalent(epochs) / epochs
            told = f"source `{pool}` is repeated: {epochs:.2f} epochs"
            if epochs > MANY_EPOCHS:
                told += f", more than {MANY_EPOCHS:g}: its tokens are worth {worth:.0%} of fresh ones"
            yield told


def _idle(books: _Books) -> Iterator[str]:
    """Topics that no stage asks for."""
    for pool, available in books.available.items():
        if "/" in pool and available and not books.used.get(pool):
            yield f"no stage draws from `{pool}`: {available:,} sequences are left out"
