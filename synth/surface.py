"""Accepted pairs as text to train on: wordings chosen by hash, so that none is learnt for its own sake."""

from mixer.run import digest
from synth.candidate import Pair

_FORMS = {
    "en": (
        "Question: {question}\nAnswer: {answer}",
        "Q: {question}\nA: {answer}",
        "{question}\n{answer}",
        "Problem: {question}\nSolution: {answer}",
        "Exercise. {question}\n\nAnswer. {answer}",
        "{question} {answer}",
    ),
    "zh": (
        "问题:{question}\n答案:{answer}",
        "问:{question}\n答:{answer}",
        "{question}\n{answer}",
        "题目:{question}\n解答:{answer}",
        "练习:{question}\n\n答案:{answer}",
    ),
}
_LETTERS = "ABCDEFGH"


def training_text(pair: Pair) -> str:
    """The pair in the wording that its own hash picks; Llama-3-SynE trains such text with a plain language-model loss.

    Example:
        >>> training_text(Pair("What do cats do?", "They purr.")).splitlines()[-1]
        'Answer: They purr.'
    """
    forms = _FORMS[pair.language]
    form = forms[int(digest([pair.question, pair.answer])[:8], 16) % len(forms)]
    return form.format(question=_question(pair), answer=_answer(pair))


def templates() -> list[str]:
    """The fixed words of all wordings, which say nothing about whether two pairs are alike."""
    return [
        part.strip()
        for forms in _FORMS.values()
        for form in forms
        for part in form.replace("{question}", "\0").replace("{answer}", "\0").split("\0")
        if part.strip()
    ]


def appended(page: str, pairs: list[Pair]) -> str:
    """The page followed by its pairs, as in Nemotron-CC (arXiv 2412.02595)."""
    return "\n\n".join([page.rstrip(), *map(training_text, pairs)])


def _question(pair: Pair) -> str:
    listed = [f"{letter}. {choice}" for letter, choice in zip(_LETTERS, pair.choices, strict=False)]
    return "\n".join([pair.question, *listed])


def _answer(pair: Pair) -> str:
    answer = pair.answer
    if pair.choices:
        answer = f"{_LETTERS[pair.choices.index(pair.answer)]}. {pair.answer}"
    if not pair.explanation:
        return answer
    joiner = "因此," if pair.language == "zh" else "So the answer is: "
    return f"{pair.explanation}\n{joiner}{answer}"
