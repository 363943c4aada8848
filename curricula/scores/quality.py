"""How much a document is like good text: a classifier trained on examples.

The classifier follows DCLM (arXiv 2406.11794): linear on words and pairs of neighbouring words, positive examples
against ordinary web text. It differs in that the whole text counts: a document is cut into parts of equal length, each
is scored, and the mean is the score. What is good is what the positives are; a score means nothing beyond that.

A classifier knows its own examples: a good document among the negatives would score low because it stands there. So an
example is scored by a model of the cross-validation that saw nothing of its group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from curricula.scores.linear import folds, minimise, read_arrays
from mixer.dedup import shingles
from mixer.errors import RecipeError, SourceError
from mixer.run import digest, read_json, staged, write_json

VERSION = 2
"""Raise it when the same text and weights would give another score."""
BUCKETS = 1 << 18
RIDGE = 1e-4
_ARRAYS = ("weights", "biases", "examples", "left_out_by")
_PART_CHARS = 4000
_MOST_PARTS = 8
"""Parts of one text that are trained on, so that a book does not cost as much as a library."""
_FOLDS = 5


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Sparse 0/1 features of the parts of texts, each part scaled to length one.

    Attributes:
        columns: The buckets of all parts, one part after another.
        starts: (parts,) where each part's buckets begin; no part is without.
        scale: (parts,) the value of each of a part's buckets.
        owner: (parts,) the text that the part belongs to.
    """

    columns: np.ndarray
    starts: np.ndarray
    scale: np.ndarray
    owner: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(parts,) how many buckets each part has."""
        return np.diff(np.r_[self.starts, len(self.columns)])

    def dot(self, weights: np.ndarray) -> np.ndarray:
        """(parts,) the sum of each part's weights, scaled."""
        return np.asarray(np.add.reduceat(weights[self.columns], self.starts) * self.scale)


@dataclass(frozen=True, eq=False, slots=True)
class QualityModel:
    """Scores how much a text is like the positive examples.

    Attributes:
        weights: (1 + folds, BUCKETS) float32: of the model of all examples, then of those that left some out.
        biases: (1 + folds,) of each the score of a part without features, as log odds.
        examples: (n,) uint64, sorted: hashes of the examples that some model left out.
        left_out_by: (n,) which model that is.
        report: How it did on groups held out of training; see `train`.
    """

    weights: np.ndarray
    biases: np.ndarray
    examples: np.ndarray
    left_out_by: np.ndarray
    report: Mapping[str, Any] = field(default_factory=dict)

    def score(self, text: str) -> float:
        """The probability that the text is a positive one, the mean over its parts; in [0, 1].

        An example is scored by the model that was trained without its group.
        """
        number, own = 0, _identity(text)
        place = int(np.searchsorted(self.examples, own))
        if place < len(self.examples) and self.examples[place] == own:
            number = int(self.left_out_by[place])
        odds = hashed([text]).dot(self.weights[number].astype(np.float64)) + self.biases[number]
        return float(_sigmoid(odds).mean())

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides a score."""
        return digest([VERSION, *(xxhash.xxh3_128_hexdigest(getattr(self, name).tobytes()) for name in _ARRAYS)])

    def save(self, folder: Path) -> None:
        """Write `weights.npz` and `quality.json`; an older folder of that name is replaced."""
        with staged(folder) as scratch:
            with (scratch / "weights.npz").open("wb") as file:
                np.savez_compressed(file, **{name: getattr(self, name) for name in _ARRAYS}, allow_pickle=False)
            write_json(scratch / "quality.json", {"version": VERSION, "report": dict(self.report)})


def _identity(text: str) -> np.uint64:
    return np.uint64(xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")))


def load(folder: Path) -> QualityModel:
    """The model that `QualityModel.save` wrote.

    Raises:
        SourceError: Not there, damaged, or of another version.
    """
    found = read_arrays(folder / "weights.npz", ("weights",))
    try:
        stored = read_json(folder / "quality.json") or {}
    except ValueError as error:
        told = f"{folder / 'quality.json'}: got damaged JSON, expected a quality model"
        raise SourceError(told, hint="train the quality model again") from error
    if stored.get("version") != VERSION or found["weights"].shape[1:] != (BUCKETS,):
        raise SourceError(
            f"{folder}: got a quality model of version {stored.get('version')} with weights "
            f"{found['weights'].shape}, expected {VERSION} with rows of {BUCKETS}",
            hint="train the quality model again",
        )
    return QualityModel(**read_arrays(folder / "weights.npz", _ARRAYS), report=stored["report"])


def train(
    positives: Sequence[str],
    negatives: Sequence[str],
    *,
    groups: tuple[Sequence[str], Sequence[str]] | None = None,
    ridge: float = RIDGE,
) -> QualityModel:
    """A model that tells positives from negatives, with a report of how it does on groups it did not see.

    Both kinds weigh the same in sum, and so does each text of a kind. The report's `accuracy` is at a score of 0.5,
    `auc` the probability that a positive one scores above a negative one; both None where nothing can be held out.

    Args:
        positives: Examples of what is wanted.
        negatives: Ordinary text.
        groups: The site or book of each positive and each negative; else each text stands for itself.
        ridge: As in `linear.fit`.

    Raises:
        RecipeError: No positives, no negatives, or not one group a text.
    """
    _check(positives, negatives, groups)
    texts = [*positives, *negatives]
    owners = [*groups[0], *groups[1]] if groups else [str(number) for number in range(len(texts))]
    rows = hashed(texts, _MOST_PARTS)
    truth = np.arange(len(texts)) < len(positives)
    models = [_fit(rows, truth, np.ones(len(texts), bool), ridge)]
    scores, number = _folded(rows, truth, owners, ridge, models)
    identities = np.array([_identity(text) for text in texts])
    left_out = np.flatnonzero(number)
    examples, first = np.unique(identities[left_out], return_index=True)
    return QualityModel(
        np.stack([weights for weights, _ in models]),
        np.array([bias for _, bias in models]),
        examples,
        number[left_out][first],
        {"texts": len(texts), "groups": len(set(owners))} | _report(scores, truth),
    )


def _check(
    positives: Sequence[str], negatives: Sequence[str], groups: tuple[Sequence[str], Sequence[str]] | None
) -> None:
    counts = (len(positives), len(negatives))
    if not all(counts):
        told = f"quality: examples: got {counts[0]} positives and {counts[1]} negatives, expected both"
        raise RecipeError(told, hint="`positive` and `negative` each name a source that has documents left")
    if groups and counts != (len(groups[0]), len(groups[1])):
        raise RecipeError(
            f"quality: groups: got {len(groups[0])} and {len(groups[1])}, "
            f"expected one a text: {counts[0]} and {counts[1]}",
            hint="give each text its group, or none of them",
        )


def hashed(texts: Sequence[str], most_parts: int | None = None) -> Rows:
    """The hashed words and word pairs of each text's parts, each once a part.

    Args:
        texts: Of any length; one without a word has one part, which holds a bucket of its own.
        most_parts: Of a text, spread over it; all if None.
    """
    buckets: list[np.ndarray] = []
    owner: list[int] = []
    for number, text in enumerate(texts):
        for part in parts(text, most_parts):
            hashes = np.concatenate([shingles(part, 1), shingles(part, 2), np.zeros(1, np.uint64)])
            buckets.append(np.unique(hashes % np.uint64(BUCKETS)).astype(np.int64))
            owner.append(number)
    sizes = np.array([len(own) for own in buckets], np.int64)
    columns = np.concatenate([*buckets, np.empty(0, np.int64)])
    return Rows(columns, np.cumsum(sizes) - sizes, 1 / np.sqrt(sizes), np.array(owner, np.int64))


def parts(text: str, most: int | None = None) -> list[str]:
    """The text cut into equal parts of at most four thousand characters; at least one.

    A word that a cut splits counts as two; next to some seven hundred words of a part that is little.

    Example:
        >>> [len(part) for part in parts("x" * 10_000)]
        [3333, 3333, 3334]
    """
    count = max(1, -(-len(text) // _PART_CHARS))
    kept = count if most is None else min(most, count)
    chosen = [count * number // kept for number in range(kept)]
    return [text[len(text) * number // count : len(text) * (number + 1) // count] for number in chosen]


def _fit(rows: Rows, truth: np.ndarray, used: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """Weights and bias of least mean loss over the texts that are used; as in `linear.fit`, but sparse."""
    kinds = np.array([(used & ~truth).sum(), (used & truth).sum()])
    of_part = np.bincount(rows.owner, minlength=len(truth))[rows.owner]
    share = used[rows.owner] / np.maximum(kinds, 1)[truth[rows.owner].astype(int)] / of_part / 2
    sign = np.where(truth[rows.owner], 1.0, -1.0)
    # Most texts fill few of the buckets; the others have no slope and stay at nothing.
    filled, columns = np.unique(rows.columns, return_inverse=True)
    dense = replace(rows, columns=columns)

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = point[:-1], point[-1]
        margin = sign * (dense.dot(weights) + bias)
        pull = -share * sign * _sigmoid(-margin)
        value = ridge / 2 * (weights @ weights) + share @ np.logaddexp(0.0, -margin)
        slope = np.bincount(columns, np.repeat(pull * rows.scale, rows.sizes), len(filled)) + ridge * weights
        return float(value), np.r_[slope, pull.sum()]

    best = minimise(objective, np.zeros(len(filled) + 1))
    weights = np.zeros(BUCKETS, np.float32)
    weights[filled] = best[:-1]
    return weights, float(best[-1])


def _folded(
    rows: Rows, truth: np.ndarray, owners: Sequence[str], ridge: float, models: list[tuple[np.ndarray, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Score of each text by a model without its group, which is added to the models, and that model's number there."""
    scores, number = np.full(len(truth), np.nan), np.zeros(len(truth), np.int64)
    for training, test in folds(truth.astype(str).tolist(), owners, _FOLDS):
        used = np.zeros(len(truth), bool)
        used[training] = True
        models.append(_fit(rows, truth, used, ridge))
        scores[test], number[test] = _scored(rows, *models[-1])[test], len(models) - 1
    return scores, number


def _scored(rows: Rows, weights: np.ndarray, bias: float) -> np.ndarray:
    """(texts,) the score of each."""
    by_part = _sigmoid(rows.dot(weights.astype(np.float64)) + bias)
    return np.asarray(np.bincount(rows.owner, by_part) / np.bincount(rows.owner))


def _report(scores: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    tested = ~np.isnan(scores)
    right = (scores[tested] >= 0.5) == truth[tested]
    return {
        "tested": int(tested.sum()),
        "accuracy": float(right.mean()) if tested.any() else None,
        "auc": auc(scores[tested & truth], scores[tested & ~truth]),
    }


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -odds)))


def auc(positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """The probability that a positive score lies above a negative one, ties counting half; None without both.

    Example:
        >>> auc(np.array([0.9, 0.4]), np.array([0.1, 0.4]))
        0.875
    """
    if not len(positives) or not len(negatives):
        return None
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, "left") + np.searchsorted(ordered, positives, "right")
    return float(below.mean() / (2 * len(negatives)))
