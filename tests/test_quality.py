"""Quality: figures counted by hand, buckets of equal values, and a classifier that reads the whole text."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula import quality
from curricula.quality import QualityModel, auc, buckets, hashed, heuristics, load, parts, train
from mixer.errors import RecipeError, SourceError

GOOD = [f"The proof of theorem {i} follows from lemma {i} because the integral converges." for i in range(12)]
BAD = [f"Click here to buy {i} cheap watches now, best price, free shipping today!" for i in range(12)]


@pytest.fixture(scope="module")
def model() -> QualityModel:
    return train(GOOD, BAD)


def test_heuristics_by_hand():
    found = heuristics("a b, a!")
    assert found["characters"] == 7
    assert found["words"] == 3
    assert found["diversity"] == pytest.approx(2 / 3)
    assert found["symbols"] == pytest.approx(2 / 7)


def test_heuristics_of_nothing():
    empty = {"characters": 0.0, "words": 0.0, "compression": 1.0, "diversity": 0.0, "symbols": 0.0}
    assert heuristics("") == empty
    assert heuristics("?!")["symbols"] == 1.0


def test_repetition_compresses():
    assert heuristics("spam " * 1000)["compression"] < 0.02
    letters = "".join(map(chr, np.random.default_rng(1).integers(0x4E00, 0x9FFF, 2000)))
    assert heuristics(letters)["compression"] > 0.7


def test_diversity_looks_at_the_first_words_only():
    distinct = " ".join(f"w{i}" for i in range(quality.DIVERSITY_WORDS))
    assert heuristics(distinct)["diversity"] == 1.0
    assert heuristics(distinct + " w0" * 5000)["diversity"] == 1.0
    assert heuristics("w0 " + distinct)["diversity"] == pytest.approx(1 - 1 / quality.DIVERSITY_WORDS)


def test_letters_with_accents_are_no_symbols():
    assert heuristics("nai\u0308ve हिन्दी 水分 ٣")["symbols"] == 0.0
    assert heuristics("_+=水")["symbols"] == 0.75


@given(st.text(st.characters()))
def test_heuristics_are_bounded_for_any_text(text):
    found = heuristics(text)
    assert found["compression"] > 0
    assert 0 <= found["diversity"] <= 1
    assert 0 <= found["symbols"] <= 1


def test_a_lone_surrogate_is_survived(model):
    assert heuristics("a\ud800b")["characters"] == 3
    assert 0 <= model.score("a\ud800b") <= 1


def test_buckets_by_hand():
    assert buckets(np.array([5.0, 1.0, 9.0, 7.0]), 2).tolist() == [0, 0, 1, 1]
    assert buckets(np.arange(10.0), 5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    # Six equal values take up places 0 to 5 of 8: their middle lies in the second quarter.
    assert buckets(np.array([0.0] * 6 + [1.0, 2.0]), 4).tolist() == [1] * 6 + [3, 3]
    assert buckets(np.array([3.0, 3.0, 3.0]), 3).tolist() == [1, 1, 1]
    assert buckets(np.array([-np.inf, 0.0, np.inf]), 3).tolist() == [0, 1, 2]
    assert buckets(np.array([]), 3).tolist() == []


@given(st.lists(st.floats(allow_nan=False), max_size=60), st.integers(1, 12))
def test_buckets_keep_order_and_bounds(values, count):
    found = buckets(np.array(values), count)
    assert ((found >= 0) & (found < count)).all()
    for value, bucket in zip(values, found, strict=True):
        for other, its in zip(values, found, strict=True):
            assert bucket == its if value == other else (value < other) == (bucket < its) or bucket == its
    if len(set(values)) == len(values):
        sizes = np.bincount(found, minlength=count)
        assert sizes.max() - sizes.min() <= 1


def test_buckets_refuse_what_has_no_place():
    with pytest.raises(ValueError, match="count: got 0, expected at least 1"):
        buckets(np.array([1.0]), 0)
    with pytest.raises(ValueError, match="values: got 2 that are not numbers, expected none"):
        buckets(np.array([1.0, np.nan, np.nan]), 3)


def test_auc_by_hand():
    # Of the four pairs 0.9 wins both, 0.4 wins one and ties one.
    assert auc(np.array([0.9, 0.4]), np.array([0.1, 0.4])) == 0.875
    assert auc(np.array([1.0]), np.array([0.0])) == 1.0
    assert auc(np.array([0.3, 0.3]), np.array([0.3])) == 0.5
    assert auc(np.array([]), np.array([0.3])) is None
    assert auc(np.array([0.3]), np.array([])) is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=15), st.lists(st.integers(0, 4), min_size=1, max_size=15))
def test_auc_counts_pairs(positives, negatives):
    pairs = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    assert auc(np.array(positives), np.array(negatives)) == pytest.approx(sum(pairs) / len(pairs))


@given(st.text(max_size=300), st.integers(1, 5))
def test_parts_are_the_whole_text(text, most):
    whole = parts(text * 60)
    assert "".join(whole) == text * 60
    assert all(len(part) <= 4000 for part in whole)
    assert max(map(len, whole)) - min(map(len, whole)) <= 1
    chosen = parts(text * 60, most)
    assert len(chosen) == min(most, len(whole))
    assert chosen[0] == whole[0]
    assert set(chosen) <= set(whole)


def test_each_part_has_length_one_and_a_row_of_its_text():
    rows = hashed(["one two", "", "?"])
    # Two words, one pair, and the bucket that every part has.
    assert rows.sizes.tolist() == [4, 1, 1]
    assert (rows.sizes * rows.scale**2).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert rows.owner.tolist() == [0, 1, 2]
    assert rows.dot(np.ones(quality.BUCKETS)).tolist() == pytest.approx([2.0, 1.0, 1.0])
    assert rows.columns.max() < quality.BUCKETS


def test_good_scores_above_bad_on_texts_it_did_not_see(model):
    assert model.report == {"texts": 24, "groups": 24, "tested": 24, "accuracy": 1.0, "auc": 1.0}
    assert model.score("This lemma proves that the integral converges.") > 0.5
    assert model.score("Free shipping, buy now!") < 0.5
    assert 0 <= model.score("") <= 1


def test_order_of_words_counts_as_pairs():
    forward, backward = ["red blue"] * 3, ["blue red"] * 3
    model = train(forward, backward)
    assert model.score("red blue") > 0.6
    assert model.score("blue red") < 0.4


def test_the_whole_text_is_scored(model):
    # Six parts, of which the first three are good and the last three bad.
    good, bad = ((" ".join(texts) * 20)[:12_000] for texts in (GOOD, BAD))
    assert len(parts(good + bad)) == 6
    assert model.score(good) > 0.8
    assert model.score(bad) < 0.2
    assert model.score(good + bad) == pytest.approx((model.score(good) + model.score(bad)) / 2)


def test_a_text_counts_once_however_long_it_is():
    part, other = ("alpha beta " * 400)[:4000], "epsilon"
    short, long = train([part, other], ["gamma"] * 2), train([part * 3, other], ["gamma"] * 2)
    assert long.weights == pytest.approx(short.weights, abs=1e-4)
    assert long.bias == pytest.approx(short.bias, abs=1e-4)


def test_whole_groups_are_held_out():
    # Each site has a word of its own and nothing in common with its kind: what is learnt does not carry over.
    positives, negatives = ["p1 " * 3] * 4 + ["p2 " * 3] * 4, ["n1 " * 3] * 4 + ["n2 " * 3] * 4
    groups = (["a"] * 4 + ["b"] * 4, ["c"] * 4 + ["d"] * 4)
    assert train(positives, negatives).report["auc"] == 1.0
    assert train(positives, negatives, groups=groups).report["auc"] <= 0.5
    one_site = train(positives, negatives, groups=(["a"] * 8, ["b"] * 8)).report
    assert one_site == {"texts": 16, "groups": 2, "tested": 0, "accuracy": None, "auc": None}


def test_a_site_with_both_kinds_is_held_out_whole():
    report = train(GOOD[:4], BAD[:4], groups=(["a", "a", "b", "b"], ["a", "c", "c", "c"])).report
    assert report["tested"] == 8


def test_equal_training_gives_equal_bits_and_another_model_another_fingerprint(model):
    assert train(GOOD, BAD).fingerprint == model.fingerprint
    assert train(BAD, GOOD).fingerprint != model.fingerprint
    assert train(GOOD, BAD, ridge=0.1).fingerprint != model.fingerprint


def test_a_saved_model_is_the_same_model(tmp_path, model):
    model.save(tmp_path / "quality")
    again = load(tmp_path / "quality")
    assert again.fingerprint == model.fingerprint
    assert again.report == model.report
    assert again.score(GOOD[0]) == model.score(GOOD[0])


def test_what_is_no_saved_model_is_named(tmp_path, model):
    with pytest.raises(SourceError, match=r"weights\.npz: got FileNotFoundError"):
        load(tmp_path)
    folder = tmp_path / "quality"
    model.save(folder)
    (folder / "quality.json").write_text(json.dumps({"version": 0}))
    with pytest.raises(SourceError, match=r"got a quality model of version 0 with weights \(262144,\), expected 1"):
        load(folder)
    (folder / "quality.json").write_text("{")
    with pytest.raises(SourceError, match=r"quality\.json: got damaged JSON"):
        load(folder)


def test_examples_of_both_kinds_are_needed():
    with pytest.raises(RecipeError, match="quality: examples: got 0 positives and 1 negatives, expected both"):
        train([], ["x"])
    with pytest.raises(RecipeError, match="quality: groups: got 1 and 2, expected one a text: 1 and 1"):
        train(["x"], ["y"], groups=(["a"], ["b", "c"]))
