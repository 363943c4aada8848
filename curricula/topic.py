"""What a document is about: a linear head on sentence embeddings, offline, no language model asked.

The head learns from labelled documents, or stands on a description of each label where there are none. Llama-3-SynE
(arXiv 2407.18743) has a large model label some web pages and a small one learn from them: `train` with those labels.

Price: the packaged encoder reads English only, and a document is judged by a few windows, not in full.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curricula import linear
from curricula.linear import Linear
from mixer.embed import Embed, Encoder
from mixer.errors import RecipeError, SourceError
from mixer.run import digest, read_json, staged, write_json

UNKNOWN = "unknown"
THRESHOLD = 0.3
"""Probability that a label needs. A head that must stay simple rarely says more than 0.9 of anything."""
TEMPERATURE = 0.05
"""Cosines to descriptions lie close together; a lead of one temperature multiplies the odds by e."""
VERSION = 1
"""Raise it when the same document and head would give another topic."""
_WINDOWS = 4
_WINDOW_CHARS = 1000
_MOST_FOLDS = 10
_BATCH = 256
"""Documents embedded at a time, so that memory does not grow with their number."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A label with its probability; `unknown` with that of the likeliest label where it is below the threshold."""

    label: str
    probability: float


@dataclass(frozen=True, eq=False, slots=True)
class TopicModel:
    """Names what documents are about.

    Attributes:
        head: The classifier on `embedded` documents.
        threshold: Below this probability a document's topic is `unknown`.
        report: How it did on groups held out of training; see `train`.
    """

    head: Linear
    threshold: float = THRESHOLD
    report: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, texts: Sequence[str], embed: Embed | None = None) -> list[Topic]:
        """The topic of each text, in order; a text without any character but space is `unknown` with 0.0.

        Args:
            texts: Documents, of any length.
            embed: The encoder that the model was trained with, if not the packaged one.
        """
        embed = embed or Encoder().embed
        found: list[Topic] = []
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            found += map(self._topic, batch, self.head.probabilities(embedded(batch, embed)))
        return found

    def _topic(self, text: str, probabilities: np.ndarray) -> Topic:
        if not text.strip():
            return Topic(UNKNOWN, 0.0)
        best = int(probabilities.argmax())
        probability = float(probabilities[best])
        return Topic(self.head.classes[best] if probability >= self.threshold else UNKNOWN, probability)

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides a prediction, the encoder's own weights left out."""
        return digest([VERSION, self.head.fingerprint, self.threshold])

    def save(self, folder: Path) -> None:
        """Write `head.npz` and `topic.json`; an older folder of that name is replaced."""
        with staged(folder) as scratch:
            self.head.save(scratch / "head.npz")
            write_json(
                scratch / "topic.json", {"version": VERSION, "threshold": self.threshold, "report": dict(self.report)}
            )


def load(folder: Path) -> TopicModel:
    """The model that `TopicModel.save` wrote.

    Raises:
        SourceError: Not there, damaged, or of another version.
    """
    head = linear.load(folder / "head.npz")
    try:
        stored = read_json(folder / "topic.json") or {}
    except ValueError as error:
        raise SourceError(f"{folder / 'topic.json'}: got damaged JSON, expected a topic model") from error
    if stored.get("version") != VERSION:
        raise SourceError(
            f"{folder}: got a topic model of version {stored.get('version')}, expected {VERSION}",
            hint="train the topic model again",
        )
    return TopicModel(head, float(stored["threshold"]), stored["report"])


def windows(text: str) -> list[str]:
    """Up to four windows of a thousand characters, spread from the beginning to the end of the text.

    Example:
        >>> [len(window) for window in windows("x" * 1500)]
        [1000, 1000]
    """
    count = min(_WINDOWS, max(1, -(-len(text) // _WINDOW_CHARS)))
    starts = np.linspace(0, max(0, len(text) - _WINDOW_CHARS), count).astype(int).tolist()
    return [text[start : start + _WINDOW_CHARS] for start in starts]


def embedded(texts: Sequence[str], embed: Embed) -> np.ndarray:
    """(texts, dimensions) float32 unit vectors: the mean direction of each text's windows."""
    pieces = [windows(text) for text in texts]
    rows = embed([window for own in pieces for window in own])
    if not texts:
        return rows
    starts = np.cumsum([0, *map(len, pieces[:-1])])
    sums = np.add.reduceat(rows, starts, axis=0)
    # Windows that point in opposite directions could sum to nothing.
    lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(sums / lengths, np.float32)


def zero_shot(
    labels: Mapping[str, str],
    *,
    temperature: float = TEMPERATURE,
    threshold: float = THRESHOLD,
    embed: Embed | None = None,
) -> TopicModel:
    """A model that compares documents with a description of each label; nothing is trained, so nothing is reported.

    Args:
        labels: Name -> description, in the encoder's language.
        temperature: Lead in cosine that multiplies the odds by e.
        threshold: Below this probability a topic is `unknown`.
        embed: Another encoder than the packaged one.

    Raises:
        RecipeError: Fewer than two labels.
    """
    _check_labels(labels)
    described = (embed or Encoder().embed)(list(labels.values())).astype(np.float64)
    return TopicModel(Linear(tuple(labels), described.T / temperature, np.zeros(len(labels))), threshold)


def train(
    texts: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    ridge: float = linear.RIDGE,
    threshold: float = THRESHOLD,
    embed: Embed | None = None,
) -> TopicModel:
    """A model trained on all texts, with a report of how it does on groups it did not see.

    The report is measured by training anew without each part of the groups. `accuracy`, `recall` per label (None where
    one group holds all of a label: it cannot be tested) and `confusion` (label -> predicted -> documents) take the
    likeliest label; `known` is the share at or above the threshold, `accuracy_known` the accuracy among these.

    Args:
        texts: Documents.
        labels: The topic of each.
        groups: The site or book of each; texts of one are too alike to test each other.
        ridge: As in `linear.fit`.
        threshold: Below this probability a topic is `unknown`.
        embed: Another encoder than the packaged one.

    Raises:
        RecipeError: Fewer than two labels, or not one label and one group a text.
    """
    _check_labels(labels)
    if not len(texts) == len(labels) == len(groups):
        raise RecipeError(
            f"topic: seeds: got {len(texts)} texts, {len(labels)} labels and {len(groups)} groups, "
            "expected the same number of each"
        )
    encode = embed or Encoder().embed
    batches = range(0, len(texts), _BATCH)
    features = np.concatenate([embedded(texts[start : start + _BATCH], encode) for start in batches])
    report = held_out(features, labels, groups, ridge=ridge, threshold=threshold)
    return TopicModel(linear.fit(features, labels, sorted(set(labels)), ridge), threshold, report)


def _check_labels(labels: Sequence[str] | Mapping[str, str]) -> None:
    names = set(labels)
    if len(names) < 2 or UNKNOWN in names:
        raise RecipeError(
            f"topic: labels: got {sorted(names)}, expected at least two, none of them {UNKNOWN!r}",
            hint="name what else the documents may be about",
        )


def held_out(
    features: np.ndarray,
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    ridge: float = linear.RIDGE,
    threshold: float = THRESHOLD,
) -> dict[str, Any]:
    """The report of `train`, from documents already embedded."""
    truth: list[str] = []
    guessed: list[str] = []
    sure: list[bool] = []
    for training, test in linear.folds(labels, groups, _MOST_FOLDS):
        known = [labels[row] for row in training]
        head = linear.fit(features[training], known, sorted(set(known)), ridge)
        probabilities = head.probabilities(features[test])
        truth += [labels[row] for row in test]
        guessed += [head.classes[column] for column in probabilities.argmax(axis=1)]
        sure += (probabilities.max(axis=1) >= threshold).tolist()
    return {"documents": len(labels), "groups": len(set(groups))} | score(sorted(set(labels)), truth, guessed, sure)


def score(names: Sequence[str], truth: Sequence[str], guessed: Sequence[str], sure: Sequence[bool]) -> dict[str, Any]:
    """What the report says of predictions: see `train`. None where nothing was tested."""
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
