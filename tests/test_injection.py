"""The measure of recall: what each form changes, and figures that can be counted by hand."""

from pathlib import Path

import pytest

from mixer.benchmark import Item, read_items
from mixer.decontaminate import Index
from mixer.dedup import words
from mixer.forms import FORMS, forms
from mixer.injection import Measured, Recall, measure

DATA = Path(__file__).parents[2] / "shared" / "data" / "eval"
SEA = Item(
    "sea",
    "toy",
    'Why do the tides in the "Bay of Fundy" rise higher than on any other coast of the Atlantic?',
    "its length resonates with the tide",
    ("its length resonates with the tide", "the moon stands closer there", "the water is warmer"),
    "Each tide meets the one before it as the water swings back through the bay, so both add up.",
)
SHORT = Item("short", "toy", "Owls eat", "mice")
RIVER = Item("river", "toy", "How many tributaries does the lower Danube receive between Vienna and the Black Sea?")
PROSE = (
    "The harbour was quiet in the morning and the boats lay still upon the sand while people slept in their houses. "
    * 5
)


def test_case_1_the_forms_of_an_item():
    found = forms(SEA, 1, PROSE)
    assert tuple(found) == FORMS
    assert found["verbatim"] == (
        f"{SEA.passage}\n{SEA.question}\nOption A: its length resonates with the tide\n"
        "Option B: the moon stands closer there\nOption C: the water is warmer\n"
        "Answer: its length resonates with the tide"
    )
    assert (found["question_only"], found["passage_only"]) == (SEA.question, SEA.passage)
    assert found["rewrapped"] != found["verbatim"]
    assert words(found["rewrapped"]) == words(found["verbatim"])
    assert sorted(words(found["options_only"])) == sorted([*words(" ".join(SEA.choices)), *"abc", *["option"] * 3])
    assert sorted(words(found["reordered"])) == sorted(words(found["verbatim"]))
    assert found["embedded"].replace(" ".join(found["verbatim"].split()), "").split() == PROSE.split()


def test_case_2_one_word_is_edited_and_no_more():
    for seed in range(20):
        before, after = words(SEA.question), words(forms(SEA, seed)["question_edited"])
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    zh = Item("zh", "toy", "常见家畜中不形成壶腹的是哪一种动物")
    assert sum(a != b for a, b in zip(zh.question, forms(zh, 1)["question_edited"], strict=True)) == 2


def test_case_3_a_form_that_cannot_be_is_left_out():
    assert tuple(forms(SHORT, 1)) == ("verbatim", "rewrapped", "edited", "question_only", "question_edited")
    assert tuple(forms(Item("x", "toy", "1 + 1"), 1)) == ("verbatim", "rewrapped", "question_only")


def test_choices_are_marked_in_many_ways():
    marks = {forms(SEA, seed)["options_only"].split("the ")[0].split("its ")[0] for seed in range(60)}
    assert {"A. ", "(A) ", "a) ", "1. ", "(1) ", "i. ", "①", "- ", "Option A: "} == marks
    many = Item("many", "toy", "Which?", "", tuple(f"choice number {i}" for i in range(12)))
    assert forms(many, 1)["verbatim"].splitlines()[12] == "L. choice number 11"


def test_forms_depend_on_the_seed_and_the_item_alone():
    assert forms(SEA, 1, PROSE) == forms(SEA, 1, PROSE)
    assert len({forms(SEA, seed)["rewrapped"] for seed in range(8)}) > 3
    assert len({forms(SEA, seed)["question_edited"] for seed in range(8)}) > 3


def test_case_4_a_report_counted_by_hand():
    items = [SEA, SHORT, RIVER]
    clean = [PROSE, f"{PROSE}\n{RIVER.question}\n{RIVER.question}"]
    report = measure(Index.build(items), items, clean, 1)
    assert (report.together.items, report.together.unmatchable, report.documents) == (3, 1, 2)
    assert report.together.recall[0] == Recall("verbatim", 2, 2, 1, ())
    assert report.together.recall[-1] == Recall("options_only", 1, 1, 0, ())
    assert {one.share for one in report.together.recall} == {1.0}
    # The prose has 105 words, the question 14.
    assert (report.found, report.words) == (2, 2 * 105 + 2 * 14)
    assert report.found_per_million == pytest.approx(1e6 * 2 / 238)
    assert [(example.text, example.wanted) for example in report.examples] == [
        (RIVER.question[:-1], RIVER.question)
    ] * 2


def test_what_is_not_found_is_counted_and_named(monkeypatch):
    index = Index.build([SEA, RIVER])
    monkeypatch.setattr(Index, "find", lambda self, text: [])
    report = measure(index, [SEA, RIVER], [PROSE], 1)
    assert {one.share for one in report.together.recall} == {0.0}
    assert sorted(report.together.recall[0].missed) == [("toy", "river"), ("toy", "sea")]


def test_without_clean_text_there_is_nothing_to_embed_in():
    report = measure(Index.build([SEA]), [SEA], [], 1)
    embedded = report.together.recall[FORMS.index("embedded")]
    assert embedded == Recall("embedded", 0, 0, 0, ())
    assert (report.words, report.found_per_million, embedded.share) == (0, 0.0, 0.0)


def test_order_and_number_of_items_do_not_change_what_one_of_them_is_given():
    both, reverse = (
        measure(Index.build(items), items, [PROSE], 3, most=1, least=0) for items in ([SEA, RIVER], [RIVER, SEA])
    )
    assert both == reverse
    assert both.together.items == 1


def test_case_5_a_small_benchmark_is_tried_and_told_beside_a_large_one():
    many = [
        Item(str(i), "large", f"In year {1000 + i} how many crates of amber did ship {i} carry?") for i in range(30)
    ]
    few = [Item(str(i), "small", "What is it?", "that") for i in range(3)]
    report = measure(Index.build([*many, *few]), [*many, *few], [PROSE], 1, most=1, least=2)
    assert {name: (own.items, own.unmatchable) for name, own in report.benchmarks.items()} == {
        "large": (2, 0),
        "small": (2, 2),
    }
    assert report.benchmarks["small"].recall[0] == Recall("verbatim", 0, 0, 2, ())
    assert report.together == Measured(4, 2, report.together.recall)


def test_a_hit_of_another_item_does_not_count_and_one_of_an_equal_question_does(monkeypatch):
    again = Item("again", "other", RIVER.question.upper())
    report = measure(Index.build([RIVER, again]), [RIVER, again], [PROSE], 1)
    assert {name: own.recall[0].caught for name, own in report.benchmarks.items()} == {"toy": 1, "other": 1}
    index = Index.build([RIVER, SEA])
    hits = index.find(SEA.question)
    monkeypatch.setattr(Index, "find", lambda self, text: hits if text != PROSE else [])
    report = measure(index, [RIVER, SEA], [PROSE], 1)
    assert (report.together.recall[0].caught, report.together.recall[0].missed) == (1, (("toy", "river"),))


@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data here")
@pytest.mark.parametrize("name", ["mmlu-dev-validation", "gaokao-a", "gsm8k-test", "openbookqa-test"])
def test_real_items_are_found(name):
    items = list(read_items(DATA / f"{name}.jsonl.zst"))
    report = measure(Index.build(items), items, [PROSE], 1, most=150)
    floors = {"verbatim": 0.99, "rewrapped": 0.99, "embedded": 0.97, "edited": 0.8, "question_only": 0.99}
    floors |= {"reordered": 0.99} if items[0].choices else {}
    found = {one.form: one.share for one in report.together.recall}
    assert all(found[form] >= floor for form, floor in floors.items()), found
