"""Shares that move within a stage: exact at every prefix, by rational arithmetic that shares no code with ours."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curricula.order import interleave, prefix_bound
from curricula.ramp import asked_for, interleave_ramp
from mixer.mixture import SLOPE_UNIT, Span, apportion


def whole(pieces) -> np.ndarray:
    return np.concatenate(list(pieces))


def target(m, count, slope, total) -> Fraction:
    """The integral of a rate that moves along a straight line, with its mean fixed by the count."""
    return Fraction(count * m, total) - Fraction(slope, SLOPE_UNIT) * Fraction(m * (total - m), 2 * total)


def worst_deviation(placed, counts, slopes) -> Fraction:
    total, seen, worst = len(placed), [0] * len(counts), Fraction(0)
    for m, pick in enumerate(placed.tolist(), 1):
        seen[pick] += 1
        for i, (count, slope) in enumerate(zip(counts, slopes, strict=True)):
            worst = max(worst, abs(seen[i] - target(m, count, slope, total)))
    return worst


def ramp(start, end, sequences):
    [segment] = apportion([Span(sequences, start, end)])
    return list(segment.counts.values()), [segment.slopes.get(pool, 0) for pool in segment.counts]


def shares(weights) -> dict[str, Fraction]:
    return {str(i): Fraction(weight, sum(weights)) for i, weight in enumerate(weights)}


def test_case_1_from_all_of_one_to_all_of_the_other():
    # Rates 1 -> 0 and 0 -> 1 over 8: by place 4 the first should have 3 of its 4.
    counts, slopes = ramp(shares([1, 0]), shares([0, 1]), 8)
    assert counts == [4, 4]
    assert slopes == [-SLOPE_UNIT, SLOPE_UNIT]
    placed = whole(interleave_ramp(counts, slopes)).tolist()
    assert placed.count(0) == 4
    assert placed[:4].count(0) == 3
    assert placed[0] == 0
    assert placed[-1] == 1


def test_case_2_a_constant_share_is_left_as_it_is():
    counts, slopes = ramp(shares([2, 1]), shares([2, 1]), 6)
    assert slopes == [0, 0]
    assert np.array_equal(whole(interleave_ramp(counts, slopes)), whole(interleave(counts)))


def test_exact_targets_agree_with_fractions_up_to_two_billion_places():
    rng = np.random.default_rng(1)
    for total in (7, 1000, 122_070_312, 2**31 - 1):
        for _ in range(200):
            count = int(rng.integers(0, total + 1))
            most = 2 * SLOPE_UNIT * count // total
            slope, m = int(rng.integers(-most, most + 1)), int(rng.integers(0, total + 1))
            found, fraction = asked_for(m, count, slope, total)
            assert found + Fraction(int(fraction), 2 * total * SLOPE_UNIT) == target(m, count, slope, total)


weights = st.lists(st.integers(0, 20), min_size=2, max_size=8)


@given(st.data(), st.integers(1, 300))
@settings(max_examples=200, deadline=None)
def test_every_prefix_is_within_the_bound_of_tijdeman(data, sequences):
    start = data.draw(weights.filter(any))
    end = data.draw(st.lists(st.integers(0, 20), min_size=len(start), max_size=len(start)).filter(any))
    counts, slopes = ramp(shares(start), shares(end), sequences)
    placed = whole(interleave_ramp(counts, slopes))
    assert np.bincount(placed, minlength=len(counts)).tolist() == counts
    active = sum(count > 0 for count in counts)
    assert worst_deviation(placed, counts, slopes) <= Fraction(str(prefix_bound(active))) + Fraction(1, 10**12)


@given(st.data(), st.integers(1, 10**9))
def test_segments_sum_and_no_rate_falls_below_zero(data, sequences):
    start = data.draw(weights.filter(any))
    end = data.draw(st.lists(st.integers(0, 20), min_size=len(start), max_size=len(start)).filter(any))
    counts, slopes = ramp(shares(start), shares(end), sequences)
    assert sum(counts) == sequences
    assert sum(slopes) == 0
    for i, (count, slope) in enumerate(zip(counts, slopes, strict=True)):
        asked = (shares(start)[str(i)] + shares(end)[str(i)]) / 2 * sequences
        assert abs(count - asked) < 1
        assert 2 * SLOPE_UNIT * count >= abs(slope) * sequences


@given(
    st.lists(
        st.tuples(st.integers(1, 50), weights.filter(lambda w: len(w) >= 3 and any(w[:3]))), min_size=1, max_size=8
    )
)
def test_what_rounding_leaves_in_one_span_is_made_up_for_in_the_next(parts):
    asked = [Span(n, shares(w[:3]), shares(w[:3])) for n, w in parts]
    segments = apportion(asked)
    given_, due = [0] * 3, [Fraction(0)] * 3
    for span, segment in zip(asked, segments, strict=True):
        assert sum(segment.counts.values()) == segment.sequences == span.sequences
        for i in range(3):
            given_[i] += segment.counts[str(i)]
            due[i] += span.mean[str(i)] * span.sequences
            assert abs(given_[i] - due[i]) <= 1


@pytest.mark.parametrize(
    ("counts", "slopes"),
    [([1, 9], [-(2**27), 2**27]), ([5, 5], [1, 1]), ([2**31, 1], [0, 0])],
    ids=["a rate below 0", "out of balance", "too many"],
)
def test_impossible_ramps_are_refused(counts, slopes):
    with pytest.raises(ValueError, match="expected rates of 0 and more"):
        next(interleave_ramp(counts, slopes))
