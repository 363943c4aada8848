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


@dataclass(frozen=True, slots=True)
class SeedPage:
    """A page to write from.

    Args:
        id: Of its document.
        text: What the model may see.
        source: The document's source.
        url: Where it came from, or None.
        language: `en` or `zh`; others are asked in English.
        discipline: One of `disciplines.NAMES`, or what the page's own field says.
    """

    id: str
    text: str
    source: str
    url: str | None = None
    language: str = "en"
    discipline: str = "general education"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing that a model wrote from a page, and everything that was found out about it.

    Args:
        id: `page#number`.
        page: What it was written from.
        start, end: The part of the page that the model saw.
        prompt: Name and hash of the prompt file.
        pair: The question and answer; None where the model gave none.
        text: The text, for tasks that write no pairs.
        spans: Where the evidence lies in the page: start, end, similarity.
        checks: Verdicts, in the order they were reached; a check after the one that rejected was not run.
        votes: Answers given anew with the page at hand.
        closed: Answers given without it.
        keys: Addresses in the response log, the generation first.
        reason: Why it was rejected; empty when it was accepted.
    """

    id: str
    page: SeedPage
    start: int
    end: int
    prompt: str
    pair: Pair | None = None
    text: str = ""
    spans: tuple[tuple[int, int, float], ...] = ()
    checks: tuple[Check, ...] = ()
    votes: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    reason: str = ""
