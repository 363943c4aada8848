"""From what two models need and answer to a verdict: each slice and task on its own, then the gate."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from curricula.order import seed_of
from curricula.retention.answers import Answers
from curricula.retention.measure import Reading
from curricula.retention.statistics import Difference, Verdict, holm, non_inferior, paired_bootstrap, paired_shares
from mixer.recipe.retention import Retention


@dataclass(frozen=True, slots=True)
class Changed:
    """What a slice or task was, and what it became.

    Args:
        name: The slice's or task's.
        kind: `general`, `domain` or `task`.
        before: Bits per byte, or accuracy, of the base.
        after: The same of the trained model.
        difference: After less before.
        corrected: The p-value among all of its kind that were looked at (Holm).
        verdict: Whether it stayed within its limit; of a domain slice, whether it gained what it should.
    """

    name: str
    kind: str
    before: float
    after: float
    difference: Difference
    corrected: float
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a training kept what the recipe asks for, and what speaks against it."""

    passes: bool
    reasons: tuple[str, ...]


def compare_slices(
    before: Mapping[str, Reading], after: Mapping[str, Reading], rules: Retention, *, seed: int
) -> list[Changed]:
    """Every slice's change in bits per byte, document by document; above 0 is worse.

    Args:
        before: Slice -> what the base needs.
        after: Slice -> what the trained model needs.
        rules: Limits, confidence and number of draws.
        seed: The recipe's.
    """
    found = {
        name: paired_bootstrap(
            one.bits,
            after[name].bits,
            one.texts.sizes,
            confidence=rules.confidence,
            replicates=rules.replicates,
            seed=seed_of(seed, "retention", name),
        )
        for name, one in before.items()
    }
    corrected = holm({name: difference.p for name, difference in found.items()})
    return [
        Changed(
            name,
            one.texts.kind,
            one.bits_per_byte,
            after[name].bits_per_byte,
            found[name],
            corrected[name],
            _slice_verdict(one.texts.kind, found[name], rules),
        )
        for name, one in before.items()
    ]


def _slice_verdict(kind: str, difference: Difference, rules: Retention) -> Verdict | None:
    if kind == "general":
        return non_inferior(difference, limit=rules.max_forgetting, worse="higher")
    if rules.least_gain is None:
        return None
    # To gain so much is to lose less than minus so much.
    return non_inferior(difference, limit=-rules.least_gain, worse="higher")


def compare_tasks(
    before: Mapping[str, Answers], after: Mapping[str, Answers], rules: Retention, *, seed: int
) -> list[Changed]:
    """Every task's change in accuracy, item by item; below 0 is worse. Scores of 0 and 1 are counted, others redrawn.

    Args:
        before: Task -> the base's answers.
        after: Task -> the trained model's.
        rules: Limits, confidence and number of draws.
        seed: The recipe's.
    """
    found = {name: _task_change(one.scores, after[name].scores, rules, name, seed) for name, one in before.items()}
    corrected = holm({name: difference.p for name, difference in found.items()})
    return [
        Changed(
            name,
            "task",
            one.accuracy,
            after[name].accuracy,
            found[name],
            corrected[name],
            non_inferior(found[name], limit=rules.max_drop, worse="lower"),
        )
        for name, one in before.items()
    ]


def _task_change(before: np.ndarray, after: np.ndarray, rules: Retention, name: str, seed: int) -> Difference:
    if set(np.unique([before, after])) <= {0.0, 1.0}:
        return paired_shares(before > 0, after > 0, confidence=rules.confidence)
    return paired_bootstrap(
        before,
        after,
        np.ones(len(after)),
        confidence=rules.confidence,
        replicates=rules.replicates,
        seed=seed_of(seed, "retention", name),
    )


def gate_of(changes: list[Changed], rules: Retention) -> Gate:
    """The recipe's gate: every general slice and task kept, every domain slice gained, each on its own."""
    reasons = tuple(_reasons(changes, rules))
    return Gate(not reasons, reasons)


def _reasons(changes: list[Changed], rules: Retention) -> Iterator[str]:
    for one in changes:
        if one.verdict in (None, "kept") or (one.verdict == "unclear" and rules.unclear == "pass"):
            continue
        change = one.difference
        sure = f"with {100 * rules.confidence:g}%"
        told = "" if one.verdict == "lost" else "; more documents or items would tell"
        if one.kind == "task":
            yield (
                f"{one.name} lost {-change.value:.3f} of its items (at most {-change.least:.3f} {sure}),"
                f" allowed {rules.max_drop:g}{told}"
            )
        elif one.kind == "general":
            yield (
                f"{one.name} lost {change.value:.4f} bits per byte (at most {change.most:.4f} {sure}),"
                f" allowed {rules.max_forgetting:g}{told}"
            )
        else:
            yield (
                f"{one.name} gained {-change.value:.4f} bits per byte (at least {-change.most:.4f} {sure}),"
                f" asked for {rules.least_gain:g}{told}"
            )


def rows_of(changes: list[Changed]) -> list[dict[str, Any]]:
    """The changes as plain values."""
    return [asdict(one) for one in changes]


def pooled_gain(changes: list[Changed], readings: Mapping[str, Reading]) -> float | None:
    """Bits per byte gained over all domain text together; None without any. For plots and for choosing, not judging."""
    sizes = {one.name: float(readings[one.name].texts.sizes.sum()) for one in changes if one.kind == "domain"}
    if not sizes:
        return None
    gained = sum(-one.difference.value * sizes[one.name] for one in changes if one.name in sizes)
    return gained / sum(sizes.values())
