"""Quality: figures counted by hand, and a classifier that reads the whole text and does not know its examples by heart."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.scores import quality
from curricula.scores.heuristics import DIVERSITY_WORDS, heuristics
from curricula.scores.quality import QualityModel, auc, hashed, load, parts, train
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
    distinct = " ".join(f"w{i}" for i in range(DIVERSITY_WORDS))
    assert heuristics(distinct)["diversity"] == 1.0
    assert heuristics(distinct + " w0" * 5000)["diversity"] == 1.0
    assert heuristics("w0 " + distinct)["diversity"] == pytest.approx(1 - 1 / DIVERSITY_WORDS)


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
    assert long.weights[0] == pytest.approx(short.weights[0], abs=1e-4)
    assert long.biases[0] == pytest.approx(short.biases[0], abs=1e-4)


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


def test_an_example_is_scored_by_a_model_that_did_not_see_it():
    # A site among the negatives is like the positives; trained on, it would be known for what it is called.
    strays = [f"The proof of theorem {i} rests on the lemma of page {i * 7}." for i in range(50, 54)]
    names = [str(i) for i in range(24)]
    model = train(GOOD, [*BAD, *strays], groups=(names[:12], [*names[12:], *["site"] * 4]))
    assert [model.score(text) > 0.5 for text in strays] == [True] * 4
    by_heart = QualityModel(model.weights, model.biases, model.examples[:0], model.left_out_by[:0])
    assert [by_heart.score(text) < model.score(text) for text in strays] == [True] * 4
    assert all(by_heart.score(text) == model.score(text) for text in ("Another lemma.", "Another watch."))


def test_an_example_that_nothing_could_be_trained_without_is_scored_by_the_model_of_all():
    model = train(GOOD, BAD, groups=(["one"] * 12, [str(i) for i in range(12)]))
    assert len(model.examples) == model.report["tested"] == 12
    assert model.score(GOOD[0]) > 0.5


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
    with pytest.raises(SourceError, match=r"got a quality model of version 0 with weights \(6, 262144\), expected 2"):
        load(folder)
    (folder / "quality.json").write_text("{")
    with pytest.raises(SourceError, match=r"quality\.json: got damaged JSON"):
        load(folder)


def test_examples_of_both_kinds_are_needed():
    with pytest.raises(RecipeError, match="quality: examples: got 0 positives and 1 negatives, expected both"):
        train([], ["x"])
    with pytest.raises(RecipeError, match="quality: groups: got 1 and 2, expected one a text: 1 and 1"):
        train(["x"], ["y"], groups=(["a"], ["b", "c"]))
