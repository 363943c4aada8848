"""What a stage asks for: its nested weights, presets, ramps and topics as exact shares of tokens, and whole sequences.

Everything is rational: a weight of 0.1 is one tenth, not its nearest float, and shares sum to one without rounding. A
stage is cut where a ramp begins, ends or steps. In each span the shares at both ends follow the weights there, and each
moves along a straight line between them, so that what a span asks for is its mean share times its length.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from mixer.baselines import temperature, unimax
from mixer.errors import PlanError
from mixer.recipe.stage import Mixture, Part, Preset, Ramp, Stage
from mixer.types import Segment

SLOPE_UNIT = 2**28
"""A segment's slopes are whole numbers of this part: fine enough for a trillion tokens, small enough for 64 bits."""
Shares = dict[str, Fraction]


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a stage: how many sequences, and the share of each pool at its beginning and at its end."""

    sequences: int
    start: Mapping[str, Fraction]
    end: Mapping[str, Fraction]

    @property
    def mean(self) -> Shares:
        """Share of each pool over the whole span."""
        return {pool: (self.start[pool] + self.end[pool]) / 2 for pool in self.start}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What there is to draw from, and what later rounds say of topics.

    Args:
        available: Pool (`source` or `source/topic`) -> sequences of one epoch.
        topics: Source -> share of each of its pools, in place of what the recipe says.
        sequence_length: Tokens of a sequence.
    """

    available: Mapping[str, int]
    topics: Mapping[str, Mapping[str, Fraction]] = field(default_factory=dict)
    sequence_length: int = 1

    def pools(self, source: str) -> list[str]:
        """The pools of a source."""
        return [pool for pool in self.available if source_of(pool) == source]

    def size(self, source: str) -> int:
        """Sequences of a source."""
        return sum(self.available[pool] for pool in self.pools(source))

    def sources(self) -> list[str]:
        """All sources."""
        return list(dict.fromkeys(source_of(pool) for pool in self.available))


def source_of(pool: str) -> str:
    """The source that a pool belongs to."""
    return pool.partition("/")[0]


def leaves(mixture: Mixture, sources: Iterable[str]) -> Iterator[str]:
    """Yield the sources that a mixture names, at any depth; a preset that names none takes them all."""
    if isinstance(mixture, Preset):
        yield from mixture.sources or sources
        return
    for name, entry in mixture.items():
        if isinstance(entry, Part) and entry.mixture is not None:
            yield from leaves(entry.mixture, sources)
        else:
            yield name


def spans(
    stage: Stage,
    sizes: Sizes,
    sequences: int,
    part: tuple[Fraction, Fraction] = (Fraction(0), Fraction(1)),
    *,
    whole: int | None = None,
) -> list[Span]:
    """The spans of a stage, or of the part of it that a round is; their lengths sum to `sequences`.

    Args:
        stage: The stage.
        sizes: What there is.
        sequences: Sequences of that part.
        part: Where it begins and ends, as parts of the stage.
        whole: Sequences of the stage, whose epochs UniMax counts. Default: those of the part.

    Raises:
        PlanError: All weights of a group are 0 somewhere, or a preset cannot be met.
    """
    begin, end = part
    inside = {exact(knot) for ramp in _ramps(stage) for knot in ramp.knots}
    knots = [begin, *sorted(knot for knot in inside if begin < knot < end), end]
    places = [round((knot - begin) / (end - begin) * sequences) for knot in knots]
    found = []
    for left, right, first, last in zip(knots, knots[1:], places, places[1:], strict=False):
        if last > first:
            start, finish = (
                _shares(stage, sizes, whole or sequences, _At(knot, left, right)) for knot in (left, right)
            )
            found.append(Span(last - first, start, finish))
    return found


def exact(number: float) -> Fraction:
    """A number of the recipe as the decimal that was written."""
    return Fraction(str(number))


@dataclass(frozen=True, slots=True)
class _At:
    """A place of a stage, as the end of the span from `left` to `right`: where a weight steps, it has two values."""

    place: Fraction
    left: Fraction
    right: Fraction

    def value(self, weight: float | Ramp) -> Fraction:
        """What a weight is there."""
        if not isinstance(weight, Ramp):
            return exact(weight)
        start, end = exact(weight.start), exact(weight.end)
        if weight.at is not None:
            return start if self.right <= exact(weight.at) else end
        first, last = (exact(knot) for knot in weight.knots)
        done = min(Fraction(1), max(Fraction(0), (self.place - first) / (last - first)))
        return start + (end - start) * done


def _shares(stage: Stage, sizes: Sizes, sequences: int, at: _At) -> Shares:
    where = f"stages.{stage.name}"
    if stage.replay is None:
        return _mixed(stage.mixture, sizes, Fraction(sequences), at, f"{where}.mixture")
    replay = exact(stage.replay.share)
    parts = ((1 - replay, stage.mixture, "mixture"), (replay, stage.replay.mixture, "replay.mixture"))
    return {
        pool: share * inner
        for share, mixture, name in parts
        for pool, inner in _mixed(mixture, sizes, share * sequences, at, f"{where}.{name}").items()
    }


def _mixed(mixture: Mixture, sizes: Sizes, sequences: Fraction, at: _At, where: str) -> Shares:
    """The shares of a mixture's pools among themselves."""
    if isinstance(mixture, Preset):
        held = {name: sizes.size(name) for name in mixture.sources or sizes.sources()}
        own = _preset(mixture, held, sequences, sizes.sequence_length, where)
        return {pool: share * part for name, share in own.items() for pool, part in _natural(name, sizes).items()}
    weights = {name: at.value(entry.weight if isinstance(entry, Part) else entry) for name, entry in mixture.items()}
    found: Shares = {}
    for name, share in _parted(weights, at, where).items():
        entry = mixture[name]
        if isinstance(entry, Part) and entry.mixture is not None:
            inner = _mixed(entry.mixture, sizes, share * sequences, at, f"{where}.{name}.mixture")
        elif isinstance(entry, Part) and entry.topics is not None:
            inner = _by_topic(name, entry, sizes, share * sequences, at, f"{where}.{name}.topics")
        else:
            inner = _natural(name, sizes)
        found |= {pool: share * part for pool, part in inner.items()}
    return found


def _by_topic(source: str, entry: Part, sizes: Sizes, sequences: Fraction, at: _At, where: str) -> Shares:
    if source in sizes.topics:
        return dict(sizes.topics[source])
    if isinstance(entry.topics, Preset):
        held = {pool: sizes.available[pool] for pool in sizes.pools(source)}
        return _preset(entry.topics, held, sequences, sizes.sequence_length, where)
    weights = {f"{source}/{topic}": at.value(weight) for topic, weight in (entry.topics or {}).items()}
    return _parted(weights, at, where)


def _parted(weights: Mapping[str, Fraction], at: _At, where: str) -> Shares:
    """What each weight is of their sum."""
    total = sum(weights.values())
    if not total:
        raise PlanError(
            f"{where}: got weights that are all 0 at {float(at.place):g} of the stage, expected one above 0",
            hint="let one of its ramps end above 0, or begin there",
        )
    return {name: weight / total for name, weight in weights.items()}


def _natural(source: str, sizes: Sizes) -> Shares:
    """A source's pools as they come."""
    pools = sizes.pools(source)
    total = sizes.size(source)
    return {pool: Fraction(sizes.available[pool], total) if total else Fraction(1, len(pools)) for pool in pools}


def _preset(preset: Preset, available: Mapping[str, int], sequences: Fraction, length: int, where: str) -> Shares:
    """Shares by a preset's rule; `sequences` of so many tokens are what it is for."""
    tokens, budget = {name: held * length for name, held in available.items()}, sequences * length
    try:
        if preset.temperature is not None:
            return temperature(tokens, t=preset.temperature)
        amounts = unimax(tokens, budget=budget, max_epochs=preset.unimax or 1.0)
    except PlanError as error:
        raise PlanError(f"{where}: {error}", hint=error.hint) from None
    return {name: amount / budget if budget else Fraction(1, len(amounts)) for name, amount in amounts.items()}


def _ramps(stage: Stage) -> Iterator[Ramp]:
    yield from _ramps_in(stage.mixture)
    if stage.replay is not None:
        yield from _ramps_in(stage.replay.mixture)


def _ramps_in(mixture: Mixture) -> Iterator[Ramp]:
    for entry in () if isinstance(mixture, Preset) else mixture.values():
        weights: Iterable[float | Ramp] = [entry.weight if isinstance(entry, Part) else entry]
        if isinstance(entry, Part) and entry.mixture is not None:
            yield from _ramps_in(entry.mixture)
        if isinstance(entry, Part) and isinstance(entry.topics, dict):
            weights = [*weights, *entry.topics.values()]
        yield from (weight for weight in weights if isinstance(weight, Ramp))


def allocate(weights: Mapping[str, float], *, sequences: int) -> dict[str, int]:
    """Split a number of sequences by weight, by largest remainder; the parts sum to it exactly.

    Args:
        weights: Name -> relative weight, > 0, any scale.
        sequences: How many to hand out.

    Returns:
        Name -> sequences, in the order of `weights`. Equal remainders go by name.

    Example:
        >>> allocate({"web": 5, "code": 3, "qa": 2}, sequences=9)
        {'web': 4, 'code': 3, 'qa': 2}
    """
    parts = {name: exact(weight) for name, weight in weights.items()}
    total = sum(parts.values())
    return split({name: part / total for name, part in parts.items()}, sequences)


def split(shares: Mapping[str, Fraction], sequences: int) -> dict[str, int]:
    """The same from shares that sum to one."""
    return _whole({name: share * sequences for name, share in shares.items()}, sequences)


def apportion(asked: Sequence[Span]) -> list[Segment]:
    """Spans in whole sequences: after each, every pool has what it was asked for so far, rounded up or down.

    What rounding left over or took in one span is made up for in the next; within a span the rest goes by largest
    remainder (Hamilton), equal remainders by name.

    Example:
        >>> even = {"web": Fraction(2, 3), "qa": Fraction(1, 3)}
        >>> [segment.counts for segment in apportion([Span(4, even, even), Span(5, even, even)])]
        [{'web': 3, 'qa': 1}, {'web': 3, 'qa': 2}]
    """
    owed = {pool: Fraction(0) for span in asked for pool in span.start}
    segments = []
    for span in asked:
        quota = {pool: owed[pool] + share * span.sequences for pool, share in span.mean.items()}
        counts = _whole(quota, span.sequences)
        owed |= {pool: quota[pool] - counts[pool] for pool in quota}
        segments.append(Segment(span.sequences, counts, slopes(span, counts)))
    return segments


def _whole(quota: Mapping[str, Fraction], sequences: int) -> dict[str, int]:
    """Whole numbers near the quotas that sum to `sequences`."""
    whole = {pool: max(0, quota[pool].__floor__()) for pool in quota}
    rest = sequences - sum(whole.values())
    by_need = sorted(quota, key=lambda pool: (whole[pool] - quota[pool], pool))
    for pool in by_need[:rest] if rest > 0 else [pool for pool in reversed(by_need) if whole[pool]][:-rest]:
        whole[pool] += 1 if rest > 0 else -1
    return whole


def slopes(span: Span, counts: Mapping[str, int]) -> dict[str, int]:
    """How much each pool's rate changes over a span, in whole units: none falls below 0, and they sum to 0."""
    found = {}
    for pool, count in counts.items():
        most = 2 * SLOPE_UNIT * count // span.sequences
        found[pool] = max(-most, min(most, round((span.end[pool] - span.start[pool]) * SLOPE_UNIT)))
    excess = sum(found.values())
    sign = 1 if excess > 0 else -1
    for pool in sorted(found, key=lambda pool: (-sign * found[pool], pool)):
        taken = min(abs(excess), max(0, sign * found[pool]))
        found[pool] -= sign * taken
        excess -= sign * taken
    return found if any(found.values()) else {}
