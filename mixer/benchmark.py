"""Benchmark items, read from the files that evaluation harnesses use: what must not be trained on.

Rows come in many shapes. Where the caller names no fields, common names are tried in turn; a prompt that holds
everything in one string (`Passage: ... Question: ... A. ... B. ... Answer:`) is taken apart again, because a web page
that shows the question shows it without that frame.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from mixer.asked import Question
from mixer.benchmark_rows import Row, bare_name, read_rows
from mixer.errors import SourceError
from mixer.ngrams import tokens, weights
from mixer.readers.rows import find

VERSION = 1
"""Raise it when the same file would give other items."""
WHOLE_WORDS = 8
"""A shorter text has no room for an edit: all of it is looked for, word for word."""
PARTS = ("question", "item", "passage", "options", "answered")
"""What of an item can be found. `item` is a question that tells nothing by itself, with its choices behind it;
`answered` one without choices, with its answer behind it."""
_LEAST, _LEAST_LISTED, _LEAST_ANSWERED, _LEAST_TELLING = 5, 6, 4, 3
"""Words of the shortest text, list of choices, and question with its answer looked for, and how many of them must tell
something (`mixer.ngrams`)."""
_BETWEEN_CHOICES, _BEFORE_ANSWER = 3, 8
"""Words that may stand before each choice (its mark), and between a question and the end of its answer."""
_ENOUGH, _ENOUGH_TELLING = 50, 16
"""Words, and telling words, that suffice of the longest text."""

_QUESTION: tuple[str, ...] = ("question", "Question", "query", "problem", "Problem", "stem", "question.stem")
_QUESTION += ("ctx", "goal", "prompt", "instruction", "input", "sentence", "text")
_ANSWER: tuple[str, ...] = ("answer", "Answer", "answers.text", "answers", "answerKey", "correct", "gold", "target")
_ANSWER += ("label", "output", "solution", "continuation")
_CHOICES = ("choices.text", "choices", "options", "endings", "question.choices.text", "mc1_targets.choices")
_PASSAGE = ("passage", "context", "article", "story", "paragraph", "support", "background")
_LABEL = re.compile(
    r"^[ \t]*(passage|context|article|question|problem|query|q|choices|options|answer|a)[ \t]*[:：][ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_SECTIONS = {"passage": ("passage", "context", "article"), "choices": ("choices", "options"), "answer": ("answer", "a")}
_LETTERED = re.compile(r"(?:^|(?<=\s))[(（]?([A-J])[.．、)）:：][ \t]*")


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a benchmark.

    Args:
        id: The row's own, else `file#line`.
        benchmark: Name of the file, without its endings.
        question: What is asked; the text itself where a benchmark has no question.
        answer: The right one in words; a letter or number that points at a choice is resolved.
        choices: Without their letters.
        passage: Text that the question is about.
        language: What the row says, or empty.
    """

    id: str
    benchmark: str
    question: str
    answer: str = ""
    choices: tuple[str, ...] = ()
    passage: str = ""
    language: str = ""

    @property
    def whole(self) -> bool:
        """Whether the question is so short that only the whole of it tells anything."""
        return int(weights(_run(self.question))[0].sum()) < 2 * WHOLE_WORDS


@dataclass(frozen=True, slots=True)
class Fields:
    """Where a row holds what: dotted paths, a list fans out. None tries the common names, an empty string nothing."""

    question: str | None = None
    answer: str | None = None
    choices: str | None = None
    passage: str | None = None


COMMON = Fields()


def read_items(path: Path, fields: Fields = COMMON) -> Iterator[Item]:
    """Every item of a benchmark file (`mixer.benchmark_rows`); a row with several questions gives one item each.

    Raises:
        SourceError: The file is missing, damaged or empty, or a row cannot be read or holds no text.
    """
    name = benchmark_name(path)
    for row in read_rows(path):
        yield from _items(row, fields, name)


def benchmark_name(path: Path) -> str:
    """The file's name without its endings.

    Example:
        >>> benchmark_name(Path("eval/gsm8k-test.jsonl.zst"))
        'gsm8k-test'
    """
    return bare_name(path.name)


def _items(found: Row, fields: Fields, name: str) -> Iterator[Item]:
    row, where = found.values, found.place
    questions = _texts(row, fields.question, _QUESTION, where)
    passage = "\n".join(_texts(row, fields.passage, _PASSAGE, where))
    listed = _texts(row, fields.choices, _CHOICES, where) or (_columns(row) if fields.choices is None else [])
    choices = [_bare(choice) for choice in listed]
    answers = _texts(row, fields.answer, _ANSWER, where)
    if not questions and not passage:
        raise SourceError(
            f"{where}: question: got no text in a row with the fields {', '.join(row) or '(none)'}",
            hint="name the fields that hold the question or the passage; the first line of a .csv names its columns",
        )
    own = _id(found, name)
    for place, text in enumerate(questions or [""]):
        item_id = own if len(questions) < 2 else f"{own}#{place}"
        asked, about, offered = _taken_apart(text, passage, choices if len(questions) < 2 else [])
        answer = _answer(answers, offered) if len(questions) < 2 else ""
        yield Item(
            item_id, name, asked, answer, tuple(offered), about, str(row.get("lang") or row.get("language") or "")
        )


def _id(row: Row, name: str) -> str:
    """The row's own id; in a tar behind the name of its file, whose rows may be numbered like those of the next."""
    own = str(row.values.get("id") or "")
    return f"{row.member}#{own or row.line}" if row.member else own or f"{name}#{row.line}"


def _columns(row: Mapping[str, Any]) -> list[str]:
    """Choices that have a column each: A, B, C, ..."""
    letters = list(takewhile(row.__contains__, "ABCDEFGHIJ"))
    return [piece for letter in letters for piece in _pieces(row[letter])] if len(letters) > 1 else []


def _texts(row: Mapping[str, Any], path: str | None, common: Sequence[str], where: str) -> list[str]:
    """The texts at the named path, else under the first common name that holds any."""
    if path and path not in row and path.split(".")[0] not in row:
        raise SourceError(
            f"{where}: {path}: got no such field, expected one of {', '.join(row)}",
            hint="null and empty values are fine, a missing field is taken for a spelling mistake",
        )
    for name in (path,) if path else common if path is None else ():
        values = [piece for value in find(row, name) for piece in _pieces(value)]
        if values:
            return values
    return []


def _pieces(value: Any) -> list[str]:
    """The strings and numbers of a value, which may map letters to choices."""
    if isinstance(value, Mapping):
        return [piece for inner in value.values() if not isinstance(inner, Mapping) for piece in _pieces(inner)]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return []
    return [str(value).strip()] if str(value).strip() else []


def _taken_apart(question: str, passage: str, choices: list[str]) -> tuple[str, str, list[str]]:
    """Question, passage and choices; a prompt in one of them is split, and a lone passage is what is asked."""
    if question:
        sections = _sections(question)
    else:
        sections, passage = _sections(passage), ""
    question = sections["question"]
    passage = "\n".join(text for text in (passage, sections["passage"]) if text)
    if all(len(choice) < 2 for choice in choices):
        listed = [_bare(line) for line in sections["choices"].splitlines() if line.strip()]
        question, found = (question, listed) if listed else _lettered(question)
        choices = found or choices
    return (question, passage, choices) if question else (passage, "", choices)


def _sections(text: str) -> dict[str, str]:
    r"""The text by what its lines are labelled; all of it is the question where it does not begin with a label.

    Example:
        >>> _sections("Question: Why is it so?\nAnswer:")
        {'question': 'Why is it so?', 'passage': '', 'choices': '', 'answer': ''}
    """
    found = {"question": "", "passage": "", "choices": "", "answer": ""}
    if not _LABEL.match(text):
        return found | {"question": text}
    pieces = _LABEL.split(text)
    for label, body in zip(pieces[1::2], pieces[2::2], strict=True):
        section = next((name for name, labels in _SECTIONS.items() if label.lower() in labels), "question")
        found[section] = f"{found[section]}\n{body}".strip()
    return found


def _lettered(text: str) -> tuple[str, list[str]]:
    """What stands before a list `A. ... B. ...`, and the entries of the last such list.

    Example:
        >>> _lettered("Which is a metal? A. gold B. air")
        ('Which is a metal?', ['gold', 'air'])
    """
    marks = list(_LETTERED.finditer(text))
    for first in reversed([i for i, mark in enumerate(marks) if mark[1] == "A"]):
        letters = zip(marks[first:], "ABCDEFGHIJ", strict=False)
        run = [mark for mark, _ in takewhile(lambda pair: pair[0][1] == pair[1], letters)]
        if len(run) > 1:
            ends = [mark.start() for mark in run[1:]] + [len(text)]
            found = [text[mark.end() : end].strip() for mark, end in zip(run, ends, strict=True)]
            return text[: run[0].start()].strip(), found
    return text, []


def _bare(choice: str) -> str:
    """A choice without the letter in front of it; a letter alone stays."""
    mark = _LETTERED.match(choice)
    return choice[mark.end() :].strip() or choice if mark else choice


def _answer(answers: Sequence[str], choices: Sequence[str]) -> str:
    """The right answers in words: a letter or a number from 0 up names a choice where it is not one itself."""
    named = []
    for answer in answers:
        number = ord(answer) - ord("A") if len(answer) == 1 and "A" <= answer <= "J" else -1
        number = int(answer) if answer.isascii() and answer.isdigit() else number
        points = answer not in choices and 0 <= number < len(choices)
        named.append(choices[number] if points else answer)
    return "\n".join(named)


def parts(item: Item) -> dict[str, np.ndarray]:
    """The words of the item that can be looked for, by part; empty where it is too short or says too little."""
    found = {"question": _worth(item.question, _LEAST), "passage": _worth(item.passage, _LEAST)}
    if found["question"] is None and item.choices:
        found["item"] = _worth("\n".join((item.question, *item.choices)), _LEAST)
    if len(item.choices) > 1:
        found["options"] = _worth("\n".join(item.choices), _LEAST_LISTED)
    return {name: run for name, run in found.items() if run is not None}


def questions(item: Item) -> dict[str, Question]:
    """By part: the question that tells too little by itself, with what must follow it."""
    asked, question = _run(item.question), item.question.rstrip()
    if not len(asked) or _worth(item.question, _LEAST) is not None:
        return {}
    if item.choices:
        run = _worth("\n".join((item.question, *item.choices)), _LEAST)
        wanted, room = _run("\n".join(item.choices)), _BETWEEN_CHOICES * len(item.choices)
        spare = 0 if run is None or weights(run)[0].sum() < 2 * WHOLE_WORDS else 2
        found = {} if run is None else {"item": Question(asked, wanted, len(wanted) + room, spare)}
        return found if len(item.choices) > 1 else {}
    # Without a question mark it may be the beginning of a sentence that anybody would end so.
    if not item.answer or question[-1] not in "?？" or _worth(f"{question}\n{item.answer}", _LEAST_ANSWERED) is None:
        return {}
    wanted = _run(item.answer)
    return {"answered": Question(asked, wanted, len(wanted) + _BEFORE_ANSWER, 0)}


def _worth(text: str, least: int) -> np.ndarray | None:
    run = _run(text)
    size, telling = (int(counts.sum()) for counts in weights(run))
    return run if size >= 2 * least and telling >= 2 * _LEAST_TELLING else None


def _run(text: str) -> np.ndarray:
    run = tokens(text)
    return run[run > 0]


def needed(size: np.ndarray, telling: np.ndarray, kind: np.ndarray, ngram: int) -> tuple[np.ndarray, ...]:
    """How much of each part a text must hold, how much that tells, and whether it must be all; in half words.

    `kind` numbers each part in PARTS; of a part that has `ngram` words, as many must be there.
    """
    whole = size < 2 * WHOLE_WORDS
    least = np.maximum(_most_of(telling, _LEAST_TELLING, _ENOUGH_TELLING, kind), 2 * _LEAST_TELLING)
    return np.where(whole, size, _most_of(size, ngram, _ENOUGH, kind)), np.where(whole, telling, least), whole


def _most_of(size: np.ndarray, least: int, enough: int, kind: np.ndarray) -> np.ndarray:
    half = np.minimum(np.maximum(2 * least, (size + 1) // 2), 2 * enough)
    # A choice must not do for its item, however long it is, nor a sentence for its passage.
    of_kind = [kind == PARTS.index("passage"), kind == PARTS.index("item")]
    # One word may always be another.
    return np.asarray(np.minimum(np.select(of_kind, [np.full(len(size), 2 * enough), size], half), size - 2))
