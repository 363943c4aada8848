"""Which sequence comes when: shares at every prefix, no repeat before exhaustion, seeds from names."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curricula.order import interleave, order, prefix_bound, seed_of
from mixer.types import Draw


def whole(pieces) -> np.ndarray:
    return np.concatenate(list(pieces))


def worst_deviation(sources: np.ndarray, counts) -> float:
    """The largest distance of any source from its exact share, over all prefixes."""
    places = np.arange(1, len(sources) + 1)
    return max(
        float(np.abs(np.cumsum(sources == i) - places * count / len(sources)).max()) for i, count in enumerate(counts)
    )


def test_case_1_two_to_one():
    assert whole(interleave([4, 2])).tolist() == [0, 1, 0, 0, 1, 0]


def test_case_2_one_source_alone():
    assert whole(interleave([3])).tolist() == [0, 0, 0]


def test_case_3_a_source_with_nothing_to_give_is_passed_by():
    assert whole(interleave([2, 0, 2])).tolist() in ([0, 2, 0, 2], [0, 2, 2, 0], [2, 0, 2, 0], [2, 0, 0, 2])


def test_the_bound_of_tijdeman():
    assert [prefix_bound(k) for k in (1, 2, 3, 6)] == [0.0, 0.5, 0.75, 0.9]


def test_a_hundred_random_mixtures_stay_within_the_bound_at_every_prefix():
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(100):
        sources = int(rng.integers(2, 31))
        counts = [int(c) + 1 for c in rng.dirichlet(np.ones(sources)) * rng.integers(100, 20_000)]
        ordered = whole(interleave(counts))
        assert np.bincount(ordered, minlength=sources).tolist() == counts
        deviation = worst_deviation(ordered, counts)
        assert deviation <= prefix_bound(sources) + 1e-9
        worst = max(worst, deviation)
    assert worst > 0.5


@given(st.lists(st.integers(0, 300), min_size=1, max_size=12).filter(any))
@settings(max_examples=200, deadline=None)
def test_any_counts_stay_within_the_bound(counts):
    active = sum(count > 0 for count in counts)
    assert worst_deviation(whole(interleave(counts)), counts) <= prefix_bound(active) + 1e-9


@given(st.integers(1, 500), st.integers(0, 2000), st.integers(1, 1500), st.integers(0, 2**40))
@settings(max_examples=200, deadline=None)
def test_nothing_repeats_before_everything_was_seen(available, start, count, seed):
    drawn = whole(order([Draw("web", available, 0, start + count)], seed=seed))[:, 1]
    for epoch in range(0, len(drawn), available):
        seen = drawn[epoch : epoch + available]
        assert len(set(seen.tolist())) == len(seen)
    assert drawn.min() >= 0
    assert drawn.max() < available


def test_a_stage_goes_on_where_the_last_one_stopped():
    at_once = whole(order([Draw("web", 50, 0, 120)], seed=3))
    first = whole(order([Draw("web", 50, 0, 45)], seed=3))
    second = whole(order([Draw("web", 50, 45, 75)], seed=3))
    assert np.array_equal(np.concatenate([first, second]), at_once)


def test_epochs_are_shuffled_differently():
    drawn = whole(order([Draw("web", 1000, 0, 2000)], seed=3))[:, 1]
    assert not np.array_equal(drawn[:1000], drawn[1000:])


def test_the_shuffle_is_no_visible_pattern():
    drawn = whole(order([Draw("web", 10_000, 0, 10_000)], seed=3))[:, 1]
    # The rank correlation of a random permutation with time has a standard deviation of 1 / sqrt(n).
    assert abs(np.corrcoef(drawn, np.arange(10_000))[0, 1]) < 4 / np.sqrt(10_000)
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 4 / np.sqrt(10_000)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_small_sources_are_shuffled_evenly(size):
    firsts = np.zeros(size)
    seeds = 3000
    for seed in range(seeds):
        firsts[next(order([Draw("web", size, 0, 1)], seed=seed))[0, 1]] += 1
    expected = seeds / size
    # Each count is binomial; five standard deviations.
    assert np.abs(firsts - expected).max() < 5 * np.sqrt(expected * (1 - 1 / size))


def test_more_sources_than_an_index_can_name_are_refused():
    with pytest.raises(ValueError, match="at most 4095 sources"):
        list(interleave([1] * 5000))


def test_adding_a_source_leaves_other_orders_unchanged():
    alone = whole(order([Draw("web", 40, 0, 30)], seed=1))[:, 1]
    together = whole(order([Draw("books", 9, 0, 9), Draw("web", 40, 0, 30)], seed=1))
    assert np.array_equal(together[together[:, 0] == 1, 1], alone)


def test_another_seed_is_another_order():
    one, two = (whole(order([Draw("web", 40, 0, 40)], seed=seed)) for seed in (1, 2))
    assert not np.array_equal(one, two)


def test_pieces_join_without_a_seam():
    counts = [700_000, 500_001, 13]
    ordered = whole(interleave(counts))
    assert len(list(interleave(counts))) > 1
    assert worst_deviation(ordered, counts) <= prefix_bound(3) + 1e-9


def test_a_source_without_sequences_cannot_be_drawn_from():
    with pytest.raises(ValueError, match="between 1 and"):
        list(order([Draw("web", 0, 0, 1)], seed=1))


def test_seeds_come_from_names():
    assert seed_of(7, "order", "web") == seed_of(7, "order", "web")
    assert len({seed_of(7, "order", "web"), seed_of(7, "pack", "web"), seed_of(8, "order", "web")}) == 3
