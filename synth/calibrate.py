"""How good the checks are: for each, and for all together, what is kept of gold and rejected of each corruption."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mixer.recipe.synth import ScienceQa
from synth.candidate import Candidate, SeedPage
from synth.labelled import GOLD, Labelled
from synth.request import Ask
from synth.scored import Scored, decision, halves, names_of, scored
from synth.suggest import suggest
from synth.support import check_support
from synth.verify import judged, page_checks
from synth.votes import agreement, ask_again, novelty

KEPT = (0.99, 0.98, 0.95, 0.90, 0.85, 0.80, 0.70, 0.60, 0.50)
"""Shares of gold at which rejection is reported."""
COMBINED = "combined"
_RIDGE = 1.0
_STEPS = 30


@dataclass(frozen=True, slots=True)
class CalibrateFlow:
    """All checks of labelled pairs, none skipped because another failed; `page.id` is the pair's number."""

    chat: ClassVar[bool] = True
    task: ScienceQa
    rows: tuple[Labelled, ...]

    async def __call__(self, page: SeedPage, ask: Ask) -> list[Candidate]:
        row = self.rows[int(page.id)]
        checks = page_checks(row.pair, row.page)
        rules = self.task.verify
        if rules.votes:
            votes = await ask_again(row.pair, row.page, ask, count=rules.votes, sampling=self.task.sampling)
            checks.append(agreement(row.pair, [vote for vote, _ in votes], rules.agree))
        if rules.support:
            checks.append((await check_support(row.pair, row.page, ask, least=rules.thresholds.get("support", 1.0)))[0])
        if rules.votes and rules.novel:
            closed = await ask_again(row.pair, None, ask, count=rules.votes, sampling=self.task.sampling)
            checks.append(novelty(row.pair, [vote for vote, _ in closed], rules.agree))
        checks = [judged(check, self.task) for check in checks]
        return [Candidate(page.id, page, 0, len(row.page), "calibrate", pair=row.pair, checks=tuple(checks))]


def report(rows: Sequence[Scored]) -> dict[str, Any]:
    """Everything that the calibration found, as plain values.

    `decision`: share that passes, by label. `curves`: by question type and check, for each share of gold kept, the
    threshold and the share of each corruption that falls below it. `by_discipline`: the decision again, in parts.
    `suggested`: thresholds for the recipe; see `suggest`.
    """
    kinds = {kind: [row for row in rows if row.kind == kind] for kind in _values(rows, "kind")}
    return {
        "pairs": len(rows),
        "decision": {kind: decision(its) for kind, its in kinds.items()},
        "curves": {kind: _curves(its) for kind, its in kinds.items()},
        "by_discipline": {
            name: decision([row for row in rows if row.discipline == name]) for name in _values(rows, "discipline")
        },
        "suggested": suggest(rows),
    }


def _curves(rows: Sequence[Scored]) -> dict[str, list[dict[str, Any]]]:
    if not any(row.label == GOLD for row in rows):
        return {}
    curves = {name: _curve(rows, [row.scores.get(name, 1.0) for row in rows]) for name in names_of(rows)}
    combined = _combined(rows)
    if combined is not None:
        curves[COMBINED] = _curve(*combined)
    return curves


def _values(rows: Sequence[Scored], key: str) -> list[str]:
    return sorted({getattr(row, key) for row in rows})


def _curve(rows: Sequence[Scored], scores: Sequence[float]) -> list[dict[str, Any]]:
    """One point a share of gold: the highest threshold that keeps it, and what it rejects; equal points once.

    Example:
        >>> rows = [Scored(label, "open", "", "", frozenset(), {}) for label in (GOLD, "other_page")]
        >>> _curve(rows, [0.9, 0.2])[0]["rejected"]
        {'other_page': 1.0}
    """
    values = np.array(scores)
    labels = np.array([row.label for row in rows])
    gold = np.sort(values[labels == GOLD])
    points: list[dict[str, Any]] = []
    for share in KEPT:
        threshold = float(gold[int(np.floor((1 - share) * len(gold)))])
        kept = values >= threshold
        wrong = sorted(set(labels.tolist()) - {GOLD})
        point = {
            "threshold": threshold,
            "gold_kept": round(float(kept[labels == GOLD].mean()), 4),
            "rejected": {label: round(float(1 - kept[labels == label].mean()), 4) for label in wrong},
            "precision": round(float((labels[kept] == GOLD).mean()), 4),
        }
        if point not in points:
            points.append(point)
    return points


def _combined(rows: Sequence[Scored]) -> tuple[list[Scored], list[float]] | None:
    """A logistic combination of all scores, fitted on half of the groups, with its value on the other half."""
    fit, held = halves(rows)
    if any(len({row.label == GOLD for row in half}) < 2 for half in (fit, held)):
        return None
    names = names_of(rows)
    inputs, others = (
        np.array([[row.scores.get(name, 1.0) for name in names] + [1.0] for row in half]) for half in (fit, held)
    )
    weights = _logistic(inputs, np.array([row.label == GOLD for row in fit], float))
    return held, (others @ weights).tolist()


def _logistic(inputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights of a ridge-regularised logistic regression, classes weighted alike, by Newton's method."""
    weights = np.zeros(inputs.shape[1])
    share = np.where(target == 1, 0.5 / max(target.mean(), 1e-9), 0.5 / max(1 - target.mean(), 1e-9))
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        slope = inputs.T @ (share * (target - chance)) - _RIDGE * weights
        curve = (inputs * (share * chance * (1 - chance))[:, None]).T @ inputs + _RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curve, slope)
    return weights


def rows_of(found: Iterable[Candidate], rows: Sequence[Labelled], decides: Callable[[str], bool]) -> list[Scored]:
    """Scores from the candidates of a CalibrateFlow."""
    return [scored(rows[int(each.page.id)], each.checks, decides) for each in found]
