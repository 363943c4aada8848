"""The checks that cost no model: each on hand-made pairs, then all of them on real questions and spoilt ones."""

import io
import json
import random
import re
import time
from collections import defaultdict
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.candidate import Pair
from synth.checks import answer_in_page, copied, form, free_checks, near_answer, on_page, restated
from synth.facts import numbers

PAGE = (
    "The mill was built in 1850. Its wheel has 24 blades. The wheel turns six times a minute. "
    "Flour was sold in Leeds. The owner, Ann Shaw, died in 1899. Her son sold the house to the town."
)
QUESTION = "How many blades does the wheel have?"
EVIDENCE = ("Its wheel has 24 blades.",)
ORDER = ["format", "restated", "copied", "evidence", "answer_in_page", "grounded", "on_page", "near_answer"]


def pair(question=QUESTION, answer="24", **rest):
    return Pair(question, answer, **{"evidence": EVIDENCE, **rest})


def zh(question, answer, **rest):
    return Pair(question, answer, language="zh", **rest)


def test_case_1_a_sound_pair_passes_all_checks_in_order():
    checks = free_checks(pair(), PAGE, known=["What is the capital of the large country?"])
    assert [check.name for check in checks] == ORDER
    assert all(check.passed for check in checks)
    assert all(check.score == 1.0 for check in checks)


def test_case_2_a_wrong_number_fails_where_it_should():
    failed = {check.name for check in free_checks(pair(answer="25"), PAGE) if not check.passed}
    assert failed == {"answer_in_page", "grounded"}


def test_case_3_a_computed_answer_passes_with_its_equation_only():
    wanted = pair("How many blades do three such wheels have?", "72", kind="numeric", explanation="24 * 3 = 72")
    assert all(check.passed for check in free_checks(wanted, PAGE))
    bare = {check.name for check in free_checks(replace(wanted, explanation=""), PAGE) if not check.passed}
    assert bare == {"answer_in_page", "grounded"}


@pytest.mark.parametrize(
    ("spoilt", "problem"),
    [
        (pair(""), "question empty"),
        (pair("Blades?"), "too short"),
        (pair("How " * 300), "too long"),
        (pair(answer="very " * 500), "too long"),
        (pair("How many blades? And how many wheels are there?"), "more than one question"),
        (pair(answer=" "), "answer empty"),
        (pair(answer="How many blades are there?"), "answer is a question"),
        (pair(answer="<|im_end|> 24"), "left over"),
        (pair(answer="24 [/INST]"), "left over"),
        (pair("Question: how many blades are there?"), "left over"),
        (pair(answer='{"answer": "24"}'), "left over"),
        (pair(answer="As an AI, I do not know."), "refusing"),
        (pair(answer="The passage does not mention it."), "refusing"),
        (zh("水车有多少个叶片？", "文中没有提到"), "refusing"),
        (pair("水车有多少个叶片？"), "question not in en"),
        (zh("How many blades are there?", "24"), "question not in zh"),
        (pair(kind="yes_no"), "neither yes nor no"),
        (pair(kind="multiple_choice", choices=("24", "25")), "three to six"),
        (pair(kind="multiple_choice", choices=("24", "25", "25 ")), "three to six"),
        (pair(kind="multiple_choice", choices=("22", "23", "25")), "none of the choices"),
    ],
)
def test_form_names_the_first_problem(spoilt, problem):
    check = form(spoilt)
    assert not check.passed
    assert problem in check.detail


@pytest.mark.parametrize(
    "sound",
    [
        pair('Who asked "How many? And why?" at the mill?', "Ann Shaw"),
        pair("Does the wheel have blades?", "yes", kind="yes_no"),
        zh("水车有叶片吗？", "是", kind="yes_no"),
        zh("NFL 的全称 National Football League 是什么意思？", "联盟"),
        pair(kind="multiple_choice", choices=("24", "25", "26")),
    ],
)
def test_form_lets_sound_pairs_pass(sound):
    assert form(sound).passed, form(sound).detail


def test_restated_in_chinese():
    assert restated(zh("孪生素数是什么？", "孪生素数猜想")).passed
    assert not restated(zh("拥有者阿姆斯特丹的雨林是什么？", "雨林")).passed
    assert restated(zh("是磨坊还是房子更老？", "磨坊")).passed


@pytest.mark.parametrize(
    ("question", "answer", "kind", "passed"),
    [
        ("Who is Ann Shaw?", "Who is Ann Shaw", "open", False),
        ("When did Ann Shaw, the owner, die?", "Ann Shaw", "open", False),
        ("What did the owner sell to the town?", "The owner sold, to the town, what the owner sells.", "open", True),
        ("What did the owner of the mill turn?", "The owner turned the mill.", "open", False),
        ("When did the owner die?", "The owner died in 1899.", "open", True),
        ("How many wheels are there?", "There are 24 wheels.", "open", True),
        ("Is the mill older, or the house?", "the mill", "open", True),
        ("Which is older, mill versus house?", "mill", "comparison", True),
        ("Is it true that yes is an answer?", "yes", "yes_no", True),
    ],
)
def test_restated(question, answer, kind, passed):
    assert restated(Pair(question, answer, kind)).passed is passed


def test_copied_from_a_demonstration_but_not_from_the_page():
    shown = "Here is an example. In which year was the old stone bridge over the river finished?"
    check = copied(pair("In which year was the old stone bridge finished?"), PAGE, [shown])
    # Nine words make five runs of five; the last, that ends in `bridge finished`, is not in the prompt.
    assert not check.passed
    assert check.score == pytest.approx(1 / 5)
    assert copied(pair("In which year was the old stone bridge finished?"), PAGE + shown, [shown]).passed
    assert copied(pair(), PAGE, [shown]).score == 1.0
    assert copied(pair(answer="the old stone bridge"), PAGE, [shown]).passed, "four words may coincide"
    assert not copied(zh("这座古老的石桥是哪一年建成的？", "24"), PAGE, ["例如：这座古老的石桥是哪一年建成的？"]).passed


@pytest.mark.parametrize("text", ["What is {topic}?", "string", "...", "[insert name] was born", "See <your answer>"])
def test_placeholders_are_leaks(text):
    assert not copied(pair(text), PAGE, []).passed
    assert not copied(pair(answer=text), PAGE, []).passed


@pytest.mark.parametrize("text", [r"What is \frac{ab}{cd}?", r"x_{max} and \text{speed}", "if 3 < x and y > 2"])
def test_formulas_are_no_placeholders(text):
    assert copied(pair(text), PAGE, []).passed


def test_answer_in_page_word_for_word_or_by_share():
    assert answer_in_page(pair(answer="ANN  shaw."), PAGE).score == 1.0
    assert answer_in_page(pair(answer="lade"), PAGE).score == 0.0, "part of a word is no place"
    # shaw, owner and 24 by value; not london
    check = answer_in_page(pair(answer="Shaw the owner, London, twenty-four"), PAGE)
    assert check.score == pytest.approx(3 / 4)
    assert answer_in_page(pair(answer="yes", kind="yes_no"), PAGE).score == 1.0


def test_on_page_is_the_share_of_the_questions_content():
    # blade, wheel; horse is not there
    assert on_page(pair("How many blades does the wheel of the horse have?"), PAGE).score == pytest.approx(2 / 3)
    # 水车, 叶片 and 叶 are terms; the page lacks nothing
    assert on_page(zh("水车的叶片是什么？", ""), "水车有二十四个叶片。").score == 1.0
    assert not on_page(zh("皇帝的诏书是什么？", ""), "水车有二十四个叶片。").passed


def test_near_answer_is_lower_for_the_answer_of_another_question():
    assert near_answer(pair(answer="24"), PAGE).score == 1.0
    assert near_answer(pair(answer="1899"), PAGE).score < 0.3
    assert near_answer(pair(answer="1234"), PAGE).score == 0.0
    twice = PAGE + " Far away. So far. Very far. It is 24 miles."
    assert near_answer(pair(answer="24"), twice).score == 1.0, "the best occurrence counts"


texts = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="0123456789.,^*/+-=()% $万亿一二百点\u00bd\u00b2x{}\\", max_size=60),
    st.just(PAGE),
)


@settings(max_examples=300, deadline=None)
@given(
    st.builds(
        Pair,
        texts,
        texts,
        st.sampled_from(["open", "multiple_choice", "yes_no", "numeric", "comparison"]),
        st.sampled_from(["en", "zh"]),
        st.lists(texts, max_size=2).map(tuple),
        st.lists(texts, max_size=3).map(tuple),
        texts,
    ),
    texts,
    st.lists(texts, max_size=2),
)
def test_checks_are_total_and_scores_stay_in_bounds(some, page, known):
    checks = free_checks(some, page, known=known)
    assert [check.name for check in checks] == ORDER
    assert all(0 <= check.score <= 1 for check in checks)


@pytest.mark.parametrize("unit", ["1 ", "A. ", "黑豹队丢了三百零八分，", "<|", "{a ", '"“', "问：", "\u0301\u0316"])
def test_a_hostile_page_or_pair_costs_seconds(unit):
    start = time.process_time()
    free_checks(pair(), unit * (600_000 // len(unit)))
    free_checks(Pair(unit * 20_000, unit * 20_000, evidence=(unit * 20_000,), explanation=unit * 20_000), PAGE)
    # Measured at 1 to 14 s; quadratic work would take hours.
    assert time.process_time() - start < 60


# Real questions and spoilt ones.

_SENTENCE = {"en": re.compile(r"(?:[^.!?]|[.!?](?!\s))+[.!?]*\s*"), "zh": re.compile("[^。！？]+[。！？]*")}
SETS = {
    "xquad-en": "qa_gold/xquad-en-a.jsonl.zst",
    "xquad-zh": "qa_gold/xquad-zh-a.jsonl.zst",
    "cmrc": "chinese/cmrc2018-wikipedia.jsonl.zst",
}
EVERY = {"cmrc": 4}
"""CMRC has seven times the questions of the others; every fourth takes long enough."""


def sentences(page, start, end, language):
    """The sentences of the page that hold the span."""
    held = [match for match in _SENTENCE[language].finditer(page) if match.start() < end and match.end() > start]
    return page[held[0].start() : held[-1].end()].strip()


def gold(shared, name):
    """(title, page, pair) of each question of a set; the evidence is the sentence that holds the answer."""
    path = shared / SETS[name]
    if not path.is_file():
        pytest.skip(f"no gold questions at {path}")
    with path.open("rb") as file:
        rows = [
            json.loads(line) for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
        ]
    found = []
    for row in rows:
        page, language = row.get("context") or row["text"], row["lang"][:2]
        asked = [(q["question"], q["answers"][0], -1) for q in row.get("qas", [])]
        for question, answer, start in asked or [(row["question"], row["answer"], row["answer_start"])]:
            start = page.find(answer) if start < 0 else start
            quote = sentences(page, start, start + len(answer), language)
            found.append((row["title"], page, Pair(question, answer, language=language, evidence=(quote,))))
    return found


def wrong_pages(rows, rng):
    for title, _, some in rows:
        other = next(row for row in iter(lambda: rng.choice(rows), None) if row[0] != title)
        yield other[1], some


def changed_numbers(rows, rng):
    """Pairs with one number of the answer, in figures, replaced by another with as many figures."""
    for _, page, some in rows:
        figures = list(re.finditer("[0-9]+", some.answer))
        if figures:
            one = rng.choice(figures)
            new = one.group()
            while int(new) == int(one.group()):
                size = len(one.group())
                new = str(rng.randrange(10 ** (size - 1) if size > 1 else 1, 10**size))
            yield page, replace(some, answer=some.answer[: one.start()] + new + some.answer[one.end() :])


def numbers_of_the_page(rows, rng):
    """The hardest change: to another number that the page states too."""
    for page, some in changed_numbers(rows, rng):
        others = [n.text for n in numbers(page) if n.text.isdecimal() and n.text not in " ".join(some.evidence)]
        old = re.search("[0-9]+", some.answer)
        if others and old:
            yield page, replace(some, answer=some.answer[: old.start()] + rng.choice(others) + some.answer[old.end() :])


def other_answers(rows, rng):
    """The answer, and its evidence, of another question about the same page."""
    same = defaultdict(list)
    for _, page, some in rows:
        same[page].append(some)
    for _, page, some in rows:
        others = [o for o in same[page] if o.answer not in some.answer and some.answer not in o.answer]
        for other in rng.sample(others, min(3, len(others))):
            yield page, replace(some, answer=other.answer, evidence=other.evidence)


def rejected(pairs, *, without=(), least=None):
    """Share of (page, pair) that fail a check, and how many there were."""
    verdicts = [[c for c in free_checks(some, page) if c.name not in without] for page, some in pairs]
    fails = [any(not c.passed or c.score < (least or {}).get(c.name, 0) for c in checks) for checks in verdicts]
    return sum(fails) / len(fails), len(fails)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_gold_is_kept_and_spoilt_pairs_are_rejected(name, shared):
    rng = random.Random(7)
    rows = gold(shared, name)[:: EVERY.get(name, 1)]
    kept, count = rejected([(page, some) for _, page, some in rows])
    moved = list(wrong_pages(rows, rng))
    requoted = [
        (page, replace(some, evidence=(max(_SENTENCE[some.language].findall(page), key=len).strip(),)))
        for page, some in moved
    ]
    shares = {
        "gold kept": 1 - kept,
        "wrong page, its quote kept": rejected(moved)[0],
        "wrong page, quote from the wrong page": rejected(requoted)[0],
        "wrong page, no quote asked for": rejected(moved, without=("evidence",))[0],
        "changed number": rejected(changed_numbers(rows, rng))[0],
        "changed to another number of the page": rejected(numbers_of_the_page(rows, rng))[0],
        "the same, grounded at 1": rejected(numbers_of_the_page(rows, rng), least={"grounded": 1.0})[0],
    }
    print(f"\n{name}: {count} questions")
    for what, share in shares.items():
        print(f"  {what}: {share:.4f}")
    assert shares["gold kept"] >= 0.95
    assert shares["wrong page, its quote kept"] >= 0.98
    assert shares["wrong page, quote from the wrong page"] >= 0.98
    assert shares["changed number"] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_near_answer_tells_half_of_the_answers_of_other_questions(name, shared):
    rows = gold(shared, name)
    own = sorted(near_answer(some, page).score for _, page, some in rows)
    least = own[len(own) // 10]
    others = [near_answer(some, page).score for page, some in other_answers(rows, random.Random(7))]
    share = sum(score < least for score in others) / len(others)
    print(f"\n{name}: near_answer >= {least:.3f} keeps 90% and rejects {share:.3f} of {len(others)}")
    assert share >= 0.5
