"""A teacher's labels: what a large model says of a sample of pages, for a small model to learn from.

Llama-3-SynE (arXiv 2407.18743) has the topics of some web pages labelled so, FineWeb-Edu (arXiv 2406.17557) what pages
teach, on a scale from 0 to 5. Both then let a small model score everything else.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from mixer.errors import SourceError
from mixer.site import site
from mixer.steps import Say
from synth import prompt
from synth.answer import fields
from synth.candidate import Candidate, SeedPage
from synth.request import Ask, NoAnswerError, Request

GRADES = ("0", "1", "2", "3", "4", "5")
VERSION = 1
"""Raise it when the same pages and teacher would be asked otherwise, or the same answers give other labels."""
_SHOWN_CHARS = 2000
_PARAMETERS = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 64}

Row = tuple[str, str, str]
"""A page's text, its label, and its site, empty where it has no url."""


class Labelling(NamedTuple):
    """What decides a teacher's labels beside the pages, and a way to have them."""

    inputs: Mapping[str, Any]
    ask: Callable[[], list[Row]]


@dataclass(frozen=True, slots=True)
class LabelFlow:
    """Asks for one label of a page's beginning, or for its grade.

    Args:
        labels: Name and description of each label; none asks for a grade.
    """

    chat: ClassVar[bool] = True
    labels: tuple[tuple[str, str], ...] = ()

    async def __call__(self, page: SeedPage, ask: Ask) -> list[Candidate]:
        shown = page.text[:_SHOWN_CHARS]
        request = self._request(shown, page.language)
        keys: tuple[str, ...] = ()
        label = reason = ""
        try:
            response = await ask(request)
            keys = (response.key,)
            label = fields(response, request.schema or {})[self.wanted]
        except NoAnswerError as error:
            reason = f"generation: {error}"
        identity = f"{page.id}#{self.wanted}"
        return [Candidate(identity, page, 0, len(shown), request.prompt, text=label, keys=keys, reason=reason)]

    @property
    def wanted(self) -> str:
        """`label` or `grade`: the prompt, and the key of the answer."""
        return "label" if self.labels else "grade"

    @property
    def inputs(self) -> dict[str, Any]:
        """What decides the answers beside the page and the model."""
        prompts = [prompt.version(f"{self.wanted}.{language}") for language in ("en", "zh")]
        return {"labels": self.labels, "prompts": prompts, "version": VERSION}

    def _request(self, shown: str, language: str) -> Request:
        name = f"{self.wanted}.{language}"
        # A description may begin with its label (as the disciplines' do), or be no more than that.
        told = [(label, "" if text == label else text.removeprefix(f"{label}:").strip()) for label, text in self.labels]
        options = [label for label, _ in self.labels] or GRADES
        schema = {
            "type": "object",
            "properties": {self.wanted: {"type": "string", "enum": list(options)}},
            "required": [self.wanted],
            "additionalProperties": False,
        }
        messages = prompt.messages(name, page=shown, values={"labels": told})
        return Request(messages, prompt.version(name), schema, _PARAMETERS)


def rows(found: Iterable[tuple[SeedPage, list[Candidate]]], score: str, say: Say) -> list[Row]:
    """Text, label and site of each page that the teacher labelled; says how many have which, and which have none.

    Args:
        found: Pages with what `LabelFlow` gave.
        score: Name of the score, for people.
        say: Takes a line for people.

    Raises:
        SourceError: Fewer than two different labels: nothing can be told apart.
    """
    kept: list[Row] = []
    reasons: Counter[str] = Counter()
    for page, candidates in found:
        for each in candidates:
            if each.reason:
                reasons[each.reason] += 1
            else:
                kept.append((page.text, each.text, site(page.url)))
    labels = Counter(label for _, label, _ in kept)
    say(f"score {score}: the teacher labelled {len(kept):,} documents{_counted(labels)}")
    if reasons:
        say(f"warning: score {score}: documents without a label: {reasons.total():,}{_counted(reasons)}")
    if len(labels) < 2:
        raise SourceError(
            f"scores.{score}.teacher: got {len(labels)} different labels of {len(kept) + reasons.total():,} documents, "
            "expected at least two",
            hint=f"sample other or more documents; the answers are in synth/score-{score}/responses of the Run",
        )
    return kept


def _counted(counts: Counter[str]) -> str:
    """The parts of a sum, the largest first, as the end of a sentence."""
    parts = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return f" ({', '.join(f'{name} {count:,}' for name, count in parts)})" if parts else ""
