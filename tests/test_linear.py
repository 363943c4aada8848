"""The linear classifier: minima worked out by hand, what the order of rows changes (nothing), folds that leak nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curricula.scores.linear import Linear, by_group, fit, folds, held_out, load, minimise, score
from mixer.errors import SourceError


def test_two_clusters_by_hand():
    # Weights are -u and u by symmetry. Loss log(1 + exp(-2u)) + ridge u^2, least where ridge u = 1 / (1 + exp(2u)).
    model = fit(np.array([[-1.0], [1.0]]), ["a", "b"], ["a", "b"], ridge=1 / (1 + math.e**2))
    assert model.weights == pytest.approx(np.array([[-1.0, 1.0]]), abs=1e-6)
    assert model.bias == pytest.approx(np.zeros(2), abs=1e-6)
    odds = math.e**2
    assert model.probabilities(np.array([[1.0]]))[0] == pytest.approx([1 / (1 + odds), odds / (1 + odds)], abs=1e-6)


def test_three_classes_by_hand():
    # Weights are 2u/3 on the diagonal and -u/3 off it. Loss log(1 + 2 exp(-u)) + ridge u^2; u = 1 is least for this ridge.
    model = fit(np.eye(3), ["a", "b", "c"], ["a", "b", "c"], ridge=1 / (math.e + 2))
    assert model.weights == pytest.approx(np.eye(3) - 1 / 3, abs=1e-6)
    found = model.probabilities(np.eye(3))
    assert found.diagonal() == pytest.approx([math.e / (math.e + 2)] * 3, abs=1e-6)


def test_separable_clusters_are_told_apart():
    generator = np.random.default_rng(3)
    middles = np.array([[3.0, 0.0], [0.0, 3.0], [-3.0, -3.0]])
    labels = ["x", "y", "z"] * 20
    features = np.tile(middles, (20, 1)) + generator.normal(0, 0.3, (60, 2))
    model = fit(features, labels, ["z", "y", "x"])
    assert model.classes == ("z", "y", "x")
    assert [model.classes[i] for i in model.probabilities(features).argmax(axis=1)] == labels


def test_a_class_with_more_rows_weighs_no_more():
    model = fit(np.zeros((10, 2)), ["often"] * 9 + ["rare"], ["often", "rare"])
    assert model.probabilities(np.zeros((1, 2)))[0] == pytest.approx([0.5, 0.5], abs=1e-6)


def test_a_prior_is_where_the_weights_are_held():
    features, labels = np.array([[-1.0], [1.0]]), ["a", "b"]
    prior = Linear(("b", "other", "a"), np.array([[-2.0, 9.0, 2.0]]), np.zeros(3))
    # It says the opposite of the rows: held fast it wins, left free the rows do.
    assert fit(features, labels, ["a", "b"], 1e4, prior).weights == pytest.approx(np.array([[2.0, -2.0]]), abs=1e-3)
    assert fit(features, labels, ["a", "b"], 1e-3, prior).weights[0, 1] > 1


@pytest.mark.parametrize("sure", [0, 1, 2, 7])
def test_an_undecided_row_follows_its_group_by_the_rule_of_succession(sure):
    rows = np.array([[0.5, 0.5], *[[1.0, 0.0]] * sure])
    # As many sure rows and one more against one: Laplace's rule.
    found = by_group(rows, ["site"] * len(rows))
    assert found[0] == pytest.approx([(sure + 1) / (sure + 2), 1 / (sure + 2)])
    assert found[1:] == pytest.approx(rows[1:])


def test_a_group_changes_no_other_group():
    rows = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    found = by_group(rows, ["a", "b", "a", "c"])
    assert found[[1, 3]] == pytest.approx(rows[[1, 3]])
    assert found[[0, 2]] == pytest.approx(by_group(rows[[0, 2]], ["a", "a"]))
    assert by_group(np.empty((0, 2)), []).shape == (0, 2)


def test_a_group_of_two_subjects_keeps_both():
    rows = np.array([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10)
    assert by_group(rows, ["site"] * 20).argmax(axis=1).tolist() == [0] * 10 + [1] * 10


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.floats(-30, 30), min_size=3, max_size=3)), min_size=1))
def test_probabilities_of_groups_sum_to_one_in_any_order(pairs):
    groups = [str(group) for group, _ in pairs]
    rows = Linear(("a", "b", "c"), np.eye(3), np.zeros(3)).probabilities(np.array([scores for _, scores in pairs]))
    found = by_group(rows, groups)
    assert found.sum(axis=1) == pytest.approx(np.ones(len(rows)))
    assert by_group(rows[::-1], groups[::-1])[::-1] == pytest.approx(found, abs=1e-9)


def test_rows_said_twice_change_nothing():
    features, labels = np.array([[0.2, 1.0], [1.0, 0.1], [0.9, 0.3]]), ["a", "b", "b"]
    once = fit(features, labels, ["a", "b"])
    twice = fit(np.tile(features, (2, 1)), labels * 2, ["a", "b"])
    assert twice.weights == pytest.approx(once.weights, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(9)))
def test_the_order_of_rows_decides_nothing(order):
    features = np.random.default_rng(5).normal(size=(9, 4))
    labels = np.array(["a", "b", "c"] * 3)
    first = fit(features, labels.tolist(), ["a", "b", "c"], ridge=0.01)
    second = fit(features[order], labels[order].tolist(), ["a", "b", "c"], ridge=0.01)
    assert np.allclose(first.probabilities(features), second.probabilities(features), atol=1e-4)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2), min_size=1, max_size=5))
def test_probabilities_sum_to_one_however_large_the_scores(rows):
    model = Linear(("a", "b", "c"), np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -1e3]]), np.array([0.0, 1.0, -1.0]))
    found = model.probabilities(np.array(rows))
    assert np.allclose(found.sum(axis=1), 1.0)
    assert ((found >= 0) & (found <= 1)).all()


def test_equal_calls_give_equal_bits():
    features = np.random.default_rng(1).normal(size=(30, 8))
    labels = ["a", "b"] * 15
    assert fit(features, labels, ["a", "b"]).fingerprint == fit(features, labels, ["a", "b"]).fingerprint


def test_minimum_of_a_long_valley_by_hand():
    # (x - 3)^2 + 1000 (y + 2)^2 is least at (3, -2).
    scale, middle = np.array([1.0, 1000.0]), np.array([3.0, -2.0])
    found = minimise(lambda at: (float(scale @ (at - middle) ** 2), 2 * scale * (at - middle)), np.zeros(2))
    assert found == pytest.approx(middle, abs=1e-6)


def test_minimum_where_it_starts_and_where_the_slope_misleads():
    assert minimise(lambda at: (float(at @ at), 2 * at), np.zeros(3)) == pytest.approx(np.zeros(3))
    # A slope of the wrong sign promises what no step brings: it stays where it is instead of running away.
    assert minimise(lambda at: (float(at @ at), -2 * at), np.ones(1)) == pytest.approx(np.ones(1))


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (["a"], ["a", "b"], r"2 rows, 1 labels"),
        (["a", "c"], ["a", "b"], r"differ in \['b', 'c'\]"),
        (["a", "a"], ["a", "b"], r"differ in \['b'\]"),
    ],
)
def test_rows_labels_and_classes_must_fit(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        fit(np.zeros((2, 1)), labels, classes)


@pytest.mark.parametrize("ridge", [0.0, -1.0, math.nan])
def test_a_ridge_is_needed(ridge):
    with pytest.raises(ValueError, match=r"ridge: got .*, expected more than 0"):
        fit(np.zeros((2, 1)), ["a", "b"], ["a", "b"], ridge)


def test_a_saved_model_is_the_same_model(tmp_path):
    model = fit(np.eye(3), ["a", "bé", "水"], ["a", "bé", "水"])
    model.save(tmp_path / "one.npz")
    again = load(tmp_path / "one.npz")
    assert again.classes == model.classes
    assert again.fingerprint == model.fingerprint
    again.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_the_fingerprint_tells_models_apart():
    weights, bias = np.eye(2), np.zeros(2)
    prints = {
        Linear(classes, w, b).fingerprint
        for classes, w, b in [
            (("a", "b"), weights, bias),
            (("b", "a"), weights, bias),
            (("a", "b"), weights * 2, bias),
            (("a", "b"), weights, bias + 1),
        ]
    }
    assert len(prints) == 4


def test_what_is_no_saved_model_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"gone\.npz: got FileNotFoundError, expected a saved classifier"):
        load(tmp_path / "gone.npz")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(SourceError, match=r"torn\.npz: got BadZipFile"):
        load(tmp_path / "torn.npz")
    np.savez(tmp_path / "other.npz", classes=np.array(["a", "b"]), weights=np.zeros((2, 3)), bias=np.zeros(2))
    with pytest.raises(SourceError, match=r"got weights of shape \(2, 3\) for 2 classes") as caught:
        load(tmp_path / "other.npz")
    assert caught.value.hint
    np.savez(tmp_path / "less.npz", classes=np.array(["a"]))
    with pytest.raises(SourceError, match="got KeyError"):
        load(tmp_path / "less.npz")


class _Trap:
    opened = False

    def __reduce__(self):
        return setattr, (_Trap, "opened", True)


def test_a_pickle_inside_is_refused_and_not_run(tmp_path):
    trap = np.array([_Trap()], object)
    np.savez(tmp_path / "trap.npz", classes=np.array(["a"]), weights=trap, bias=np.zeros(1), allow_pickle=True)
    with pytest.raises(SourceError, match="got ValueError"):
        load(tmp_path / "trap.npz")
    assert not _Trap.opened


def test_folds_by_hand():
    labels = ["a", "a", "a", "b", "b", "c", "c"]
    groups = ["s1", "s1", "s2", "s3", "s4", "s5", "s5"]
    found = [(training.tolist(), test.tolist()) for training, test in folds(labels, groups, 9)]
    # Each site that another one can stand in for is left out in turn; the only site of c never is.
    assert sorted(found, key=lambda pair: pair[1]) == [
        ([2, 3, 4, 5, 6], [0, 1]),
        ([0, 1, 3, 4, 5, 6], [2]),
        ([0, 1, 2, 4, 5, 6], [3]),
        ([0, 1, 2, 3, 5, 6], [4]),
    ]


def test_two_groups_of_a_label_never_share_a_fold():
    labels, groups = ["a", "a", "b", "b"], ["s1", "s2", "s3", "s4"]
    found = [test.tolist() for _, test in folds(labels, groups, 2)]
    assert sorted(row for test in found for row in test) == [0, 1, 2, 3]
    assert all(sorted(labels[row] for row in test) == ["a", "b"] for test in found)


def test_nothing_to_hold_out():
    assert list(folds(["a", "b"], ["s1", "s2"], 5)) == []
    assert list(folds([], [], 5)) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("stuvwxyz")), max_size=40), st.integers(2, 6))
def test_no_group_is_on_both_sides_and_each_row_is_tested_at_most_once(rows, most):
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    tested = []
    for training, test in folds(labels, groups, most):
        assert not {groups[row] for row in training} & {groups[row] for row in test}
        assert {labels[row] for row in test} <= {labels[row] for row in training}
        tested += test.tolist()
    assert len(tested) == len(set(tested))
    single = {label for label in labels if len({g for n, g in rows if n == label}) == 1}
    assert not single & {labels[row] for row in tested}


def test_the_report_by_hand():
    found = score(["a", "b"], ["a", "a", "a", "b"], ["a", "b", "a", "a"], [True, False, True, True])
    assert found == {
        "tested": 4,
        "accuracy": 0.5,
        "known": 0.75,
        "accuracy_known": pytest.approx(2 / 3),
        "recall": {"a": pytest.approx(2 / 3), "b": 0.0},
        "confusion": {"a": {"a": 2, "b": 1}, "b": {"a": 1}},
    }


def test_where_nothing_can_be_held_out_nothing_is_claimed():
    report = held_out(np.eye(2), ["a", "b"], ["site-1", "site-2"])
    assert report["tested"] == 0
    assert [report[key] for key in ("accuracy", "known", "accuracy_known")] == [None] * 3
