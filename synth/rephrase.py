"""The task `rephrase`: a page in other words, for pages whose content is better than their writing.

Styles after WRAP (arXiv 2401.16380) and Nemotron-CC (arXiv 2412.02595). What a rewriting may not do is state numbers or
names that its page doesn't, copy the page, or say something else altogether; each is a check with its evidence.
"""

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from mixer.dedup import words
from mixer.recipe.synth import Rephrase
from synth import prompt
from synth.answer import complete, parameters
from synth.candidate import Candidate, Check, Pair, SeedPage
from synth.facts import grounded
from synth.request import Ask, NoAnswerError, Request
from synth.windows import Window, windows

_NGRAM = 8
_MOST_COPIED = 0.6
_LENGTHS = {"encyclopedic": (0.3, 1.6), "qa": (0.2, 2.0), "distilled": (0.05, 0.9)}
"""Least and most characters of a rewriting, as a share of its page's."""


@dataclass(frozen=True, slots=True)
class RephraseFlow:
    """The task `rephrase` with its settings."""

    chat: ClassVar[bool] = True
    task: Rephrase

    async def __call__(self, page: SeedPage, ask: Ask) -> list[Candidate]:
        parts = [(window, style) for window in windows(page.text, self.task.window_chars) for style in self.task.styles]
        return list(
            await asyncio.gather(
                *(_rewrite(page, window, style, number, ask, self.task) for number, (window, style) in enumerate(parts))
            )
        )


async def _rewrite(page: SeedPage, window: Window, style: str, number: int, ask: Ask, task: Rephrase) -> Candidate:
    name = f"rephrase.{page.language}"
    shown = page.text[window.start : window.end]
    request = Request(
        prompt.messages(name, page=shown, values={"style": style}),
        prompt.version(name),
        None,
        parameters(task.sampling),
    )
    identity, version = f"{page.id}#{style}-{number}", prompt.version(name)
    key: tuple[str, ...] = ()
    try:
        response = await ask(request)
        key = (response.key,)
        text = complete(response).strip()
    except NoAnswerError as error:
        return Candidate(identity, page, window.start, window.end, version, keys=key, reason=f"generation: {error}")
    checks = check(text, shown, style, page.language)
    reason = next((f"{found.name}: {found.detail}" for found in checks if not found.passed), "")
    return Candidate(
        identity, page, window.start, window.end, version, text=text, checks=tuple(checks), keys=key, reason=reason
    )


def check(text: str, page: str, style: str, language: str) -> list[Check]:
    """Length, own words, and facts of a rewriting."""
    least, most = _LENGTHS[style]
    ratio = len(text) / max(1, len(page))
    copied = _copied(text, page)
    facts = grounded(Pair("", text, language=language), page)
    return [
        Check("length", least <= ratio <= most, min(1.0, ratio / most), f"{ratio:.2f} of the page's length"),
        Check("own_words", copied <= _MOST_COPIED, 1 - copied, f"{copied:.2f} of its {_NGRAM}-grams are the page's"),
        facts,
    ]


def _copied(text: str, page: str) -> float:
    """Share of the text's word 8-grams that stand in the page.

    Example:
        >>> _copied("a b c d e f g h i", "x a b c d e f g h y")
        0.5
    """
    grams = _grams(text)
    return len(grams & _grams(page)) / len(grams) if grams else 0.0


def _grams(text: str) -> set[tuple[str, ...]]:
    held = words(text)
    return {tuple(held[i : i + _NGRAM]) for i in range(len(held) - _NGRAM + 1)}
