"""The task `science_qa`: questions and answers from a page, each with its evidence, each verified before it counts.

The model never picks what to ask about by itself: a passage is chosen by hash. With `answers: extractive` the answer is
chosen too and the model only asks for it, which a small model can do; with `free` it copies the words that hold an
answer, states the answer, and asks for it last.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, ClassVar

from mixer import disciplines
from mixer.recipe.synth import ScienceQa
from mixer.run import digest
from synth import extractive, prompt
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


@dataclass(frozen=True, slots=True)
class Anchor:
    """What one question is to be about.

    Args:
        number: Of the question, on its page.
        window: The part of the page that the model sees.
        passage: The sentence in it.
        kind: Question type.
    """

    number: int
    window: Window
    passage: Window
    kind: QuestionType


@dataclass(frozen=True, slots=True)
class ScienceFlow:
    """The task `science_qa` with its settings: every candidate that the model writes from a page, verified.

    The list is empty where the page holds no passage.

    Args:
        task: The recipe's settings.
        seed: The recipe's seed.
        demonstrations: Page id -> pairs that the model is shown before it writes.
    """

    chat: ClassVar[bool] = True
    task: ScienceQa
    seed: int
    demonstrations: Mapping[str, tuple[Pair, ...]] = field(default_factory=dict)

    async def __call__(self, page: SeedPage, ask: Ask) -> list[Candidate]:
        groups = groupby(self._anchors(page), key=lambda anchor: anchor.window)
        parts = await asyncio.gather(*(self._about(page, list(anchors), ask) for _, anchors in groups))
        return [candidate for part in parts for candidate in part]

    async def _about(self, page: SeedPage, anchors: Sequence[Anchor], ask: Ask) -> list[Candidate]:
        """The candidates of one window."""
        # The first is asked alone, so that the engine has read the window before the others come.
        found = await self._tries(page, anchors[0], ask)
        for each in await asyncio.gather(*(self._tries(page, anchor, ask) for anchor in anchors[1:])):
            found += each
        return found

    async def _tries(self, page: SeedPage, anchor: Anchor, ask: Ask) -> list[Candidate]:
        """The candidates written about one passage: the last is accepted, or the tries are used up."""
        found: list[Candidate] = []
        while len(found) < self.task.tries and (not found or found[-1].reason):
            found.append(await self._write(page, anchor, len(found), ask))
        return found

    def _anchors(self, page: SeedPage) -> list[Anchor]:
        """Passages by hash, question types in turn where they fit; in the order of their windows."""
        parts = {
            passage: window
            for window in windows(page.text, self.task.window_chars)
            for passage in passages(page.text, window)
        }
        names, most = (self.seed, page.source, page.id), self.task.pairs_per_page
        # A sentence that says what something is can be asked about by any model; others fill up.
        chosen = choose([part for part in parts if is_statement(_of(page, part))], most, *names)
        chosen += choose([part for part in parts if part not in set(chosen)], most - len(chosen), *names)
        first = int(digest(names)[:8], 16)
        anchors = [
            Anchor(
                number, parts[passage], passage, _fitting(_of(page, passage), self.task.question_types, first + number)
            )
            for number, passage in enumerate(chosen)
        ]
        return sorted(anchors, key=lambda anchor: anchor.window.start)

    async def _write(self, page: SeedPage, anchor: Anchor, turn: int, ask: Ask) -> Candidate:
        shown = _of(page, anchor.window)
        demonstrations = self.demonstrations.get(page.id, ())
        draft = self._draft(page, anchor, shown)
        if draft:
            name, values, schema = extractive.request(draft, page.discipline, demonstrations)
        else:
            name, values, schema = _free_request(page, anchor, self.task, demonstrations)
        messages = prompt.messages(name, page=shown if self.task.grounding == "page" else None, values=values)
        request = Request(messages, prompt.version(name), schema, parameters(self.task.sampling), turn)
        identity = f"{page.id}#{anchor.number}{f'.{turn}' if turn else ''}"
        candidate = Candidate(identity, page, anchor.window.start, anchor.window.end, prompt.version(name))
        try:
            response = await ask(request)
            candidate = replace(candidate, keys=(response.key,))
            found = fields(response, schema)
        except NoAnswerError as error:
            return replace(candidate, reason=f"generation: {error}")
        pair = (
            replace(draft, question=found["question"].strip()) if draft else _pair(found, anchor.kind, _language(page))
        )
        known = [*prompt.leaks(name), *(demonstration.question for demonstration in demonstrations)]
        return await verify(replace(candidate, pair=pair), shown, ask, self.task, known=known)

    def _draft(self, page: SeedPage, anchor: Anchor, shown: str) -> Pair | None:
        """The pair without its question, where the answer is chosen before the model is asked."""
        if self.task.grounding != "page" or self.task.answers != "extractive":
            return None
        names = (self.seed, page.source, page.id, anchor.number)
        return extractive.draft(shown, _of(page, anchor.passage), anchor.kind, _language(page), *names)


def _of(page: SeedPage, part: Window) -> str:
    return page.text[part.start : part.end]


def _language(page: SeedPage) -> str:
    return page.language if page.language in _WANTED else "en"


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


def _free_request(
    page: SeedPage, anchor: Anchor, task: ScienceQa, demonstrations: Sequence[Pair]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Prompt, values and schema where the model itself states evidence and answer."""
    grounded, language, kind = task.grounding == "page", _language(page), anchor.kind
    wanted, answer = _WANTED[language][kind]
    values = {
        "discipline": disciplines.shown(page.discipline, language),
        "passage": _of(page, anchor.passage),
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
