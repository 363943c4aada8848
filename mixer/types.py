"""What the packages hand to one another: plain frozen values, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Format = Literal["text", "markdown", "html", "jats"]


@dataclass(frozen=True, slots=True)
class Page:
    """One row of a source before cleaning.

    Args:
        id: Stable within its source: `relative/path#row`, or the column that the recipe names.
        content: What was read; bytes where the character encoding is still unknown.
        format: How `content` is marked up.
        url: Where it came from, if the input says so.
        metadata: Small facts carried along (licence, language, title, ...).
    """

    id: str
    content: str | bytes
    format: Format
    url: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """One row, or one whole file, that could not be read; counted and named, never skipped in silence."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """One row that was read but is not a page, such as an image in a web archive; counted as dropped."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A slice of one source that a single task reads, from start to end, always in the same order.

    The slicing depends on the input alone, never on the number of workers, so the output cannot either.

    Args:
        files: Absolute paths (or one hub shard name), read in this order.
        names: The same files as ids show them, relative to the recipe.
        stripe: Which part of the rows: those with `row % stripes == stripe`; of Parquet, blocks of 256 rows; of web
            archives, responses and resources.
        stripes: Into how many units these files are split.
        digest: Content hash of the files.
    """

    source: str
    files: tuple[str, ...]
    names: tuple[str, ...]
    digest: str
    stripe: int = 0
    stripes: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """What stages draw from: the packed sequences of a source, or those of one of its topics.

    Args:
        first: Number of its first sequence within the source.
        available: Whole sequences in one epoch; what is held out or left out by quantile does not count.
    """

    source: str
    topic: str | None
    first: int
    available: int

    @property
    def name(self) -> str:
        """`source`, or `source/topic`; a source's own name has no `/`."""
        return self.source if self.topic is None else f"{self.source}/{self.topic}"


@dataclass(frozen=True, slots=True)
class Share:
    """What one pool gives to one stage.

    Args:
        weight: As the recipe says, at the stage's beginning; None of a nested or computed one.
        fraction: Of the stage's tokens, as asked for.
        sequences: What it gives.
        tokens: The same in tokens.
        epochs: Passes over the pool, all stages so far.
        fresh_tokens: What all its tokens so far are worth in fresh ones (Muennighoff et al., arXiv 2305.16264).
    """

    weight: float | None
    fraction: float
    sequences: int
    tokens: int
    epochs: float
    fresh_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A span of a stage in which every pool's rate is constant or moves along a straight line.

    Args:
        counts: Pool -> sequences; they sum to `sequences`.
        slopes: Pool -> change of its rate from the first to the last place, in units of 2**-28; they sum to 0.
    """

    sequences: int
    counts: Mapping[str, int]
    slopes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage in whole sequences; `sources` keeps the order of the recipe's mixture.

    Args:
        sources: Pool -> what it gives.
        segments: How its shares move within the stage.
        stage: The recipe's stage, of which this may be one round.
        round: Which round of that stage, from 1, or None.
        resample: The earlier stage that it trains on again, or None.
    """

    name: str
    token_budget: int
    sequences: int
    sources: Mapping[str, Share]
    segments: tuple[Segment, ...] = ()
    stage: str = ""
    round: int | None = None
    resample: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The recipe resolved against real (or estimated, or declared) sources.

    Args:
        available: Pool -> whole sequences that one epoch holds.
        estimated: Pools whose `available` is a sample's extrapolation or a declaration.
    """

    stages: tuple[StagePlan, ...]
    available: Mapping[str, int]
    sequence_length: int
    estimated: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draw:
    """What one stage draws from one pool.

    Args:
        name: Pool; with the seed it decides the shuffle, so other pools do not matter.
        available: Whole sequences in one epoch.
        start: Sequences that earlier stages have already drawn.
        count: Sequences that this stage draws.
        first: Number of the pool's first sequence within its source.
    """

    name: str
    available: int
    start: int
    count: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of packed sequences of one source: its line in `shards/<source>/index.json`."""

    file: str
    sequences: int
    first_sequence: int
    sha256: str
    spans: str
    spans_sha256: str
