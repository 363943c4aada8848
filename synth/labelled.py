"""Pairs known to be right or wrong, to measure checks with: gold pairs, and what named corruptions make of them.

Corruptions: `other_page` (the right pair, another page), `other_answer` (the answer of another question about the same
page), `changed_number`, `negated` (a sentence of the answer, or the yes or no, turned round), `truncated`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixer.errors import SourceError
from mixer.run import digest
from synth.candidate import Pair
from synth.windows import sentences

GOLD = "gold"
CORRUPTIONS = ("other_page", "other_answer", "changed_number", "negated", "truncated")
_NUMBER = re.compile(r"\d+")
_BE = re.compile(r"\b(is|are|was|were|can|does|do|did|has|have|will)\b")
_OPPOSITE = {"yes": "no", "no": "yes", "是": "否", "否": "是"}
_KINDS = {"open", "multiple_choice", "yes_no", "numeric", "comparison"}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A pair beside a page, and what is known of it.

    Args:
        page: The page's text.
        pair: The question and answer.
        label: `gold`, or the name of the corruption that made it wrong.
        group: Pages of one article, which must not serve as one another's wrong page.
        discipline: For the report.
    """

    page: str
    pair: Pair
    label: str
    group: str
    discipline: str


def read(path: Path) -> list[Labelled]:
    """Rows of a jsonl file: `page`, `question`, `answer`, and optionally `kind`, `language`, `evidence`, `choices`,
    `group`, `discipline` and `label`; a file in which no row has a label holds gold pairs, which are then corrupted.

    Raises:
        SourceError: The file is not there, or a row is not of that form.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file", hint="name a jsonl file of pairs with their pages")
    found = [_row(line, path, number) for number, line in enumerate(path.read_text("utf-8").splitlines(), 1) if line]
    if not found:
        raise SourceError(f"{path}: got no pairs, expected some", hint="one JSON object a line")
    return found if any(each.label != GOLD for each in found) else [*found, *corrupted(found)]


def _row(line: str, path: Path, number: int) -> Labelled:
    try:
        row: Mapping[str, Any] = json.loads(line)
        page, question, answer = (str(row[key]) for key in ("page", "question", "answer"))
        kind, language = row.get("kind", "open"), row.get("language", "en")
        if kind not in _KINDS or language not in {"en", "zh"}:
            raise ValueError(f"kind {kind!r}, language {language!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{path}:{number}: got {error}, expected an object with page, question, answer",
            hint="see docs/synthesis.md",
        ) from error
    evidence = tuple(row.get("evidence") or _around(page, answer))
    pair = Pair(question, answer, kind, language, evidence, tuple(row.get("choices") or ()))
    group = str(row.get("group", digest(page)))
    return Labelled(page, pair, str(row.get("label", GOLD)), group, str(row.get("discipline", language)))


def _around(page: str, answer: str) -> list[str]:
    """The sentence of the page that holds the answer."""
    at = page.find(answer)
    return [page[s.start : s.end] for s in sentences(page) if at >= 0 and s.start <= at < s.end][:1]


def corrupted(gold: Sequence[Labelled]) -> Iterator[Labelled]:
    """What each corruption makes of each pair that it fits, in a choice by hash."""
    by_page: dict[str, list[Labelled]] = defaultdict(list)
    for each in gold:
        by_page[each.page].append(each)
    for each in gold:
        key = digest([each.page, each.pair.question])
        for name, made in (
            ("other_page", _other_page(each, gold, key)),
            ("other_answer", _other_answer(each, by_page[each.page], key)),
            ("changed_number", _changed_number(each, key)),
            ("negated", _negated(each)),
            ("truncated", _truncated(each)),
        ):
            if made is not None:
                yield replace(made, label=name)


def _other_page(each: Labelled, gold: Sequence[Labelled], key: str) -> Labelled | None:
    """The pair with a page of another article in the same language; its evidence stays as claimed."""
    start = int(key[:8], 16)
    for step in range(len(gold)):
        other = gold[(start + step) % len(gold)]
        if other.group != each.group and other.pair.language == each.pair.language:
            return replace(each, page=other.page)
    return None


def _other_answer(each: Labelled, same_page: Sequence[Labelled], key: str) -> Labelled | None:
    mine = each.pair.answer.lower()
    others = [
        other.pair
        for other in same_page
        if other.pair.answer.lower() not in mine and mine not in other.pair.answer.lower()
    ]
    if not others or each.pair.kind == "yes_no":
        return None
    wrong = others[int(key[8:16], 16) % len(others)]
    return replace(each, pair=replace(each.pair, answer=wrong.answer, evidence=wrong.evidence))


def _changed_number(each: Labelled, key: str) -> Labelled | None:
    match = _NUMBER.search(each.pair.answer)
    if match is None:
        return None
    width, old = len(match[0]), int(match[0])
    least, size = (10 ** (width - 1), 9 * 10 ** (width - 1)) if width > 1 else (0, 10)
    new = least + (old - least + 1 + int(key[16:24], 16) % (size - 1)) % size
    answer = each.pair.answer[: match.start()] + str(new) + each.pair.answer[match.end() :]
    return replace(each, pair=replace(each.pair, answer=answer))


def _negated(each: Labelled) -> Labelled | None:
    answer = each.pair.answer
    if answer.lower() in _OPPOSITE:
        return replace(each, pair=replace(each.pair, answer=_OPPOSITE[answer.lower()]))
    match = _BE.search(answer)
    if match is None or len(answer.split()) < 5:
        return None
    return replace(each, pair=replace(each.pair, answer=f"{answer[: match.end()]} not{answer[match.end() :]}"))


def _truncated(each: Labelled) -> Labelled | None:
    words = each.pair.answer.split()
    if len(words) < 4:
        return None
    return replace(each, pair=replace(each.pair, answer=" ".join(words[: len(words) // 2])))
