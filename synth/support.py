"""Sentence by sentence: does the page say this? Each sentence is checked alone, and code merges the verdicts.

Divide-and-conquer prompting (arXiv 2402.05359), its single-level form for checking facts: a deterministic splitter, one
isolated call a sentence that sees the question and the sentence before it as context only, and no model in the merge.
"""

import asyncio
from typing import Any

from mixer.recipe.synth import Sampling
from synth import prompt
from synth.answer import fields, parameters
from synth.candidate import Check, Pair
from synth.request import Ask, NoAnswerError, Request
from synth.windows import sentences

SUPPORTED, CONTRADICTED, ABSENT = "SUPPORTED", "CONTRADICTED", "NOT IN PAGE"
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"verdict": {"type": "string", "enum": [SUPPORTED, CONTRADICTED, ABSENT]}},
    "required": ["verdict"],
    "additionalProperties": False,
}
_LEAST_WORDS = 8
_LEAST_CHARS = 12
_MOST = 12
_SURE = Sampling(temperature=0.0, top_p=1.0, max_tokens=24)


def claims(pair: Pair) -> list[str]:
    """The sentences of the answer that state something by themselves; a bare name or number does not."""
    found = [pair.answer[part.start : part.end] for part in sentences(pair.answer)]
    if pair.language == "zh":
        return [sentence for sentence in found if len(sentence) >= _LEAST_CHARS]
    return [sentence for sentence in found if len(sentence.split()) >= _LEAST_WORDS]


async def check_support(pair: Pair, page: str, ask: Ask, *, least: float) -> tuple[Check, list[str]]:
    """The check `support`, and the addresses of its calls; an answer without claims passes unasked.

    Args:
        pair: Its answer is split into sentences.
        page: Text at hand.
        ask: The model, or the log.
        least: Share of claims that the page must support; a single contradiction rejects the pair whatever the share.
    """
    found = claims(pair)[:_MOST]
    if not found:
        return Check("support", passed=True, score=1.0, detail="no claim longer than a phrase"), []
    before = ["", *found[:-1]]
    context = [f"{pair.question} {sentence}".strip() for sentence in before]
    results = await asyncio.gather(
        *(_verdict(sentence, told, pair.language, page, ask) for sentence, told in zip(found, context, strict=True))
    )
    return merged([verdict for verdict, _ in results], least), [key for _, key in results if key]


def merged(verdicts: list[str], least: float) -> Check:
    """One check from one verdict a sentence.

    Example:
        >>> merged(["SUPPORTED", "NOT IN PAGE"], 1.0).passed, merged(["SUPPORTED", "NOT IN PAGE"], 0.5).passed
        (False, True)
    """
    share = verdicts.count(SUPPORTED) / len(verdicts)
    detail = f"{verdicts.count(SUPPORTED)} of {len(verdicts)} sentences supported"
    if CONTRADICTED in verdicts:
        return Check("support", passed=False, score=0.0, detail=f"contradicted; {detail}")
    return Check("support", passed=share >= least, score=share, detail=detail)


async def _verdict(sentence: str, context: str, language: str, page: str, ask: Ask) -> tuple[str, str]:
    name = f"support.{language}"
    request = Request(
        prompt.messages(name, page=page, values={"context": context, "sentence": sentence}),
        prompt.version(name),
        _SCHEMA,
        parameters(_SURE),
    )
    key = ""
    try:
        response = await ask(request)
        key = response.key
        return str(fields(response, _SCHEMA)["verdict"]), key
    except NoAnswerError:
        return ABSENT, key
