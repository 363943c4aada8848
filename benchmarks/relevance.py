"""Fits the weights of synth/relevance.py and says what they catch on articles that were not fitted on.

    .venv/bin/python benchmarks/relevance.py ../shared/data

Gold: the pairs of XQuAD, English and Chinese. Wrong: the same question with the answer of each other question about
the same paragraph, unless one answer holds the other. Every second article, by title, is fitted on; the figures are
for the other half. CMRC 2018 is never fitted on. Takes five minutes on two busy cores.
"""

import io
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard

from mixer.dedup import words
from mixer.embed import Embed, Encoder
from synth.candidate import Pair
from synth.relevance import THRESHOLDS, WEIGHTS, signals

Case = tuple[str, str, Pair, bool]
"""Title, page, pair, whether the answer is the question's own."""
LEXICAL = ("cover", "near", "peak", "repeated", "type")
ENCODER = ("cosine", "joint")
AGAINST = ("repeated",)
"""Signals that speak against a pair; all others speak for it."""
PENALTY = 30.0
"""Keeps two signals that say nearly the same, such as cosine and joint, from taking opposite signs."""


def rows(path: Path) -> list[dict]:
    with zstandard.open(path, "rb") as file:
        return [json.loads(line) for line in io.TextIOWrapper(file, "utf-8")]


def xquad(path: Path) -> dict[tuple[str, str], list[tuple[str, str]]]:
    pages = defaultdict(list)
    for row in rows(path):
        pages[row["title"], row["context"]].append((row["question"], row["answer"]))
    return pages


def cmrc(path: Path) -> dict[tuple[str, str], list[tuple[str, str]]]:
    return {(row["title"], row["text"]): [(q["question"], q["answers"][0]) for q in row["qas"]] for row in rows(path)}


def joined(pages: dict[tuple[str, str], list]) -> dict[tuple[str, str], list]:
    """All paragraphs of an article as one page, as it would be met on the web; questions stay with it."""
    articles = defaultdict(list)
    for (title, page), pairs in pages.items():
        articles[title].append((page, pairs))
    return {
        (title, "\n".join(page for page, _ in parts)): [pair for _, pairs in parts for pair in pairs]
        for title, parts in articles.items()
    }


def cases(pages: dict[tuple[str, str], list[tuple[str, str]]], language: str) -> Iterator[Case]:
    for (title, page), pairs in pages.items():
        for question, answer in pairs:
            yield title, page, Pair(question, answer, language=language), True
            own = " ".join(words(answer))
            for _, other in dict.fromkeys(pairs):
                text = " ".join(words(other))
                if text not in own and own not in text:
                    yield title, page, Pair(question, other, language=language), False


def table(found: list[Case], names: tuple[str, ...], embed: Embed | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signals, truth and article of every case that can be placed on its page."""
    if embed:
        # In large batches now; one pair at a time costs ten times as much.
        embed([text for _, _, pair, _ in found for text in (pair.question, f"{pair.question} {pair.answer}")])
    seen = [(signals(pair, page, embed), truth, title) for title, page, pair, truth in found]
    kept = [row for row in seen if row[0]]
    print(f"    {len(seen) - len(kept)} of {len(seen)} answers are not on the page as words; {len(kept)} counted")
    values = np.array([[row[0][name] for name in names] for row in kept])
    return values, np.array([row[1] for row in kept]), np.array([row[2] for row in kept])


def fit(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Bias and weights of a logistic regression by Newton's method; gold and wrong weigh the same in sum."""
    middle, spread = values.mean(axis=0), values.std(axis=0)
    rows = np.c_[np.ones(len(values)), (values - middle) / spread]
    share = np.where(truth, 0.5 / truth.mean(), 0.5 / (~truth).mean())
    penalty = np.diag([0.0] + [PENALTY] * values.shape[1])
    weights = np.zeros(rows.shape[1])
    for _ in range(30):
        guess = 1 / (1 + np.exp(-rows @ weights))
        slope = rows.T @ (share * (guess - truth)) + penalty @ weights
        bend = (rows * (share * guess * (1 - guess))[:, None]).T @ rows + penalty
        weights -= np.linalg.solve(bend, slope)
    own = weights[1:] / spread
    return np.r_[weights[0] - own @ middle, own]


def rejected(score: np.ndarray, truth: np.ndarray, keep: float) -> float:
    """Share of wrong pairs below the score that keeps this share of gold ones."""
    return float((score[~truth] < np.quantile(score[truth], 1 - keep)).mean())


def report(name: str, score: np.ndarray, truth: np.ndarray) -> None:
    caught = [rejected(score, truth, keep) for keep in (0.9, 0.95)]
    print(f"    {name:16} wrong rejected at 90% gold kept {caught[0]:.2f}, at 95% {caught[1]:.2f}")


def at_threshold(name: str, found: list[Case], key: str, names: tuple[str, ...], embed: Embed | None) -> None:
    """What the shipped weights do as they stand."""
    print(f"  {name}, weights `{key}` as shipped")
    values, truth, _ = table(found, names, embed)
    score = 1 / (1 + np.exp(-WEIGHTS[key]["bias"] - values @ [WEIGHTS[key][n] for n in names]))
    passed = score >= THRESHOLDS[key]
    print(f"    at its threshold: gold kept {passed[truth].mean():.2f}, wrong rejected {(~passed)[~truth].mean():.2f}")
    report("combined", score, truth)


def fitted(key: str, found: list[Case], names: tuple[str, ...], embed: Embed | None) -> None:
    print(f"  {key}: fitted on half of the articles, measured on the others")
    values, truth, title = table(found, names, embed)
    half = np.isin(title, sorted(set(title))[::2])
    weights = fit(values[half], truth[half])
    score = 1 / (1 + np.exp(-weights[0] - values @ weights[1:]))
    for number, name in enumerate(names):
        report(name, values[~half, number] * (-1 if name in AGAINST else 1), truth[~half])
    report("combined", score[~half], truth[~half])
    shipped = {"bias": weights[0], **dict(zip(names, weights[1:], strict=True))}
    print("    weights", {name: round(float(value), 3) for name, value in shipped.items()})
    print(f"    threshold for 90% of the gold fitted on: {np.quantile(score[half & truth], 0.1):.3f}")


def main() -> None:
    data = Path(sys.argv[1])
    english, chinese = (xquad(data / "qa_gold" / f"xquad-{code}-a.jsonl.zst") for code in ("en", "zh"))
    encoder = Encoder().embed
    unseen = dict(sorted(joined(english).items())[1::2])
    fitted("en", list(cases(english, "en")), LEXICAL, None)
    fitted("en+encoder", list(cases(english, "en")), LEXICAL + ENCODER, encoder)
    fitted("zh", list(cases(chinese, "zh")), LEXICAL, None)
    at_threshold(
        "CMRC 2018", list(cases(cmrc(data / "chinese" / "cmrc2018-wikipedia.jsonl.zst"), "zh")), "zh", LEXICAL, None
    )
    at_threshold("held-out articles whole", list(cases(unseen, "en")), "en", LEXICAL, None)


if __name__ == "__main__":
    main()
