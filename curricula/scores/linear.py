"""A linear classifier for the scorers here: logistic regression, its minimiser, and folds that keep groups whole.

The loss is convex and has one minimum, so the order of the rows decides nothing beyond rounding, and no seed is drawn.
Not scikit-learn: the package would need it for this file alone, and its models are stored as pickles.
"""

import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from mixer.errors import SourceError
from mixer.run import digest

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Point -> value and slope there; point and slope are of one length, float64."""

RIDGE = 1e-3
"""For rows of about length one; the loss that it stands against is a mean, not a sum."""
_TOLERANCE = 1e-7
_MOST_STEPS = 1000
_MEMORY = 10
_MOST_FOLDS = 10
_GROUP_STEPS = 50
"""Beyond these no page of benchmarks/topic.py changes its class."""
_LEAST_DROP = 1e-4
"""Share of the decrease promised by the slope that a step must bring (Nocedal and Wright 2006, equation 3.4)."""


@dataclass(frozen=True, eq=False, slots=True)
class Linear:
    """Probabilities of classes as a softmax of linear scores.

    Attributes:
        classes: Their names, in the order of the columns.
        weights: (features, classes) float64.
        bias: (classes,) float64.
    """

    classes: tuple[str, ...]
    weights: np.ndarray
    bias: np.ndarray

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(rows, classes) float64; each row sums to one."""
        return np.asarray(np.exp(_log_softmax(features.astype(np.float64) @ self.weights + self.bias)))

    @property
    def fingerprint(self) -> str:
        """A hash of the classes and every weight."""
        return digest([self.classes, *(xxhash.xxh3_128_hexdigest(a.tobytes()) for a in (self.weights, self.bias))])

    def save(self, path: Path) -> None:
        """Write one .npz; equal models give equal bytes."""
        with path.open("wb") as file:
            np.savez(file, classes=np.array(self.classes, np.str_), weights=self.weights, bias=self.bias)


def load(path: Path) -> Linear:
    """The model that `Linear.save` wrote.

    Raises:
        SourceError: Not there, damaged, or not such a file.
    """
    found = read_arrays(path, ("classes", "weights", "bias"))
    classes, weights, bias = found["classes"], found["weights"], found["bias"]
    if classes.dtype.kind != "U" or weights.shape[1:] != classes.shape or bias.shape != classes.shape:
        raise _unreadable(path, f"weights of shape {weights.shape} for {classes.size} classes")
    return Linear(tuple(classes.tolist()), weights.astype(np.float64), bias.astype(np.float64))


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of an .npz; nothing in the file is run as code.

    Raises:
        SourceError: Not there, damaged, or an array is missing.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return {name: found[name] for name in names}
    except (OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise _unreadable(path, f"{type(error).__name__}") from error


def _unreadable(path: Path, got: str) -> SourceError:
    return SourceError(
        f"{path}: got {got}, expected a saved classifier", hint="train it again, or restore the file from a copy"
    )


def fit(
    features: np.ndarray,
    labels: Sequence[str],
    classes: Sequence[str],
    ridge: float = RIDGE,
    prior: Linear | None = None,
) -> Linear:
    """The classifier of least mean loss, each class weighing the same however many rows it has.

    Args:
        features: (rows, features).
        labels: The class of each row.
        classes: All names, in the order of the columns; each needs a row.
        ridge: Half of it times the squared distance of the weights from the prior's is added to the loss; the bias is
            free (L2-SP, Li et al. 2018, arXiv 1802.01483).
        prior: A model that knows all the classes; else all weights are held near zero.

    Raises:
        ValueError: Labels and rows differ in number, a label is no class, a class has no row, or ridge is not above 0.
    """
    if len(labels) != len(features) or set(labels) != set(classes):
        lacking = sorted({*labels} ^ {*classes})
        raise ValueError(f"got {len(features)} rows, {len(labels)} labels, labels and classes differ in {lacking}")
    if not ridge > 0:
        raise ValueError(f"ridge: got {ridge}, expected more than 0")
    rows = np.c_[features, np.ones(len(features))].astype(np.float64)
    column = {name: number for number, name in enumerate(classes)}
    truth = np.zeros((len(rows), len(classes)))
    truth[np.arange(len(rows)), [column[label] for label in labels]] = 1.0
    share = truth / truth.sum(axis=0) / len(classes)
    start = np.zeros((rows.shape[1], len(classes)))
    if prior is not None:
        start[:-1] = prior.weights[:, [prior.classes.index(name) for name in classes]]
    weights = minimise(_loss(rows, share, ridge, start), start.ravel()).reshape(start.shape)
    return Linear(tuple(classes), weights[:-1], weights[-1])


def _loss(rows: np.ndarray, share: np.ndarray, ridge: float, start: np.ndarray) -> Objective:
    """Cross entropy plus the ridge; `share` holds each row's weight, in the column of its class."""
    weight = share.sum(axis=1, keepdims=True)

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights = point.reshape(start.shape)
        away = weights - start
        away[-1] = 0.0
        logs = _log_softmax(rows @ weights)
        value = ridge / 2 * (away**2).sum() - (share * logs).sum()
        return float(value), (rows.T @ (weight * np.exp(logs) - share) + ridge * away).ravel()

    return objective


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def minimise(objective: Objective, start: np.ndarray) -> np.ndarray:
    """The point where a smooth convex function is least, to a slope of at most `_TOLERANCE` in every direction.

    Source: L-BFGS, Liu and Nocedal 1989; Nocedal and Wright 2006, algorithms 7.4 and 7.5, with a halving line search.
    """
    point = start.astype(np.float64)
    value, slope = objective(point)
    past: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=_MEMORY)
    for _ in range(_MOST_STEPS):
        if np.abs(slope).max(initial=0.0) <= _TOLERANCE:
            break
        found = _step(objective, point, value, slope, _direction(slope, past))
        if found is None:
            # Nothing lower within rounding: this is the minimum as far as the arithmetic reaches.
            break
        new, value, new_slope = found
        if (new - point) @ (new_slope - slope) > 0:
            past.append((new - point, new_slope - slope))
        point, slope = new, new_slope
    return point


def _direction(slope: np.ndarray, past: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The slope times the inverse curvature that the last steps and changes of slope tell of; downhill."""
    if not past:
        return -slope / max(1.0, float(np.linalg.norm(slope)))
    down = -slope
    shares = []
    for step, change in reversed(past):
        shares.append(float(step @ down / (step @ change)))
        down = down - shares[-1] * change
    step, change = past[-1]
    down = down * float(step @ change / (change @ change))
    for (step, change), share in zip(past, reversed(shares), strict=True):
        down = down + (share - float(change @ down / (step @ change))) * step
    return down


def _step(
    objective: Objective, point: np.ndarray, value: float, slope: np.ndarray, down: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """The first point among full, half, quarter ... steps that is low enough, with its value and slope."""
    promised = _LEAST_DROP * float(slope @ down)
    for halvings in range(40):
        size = 0.5**halvings
        new = point + size * down
        new_value, new_slope = objective(new)
        if new_value <= value + size * promised:
            return new, new_value, new_slope
    return None


def by_group(probabilities: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """(rows, classes) probabilities that know how often each class occurs among the other rows of a row's group.

    The classifier takes all classes to be equally frequent, which no site or book is. Its own probabilities say how
    frequent each is there; no label is asked for. A row alone in its group keeps its probabilities.

    Args:
        probabilities: (rows, classes), of a classifier that weighs all classes alike, such as `fit`.
        groups: The site or book of each row.

    Source: Saerens, Latinne and Decaestecker 2002, with one row of each class added to every group, and each row left
    out of the frequencies that it is judged by, as in CVB0 (Asuncion et al. 2009).
    """
    owners, found = np.array(groups), probabilities.astype(np.float64)
    for group in set(groups):
        own = found[owners == group]
        now = own
        for _ in range(_GROUP_STEPS):
            now = own * (1.0 + now.sum(axis=0) - now)
            now /= now.sum(axis=1, keepdims=True)
        found[owners == group] = now
    return found


def folds(labels: Sequence[str], groups: Sequence[str], most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (training, test) row numbers: no group is in both, and what is tested was also trained on.

    Each row is tested once, by a model that saw nothing of its group; rows of a label that only one group has are
    trained on and never tested. Groups of one label are spread over the folds, by hash within it.

    Args:
        labels: The label of each row.
        groups: Its site or book.
        most: Folds; with no more groups than that, each group is left out in turn.
    """
    counts: dict[str, Counter[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        counts.setdefault(group, Counter())[label] += 1
    main = {group: max(sorted(found), key=found.__getitem__) for group, found in counts.items()}
    order = sorted(main, key=lambda group: (main[group], digest(["fold", group]), group))
    number = {group: place % most for place, group in enumerate(order)}
    names, owners = np.array(labels), np.array(groups)
    fold = np.array([number[group] for group in groups])
    for one in range(min(most, len(order))):
        test = (fold == one) & np.isin(names, names[fold != one])
        if test.any():
            yield np.flatnonzero((fold != one) | ~np.isin(owners, owners[test])), np.flatnonzero(test)


def held_out(
    features: np.ndarray,
    labels: Sequence[str],
    groups: Sequence[str],
    ridge: float = RIDGE,
    prior: Linear | None = None,
    threshold: float = 0.0,
) -> dict[str, Any]:
    """How classifiers fitted without some groups do on these; what it counts says `score`."""
    truth: list[str] = []
    guessed: list[str] = []
    sure: list[bool] = []
    for training, test in folds(labels, groups, _MOST_FOLDS):
        known = [labels[row] for row in training]
        model = fit(features[training], known, sorted(set(known)), ridge, prior)
        probabilities = model.probabilities(features[test])
        truth += [labels[row] for row in test]
        guessed += [model.classes[column] for column in probabilities.argmax(axis=1)]
        sure += (probabilities.max(axis=1) >= threshold).tolist()
    return {"documents": len(labels), "groups": len(set(groups))} | score(sorted(set(labels)), truth, guessed, sure)


def score(names: Sequence[str], truth: Sequence[str], guessed: Sequence[str], sure: Sequence[bool]) -> dict[str, Any]:
    """What to say of predictions: `accuracy`, `recall` by label, `confusion` (label -> predicted -> documents).

    `known` is the share of sure ones, `accuracy_known` the accuracy among these. None where nothing was tested, as is
    the recall of a label that one group has to itself.
    """
    confusion = {name: Counter(g for t, g in zip(truth, guessed, strict=True) if t == name) for name in names}
    right = [t == g for t, g in zip(truth, guessed, strict=True)]
    right_known = [r for r, s in zip(right, sure, strict=True) if s]
    return {
        "tested": len(truth),
        "accuracy": _share(right),
        "known": _share(sure),
        "accuracy_known": _share(right_known),
        "recall": {name: row[name] / row.total() if row else None for name, row in confusion.items()},
        "confusion": {name: dict(sorted(row.items())) for name, row in confusion.items()},
    }


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
