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
class Share:
    """What one source gives to one stage. `epochs` counts all passes over the source so far."""

    weight: float
    fraction: float
    sequences: int
    tokens: int
    epochs: float


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage in whole sequences; `sources` keeps the order of the recipe's mixture."""

    name: str
    token_budget: int
    sequences: int
    sources: Mapping[str, Share]


@dataclass(frozen=True, slots=True)
class Plan:
    """The recipe resolved against real (or estimated, or declared) sources.

    Args:
        available: Source name -> whole sequences that one epoch holds.
        estimated: Names whose `available` is a sample's extrapolation or a declaration.
    """

    stages: tuple[StagePlan, ...]
    available: Mapping[str, int]
    sequence_length: int
    estimated: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draw:
    """What one stage draws from one source.

    Args:
        name: Source name; with the seed it decides the shuffle, so other sources do not matter.
        available: Whole sequences in one epoch.
        start: Sequences that earlier stages have already drawn.
        count: Sequences that this stage draws.
    """

    name: str
    available: int
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of packed sequences of one source: its line in `shards/<source>/index.json`."""

    file: str
    sequences: int
    first_sequence: int
    sha256: str
    spans: str
    spans_sha256: str
