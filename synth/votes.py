"""Self-consistency: does the model, asked anew, come to the same answer? And does it know it without the page?

Two stages, after self-improving named-entity recognition (Xie et al., NAACL 2024, arXiv 2311.08921), carried over to
question answering: first whether there is an answer at all, then which one. Agreement measures variance, not truth;
that is why it never decides alone.
"""

import asyncio
import math
import re
from collections.abc import Sequence
from typing import Any

from mixer.dedup import words
from mixer.recipe.synth import Sampling
from synth import prompt
from synth.answer import fields, parameters
from synth.candidate import Check, Pair
from synth.facts import equal_answers
from synth.request import Ask, NoAnswerError, Request

NONE = {"en": "not answerable", "zh": "无法回答"}
_MAX_ANSWER = 160
_LONG = 8
_PART = 3
"""Words from which an answer is a statement, and the least that a vote must give of one."""
_FIGURES = re.compile(r"\d+(?:[.,]\d+)*")
_ARTICLES = {"a", "an", "the"}
_LITTLE_WORDS = (
    "is are was were be it its this that of in on at to by for from with as and or about answer 是 为 在 的 了 有 于"
)
_LITTLE = frozenset(_LITTLE_WORDS.split())


async def ask_again(pair: Pair, page: str | None, ask: Ask, *, count: int, sampling: Sampling) -> list[tuple[str, str]]:
    """`count` independent answers to the pair's question, each with its address; "" where there was none.

    Args:
        pair: Its answer is not shown.
        page: Text at hand, or None for answers from memory.
        ask: The model, or the log.
        count: How many.
        sampling: Of the task; votes need a temperature above zero to be independent.
    """
    return await asyncio.gather(*(_vote(pair, page, ask, index, sampling) for index in range(count)))


async def _vote(pair: Pair, page: str | None, ask: Ask, index: int, sampling: Sampling) -> tuple[str, str]:
    name = f"vote.{pair.language}"
    values = {"question": pair.question, "choices": pair.choices, "has_page": page is not None}
    request = Request(
        prompt.messages(name, page=page, values=values),
        prompt.version(name),
        _schema(pair),
        parameters(sampling, max_tokens=64),
        index,
    )
    key = ""
    try:
        response = await ask(request)
        key = response.key
        return str(fields(response, _schema(pair))["answer"]).strip(), key
    except NoAnswerError:
        return "", key


def _schema(pair: Pair) -> dict[str, Any]:
    none = NONE[pair.language]
    if pair.kind == "yes_no":
        options = ["yes", "no"] if pair.language == "en" else ["是", "否"]
        answer: dict[str, Any] = {"type": "string", "enum": [*options, none]}
    elif pair.kind == "numeric":
        answer = {"type": "string", "pattern": rf"^((about )?-?[0-9][0-9.,]*[^\"\\\x00-\x1f]{{0,30}}|{none})$"}
    elif pair.choices:
        answer = {"type": "string", "enum": [*pair.choices, none]}
    else:
        answer = {"type": "string", "maxLength": _MAX_ANSWER}
    return {"type": "object", "properties": {"answer": answer}, "required": ["answer"], "additionalProperties": False}


def same(a: str, b: str, kind: str, question: str = "") -> bool:
    """Whether a vote `a` means the answer `b`: equal, or the same numbers and mostly the same words.

    A vote in a whole sentence means a short answer if, beside it, it says little that the question doesn't say.

    Example:
        >>> same("the cell membrane", "cell membrane", "open"), same("3 m", "4 m", "open")
        (True, False)
        >>> same("The zircon is 2.61 billion years old.", "2.61 billion", "numeric", "How old is the zircon?")
        True
        >>> same("It joins the aorta to the lung's trunk.", "trunk", "open", "What is the ductus arteriosus?")
        False
    """
    if equal_answers(a, b, kind):
        return True
    if kind in {"yes_no", "multiple_choice"}:
        return False
    left, right = _words(a), _words(b)
    common = len(left & right)
    if len(right) > _LONG:
        # A statement is met by an answer that says part of it, in its words and with none of its own numbers.
        is_part = set(_FIGURES.findall(a)) <= set(_FIGURES.findall(b))
        return is_part and len(left) >= _PART and common >= 0.7 * len(left)
    if not right or set(_FIGURES.findall(a)) != set(_FIGURES.findall(b)):
        return False
    beside = left - right - _words(question) - _LITTLE
    says_more = len(beside) > max(1, len(right) - 1)
    return (common == len(right) and not says_more) or 2 * common / (len(left) + len(right)) >= 0.6


def _words(text: str) -> set[str]:
    return set(words(text)) - _ARTICLES


def is_none(answer: str) -> bool:
    """Whether a vote says that there is no answer."""
    lower = answer.strip().lower().rstrip(".。")
    return lower in {"", "unanswerable", "not in page", "unknown"} or any(none in lower for none in NONE.values())


def agreement(pair: Pair, votes: Sequence[str], agree: int) -> Check:
    """The check `votes`: an answer exists for at least half, and enough give the pair's own answer.

    Of a yes/no question all votes must agree: by guessing alone, four of five do in 37.5% of cases.
    """
    answered = [vote for vote in votes if not is_none(vote)]
    alike = sum(same(vote, pair.answer, pair.kind, pair.question) for vote in answered)
    needed = len(votes) if pair.kind == "yes_no" else min(agree, len(votes))
    score = alike / len(votes) if votes else 0.0
    if len(answered) < math.ceil(len(votes) / 2):
        return Check("votes", passed=False, score=score, detail=f"{len(answered)} of {len(votes)} found an answer")
    detail = f"{alike} of {len(votes)} give the same answer"
    return Check("votes", passed=alike >= needed, score=score, detail=detail)


def novelty(pair: Pair, closed: Sequence[str], agree: int) -> Check:
    """The check `novel`: the model doesn't give this answer without the page, `agree` times over."""
    alike = sum(same(vote, pair.answer, pair.kind, pair.question) for vote in closed if not is_none(vote))
    score = 1 - alike / len(closed) if closed else 1.0
    detail = f"{alike} of {len(closed)} know it without the page"
    return Check("novel", passed=alike < min(agree, max(1, len(closed))), score=score, detail=detail)
