"""From runs to a recommendation beside its baselines, or to the reason why the runs do not support one.

There is no answer when there are fewer mixtures than a law needs; when the laws do not predict half of what mixtures
that they did not see differ by; when nothing tried keeps what must be kept; when the best lies at an end of what was
tried; when its 95% interval is wider than allowed; or when it is not better than a baseline beyond the error.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from curricula.search.evidence import Evidence, Runs, enough, gather
from curricula.search.question import Choice, Laws, Question
from curricula.search.stock import Stock
from curricula.search.verdict import LEVEL, Interval, Report, Row, Tried, Verdict

_MOST_ASTRAY = (1 - LEVEL) / 2
"""Share of the replicates that may find no answer, or one at an end of what was tried."""
_LEAST_EXPLAINED = 0.5
"""Share of the variance between mixtures that a law must predict where it did not see it. Of noise it predicts none."""


@dataclass(frozen=True, eq=False, slots=True)
class _Case:
    """A question, and what the laws of the runs and of redrawn runs say to it."""

    question: Question
    stock: Stock
    evidence: Evidence
    choice: Choice | None
    others: tuple[Choice | None, ...]


def recommend(
    question: Question,
    runs: Runs,
    stock: Stock,
    *,
    widest: float,
    seed: int,
    replicates: int,
    warnings: Sequence[str] = (),
) -> Report:
    """The report of a sweep.

    Args:
        question: What is asked.
        runs: What was measured.
        stock: What the sources can give, and the baselines.
        widest: Widest interval of a recommended fraction.
        seed: The recipe's.
        replicates: How often the runs are redrawn.
        warnings: What the reader should know of the runs.

    Raises:
        PlanError: There is no data for any mixture that was tried.
    """
    count = len(runs.all_groups)
    families = [family for family in question.families if enough(family, runs.points.shape[1], count)]
    baselines = stock.baselines()
    if not families:
        bare = tuple(_bare(stock, name, mixture) for name, mixture in baselines.items())
        return _report(question, runs, _too_few(question, runs, count), bare, warnings=warnings)
    evidence = gather(runs, families, replicates=replicates, seed=seed)
    others = tuple(question.choose(laws) for laws in evidence.replicates)
    case = _Case(question, stock, evidence, question.choose(evidence.laws), others)
    rows = tuple(_row(case, name, mixture) for name, mixture in baselines.items())
    doubt = next(_doubts(case, widest), None)
    if doubt is None:
        rows = tuple(_compared(case, row) for row in rows)
    return _report(question, runs, doubt or _judged(case, rows), rows, case=case, warnings=warnings)


def _too_few(question: Question, runs: Runs, count: int) -> Verdict:
    least = min(family.parameters(runs.points.shape[1]) for family in question.families)
    reason = f"got runs of {count} different mixtures, expected at least {least + 2}: the law has {least} parameters"
    return Verdict("too_few_runs", reason, "try more mixtures; more seeds of the same ones do not help")


def _doubts(case: _Case, widest: float) -> Iterator[Verdict]:
    """Why the laws do not support an answer, the gravest first."""
    error, spread = _signal(case.question, case.evidence)
    if error**2 >= _LEAST_EXPLAINED * spread**2:
        reason = f"mixtures left out are predicted with an error of {error:.4f}, while mixtures differ by {spread:.4f}"
        yield Verdict("no_signal", reason, "train longer, run more seeds, or try mixtures that lie further apart")
    if case.choice is None or _share([other is None for other in case.others]) > _MOST_ASTRAY:
        limits = ", ".join(f"{name} at most {limit:.4f}" for name, limit in case.question.limits.items())
        part = _share([other is None for other in case.others])
        reason = f"no mixture within what was tried is sure to keep {limits}: {part:.0%} of the replicates find none"
        yield Verdict("infeasible", reason, "try mixtures nearer to the base model's data, or allow more in `keep`")
        return
    if case.choice.beyond:
        reason = f"the best mixture has {case.choice.beyond}: a better one may lie beyond"
        yield Verdict("edge", reason, "try further values there")
    intervals = {name: _interval(case, name) for name in case.question.names}
    name, wide = max(intervals.items(), key=lambda found: found[1].width)
    if wide.width > widest:
        reason = f"the fraction of `{name}` is {wide.low:.3f} to {wide.high:.3f}, wider than {widest:g}"
        yield Verdict(
            "too_wide", reason, "run more mixtures near there, or more seeds; or the loss hardly depends on it"
        )
    ends = [other.beyond for other in case.others if other is not None and other.beyond]
    if len(ends) > _MOST_ASTRAY * len(case.others):
        reason = f"within its error the best mixture may have {ends[0]}"
        yield Verdict("edge", reason, "try further values there")


def _signal(question: Question, evidence: Evidence) -> tuple[float, float]:
    """Root mean square error of the loss of mixtures left out, and how much the loss differs between mixtures."""
    runs = evidence.runs
    asked = question.targets or dict.fromkeys(question.limits, 1 / max(1, len(question.limits)))
    measured = sum(omega * runs.losses[name] for name, omega in asked.items())
    predicted = sum(omega * evidence.left_out[name] for name, omega in asked.items())
    error = float(np.sqrt(np.mean((predicted - runs.means(np.asarray(measured), runs.held)) ** 2)))
    return error, float(np.std(runs.means(np.asarray(measured), runs.all_groups), ddof=1))


def _judged(case: _Case, rows: Sequence[Row]) -> Verdict:
    """The answer, unless a mixture that needs no search is as good."""
    compared = [row for row in rows if row.gain is not None]
    equal = [row for row in compared if row.gain is not None and row.gain.low <= 0]
    if equal:
        gains = ", ".join(f"{row.name} by {_shown(row.gain)}" for row in equal if row.gain is not None)
        reason = f"the best mixture is not better than these beyond its error: {gains}"
        return Verdict("no_gain", reason, f"use {equal[0].name}: it needs no search")
    gains = ", ".join(f"{row.name} by {_shown(row.gain)}" for row in compared if row.gain is not None)
    reason = f"better than {gains}" if gains else "no baseline lies within what was tried and keeps what must be kept"
    return Verdict("answer", reason, "try it: a short run of the recommended mixture is the only proof")


def _shown(interval: Interval) -> str:
    return f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def _interval(case: _Case, name: str) -> Interval:
    """The best fraction of a source."""
    assert case.choice is not None
    place = case.question.names.index(name)
    drawn = [float(other.weights[place]) for other in case.others if other is not None]
    return Interval.of(float(case.choice.weights[place]), drawn)


def _bare(stock: Stock, name: str, mixture: dict[str, float], note: str = "") -> Row:
    return Row(name, mixture, stock.epochs(mixture), note=note)


def _row(case: _Case, name: str, mixture: dict[str, float]) -> Row:
    """A mixture with what the laws predict for it."""
    weights = np.array([mixture[source] for source in case.question.names])
    broken = [source for source, passes in case.stock.epochs(mixture).items() if passes > case.stock.max_epochs + 1e-9]
    note = f"more than max_epochs of {', '.join(broken)}" if broken else ""
    if not case.question.covers(weights):
        return _bare(case.stock, name, mixture, "; ".join(filter(None, [note, "outside what was tried"])))
    predicted = case.question.losses(case.evidence.laws, weights)
    drawn = [case.question.losses(laws, weights) for laws in case.evidence.replicates]
    over = [source for source, limit in case.question.limits.items() if predicted[source] > limit]
    notes = [note, f"does not keep {', '.join(over)}" if over else ""]
    return Row(
        name,
        mixture,
        case.stock.epochs(mixture),
        score=_scored(case, lambda laws: case.question.score(laws, weights)),
        losses={source: Interval.of(loss, [one[source] for one in drawn]) for source, loss in predicted.items()},
        note="; ".join(filter(None, notes)),
    )


def _compared(case: _Case, row: Row) -> Row:
    """The same row with what the best mixture gains over it; not over one that breaks what the best one keeps."""
    assert case.choice is not None
    best = case.choice.weights
    if row.score is None or row.note:
        return row
    weights = np.array([row.weights[source] for source in case.question.names])
    return replace(
        row, gain=_scored(case, lambda laws: case.question.score(laws, weights) - case.question.score(laws, best))
    )


def _scored(case: _Case, score: Callable[[Laws], float]) -> Interval:
    return Interval.of(score(case.evidence.laws), [score(laws) for laws in case.evidence.replicates])


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / max(1, len(flags))


def _report(
    question: Question,
    runs: Runs,
    verdict: Verdict,
    rows: tuple[Row, ...],
    *,
    case: _Case | None = None,
    warnings: Sequence[str],
) -> Report:
    recommended = None
    if case is not None and case.choice is not None and verdict.kind == "answer":
        recommended = {name: _interval(case, name) for name in question.names}
        rows = (_row(case, "recommended", {name: part.value for name, part in recommended.items()}), *rows)
    error, spread = _signal(question, case.evidence) if case else (None, None)
    laws = case.evidence.laws if case else {}
    return Report(
        verdict=verdict,
        recommended=recommended,
        minimised=question.minimised,
        rows=rows,
        tried=tuple(_tried(question, runs, laws)),
        laws={name: {"law": type(law).__name__} | asdict(law) for name, law in laws.items()},  # type: ignore[call-overload]
        left_out_error=error,
        spread=spread,
        warnings=tuple(warnings),
    )


def _tried(question: Question, runs: Runs, laws: Laws) -> Iterator[Tried]:
    for group in runs.all_groups:
        rows = runs.groups == group
        weights = runs.weights[rows][0]
        predicted = {name: float(law.predict(runs.points[rows]).mean()) for name, law in laws.items()}
        yield Tried(
            weights=dict(zip(question.names, weights.tolist(), strict=True)),
            runs=int(rows.sum()),
            measured={name: float(losses[rows].mean()) for name, losses in runs.losses.items()},
            predicted=predicted or None,
        )
