"""Questions for answers that are chosen before the model is asked: a number, a name, a term, or the passage itself."""

from collections.abc import Sequence
from typing import Any

from mixer import disciplines
from mixer.run import digest
from synth.candidate import Pair, QuestionType
from synth.spans import answer_of, candidates

_WRONG = 3
_OPENINGS = {
    "en": "(What|Which|Who|When|Where|Why|How) ",
    "yes_no": "(Is|Are|Was|Were|Does|Do|Did|Can|Has|Have) ",
}
_INSIDE = r"[^?\"\\\x00-\x1f]{8,180}"


def draft(shown: str, passage: str, kind: QuestionType, language: str, *names: object) -> Pair:
    """The pair without its question: answer, choices and evidence from the passage.

    Where the passage holds no answer of that type, the type becomes `open` and the passage itself the answer; half of
    the open questions ask for the passage in any case.

    Args:
        shown: The part of the page that the model sees; wrong choices are taken from it.
        passage: The sentence to ask about, which is the evidence.
        kind: Question type.
        language: `en` or `zh`.
        names: What the choice depends on.
    """
    if kind == "yes_no":
        return Pair("", "yes" if language == "en" else "是", kind, language, (passage,))
    answer = answer_of(passage, kind, language, *names)
    choices = _choices(shown, answer, language, *names) if kind == "multiple_choice" and answer else ()
    if kind == "multiple_choice" and not choices:
        kind = "open"
    is_sentence = kind == "open" and int(digest([*map(str, names), "whole"])[:2], 16) < 128
    if answer is None or is_sentence:
        return Pair("", passage, "open", language, (passage,))
    return Pair("", answer, kind, language, (passage,), choices)


def _choices(shown: str, answer: str, language: str, *names: object) -> tuple[str, ...]:
    """The answer among three other terms of the page, in an order by hash; none where the page has too few."""
    others = dict.fromkeys(candidates(shown, "open", language))
    apart = [other for other in others if other.lower() not in answer.lower() and answer.lower() not in other.lower()]
    wrong: list[str] = []
    for other in sorted(apart, key=lambda term: digest([*map(str, names), term])):
        if all(other.lower() not in known.lower() and known.lower() not in other.lower() for known in wrong):
            wrong.append(other)
    if len(wrong) < _WRONG:
        return ()
    return tuple(sorted([answer, *wrong[:_WRONG]], key=lambda choice: digest([*map(str, names), "order", choice])))


def request(pair: Pair, discipline: str, demonstrations: Sequence[Pair]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Prompt, values and schema that ask for the pair's question."""
    values = {
        "passage": pair.evidence[0],
        "answer": pair.answer,
        "kind": pair.kind,
        "discipline": disciplines.shown(discipline, pair.language),
        "demonstrations": demonstrations,
    }
    return f"ask_for.{pair.language}", values, schema_of(pair)


def schema_of(pair: Pair) -> dict[str, Any]:
    """One question and nothing else: it begins with a question word and ends with a question mark."""
    if pair.language == "zh":
        pattern = r"^[^?？\"\\\x00-\x1f]{4,80}？$"
    else:
        pattern = f"^{_OPENINGS['yes_no' if pair.kind == 'yes_no' else 'en']}{_INSIDE}[?]$"
    question = {"type": "string", "pattern": pattern}
    return {
        "type": "object",
        "properties": {"question": question},
        "required": ["question"],
        "additionalProperties": False,
    }
