"""Calibration: what corruptions make of a gold pair, and the curve of a check, by hand-sized numbers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import SourceError
from synth.calibrate import report
from synth.candidate import Pair
from synth.labelled import CORRUPTIONS, GOLD, Labelled, corrupted, read
from synth.scored import Scored
from synth.suggest import suggest

PAGE = "Granite formed 300 million years ago. It is a rock of the deep crust. Basalt is found in 12 places."
OTHER = "Cats purr at 25 hertz. They sleep a lot."


def gold(page, question, answer, group, kind="open", language="en"):
    return Labelled(page, Pair(question, answer, kind, language, (page,)), GOLD, group, "x")


ROWS = [
    gold(PAGE, "When did granite form?", "300 million years ago", "rocks"),
    gold(PAGE, "What is granite?", "It is a rock of the deep crust", "rocks"),
    gold(PAGE, "Is basalt found in places?", "yes", "rocks", "yes_no"),
    gold(OTHER, "At how many hertz do cats purr?", "25 hertz", "cats"),
]


def made(name, question):
    return [each for each in corrupted(ROWS) if each.label == name and each.pair.question == question]


def test_another_page_comes_from_another_article():
    for each in corrupted(ROWS):
        if each.label == "other_page":
            assert each.page == (OTHER if each.group == "rocks" else PAGE)
            assert each.pair in [row.pair for row in ROWS]


def test_another_answer_is_of_the_same_page():
    assert made("other_answer", "When did granite form?")[0].pair.answer in {"It is a rock of the deep crust", "yes"}
    assert not made("other_answer", "Is basalt found in places?")
    assert not made("other_answer", "At how many hertz do cats purr?")


def test_a_changed_number_is_another_number_of_the_same_length():
    answer = made("changed_number", "When did granite form?")[0].pair.answer
    number = int(answer.split()[0])
    assert number != 300
    assert 100 <= number <= 999
    assert answer.endswith(" million years ago")
    assert not made("changed_number", "What is granite?")


@given(st.integers(0, 10**6))
def test_a_number_is_always_changed(number):
    page = f"It holds {number} of them."
    rows = [gold(page, "How many?", str(number), "a"), gold(OTHER, "Who?", "Cats", "b")]
    changed = [each for each in corrupted(rows) if each.label == "changed_number"]
    assert changed
    assert all(each.pair.answer != str(number) for each in changed)
    assert all(len(each.pair.answer) == len(str(number)) for each in changed)


def test_negation_turns_a_statement_and_a_yes_round():
    assert made("negated", "What is granite?")[0].pair.answer == "It is not a rock of the deep crust"
    assert made("negated", "Is basalt found in places?")[0].pair.answer == "no"


def test_truncation_halves_long_answers():
    assert made("truncated", "What is granite?")[0].pair.answer == "It is a rock"
    assert not made("truncated", "Is basalt found in places?")


def test_only_the_named_corruptions_are_made():
    assert {each.label for each in corrupted(ROWS)} == set(CORRUPTIONS)


def test_a_file_of_gold_pairs_is_read_and_corrupted_and_a_labelled_one_is_taken_as_it_is(tmp_path):
    path = tmp_path / "gold.jsonl"
    rows = [{"page": row.page, "question": row.pair.question, "answer": row.pair.answer} for row in ROWS]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read(path)
    assert [each.label for each in found[:4]] == [GOLD] * 4
    assert found[0].pair.evidence == ("Granite formed 300 million years ago.",)
    assert len(found) > 8
    path.write_text("\n".join(json.dumps(row | {"label": GOLD if i else "mine"}) for i, row in enumerate(rows)))
    assert [each.label for each in read(path)] == ["mine", GOLD, GOLD, GOLD]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"gold\.jsonl:1: got .*, expected an object with page, question, answer"),
        ('{"page": "x"}', r"gold\.jsonl:1: got 'question'"),
        ('{"page": "x", "question": "y", "answer": "z", "kind": "essay"}', r"gold\.jsonl:1: got kind 'essay'"),
        ("", "got no pairs"),
    ],
)
def test_a_bad_file_is_told_by_line(tmp_path, text, message):
    path = tmp_path / "gold.jsonl"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        read(path)
    with pytest.raises(SourceError, match="no such file"):
        read(tmp_path / "none.jsonl")


def failed(score):
    return frozenset() if score > 0.5 else frozenset({"on_page"})


def rows_of(gold_scores, wrong_scores, groups=("a", "b", "c", "d")):
    made = [(GOLD, score) for score in gold_scores] + [("other_page", score) for score in wrong_scores]
    return [
        Scored(label, "open", "x", groups[i % len(groups)], failed(score), {"on_page": score})
        for i, (label, score) in enumerate(made)
    ]


def test_the_curve_of_a_check_by_hand():
    """Ten gold pairs at 0.1 ... 1.0: keeping 90% lays the threshold at 0.2, which two of four wrong ones miss."""
    found = report(rows_of([i / 10 for i in range(1, 11)], [0.0, 0.1, 0.3, 0.9]))
    points = {round(point["gold_kept"], 1): point for point in found["curves"]["open"]["on_page"]}
    assert points[0.9]["threshold"] == pytest.approx(0.2)
    assert points[0.9]["rejected"] == {"other_page": 0.5}
    assert points[0.9]["precision"] == pytest.approx(9 / 11, abs=1e-4)
    assert found["decision"]["open"]["gold"] == {"pairs": 10, "passed": 0.5}
    assert found["decision"]["open"]["other_page"] == {"pairs": 4, "passed": 0.25}


def test_the_combination_separates_what_one_check_separates():
    found = report(rows_of([0.8, 0.9] * 10, [0.1, 0.2] * 10))
    assert found["curves"]["open"]["combined"][0]["rejected"]["other_page"] == 1.0


@given(st.lists(st.floats(0, 1), min_size=4, max_size=40), st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_every_point_keeps_the_share_it_promises(gold_scores, wrong_scores):
    for points in report(rows_of(gold_scores, wrong_scores))["curves"]["open"].values():
        assert points[0]["gold_kept"] >= 0.99 - 1e-3
        assert all(point["gold_kept"] >= 0.50 - 1e-3 for point in points)


def test_the_suggested_threshold_keeps_the_wanted_share_and_is_measured_on_other_groups():
    """Gold at 0.50 ... 0.99: to keep 90% of it, 0.55 is as strict as can be; half of the wrong ones lie above 0.5."""
    gold_scores = [0.5 + i / 100 for i in range(50)]
    rows = rows_of([score for score in gold_scores for _ in range(4)], [0.1, 0.2, 0.9, 0.9])
    found = suggest(rows, keep=0.9)
    assert found["thresholds"] == {"on_page": 0.55}
    assert found["held_out"]["gold"]["passed"] == pytest.approx(0.9)
    assert found["held_out"]["other_page"] == {"pairs": 2, "passed": 0.5}


def test_a_check_that_rejects_gold_too_often_is_told_to_pass_everything():
    """Its scores are 0 for most gold pairs, so no threshold above it keeps enough."""
    rows = [
        Scored(label, "open", "x", "abcd"[i % 4], frozenset({"votes"}), {"votes": [0.0, 0.0, 0.4, 1.0][(i // 4) % 4]})
        for i in range(64)
        for label in (GOLD, "other_page")
    ]
    found = suggest(rows)
    assert found["thresholds"] == {"votes": 0.0}
    assert found["held_out"]["gold"]["passed"] == 1.0


def test_nothing_is_suggested_from_too_few_groups():
    assert suggest(rows_of([0.8, 0.9] * 10, [0.1], groups=("a", "b", "c"))) == {}
