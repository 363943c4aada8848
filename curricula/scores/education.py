"""How much a document teaches, 0 to 5: the grade to expect of a teacher, by a linear head on sentence embeddings.

After FineWeb-Edu (arXiv 2406.17557), which fits a line to a large model's grades and keeps what reaches 3. Here a
probability is learned for each grade, and their mean taken, with the head and the file format that topics have.

Price: where the head is unsure, the value lies near the mean of the teacher's grades, so fewer documents reach a high
grade than the teacher would give it to. English only, as topics.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from curricula.scores import linear
from curricula.scores.linear import Linear
from curricula.scores.topic import TopicModel, embedded
from mixer.embed import Embed, Encoder

VERSION = 1
"""Raise it when the same document and head would give another value."""
_MOST_FOLDS = 10


def train(
    texts: Sequence[str], grades: Sequence[str], groups: Sequence[str], *, embed: Embed | None = None
) -> TopicModel:
    """A model trained on all texts, with a report of how it does on groups it did not see.

    In the report, `error` is the mean distance between value and grade, and `error_average` what it would be if the
    mean grade were said of every text; both None where no group could be held out.

    Args:
        texts: Documents.
        grades: The grade of each, `0` to `5`.
        groups: The site or book of each; texts of one are too alike to test each other.
        embed: Another encoder than the packaged one.
    """
    features = embedded(texts, embed or Encoder().embed)
    return TopicModel(_fit(features, grades), 0.0, held_out(features, grades, groups))


def values(model: TopicModel, texts: Sequence[str], embed: Embed | None = None) -> list[float]:
    """The expected grade of each text, in order; 0.0 of one without any character but space.

    Args:
        model: From `train`.
        texts: Documents, of any length.
        embed: The encoder that the model was trained with, if not the packaged one.
    """
    expected = _expected(model.head, embedded(texts, embed or Encoder().embed)).tolist()
    return [value if text.strip() else 0.0 for text, value in zip(texts, expected, strict=True)]


def held_out(features: np.ndarray, grades: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """The report of `train`, from documents already embedded."""
    truth, said = [np.empty(0)], [np.empty(0)]
    for training, test in linear.folds(grades, groups, _MOST_FOLDS):
        head = _fit(features[training], [grades[row] for row in training])
        said.append(_expected(head, features[test]))
        truth.append(np.array([float(grades[row]) for row in test]))
    asked, found = np.concatenate(truth), np.concatenate(said)
    return {
        "documents": len(grades),
        "groups": len(set(groups)),
        "grades": dict(sorted(Counter(grades).items())),
        "tested": len(asked),
        "error": float(np.abs(found - asked).mean()) if len(asked) else None,
        "error_average": float(np.abs(asked - asked.mean()).mean()) if len(asked) else None,
    }


def _fit(features: np.ndarray, grades: Sequence[str]) -> Linear:
    """`linear.fit` weighs all grades alike; each is made as likely again as it is among these documents.

    Without that, a few documents with a rare grade would draw all values towards it.
    """
    counts = Counter(grades)
    head = linear.fit(features, grades, sorted(counts))
    shares = np.array([counts[grade] for grade in head.classes]) / len(grades)
    return Linear(head.classes, head.weights, head.bias + np.log(shares))


def _expected(head: Linear, features: np.ndarray) -> np.ndarray:
    return np.asarray(head.probabilities(features) @ np.array([float(grade) for grade in head.classes]))
