"""A labelled pair with the verdicts of all checks, and what they come to over many of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from synth.candidate import Check
from synth.labelled import GOLD, Labelled


@dataclass(frozen=True, slots=True)
class Scored:
    """A labelled pair with what each check says.

    Args:
        label: `gold`, or the name of its corruption.
        kind: Question type.
        discipline: Of its set.
        group: Of its article; halves never share one.
        failed: Checks that decide and reject it.
        scores: Score by check.
    """

    label: str
    kind: str
    discipline: str
    group: str
    failed: frozenset[str]
    scores: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether all checks that decide let it pass."""
        return not self.failed


def scored(row: Labelled, checks: Iterable[Check], decides: Callable[[str], bool]) -> Scored:
    """A labelled pair's scores, and which of the checks that decide reject it."""
    found = list(checks)
    failed = frozenset(check.name for check in found if decides(check.name) and not check.passed)
    scores = {check.name: check.score for check in found}
    return Scored(row.label, row.pair.kind, row.discipline, row.group, failed, scores)


def names_of(rows: Sequence[Scored]) -> list[str]:
    """The checks that any of the pairs was given, in order."""
    return list(dict.fromkeys(name for row in rows for name in row.scores))


def halves(rows: Sequence[Scored]) -> tuple[list[Scored], list[Scored]]:
    """The pairs of every second group, and the others; all and none where there are less than four groups."""
    groups = sorted({row.group for row in rows})
    first = set(groups[::2] if len(groups) >= 4 else groups)
    return [row for row in rows if row.group in first], [row for row in rows if row.group not in first]


def decision(
    rows: Sequence[Scored], passes: Callable[[Scored], bool] = lambda row: row.passed
) -> dict[str, dict[str, float]]:
    """By label: how many pairs there are, and the share that passes; gold first."""
    found = {}
    for label in [GOLD, *sorted({row.label for row in rows} - {GOLD})]:
        its = [passes(row) for row in rows if row.label == label]
        if its:
            found[label] = {"pairs": len(its), "passed": round(sum(its) / len(its), 4)}
    return found
