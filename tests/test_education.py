"""The expected grade: with a toy encoder whose numbers can be followed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.scores import topic
from curricula.scores.education import train, values


def blind(texts):
    """Every text is the same point: nothing can be told from it."""
    return np.ones((len(texts), 1), np.float32)


def by_word(texts):
    """`star` and `cell` lie at right angles; without either, a text lies in between."""
    rows = np.array([["star" in text, "cell" in text] for text in texts], np.float32).reshape(-1, 2)
    rows[~rows.any(axis=1)] = 1.0
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_where_nothing_can_be_told_the_value_is_the_mean_grade():
    """Three times 0 and once 4 make 1, although the head itself weighs both grades alike."""
    model = train(["a", "b", "c", "d"], ["0", "0", "0", "4"], ["g"] * 4, embed=blind)
    assert values(model, ["e"], blind) == pytest.approx([1.0], abs=1e-4)


@given(st.lists(st.sampled_from("012345"), min_size=1, max_size=30))
def test_it_is_the_mean_of_any_grades(grades):
    texts = [f"text {n}" for n in range(len(grades))]
    model = train(texts, grades, texts, embed=blind)
    assert values(model, ["other"], blind) == pytest.approx([np.mean([int(grade) for grade in grades])], abs=1e-3)


def test_where_a_word_decides_the_value_follows_it():
    texts = ["star one", "star two", "cell one", "cell two"]
    model = train(texts, ["5", "5", "0", "0"], ["a", "b", "c", "d"], embed=by_word)
    high, low, between, blank = values(model, ["a star", "a cell", "neither", " \n"], by_word)
    assert high > 4.5
    assert low < 0.5
    assert between == pytest.approx(2.5, abs=1e-3)
    assert blank == 0.0
    assert values(model, [], by_word) == []


def test_the_report_is_of_groups_that_were_not_seen():
    """Half 0 and half 5 have the mean 2.5; whoever always says that errs by 2.5."""
    texts = ["star one", "star two", "cell one", "cell two"]
    report = train(texts, ["5", "5", "0", "0"], ["a", "b", "a", "b"], embed=by_word).report
    assert report["grades"] == {"0": 2, "5": 2}
    assert (report["documents"], report["groups"], report["tested"]) == (4, 2, 4)
    assert report["error_average"] == 2.5
    assert 0 < report["error"] < 0.5
    lone = train(texts, ["5", "5", "0", "0"], ["a"] * 4, embed=by_word).report
    assert (lone["tested"], lone["error"], lone["error_average"]) == (0, None, None)


def test_a_stored_model_gives_the_same_values(tmp_path):
    texts = ["star one", "star two", "cell one", "cell two"]
    model = train(texts, ["5", "4", "0", "1"], texts, embed=by_word)
    model.save(tmp_path / "model")
    found = topic.load(tmp_path / "model")
    assert values(found, ["star", "cell", "x"], by_word) == values(model, ["star", "cell", "x"], by_word)
    assert found.report == model.report
