"""The task `replay`: text that the base model writes by itself, to rehearse what it knew before it learns a new field.

For users who lack the model's own training data. The model continues the first words of pages, so that the samples
differ in subject and style; what goes round in circles is rejected. Whether such text can stand for the original data
in continual pre-training has not been settled; compare it with a public corpus.
"""

from dataclasses import dataclass
from typing import ClassVar

from mixer.recipe.synth import Rehearsal
from mixer.run import digest
from synth.answer import complete, parameters
from synth.candidate import Candidate, Check, SeedPage
from synth.evidence import plain_words
from synth.prompt import neutral
from synth.request import TEXT, Ask, NoAnswerError, Request

_OPENING_WORDS = 12
_OPENING_CHARS = 80
_LEAST_CHARS = 200
_LEAST_DISTINCT = 0.35


@dataclass(frozen=True, slots=True)
class RehearsalFlow:
    """The task `replay` with its settings."""

    chat: ClassVar[bool] = False
    task: Rehearsal

    async def __call__(self, page: SeedPage, ask: Ask) -> list[Candidate]:
        opening = opening_of(page.text)
        request = Request(
            ({"role": TEXT, "content": opening},),
            f"opening@{digest(_OPENING_WORDS)[:12]}",
            None,
            parameters(self.task.sampling),
        )
        key: tuple[str, ...] = ()
        reason, text, checks = "", "", []
        try:
            response = await ask(request)
            key = (response.key,)
            text = f"{opening}{complete(response, may_be_cut=True)}"
            checks = check(text)
            reason = next((f"{found.name}: {found.detail}" for found in checks if not found.passed), "")
        except NoAnswerError as error:
            reason = f"generation: {error}"
        found = Candidate(
            f"{page.id}#replay",
            page,
            0,
            len(opening),
            request.prompt,
            text=text,
            checks=tuple(checks),
            keys=key,
            reason=reason,
        )
        return [found]


def opening_of(text: str) -> str:
    """The first words of a page, on one line."""
    words = neutral(text[:1000]).split()[:_OPENING_WORDS]
    return " ".join(words)[:_OPENING_CHARS]


def check(text: str) -> list[Check]:
    """Length, and no going round in circles: the share of distinct 4-grams of words, a CJK character being one."""
    words = plain_words(text)
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    distinct = len(set(grams)) / len(grams) if grams else 0.0
    return [
        Check("length", len(text) >= _LEAST_CHARS, min(1.0, len(text) / _LEAST_CHARS), f"{len(text)} characters"),
        Check("repetition", distinct >= _LEAST_DISTINCT, distinct, f"{distinct:.2f} of its 4-grams are distinct"),
    ]
