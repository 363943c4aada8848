"""What a sweep says: an answer with its error bars, or why there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

Kind = Literal["answer", "too_few_runs", "no_signal", "infeasible", "edge", "too_wide", "no_gain"]
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the ends of its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, replicates: Sequence[float]) -> Self:
        """A value, and the middle 95% of what replicates gave for it."""
        ends = np.quantile([*replicates, value], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(value, min(value, float(ends[0])), max(value, float(ends[1])))

    @property
    def width(self) -> float:
        """From end to end."""
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the runs support an answer.

    Args:
        kind: `answer`, or what was missing.
        reason: The finding in one sentence, with its numbers.
        advice: What to do next.
    """

    kind: Kind
    reason: str
    advice: str


@dataclass(frozen=True, slots=True)
class Row:
    """One mixture beside the others.

    Args:
        name: `recommended`, `uniform`, `natural`, `unimax`, `stage`.
        weights: Source -> fraction.
        epochs: Source -> passes over it, all stages together.
        score: What is minimised, predicted; None where no run was near this mixture.
        losses: Slice -> predicted loss.
        gain: How much lower the recommended mixture's score is; None where there is none, or nothing to compare.
        note: Why a number is missing, or what the mixture would break.
    """

    name: str
    weights: Mapping[str, float]
    epochs: Mapping[str, float]
    score: Interval | None = None
    losses: Mapping[str, Interval] | None = None
    gain: Interval | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """One mixture that runs had: what they measured, what the laws say of it."""

    weights: Mapping[str, float]
    runs: int
    measured: Mapping[str, float]
    predicted: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Report:
    """All that a sweep found.

    Args:
        verdict: Whether there is an answer.
        recommended: Source -> fraction with interval; None without an answer.
        minimised: What `score` is, in words.
        rows: The mixtures to compare.
        tried: The mixtures that runs had.
        laws: Slice -> its law's name and parameters.
        left_out_error: Root mean square error of the score of mixtures that the laws did not see; None without laws.
        spread: Standard deviation of the measured score over mixtures; None without laws.
        warnings: What limits the answer.
    """

    verdict: Verdict
    recommended: Mapping[str, Interval] | None
    minimised: str
    rows: tuple[Row, ...]
    tried: tuple[Tried, ...]
    laws: Mapping[str, Mapping[str, Any]]
    left_out_error: float | None
    spread: float | None
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)
