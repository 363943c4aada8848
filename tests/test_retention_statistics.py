"""Paired statistics, by hand first: intervals over documents, McNemar, Holm, non-inferiority, continual metrics."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multinomial

from curricula.retention import statistics
from curricula.retention.statistics import Difference, holm, mcnemar, non_inferior, paired_bootstrap, paired_shares

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
    assert found.p == pytest.approx(0.003, abs=0.001)


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


@pytest.mark.parametrize("count", [0, 1])
def test_one_document_is_refused_since_it_says_nothing_of_how_sure_it_is(count):
    with pytest.raises(ValueError, match=f"documents, two or more, got {count}, {count}, {count}"):
        paired_bootstrap(np.zeros(count), np.ones(count), np.ones(count), **DRAWS)


def test_few_documents_are_kept_in_error_as_seldom_as_many():
    """Three documents with a true loss at the limit: 5% may pass it; draws as they are pass 18%."""
    rng = np.random.default_rng(0)
    losses = 0.02 + 0.01 * rng.standard_normal((600, 3))
    most = [paired_bootstrap(np.zeros(3), row, np.ones(3), **DRAWS | {"seed": n}).most for n, row in enumerate(losses)]
    assert 0.03 <= np.mean(np.array(most) <= 0.02) <= 0.09


def test_two_documents_spread_as_students_distribution_says():
    """Losses 0 and 2: draws reach from 0 to 2; with one degree of freedom 95% lie 6.31 / 1.645 * sqrt(2) further out."""
    found = paired_bootstrap(np.zeros(2), np.array([0.0, 2.0]), np.ones(2), **DRAWS)
    assert found.most == pytest.approx(1 + 6.314 / 1.645 * math.sqrt(2), rel=1e-3)


def answers(won: int, lost: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.arange(count)
    return (numbers >= won) & (numbers < won + lost), numbers < won


def test_what_no_item_changed_in_rests_on_how_many_there_are():
    """The score bound by hand: delta = z^2 / (n + z^2)."""
    found = paired_shares(*answers(0, 0, 50), confidence=0.95)
    assert (found.value, found.p, found.count) == (0.0, 1.0, 50)
    assert found.most == -found.least == pytest.approx(1.6449**2 / (50 + 1.6449**2), rel=1e-4)
    assert found.high == pytest.approx(1.96**2 / (50 + 1.96**2), rel=1e-4)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 30))
def test_a_bound_of_shares_solves_the_score_equation(won, lost, others):
    """The share that lost under a difference is the likeliest of a fine grid, and not of a formula."""
    count = won + lost + others
    if not others:
        return
    delta = paired_shares(*answers(won, lost, count), confidence=0.95).least
    share = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)[1:-1]
    likelihood = won * np.log(share + delta) + lost * np.log(share) + others * np.log1p(-2 * share - delta)
    best = share[np.argmax(likelihood)]
    error = math.sqrt(count * (2 * best + delta * (1 - delta)))
    assert (won - lost - count * delta) / error == pytest.approx(1.6449, abs=0.01)


@pytest.mark.parametrize(("documents", "share"), [(3, 0.28), (60, 0.14)])
def test_where_few_documents_lose_most_a_loss_at_the_limit_is_kept_more_often_than_asked_for(documents, share):
    """What docs/retention.md warns of: log-normal changes, of which resampling sees the large ones too seldom."""
    rng, kept = np.random.default_rng(0), 0
    for seed in range(300):
        sizes = rng.integers(200, 4000, documents).astype(float)
        changes = sizes * (0.02 + 0.02 * (rng.lognormal(0, 1, documents) - np.exp(0.5)))
        found = paired_bootstrap(np.zeros(documents), changes, sizes, confidence=0.95, replicates=500, seed=seed)
        kept += non_inferior(found, limit=0.02, worse="higher") == "kept"
    assert kept / 300 == pytest.approx(share, abs=0.06)


def test_a_loss_at_the_limit_is_kept_in_error_as_seldom_as_asked_for():
    """All ways that 100 answers can change, by their chances, where 6% change for the worse and 3% for the better."""
    kept = 0.0
    for lost in range(30):
        for won in range(30):
            if paired_shares(*answers(won, lost, 100), confidence=0.95).least >= -0.03:
                kept += multinomial.pmf([lost, won, 100 - lost - won], 100, [0.06, 0.03, 0.91])
    assert kept == pytest.approx(0.045, abs=0.01)


def test_all_lost_and_half_confidence_have_bounds_too():
    assert paired_shares(*answers(0, 9, 9), confidence=0.95).least == -1.0
    found = paired_shares(*answers(1, 2, 9), confidence=0.5)
    assert found.least == found.most == pytest.approx(-1 / 9)


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
