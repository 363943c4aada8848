"""What a document is about: a linear head on sentence embeddings, offline, no language model asked.

The head learns from labelled documents, or stands on a description of each label where there are none. Llama-3-SynE
(arXiv 2407.18743) has a large model label some web pages and a small one learn from them: `train` with those labels.

Price: the packaged encoder reads English only, and a document is judged by a few windows, not in full.
"""

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
"""Probability that a label needs; of nine labels, nine in ten pages of unseen sites reach it (benchmarks/topic.py)."""
TEMPERATURE = 0.05
"""Cosines to descriptions lie close together; a lead of one temperature multiplies the odds by e."""
RIDGES = (1.0, 0.03, 0.001)
"""What `train` tries: seeds of few sites must be held close to the descriptions, those of many may speak freely."""
VERSION = 2
"""Raise it when the same document and head, or the same descriptions, would give another topic."""
_WINDOWS = 4
_WINDOW_CHARS = 1000
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
        return list(map(self._topic, texts, self.head.probabilities(embedded(texts, embed or Encoder().embed))))

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
    batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
    return np.concatenate([_embedded(batch, embed) for batch in batches]) if batches else embed([])


def _embedded(texts: Sequence[str], embed: Embed) -> np.ndarray:
    pieces = [windows(text) for text in texts]
    rows = embed([window for own in pieces for window in own])
    starts = np.cumsum([0, *map(len, pieces[:-1])])
    return _unit(np.add.reduceat(rows, starts, axis=0)).astype(np.float32)


def zero_shot(
    labels: Mapping[str, str],
    *,
    temperature: float = TEMPERATURE,
    threshold: float = THRESHOLD,
    embed: Embed | None = None,
) -> TopicModel:
    """A model that compares documents with a description of each label; nothing is trained, so nothing is reported.

    A label lies midway between its name and description as a whole and the phrases that commas part the latter into:
    pages of sites not seen are named better so than by either alone (benchmarks/topic.py).

    Args:
        labels: Name -> description, in the encoder's language: its fields, as in `disciplines.FIELDS`.
        temperature: Lead in cosine that multiplies the odds by e.
        threshold: Below this probability a topic is `unknown`.
        embed: Another encoder than the packaged one.

    Raises:
        RecipeError: Fewer than two labels.
    """
    _check_labels(labels)
    encode = embed or Encoder().embed
    described = np.stack([_described(name, description, encode) for name, description in labels.items()])
    return TopicModel(Linear(tuple(labels), described.T / temperature, np.zeros(len(labels))), threshold)


def _described(name: str, description: str, embed: Embed) -> np.ndarray:
    phrases = [phrase.strip() for phrase in description.split(",") if phrase.strip()]
    rows = embed([f"{name}: {description}", *phrases]).astype(np.float64)
    return _unit(rows[0] + _unit(rows[1:].sum(axis=0)))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; what points nowhere, as opposite directions in sum do, stays as it is."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.finfo(np.float32).tiny))


def train(
    texts: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    descriptions: Mapping[str, str] | None = None,
    ridge: float | None = None,
    threshold: float = THRESHOLD,
    embed: Embed | None = None,
) -> TopicModel:
    """A model trained on all texts, with a report of how it does on groups it did not see: see `linear.held_out`.

    Texts of one site are alike in more than their topic, so seeds of one or two sites a label teach the site. With
    descriptions the weights are held near those of `zero_shot`, and only as far away as helps on other sites.

    Args:
        texts: Documents, the seeds.
        labels: The topic of each; the model knows these and no others.
        groups: The site or book of each; texts of one are too alike to test each other.
        descriptions: As in `zero_shot`, of each label at least.
        ridge: As in `linear.fit`. None takes the one of RIDGES with the best accuracy on held-out groups, which makes
            the report a little too good: it holds the accuracy with each.
        threshold: Below this probability a topic is `unknown`.
        embed: Another encoder than the packaged one.

    Raises:
        RecipeError: Fewer than two labels, not one label and one group a text, or a label without a description.
    """
    _check_labels(labels)
    _check_seeds(texts, labels, groups, descriptions)
    encode = embed or Encoder().embed
    features = embedded(texts, encode)
    prior = zero_shot(descriptions, embed=encode).head if descriptions else None
    return fitted(features, labels, groups, prior, ridges=RIDGES if ridge is None else (ridge,), threshold=threshold)


def fitted(
    features: np.ndarray,
    labels: Sequence[str],
    groups: Sequence[str],
    prior: Linear | None,
    *,
    ridges: Sequence[float] = RIDGES,
    threshold: float = THRESHOLD,
) -> TopicModel:
    """What `train` gives, from documents already embedded."""
    reports = {one: linear.held_out(features, labels, groups, one, prior, threshold) for one in ridges}
    best = max(reports, key=lambda one: reports[one]["accuracy"] or 0.0)
    report = reports[best] | {"ridge": best, "by_ridge": {str(one): r["accuracy"] for one, r in reports.items()}}
    return TopicModel(linear.fit(features, labels, sorted(set(labels)), best, prior), threshold, report)


def _check_seeds(
    texts: Sequence[str], labels: Sequence[str], groups: Sequence[str], descriptions: Mapping[str, str] | None
) -> None:
    if not len(texts) == len(labels) == len(groups):
        raise RecipeError(
            f"topic: seeds: got {len(texts)} texts, {len(labels)} labels and {len(groups)} groups, "
            "expected the same number of each"
        )
    if descriptions and (lacking := sorted(set(labels) - set(descriptions))):
        raise RecipeError(f"topic: descriptions: got none of {', '.join(lacking)}, expected one of each label")


def _check_labels(labels: Sequence[str] | Mapping[str, str]) -> None:
    names = set(labels)
    if len(names) < 2 or UNKNOWN in names:
        raise RecipeError(
            f"topic: labels: got {sorted(names)}, expected at least two, none of them {UNKNOWN!r}",
            hint="name what else the documents may be about",
        )
