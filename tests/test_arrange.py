"""The order of what a stage draws from one pool: what is drawn never changes, only when it comes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curricula.arrange import arrange
from curricula.order import order
from mixer.recipe.stage import Order
from mixer.types import Draw


def rule(**keys) -> Order:
    return Order.model_validate({"by": "perplexity", **keys})


def drawn(draw: Draw, seed=7) -> np.ndarray:
    """What the shuffle gives, the reference for which sequences a stage draws."""
    return np.concatenate(list(order([draw], seed=seed)))[:, 1]


def test_case_1_all_of_a_pool_from_easy_to_hard_and_back():
    draw = Draw("web", 6, 0, 6)
    assert arrange(draw, rule(), None, seed=7).tolist() == [0, 1, 2, 3, 4, 5]
    assert arrange(draw, rule(direction="descending"), None, seed=7).tolist() == [5, 4, 3, 2, 1, 0]


def test_case_2_a_part_of_a_pool_is_the_part_that_the_shuffle_draws():
    draw = Draw("web", 100, 20, 30)
    assert arrange(draw, rule(), None, seed=7).tolist() == sorted(drawn(draw).tolist())


def test_case_3_ranks_stand_for_a_pool_that_is_packed_in_another_order():
    ranks = np.array([3, 0, 2, 1], np.int32)  # sequence 3 has the lowest score
    assert arrange(Draw("web", 4, 0, 4), rule(), ranks, seed=7).tolist() == [3, 0, 2, 1]


def test_case_4_each_pass_is_ordered_on_its_own():
    found = arrange(Draw("web", 4, 2, 6), rule(), None, seed=7)
    # Two are left of the first pass, then one whole pass.
    assert sorted(found[:2].tolist()) == found[:2].tolist()
    assert found[2:].tolist() == [0, 1, 2, 3]


def test_case_5_cycles_go_through_all_difficulties_each_time():
    assert arrange(Draw("web", 6, 0, 6), rule(cycles=2), None, seed=7).tolist() == [0, 2, 4, 1, 3, 5]


def test_case_6_buckets_are_in_order_and_shuffled_inside():
    found = arrange(Draw("web", 1000, 0, 1000), rule(buckets=10), None, seed=7)
    for bucket in range(10):
        inside = found[bucket * 100 : (bucket + 1) * 100]
        assert sorted(inside.tolist()) == list(range(bucket * 100, (bucket + 1) * 100))
        assert not np.array_equal(inside, np.sort(inside))


@pytest.mark.parametrize("shape", ["linear", "root", "geometric"])
def test_pacing_admits_the_easiest_part_that_its_curve_names(shape):
    start, end, size = 0.2, 0.5, 2000
    found = arrange(Draw("web", size, 0, size), rule(pacing={"shape": shape, "start": start, "end": end}), None, seed=7)
    progress = np.minimum(1.0, np.arange(1, size + 1) / size / end)
    curve = {
        "linear": start + (1 - start) * progress,
        "root": np.sqrt(start**2 + (1 - start**2) * progress),
        "geometric": start ** (1 - progress),
    }[shape]
    assert (found < np.maximum(np.ceil(curve * size), np.arange(1, size + 1))).all()
    # It is no mere sorting either: when all may come, hard ones do.
    assert found[: size // 2].max() > 0.8 * size
    assert sorted(found.tolist()) == list(range(size))


RULES = st.sampled_from(
    [
        {},
        {"direction": "descending"},
        {"buckets": 3},
        {"cycles": 4},
        {"pacing": {"shape": "root"}},
        {"cycles": 2, "buckets": 2},
    ]
)


@given(st.integers(1, 60), st.integers(0, 200), st.integers(0, 200), RULES, st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_any_order_draws_what_the_shuffle_draws_pass_by_pass(available, start, count, keys, seed):
    draw = Draw("web", available, start, count)
    found = arrange(draw, rule(**keys), None, seed=seed)
    assert len(found) == count
    if not count:
        return
    expected, edge = drawn(draw, seed), (-start) % available
    for part in (slice(0, edge), *(slice(i, i + available) for i in range(edge, count, available))):
        assert sorted(found[part].tolist()) == sorted(expected[part].tolist())
    assert np.array_equal(found, arrange(draw, rule(**keys), None, seed=seed))


def test_arranged_pools_keep_their_places_among_the_others():
    draws = [Draw("web", 9, 0, 6, first=100), Draw("qa", 9, 0, 3)]
    plain = np.concatenate(list(order(draws, seed=7)))
    arranged = np.concatenate(list(order(draws, seed=7, arranged={"web": arrange(draws[0], rule(), None, seed=7)})))
    assert np.array_equal(plain[:, 0], arranged[:, 0])
    assert arranged[arranged[:, 0] == 0, 1].tolist() == sorted(plain[plain[:, 0] == 0, 1].tolist())
    assert plain[plain[:, 0] == 0, 1].min() >= 100
