"""What generation hands to verification: a pair as a model wrote it, and one verdict a check beside it.

A check never changes the pair. It says whether the pair passes, how sure it is, and what it saw.
"""

from dataclasses import dataclass
from typing import Literal

QuestionType = Literal["open", "multiple_choice", "yes_no", "numeric", "comparison"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer, as generated.

    Args:
        question: One question.
        answer: The answer alone; for multiple choice the text of the right choice, for yes/no `yes` or `no`
            (in Chinese `是` or `否`).
        kind: Question type.
        language: `en` or `zh`.
        evidence: Quotes from the page that the answer is said to follow from.
        choices: All choices of a multiple-choice question, in the order asked.
        explanation: Steps that lead to the answer; may be empty.
    """

    question: str
    answer: str
    kind: QuestionType = "open"
    language: str = "en"
    evidence: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """The verdict of one check on one pair.

    Args:
        name: Name of the check.
        passed: Whether the pair may be kept, as far as this check sees.
        score: How well it passed, in [0, 1], higher is better; what a threshold is laid on.
        detail: What was seen, in a few words, for people.
    """

    name: str
    passed: bool
    score: float
    detail: str = ""
