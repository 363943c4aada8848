"""What form, wording and page alone say against a question-answer pair: the checks that cost no model.

Every check is total: it gives a verdict on any strings, in time linear in the page. Thresholds are set on the span
answers of XQuAD and CMRC 2018; tests/test_checks.py holds what they keep and what they reject there.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np

from mixer.dedup import containment, shingles
from synth.candidate import Check, Pair
from synth.evidence import CJK, evidence, plain, plain_words
from synth.facts import computed, grounded, numbers, stated, truth

_MOST_QUESTION, _MOST_ANSWER = 600, 2000
_LEAST_QUESTION_WORDS = {"en": 3, "zh": 4}
_LEFTOVER = re.compile(
    r"<\|[^|]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|</?think>|```|^\s*[{\[]\s*\"|\"\s*:\s*[\"\[]"
    r"|^\s*(?:question|answer|q|assistant|user|问题|答案|问|答)\s*[:\uff1a]",
    re.IGNORECASE | re.MULTILINE,
)
_REFUSAL = re.compile(
    r"\bas an ai\b|\bas a (?:large )?language model\b|\bi(?:'m| am) (?:sorry|unable)\b|\bi can(?:'t|not) answer"
    r"|\b(?:passage|text|page|context|article) (?:does not|doesn't) (?:say|mention|state|provide|specify)"
    r"|作为一?[个名]?(?:ai|人工智能|语言模型)|无法(?:回答|确定)|(?:文中|原文|文章|页面)(?:没有|并?未)(?:提到|提及|说明)",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"(?<![\\\w}^{])\{{1,2}[a-z][a-z_ ]{1,40}\}{1,2}|<[a-z]{2,20}(?:[ _][a-z]{1,20}){0,5}>"
    r"|\[(?:insert|your|topic|name|answer)\b[^\]]{0,40}\]",
    re.IGNORECASE,
)
_BLANKS = {"string", "answer", "question", "text", "n/a", "none", "null", "nan", "undefined", "tbd", "todo", "字符串"}
_QUOTED = re.compile(r"[\"“「『《][^\"”」』》]{0,200}[\"”」』》]")
_CJK = re.compile(f"[{CJK}]")
_KANA = re.compile("[\u3041-\u30fa]")
_LETTER = re.compile(r"[^\W\d_]")
_OFFERS = re.compile(r"\b(?:or|between)\b|还是|或|[中间][，,]?(?:哪|谁)", re.IGNORECASE)
_NGRAM, _LEAST_COPY, _LEAST_KNOWN = 5, 0.6, 3
_STOP = frozenset(
    plain_words(
        """a about after all also am an and any are as at be because been before being between both but by called can
        could did do does during each for from had has have he her him his how i if in into is it its kind many may
        might more most much must name no not of on one or other our out over s she should so some such t than that the
        their them then there these they this those through to type under up was we were what when where which while who
        whom whose why will with within would you your"""
    )
)
_ZH_STOP = re.compile(
    "什么时候|什么|时候|哪一年|哪[一些里个位年]?|多少|怎么样?|怎样|如何|为什么|为何|何[时地]?|几|谁|是否|是不是|请问"
    "|[是的了吗呢在和与于被把有这那其之为由从对以及而并或个位名种称叫做中里上下都也他她它们年]"
)
_RUN = re.compile(rf"[{CJK}]+|[^\W_{CJK}]+")
_ENDING = re.compile(r"(?<=\w{3})(?:ing|ed|es|s|e)$")
_SENTENCE = re.compile(r"(?:[^.!?;。]|[.!?;](?! )){1,400}[.!?;。]*")
_LEAST_ON_PAGE = {"en": 0.25, "zh": 0.15}
_LEAST_IN_PAGE = 0.6
_MOST_PLACES, _MOST_TERMS = 1000, 200
_CLOSENESS = (1.0, 0.5, 0.25)
"""What a word of the question counts in the sentence of the answer, one further, two further."""


def free_checks(pair: Pair, page: str, *, known: Sequence[str] = ()) -> list[Check]:
    """The verdicts of all checks, in a fixed order; `near_answer` is a score only and always passes.

    Args:
        pair: The pair.
        page: Text that it was made from.
        known: Demonstrations and prompt texts that the generator saw and must not copy.
    """
    return [
        form(pair),
        restated(pair),
        copied(pair, page, known),
        evidence(pair, page),
        answer_in_page(pair, page),
        grounded(pair, page),
        on_page(pair, page),
        near_answer(pair, page),
    ]


def _verdict(name: str, problem: str) -> Check:
    return Check(name, passed=not problem, score=0.0 if problem else 1.0, detail=problem)


def form(pair: Pair) -> Check:
    """Whether question and answer look like a question and an answer, in the pair's language."""
    return _verdict("format", next(_form_problems(pair), ""))


def _form_problems(pair: Pair) -> Iterator[str]:
    question, answer = pair.question.strip(), pair.answer.strip()
    if len(plain_words(question[:_MOST_QUESTION])) < _LEAST_QUESTION_WORDS.get(pair.language, 3):
        yield "question empty or too short"
    if len(question) > _MOST_QUESTION or len(answer) > _MOST_ANSWER:
        yield "too long"
        return
    if len(re.findall("[?\uff1f](?![?\uff1f])", _QUOTED.sub("", question))) > 1:
        yield "more than one question"
    if not plain(answer).text.strip(' ".-'):
        yield "answer empty"
    if answer[-1:] in {"?", "\uff1f"}:
        yield "answer is a question"
    for text in (question, answer, *pair.choices):
        if match := _LEFTOVER.search(text) or _REFUSAL.search(text):
            yield f"left over or refusing: {match.group()[:40]!r}"
    yield from _kind_problems(pair)
    if not _is_in_script(question, pair.language):
        yield f"question not in {pair.language}"
    if len(answer) > 60 and not _is_in_script(answer, pair.language):
        yield f"answer not in {pair.language}"


def _kind_problems(pair: Pair) -> Iterator[str]:
    if pair.kind == "yes_no" and truth(pair.answer) is None:
        yield "answer is neither yes nor no"
    if pair.kind == "multiple_choice":
        choices = [plain(choice).text.strip() for choice in pair.choices[:7]]
        if not 3 <= len(choices) <= 6 or len(set(choices)) < len(choices) or not all(choices):
            yield "choices: want three to six different ones"
        if plain(pair.answer).text.strip() not in choices:
            yield "answer is none of the choices"


def _is_in_script(text: str, language: str) -> bool:
    letters, chinese = len(_LETTER.findall(text)), len(_CJK.findall(text))
    if language == "zh":
        # A Latin name is many letters, a Chinese one few characters.
        return chinese >= 0.15 * letters and chinese > 0 and len(_KANA.findall(text)) <= 0.3 * chinese
    return chinese <= 0.3 * letters and letters > 0


def restated(pair: Pair) -> Check:
    """Whether the answer says something that the question does not.

    Yes/no, comparison and multiple-choice questions may name their answers, and so may one that offers several.
    """
    question, answer = plain_words(pair.question), plain_words(pair.answer)
    if answer == question:
        return _verdict("restated", "answer is the question")
    if pair.kind in {"yes_no", "comparison", "multiple_choice"} or _OFFERS.search(pair.question):
        return _verdict("restated", "")
    if not answer or f" {' '.join(answer)} " in f" {' '.join(question)} ":
        return _verdict("restated", "question holds the answer" if answer else "")
    if pair.language == "zh":
        asked, said = set(terms(pair.question)), set(terms(pair.answer))
    else:
        asked, said = ({_ENDING.sub("", word) for word in held if word not in _STOP} for held in (question, answer))
    has_new_number = not set(stated(pair.answer)) <= set(stated(pair.question))
    return _verdict("restated", "" if said - asked or has_new_number else "answer adds nothing to the question")


def copied(pair: Pair, page: str, known: Sequence[str]) -> Check:
    """Whether question and answer are the generator's own and not those of its prompt; 1 less the share copied.

    Texts below five words (CJK: characters) say too little to be called a copy. What the page itself says is none.
    """
    for text in (pair.question, pair.answer):
        match = _PLACEHOLDER.search(text)
        if match and match.group() not in page:
            return _verdict("copied", f"placeholder {match.group()!r}")
        if text.strip().lower() in _BLANKS or (text.strip() and not text.strip(" .\u2026")):
            return _verdict("copied", f"placeholder {text.strip()!r}")
    most = max((_share(text[:_MOST_ANSWER], page, known) for text in (pair.question, pair.answer)), default=0.0)
    return Check("copied", passed=most < _LEAST_COPY, score=1 - most, detail=f"{most:.0%} of the prompt's wording")


def _share(text: str, page: str, known: Sequence[str]) -> float:
    grams = shingles(text, _NGRAM)
    most = max((_overlap(grams, shingles(other, _NGRAM)) for other in known), default=0.0)
    if most < _LEAST_COPY:
        return most
    own = grams[~np.isin(grams, shingles(plain(page).text, _NGRAM))]
    return max(_overlap(own, shingles(other, _NGRAM)) * len(own) / len(grams) for other in known)


def _overlap(grams: np.ndarray, known: np.ndarray) -> float:
    """Share of a text that is the known one's, or of a known sentence that is whole within the text."""
    whole = containment(known, grams) if len(known) >= _LEAST_KNOWN else 0.0
    return max(containment(grams, known), whole)


def terms(text: str, *, is_page: bool = False) -> Iterator[str]:
    """Yield what a text is about: the first five letters of stems, and CJK characters with each their next.

    Args:
        text: Any text.
        is_page: Whether to keep function words and what stands across them.
    """
    for run in _RUN.findall(plain(text).text):
        if not _CJK.match(run):
            if is_page or run not in _STOP:
                yield _ENDING.sub("", run)[:5]
            continue
        for part in [run] if is_page else _ZH_STOP.split(run):
            yield from (part[i : i + 2] for i in range(len(part) - 1))
            if is_page or len(part) == 1:
                yield from part


@lru_cache(maxsize=16)
def _page_terms(page: str) -> frozenset[str]:
    return frozenset(terms(page, is_page=True))


def on_page(pair: Pair, page: str) -> Check:
    """How much of what the question is about the page mentions at all."""
    wanted = set(terms(pair.question))
    missing = sorted(wanted - _page_terms(page))
    score = 1 - len(missing) / len(wanted) if wanted else 0.0
    least = _LEAST_ON_PAGE.get(pair.language, 0.25)
    return Check("on_page", passed=score >= least, score=score, detail=f"missing: {', '.join(missing[:5])}")


def answer_in_page(pair: Pair, page: str) -> Check:
    """How much of the answer the page holds: all, if it stands there; else the share of its words and numbers.

    Numbers count by value, and those that the explanation computes count as held. Yes and no are in no page.
    """
    name = "answer_in_page"
    if pair.kind == "yes_no" and truth(pair.answer) is not None:
        return Check(name, passed=True, score=1.0, detail="not a span")
    if _places(pair.answer, page):
        return Check(name, passed=True, score=1.0, detail="word for word")
    rest, held, found = plain(pair.answer).text, 0, list(numbers(pair.answer))
    values = stated(page)
    accounted, _ = computed(pair.explanation[:_MOST_ANSWER], [values, stated(pair.question)])
    for number in reversed(found):
        rest = f"{rest[: number.start]} {rest[number.end :]}"
        held += any(value in values or value in accounted for value in number.values)
    wanted = set(terms(rest))
    held, total = held + len(wanted & _page_terms(page)), len(found) + len(wanted)
    score = held / total if total else 0.0
    return Check(name, passed=score >= _LEAST_IN_PAGE, score=score, detail=f"{held} of {total} words and numbers")


def _places(text: str, page: str) -> list[int]:
    """Where a text stands as whole words in the plain page, the first thousand."""
    wanted = plain(text).text.strip(" \"'.,;:!?。、")
    if not wanted:
        return []
    flat, start = plain(page).text, -1
    places: list[int] = []
    while len(places) < _MOST_PLACES and (start := flat.find(wanted, start + 1)) >= 0:
        before, after = flat[max(0, start - 1) : start], flat[start + len(wanted) : start + len(wanted) + 1]
        if not (_in_one_word(before + wanted[0]) or _in_one_word(wanted[-1] + after)):
            places.append(start)
    return places


def _in_one_word(two: str) -> bool:
    """Whether two characters stand in one word."""
    return len(two) == 2 and two.isalnum() and not _CJK.search(two)


@lru_cache(maxsize=16)
def _sentences(page: str) -> tuple[list[int], dict[str, list[int]]]:
    """Where each sentence starts in the plain page, and which sentences hold a term."""
    starts: list[int] = []
    holders: dict[str, list[int]] = {}
    for match in _SENTENCE.finditer(plain(page).text):
        for term in set(terms(match.group(), is_page=True)):
            holders.setdefault(term, []).append(len(starts))
        starts.append(match.start())
    return starts, holders


def near_answer(pair: Pair, page: str) -> Check:
    """How close what the question is about stands to the answer, against the page's best passage for the question.

    Five sentences count, the answer's most; rare words of the page count more. Low where the answer belongs to another
    question. A score only: 0 where the page does not hold the answer word for word, or nothing of the question.
    """
    starts, holders = _sentences(page)
    asked = {part for term in islice(terms(pair.question), _MOST_TERMS) for part in (term, *_CJK.findall(term))}
    credit = np.zeros(len(starts))
    for term in sorted(asked & holders.keys()):
        closeness = np.zeros(len(starts))
        holding = np.array(holders[term])
        for distance, value in reversed(list(enumerate(_CLOSENESS))):
            for shifted in (holding - distance, holding + distance):
                closeness[shifted[(shifted >= 0) & (shifted < len(starts))]] = value
        # One character tells half of what two do.
        rarity = math.log((len(starts) + 1) / len(holding)) * (0.5 if _CJK.fullmatch(term) else 1.0)
        credit += rarity * closeness
    at = [max(0, bisect_right(starts, place) - 1) for place in _places(pair.answer, page)] if credit.any() else []
    score = float(credit[at].max() / credit.max()) if at else 0.0
    return Check(
        "near_answer", passed=True, score=min(1.0, score), detail=f"{len(at)} places in {len(starts)} sentences"
    )
