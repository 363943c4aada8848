"""What a document is about: a linear head on sentence embeddings, offline, no language model asked.

The head learns from labelled documents, or stands on a description of each label where there are none. Llama-3-SynE
(arXiv 2407.18743) has a large model label some web pages and a small one learn from them: `train` with those labels.
Where the site of each document is told, what the others of its site are about counts too: see `linear.by_group`.

Price: the packaged encoder reads English only, and a document is judged by a few windows, not in full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curricula.scores import linear
from curricula.scores.linear import Linear
from curricula.scores.phrases import Phrases, pooled, unit
from curricula.scores.phrases import load as load_phrases
from mixer.embed import Embed, Encoder
from mixer.errors import RecipeError, SourceError
from mixer.run import digest, read_json, staged, write_json

UNKNOWN = "unknown"
THRESHOLD = 0.3
"""Probability that a label needs; of nine labels, 19 in 20 pages of unseen sites reach it (benchmarks/topic.py)."""
TEMPERATURE = 0.05
"""Cosines to descriptions lie close together; a lead of one temperature multiplies the odds by e."""
RIDGES = (1.0, 0.03, 0.001)
"""What `train` tries: seeds of few sites must be held close to the descriptions, those of many may speak freely."""
VERSION = 3
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
        head: The classifier on `pooled` documents.
        threshold: Below this probability a document's topic is `unknown`.
        report: How it did on groups held out of training; see `train`.
        phrases: Those of the descriptions, if it stands on some.
    """

    head: Linear
    threshold: float = THRESHOLD
    report: Mapping[str, Any] = field(default_factory=dict)
    phrases: Phrases | None = None

    def predict(
        self, texts: Sequence[str], embed: Embed | None = None, sites: Sequence[str] | None = None
    ) -> list[Topic]:
        """The topic of each text, in order; a text without any character but space is `unknown` with 0.0.

        Args:
            texts: Documents, of any length.
            embed: The encoder that the model was trained with, if not the packaged one.
            sites: The site or book of each text. Then texts of one site lend each other what they are about, as far
                as they agree; a text whose site has no other here is judged alone.
        """
        probabilities = self.head.probabilities(embedded(texts, embed or Encoder().embed, self.phrases))
        if sites is not None:
            probabilities = linear.by_group(probabilities, sites)
        return list(map(self._topic, texts, probabilities))

    def _topic(self, text: str, probabilities: np.ndarray) -> Topic:
        if not text.strip():
            return Topic(UNKNOWN, 0.0)
        best = int(probabilities.argmax())
        probability = float(probabilities[best])
        return Topic(self.head.classes[best] if probability >= self.threshold else UNKNOWN, probability)

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides a prediction, the encoder's own weights left out."""
        phrases = self.phrases.fingerprint if self.phrases else None
        return digest([VERSION, self.head.fingerprint, self.threshold, phrases])

    def save(self, folder: Path) -> None:
        """Write `head.npz`, `phrases.npz` if there are any, `topic.json`; an older folder of that name is replaced."""
        told = {"version": VERSION, "threshold": self.threshold, "report": dict(self.report)}
        with staged(folder) as scratch:
            self.head.save(scratch / "head.npz")
            if self.phrases:
                self.phrases.save(scratch / "phrases.npz")
            write_json(scratch / "topic.json", told | {"phrases": self.phrases is not None})


def load(folder: Path) -> TopicModel:
    """The model that `TopicModel.save` wrote.

    Raises:
        SourceError: Not there, damaged, or of another version.
    """
    head = linear.load(folder / "head.npz")
    try:
        stored = read_json(folder / "topic.json") or {}
    except ValueError as error:
        told = f"{folder / 'topic.json'}: got damaged JSON, expected a topic model"
        raise SourceError(told, hint="train the topic model again") from error
    if stored.get("version") != VERSION:
        raise SourceError(
            f"{folder}: got a topic model of version {stored.get('version')}, expected {VERSION}",
            hint="train the topic model again",
        )
    phrases = load_phrases(folder / "phrases.npz") if stored["phrases"] else None
    return TopicModel(head, float(stored["threshold"]), stored["report"], phrases)


def windows(text: str) -> list[str]:
    """Up to four windows of a thousand characters, spread from the beginning to the end of the text.

    Example:
        >>> [len(window) for window in windows("x" * 1500)]
        [1000, 1000]
    """
    count = min(_WINDOWS, max(1, -(-len(text) // _WINDOW_CHARS)))
    starts = np.linspace(0, max(0, len(text) - _WINDOW_CHARS), count).astype(int).tolist()
    return [text[start : start + _WINDOW_CHARS] for start in starts]


def embedded(texts: Sequence[str], embed: Embed, phrases: Phrases | None = None) -> np.ndarray:
    """`pooled` windows of each text."""
    batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)] or [[]]
    return np.concatenate([_embedded(batch, embed, phrases) for batch in batches])


def _embedded(texts: Sequence[str], embed: Embed, phrases: Phrases | None) -> np.ndarray:
    pieces = [windows(text) for text in texts]
    return pooled(embed([window for own in pieces for window in own]), list(map(len, pieces)), phrases)


def zero_shot(
    labels: Mapping[str, str],
    *,
    temperature: float = TEMPERATURE,
    threshold: float = THRESHOLD,
    embed: Embed | None = None,
) -> TopicModel:
    """A model that compares documents with a description of each label; nothing is trained, so nothing is reported.

    A label's score is the mean of two cosines: of the document with a point midway between the description as a whole
    and the phrases that commas part it into, and of each window with the nearest phrase, since a page is about one
    field of its discipline, not about all (benchmarks/topic.py). A label with many phrases draws more: give each about
    as many.

    Args:
        labels: Name -> description, in the encoder's language: its fields, as in `disciplines.FIELDS`.
        temperature: Lead in score that multiplies the odds by e.
        threshold: Below this probability a topic is `unknown`.
        embed: Another encoder than the packaged one.

    Raises:
        RecipeError: Fewer than two labels.
    """
    _check_labels(labels)
    encode = embed or Encoder().embed
    parts = [_parts(*item) for item in labels.items()]
    wholes = encode([f"{name}: {description}" for name, description in labels.items()])
    vectors = encode([phrase for own in parts for phrase in own])
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    middles = unit(wholes + unit(np.add.reduceat(vectors, starts, axis=0, dtype=np.float64)))
    weights = np.concatenate([middles.T, np.eye(len(labels))]) / (2 * temperature)
    return TopicModel(
        Linear(tuple(labels), weights, np.zeros(len(labels))), threshold, phrases=Phrases(vectors, starts)
    )


def _parts(name: str, description: str) -> list[str]:
    return [phrase.strip() for phrase in description.split(",") if phrase.strip()] or [name]


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
    prior = zero_shot(descriptions, embed=encode) if descriptions else None
    features = embedded(texts, encode, prior.phrases if prior else None)
    return fitted(features, labels, groups, prior, ridges=RIDGES if ridge is None else (ridge,), threshold=threshold)


def fitted(
    features: np.ndarray,
    labels: Sequence[str],
    groups: Sequence[str],
    prior: TopicModel | None,
    *,
    ridges: Sequence[float] = RIDGES,
    threshold: float = THRESHOLD,
) -> TopicModel:
    """What `train` gives, from documents already `pooled` with the phrases of the prior."""
    near = prior.head if prior else None
    reports = {one: linear.held_out(features, labels, groups, one, near, threshold) for one in ridges}
    best = max(reports, key=lambda one: reports[one]["accuracy"] or 0.0)
    report = reports[best] | {"ridge": best, "by_ridge": {str(one): r["accuracy"] for one, r in reports.items()}}
    head = linear.fit(features, labels, sorted(set(labels)), best, near)
    return TopicModel(head, threshold, report, prior.phrases if prior else None)


def _check_seeds(
    texts: Sequence[str], labels: Sequence[str], groups: Sequence[str], descriptions: Mapping[str, str] | None
) -> None:
    if not len(texts) == len(labels) == len(groups):
        raise RecipeError(
            f"topic: seeds: got {len(texts)} texts, {len(labels)} labels and {len(groups)} groups, "
            "expected the same number of each",
            hint="give each seed its label and its group",
        )
    if descriptions and (lacking := sorted(set(labels) - set(descriptions))):
        told = f"topic: descriptions: got none of {', '.join(lacking)}, expected one of each label"
        raise RecipeError(told, hint="describe each label, or none")


def _check_labels(labels: Sequence[str] | Mapping[str, str]) -> None:
    names = set(labels)
    if len(names) < 2 or UNKNOWN in names:
        raise RecipeError(
            f"topic: labels: got {sorted(names)}, expected at least two, none of them {UNKNOWN!r}",
            hint="name what else the documents may be about",
        )
