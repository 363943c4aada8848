"""The task `science_qa`: questions and answers from a page, each with its evidence, each verified before it counts.

The model never picks what to ask about by itself: a passage is chosen by hash. With `answers: extractive` the answer is
chosen too and the model only asks for it, which a small model can do; with `free` it copies the words that hold an
answer, states the answer, and asks for it last.
"""

import asyncio
import re
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any

from mixer.recipe_synth import ScienceQa
from mixer.run import digest
from synth import disciplines, extractive, prompt
from synth.answer import fields, parameters
from synth.candidate import Candidate, Pair, QuestionType, SeedPage
from synth.request import Ask, NoAnswerError, Request
from synth.verify import verify
from synth.windows import Window, choose, is_statement, passages, windows

_DIGIT = re.compile(r"[0-9]|[一二三四五六七八九十百千万亿]")
_COMPARES = re.compile(
    r"\b(than|more|less|most|least|unlike|whereas|both|higher|lower|larger|smaller)\b|比|更|最|相比", re.I
)
_WANTED: dict[str, dict[QuestionType, tuple[str, str]]] = {
    "en": {
        "open": ("one question", "a few words copied from the passage"),
        "numeric": ("one question that asks for a number", "the number with its unit, as in the passage"),
        "yes_no": ("one question that is answered by yes or no", "`yes` or `no`"),
        "multiple_choice": ("one question with one right answer", "the right answer in a few words of the passage"),
        "comparison": ("one question that compares two things in the passage", "a few words copied from the passage"),
    },
    "zh": {
        "open": ("一道问答题", "照抄这段话中的几个字"),
        "numeric": ("一道答案是数字的题", "这段话中的数字和单位"),
        "yes_no": ("一道用“是”或“否”回答的题", "“是”或“否”"),
        "multiple_choice": ("一道只有一个正确答案的题", "正确答案,用这段话中的几个字"),
        "comparison": ("一道比较这段话中两个事物的题", "照抄这段话中的几个字"),
    },
}


async def write_pairs(
    page: SeedPage, ask: Ask, task: ScienceQa, *, seed: int, demonstrations: Sequence[Pair] = ()
) -> list[Candidate]:
    """Every candidate that the model writes from a page, verified; an empty list where the page holds no passage.

    The first question of a window is asked alone, so that the engine has read the page before the others come.
    """
    language = page.language if page.language in _WANTED else "en"
    parts = list(enumerate(_anchors(page, task, seed)))
    found: list[Candidate] = []
    for window in dict.fromkeys(part[0] for _, part in parts):

        def write(number: int, anchor: Window, kind: QuestionType, window: Window = window) -> Awaitable[Candidate]:
            return _write(page, window, anchor, kind, number, ask, task, language, demonstrations)

        first, *rest = [(number, anchor, kind) for number, (part, anchor, kind) in parts if part == window]
        found.append(await write(*first))
        found += await asyncio.gather(*(write(*each) for each in rest))
    return found


def _anchors(page: SeedPage, task: ScienceQa, seed: int) -> list[tuple[Window, Window, QuestionType]]:
    """Window, passage and question type of each question: passages by hash, types in turn where they fit."""
    parts = [
        (window, passage) for window in windows(page.text, task.window_chars) for passage in passages(page.text, window)
    ]
    window_of = {passage: window for window, passage in parts}
    # A sentence that says what something is can be asked about by any model; others fill up.
    told = [passage for _, passage in parts if is_statement(page.text[passage.start : passage.end])]
    chosen = choose(told, task.pairs_per_page, seed, page.source, page.id)
    others = [passage for _, passage in parts if passage not in set(chosen)]
    chosen += choose(others, task.pairs_per_page - len(chosen), seed, page.source, page.id)
    first = int(digest([seed, page.source, page.id])[:8], 16)
    return [
        (window_of[anchor], anchor, _fitting(page.text[anchor.start : anchor.end], task.question_types, first + number))
        for number, anchor in enumerate(chosen)
    ]


def _fitting(passage: str, kinds: Sequence[QuestionType], turn: int) -> QuestionType:
    """The type whose turn it is, or the next that the passage allows."""
    for step in range(len(kinds)):
        kind = kinds[(turn + step) % len(kinds)]
        if kind == "numeric" and not _DIGIT.search(passage):
            continue
        if kind == "comparison" and not _COMPARES.search(passage):
            continue
        return kind
    return kinds[turn % len(kinds)]


async def _write(
    page: SeedPage,
    window: Window,
    anchor: Window,
    kind: QuestionType,
    number: int,
    ask: Ask,
    task: ScienceQa,
    language: str,
    demonstrations: Sequence[Pair],
) -> Candidate:
    shown, passage = page.text[window.start : window.end], page.text[anchor.start : anchor.end]
    if task.grounding == "page" and task.answers == "extractive":
        draft = extractive.draft(shown, passage, kind, language, page.source, page.id, number)
        prepared = extractive.request(draft, page.discipline, demonstrations)
    else:
        draft = None
        prepared = _free_request(page, passage, kind, language, task, demonstrations)
    name, values, schema = prepared
    messages = prompt.messages(name, page=shown if task.grounding == "page" else None, values=values)
    request = Request(messages, prompt.version(name), schema, parameters(task.sampling))
    candidate = Candidate(f"{page.id}#{number}", page, window.start, window.end, prompt.version(name))
    try:
        response = await ask(request)
        candidate = replace(candidate, keys=(response.key,))
        found = fields(response, schema)
    except NoAnswerError as error:
        return replace(candidate, reason=f"generation: {error}")
    pair = replace(draft, question=found["question"].strip()) if draft else _pair(found, kind, language)
    known = [*prompt.leaks(name), *(demonstration.question for demonstration in demonstrations)]
    return await verify(replace(candidate, pair=pair), shown, ask, task, known=known)


def _free_request(
    page: SeedPage, passage: str, kind: QuestionType, language: str, task: ScienceQa, demonstrations: Sequence[Pair]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Prompt, values and schema where the model itself states evidence and answer."""
    grounded = task.grounding == "page"
    wanted, answer = _WANTED[language][kind]
    values = {
        "discipline": disciplines.shown(page.discipline, language),
        "passage": passage,
        "wanted": wanted,
        "answer": answer,
        "choices": kind == "multiple_choice",
        "demonstrations": demonstrations,
    }
    name = f"{'science_qa' if grounded else 'inspiration'}.{language}"
    return name, values, schema_of(kind, language, grounded=grounded)


def schema_of(kind: QuestionType, language: str, *, grounded: bool) -> dict[str, Any]:
    """The JSON Schema of one question; its order is the order in which the model must think."""
    text = {"type": "string", "minLength": 1}
    answer: dict[str, Any] = {**text, "maxLength": 240}
    if kind == "yes_no":
        answer = {"type": "string", "enum": ["yes", "no"] if language == "en" else ["是", "否"]}
    wrong = {"wrong": {"type": "array", "items": {**text, "maxLength": 160}, "minItems": 3, "maxItems": 3}}
    others = wrong if kind == "multiple_choice" else {}
    question = {"question": {**text, "maxLength": 400}}
    if grounded:
        properties = {"evidence": {**text, "maxLength": 600}, "answer": answer, **others, **question}
    else:
        properties = {**question, "solution": {**text, "maxLength": 1200}, "answer": answer, **others}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _pair(found: dict[str, Any], kind: QuestionType, language: str) -> Pair:
    answer = found["answer"].strip()
    choices = [answer, *(choice.strip() for choice in found.get("wrong", ()))]
    # By hash: the right one must not always stand first.
    choices.sort(key=lambda choice: digest([found["question"], choice]))
    return Pair(
        question=found["question"].strip(),
        answer=answer,
        kind=kind,
        language=language,
        evidence=(found["evidence"].strip(),) if "evidence" in found else (),
        choices=tuple(choices) if kind == "multiple_choice" else (),
        explanation=found.get("solution", "").strip(),
    )
