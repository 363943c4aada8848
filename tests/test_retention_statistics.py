"""Paired statistics, by hand first: intervals over documents, McNemar, Holm, non-inferiority, continual metrics."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.retention import statistics
from curricula.retention.statistics import Difference, holm, mcnemar, non_inferior, paired_bootstrap

DRAWS = {"confidence": 0.95, "replicates": 1000, "seed": 1}


def difference(least: float, most: float) -> Difference:
    return Difference((least + most) / 2, least, most, least, most, 0.5, 10)


def test_a_difference_by_hand():
    """Two documents of 10 and 30 bytes: 4 bits more in all, over 40 bytes."""
    found = paired_bootstrap(np.array([10.0, 20]), np.array([11.0, 23]), np.array([10, 30]), **DRAWS)
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high, found.count) == (pytest.approx(0.1), pytest.approx(0.1), 2)


def test_a_constant_loss_has_an_interval_without_width_and_the_least_p():
    bits = np.random.default_rng(0).random(50) * 100
    found = paired_bootstrap(bits, bits + 0.02 * 100, np.full(50, 100), **DRAWS)
    assert found.low == pytest.approx(found.high) == pytest.approx(0.02)
    assert found.p == pytest.approx(2 / 1001)


def test_a_model_against_itself_differs_in_nothing():
    bits = np.random.default_rng(0).random(50)
    found = paired_bootstrap(bits, bits, np.ones(50), **DRAWS)
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_the_interval_covers_as_often_as_it_says():
    """The true difference is 0.02; over 300 samples, about 95% of the intervals hold it."""
    rng = np.random.default_rng(7)
    held = 0
    for seed in range(300):
        sizes = rng.integers(200, 4000, 120)
        change = sizes * (0.02 + 0.1 * rng.standard_normal(120))
        found = paired_bootstrap(np.zeros(120), change, sizes, confidence=0.95, replicates=400, seed=seed)
        held += found.low <= 0.02 <= found.high
    assert 0.91 <= held / 300 <= 0.98


def test_pairing_sees_what_an_unpaired_test_calls_noise():
    """Documents differ by whole bits a byte, the models by 0.02."""
    rng = np.random.default_rng(3)
    before = 1000 * (0.5 + 2 * rng.random(100))
    after = before + 1000 * (0.02 + 0.02 * rng.standard_normal(100))
    paired = paired_bootstrap(before, after, np.full(100, 1000), **DRAWS)
    assert paired.low > 0.01
    unpaired = (after.mean() - before.mean()) / math.hypot(before.std(), after.std()) * math.sqrt(100)
    assert unpaired < 1.96


def test_no_documents_are_refused():
    with pytest.raises(ValueError, match="expected equal numbers of documents, got 0, 0, 0"):
        paired_bootstrap(np.empty(0), np.empty(0), np.empty(0), **DRAWS)


def test_mcnemar_by_hand():
    """6 lost and none won: 2 * 0.5 ** 6. Items that both get right say nothing."""
    before = np.array([True] * 6 + [True] * 100)
    after = np.array([False] * 6 + [True] * 100)
    assert mcnemar(before, after) == pytest.approx(2 * 0.5**6)
    assert mcnemar(before, before) == 1.0
    # 1 lost, 3 won of 4: P(at most 1) = 5/16, twice that.
    assert mcnemar(np.array([1, 0, 0, 0], bool), np.array([0, 1, 1, 1], bool)) == pytest.approx(5 / 8)


def test_holm_by_hand():
    """0.01 * 4, 0.02 * 3, 0.03 * 2, 0.04: and none below the one before it."""
    found = holm({"d": 0.04, "a": 0.01, "b": 0.02, "c": 0.03})
    assert found == {"d": 0.06, "a": 0.04, "b": 0.06, "c": 0.06}
    assert list(found) == ["d", "a", "b", "c"]


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    found = holm(p_values)
    assert all(p <= found[name] <= 1 for name, p in p_values.items())
    by_p = sorted(p_values, key=p_values.__getitem__)
    assert [found[name] for name in by_p] == sorted(found.values())


@pytest.mark.parametrize(
    ("least", "most", "verdict"),
    [(-0.01, 0.019, "kept"), (0.021, 0.03, "lost"), (0.01, 0.03, "unclear"), (-0.5, -0.1, "kept")],
)
def test_a_verdict_needs_the_bound_on_its_side_of_the_limit(least, most, verdict):
    assert non_inferior(difference(least, most), limit=0.02, worse="higher") == verdict
    assert non_inferior(difference(-most, -least), limit=0.02, worse="lower") == verdict


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), st.integers(1, 9)), min_size=2, max_size=12))
def test_exchanging_the_models_mirrors_the_difference(rows):
    before, after, sizes = (np.array(column, float) for column in zip(*rows, strict=True))
    one, other = (
        paired_bootstrap(*pair, sizes, confidence=0.9, replicates=100, seed=4)
        for pair in ((before, after), (after, before))
    )
    assert one.value == pytest.approx(-other.value)
    assert (one.low, one.high) == (pytest.approx(-other.high, abs=1e-9), pytest.approx(-other.low, abs=1e-9))
    assert one.p == other.p
    assert one.low <= one.least + 1e-12
    assert one.most <= one.high + 1e-12


def test_continual_metrics_by_hand():
    """Three stages; rows: base, after 1, 2, 3; columns: what each stage teaches."""
    scores = np.array([[0.1, 0.2, 0.3], [0.5, 0.2, 0.3], [0.4, 0.6, 0.2], [0.3, 0.5, 0.7]])
    assert statistics.overall(scores, 1) == pytest.approx(0.5)
    assert statistics.overall(scores, 3) == pytest.approx(0.5)
    assert math.isnan(statistics.backward_transfer(scores, 1))
    assert statistics.backward_transfer(scores, 2) == pytest.approx(-0.1)
    assert statistics.backward_transfer(scores, 3) == pytest.approx((-0.2 - 0.1) / 2)
    assert statistics.forgetting(scores, 2) == pytest.approx([0.1, 0.0, 0.1])
    assert statistics.forgetting(scores, 3) == pytest.approx([0.2, 0.1, 0.0])
    assert statistics.change_from_base(scores, 3, [0, 2]) == pytest.approx((0.2 + 0.4) / 2)
