"""All checks of a pair, the free ones first, until one rejects it; each leaves its verdict beside the pair."""

from collections.abc import Sequence
from dataclasses import replace

from mixer.recipe.synth import ScienceQa
from synth.candidate import Candidate, Check, Pair
from synth.checks import free_checks
from synth.evidence import align
from synth.relevance import relevance
from synth.request import Ask
from synth.standalone import standalone
from synth.support import check_support
from synth.votes import agreement, ask_again, novelty

_ABOUT_PAGE = {"evidence", "answer_in_page", "grounded", "on_page", "near_answer", "relevance"}
"""Checks that hold a pair against its page, which `grounding: inspiration` does not ask for."""
_REPORTED = {"near_answer"}
"""Checks that decide only where the recipe sets a threshold for them."""


async def verify(candidate: Candidate, shown: str, ask: Ask, task: ScienceQa, *, known: Sequence[str]) -> Candidate:
    """The candidate with its verdicts, and the reason if one rejects it.

    Args:
        candidate: With its pair.
        shown: The part of the page that the model saw.
        ask: The model, or the log.
        task: What the recipe asks for.
        known: Texts that a pair must not repeat: demonstrations and the prompt itself.
    """
    pair = candidate.pair
    assert pair is not None
    checks = [judged(check, task) for check in _free(pair, shown, known)]
    if not _first_reason(checks, task) and _has_surroundings(pair):
        checks.append(judged(relevance(pair, shown), task))
    aligned = [align(quote, shown) for quote in pair.evidence]
    offset = candidate.start
    spans = tuple((span.start + offset, span.end + offset, span.similarity) for span in aligned if span)
    candidate = replace(candidate, spans=spans, checks=tuple(checks), reason=_first_reason(checks, task))
    if candidate.reason:
        return candidate
    return await _ask_checks(candidate, shown if task.grounding == "page" else None, ask, task)


def page_checks(pair: Pair, shown: str, *, known: Sequence[str] = ()) -> list[Check]:
    """The checks that ask no model, all of them."""
    return [*_free(pair, shown, known), *([relevance(pair, shown)] if _has_surroundings(pair) else [])]


def _free(pair: Pair, shown: str, known: Sequence[str]) -> list[Check]:
    return [*free_checks(pair, shown, known=known), standalone(pair)]


def _has_surroundings(pair: Pair) -> bool:
    """Whether `relevance` says anything: its answer is a few words of the page, not a whole sentence of it."""
    return pair.kind != "yes_no" and pair.answer not in pair.evidence


async def _ask_checks(candidate: Candidate, page: str | None, ask: Ask, task: ScienceQa) -> Candidate:
    """The checks that ask the model: votes with the page, support, then answers from memory."""
    pair, rules = candidate.pair, task.verify
    assert pair is not None
    if rules.votes:
        found = await ask_again(pair, page, ask, count=rules.votes, sampling=task.sampling)
        votes = tuple(vote for vote, _ in found)
        candidate = _with(candidate, agreement(pair, votes, rules.agree), [key for _, key in found], task)
        candidate = replace(candidate, votes=votes)
    if not candidate.reason and page is not None and rules.support:
        check, keys = await check_support(pair, page, ask, least=rules.thresholds.get("support", 1.0))
        candidate = _with(candidate, check, keys, task)
    if not candidate.reason and page is not None and rules.votes and rules.novel:
        found = await ask_again(pair, None, ask, count=rules.votes, sampling=task.sampling)
        closed = tuple(vote for vote, _ in found)
        candidate = _with(candidate, novelty(pair, closed, rules.agree), [key for _, key in found], task)
        candidate = replace(candidate, closed=closed)
    return candidate


def _with(candidate: Candidate, check: Check, keys: Sequence[str], task: ScienceQa) -> Candidate:
    verdict = judged(check, task)
    return replace(
        candidate,
        checks=(*candidate.checks, verdict),
        keys=(*candidate.keys, *(key for key in keys if key)),
        reason=candidate.reason or _first_reason([verdict], task),
    )


def judged(check: Check, task: ScienceQa) -> Check:
    """The check by the recipe's own threshold, where it sets one."""
    least = task.verify.thresholds.get(check.name)
    # `support` has laid its threshold on already, and a contradiction rejects whatever the share.
    return check if least is None or check.name == "support" else replace(check, passed=check.score >= least)


def _first_reason(checks: Sequence[Check], task: ScienceQa) -> str:
    for check in checks:
        if not check.passed and decides(check.name, task):
            return f"{check.name}: {check.detail}"
    return ""


def decides(name: str, task: ScienceQa) -> bool:
    """Whether a check may reject a pair under these rules."""
    if name in _ABOUT_PAGE and (task.grounding != "page" or not task.verify.grounded):
        return False
    return name not in _REPORTED or name in task.verify.thresholds
