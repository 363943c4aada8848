"""The mixture of least predicted loss: by hand, against brute force, and its optimality conditions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curricula.search.solve import Programme, solve
from mixer.baselines import fresh_equivalent


def programme(t, **changes) -> Programme:
    """Free repetition, nothing kept, weights between 0 and 1, a uniform prior and no price, unless changed."""
    t = np.atleast_2d(np.array(t, float))
    size = t.shape[1]
    parts = {
        "t": t,
        "omega": np.ones(len(t)),
        "prior": np.full(size, 1 / size),
        "kl": 0.0,
        "low": np.zeros(size),
        "high": np.ones(size),
        "kept": np.zeros((0, size)),
        "limits": np.zeros(0),
        "passes": np.zeros(size),
        "before": np.zeros(size),
    }
    return Programme(**parts | {name: np.array(value, float) for name, value in changes.items()})


@st.composite
def programmes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size, slices = draw(st.integers(2, 8)), draw(st.integers(1, 4))
    prior = np.maximum(rng.dirichlet(np.ones(size)), 1e-3)
    high = np.minimum(1, rng.uniform(1, 4, size) * prior / prior.sum() + 0.05)
    return programme(
        rng.normal(0, 1, (slices, size)),
        omega=rng.uniform(0.1, 1, slices),
        prior=prior / prior.sum(),
        kl=draw(st.sampled_from([0.0, 0.01, 0.05, 0.5])),
        low=np.minimum(0.002, high),
        high=high,
        passes=draw(st.sampled_from([0.0, 1.0])) * rng.uniform(0, 30, size),
        before=rng.uniform(0, 2, size),
    )


def test_case_1_with_no_price_the_source_that_helps_most_gets_all_it_can():
    assert solve(programme([-1, 0], high=[0.7, 1])) == pytest.approx([0.7, 0.3])


def test_case_2_with_no_effect_the_prior_stays():
    found = solve(programme([0, 0, 0], kl=0.1, prior=[0.5, 0.3, 0.2]))
    assert found == pytest.approx([0.5, 0.3, 0.2], abs=1e-6)


def test_case_3_a_cap_hands_on_to_the_others_in_the_proportions_of_the_prior():
    found = solve(programme([0, 0, 0], kl=0.1, prior=[0.5, 0.3, 0.2], high=[0.25, 1, 1]))
    assert found == pytest.approx([0.25, 0.45, 0.3], abs=1e-6)


def test_case_4_two_slices_that_pull_apart_meet_where_their_slopes_are_equal():
    # 2 exp(-w) + exp(-(1 - w)): 2 exp(-w) = exp(w - 1), so w = (1 + ln 2) / 2.
    found = solve(programme([[-1, 0], [0, -1]], omega=[2, 1]))
    assert found == pytest.approx([(1 + np.log(2)) / 2, (1 - np.log(2)) / 2], abs=1e-6)


def test_case_5_what_must_be_kept_binds():
    # The second slice's exponent is -w2 and may be -0.4 at most.
    found = solve(programme([-1, 0], kept=[[0, -1]], limits=[-0.4]))
    assert found == pytest.approx([0.6, 0.4], abs=1e-6)
    assert solve(programme([-1, 0], kept=[[0, -1]], limits=[-1.1])) is None


def test_case_6_bounds_without_a_mixture_have_no_solution():
    assert solve(programme([-1, 0], high=[0.3, 0.6])) is None
    assert solve(programme([-1, 0], low=[0.6, 0.6])) is None
    assert solve(programme([-1, 0], high=[0.4, 0.6])) == pytest.approx([0.4, 0.6])


def test_case_7_repetition_moves_weight_to_the_next_best_source():
    free = solve(programme([-1, -0.9, 0], kl=0.01))
    repeated = solve(programme([-1, -0.9, 0], kl=0.01, passes=[30, 0, 0]))
    assert repeated[0] < free[0] - 0.1
    assert repeated[1] > free[1] + 0.1


def test_case_8_repeated_tokens_count_as_the_paper_says():
    # Half the stage is 8 epochs of the first source: 6.62 of 16; one epoch earlier elsewhere leaves less.
    fresh, worth = programme([-1, 0], passes=[16, 0]).fresh(np.array([0.5, 0.5]))
    assert fresh == pytest.approx([fresh_equivalent(8) / 16, 0.5])
    assert worth == pytest.approx([np.exp(-7 / 15.387756), 1])
    later, _ = programme([-1, 0], passes=[16, 0], before=[1, 0]).fresh(np.array([0.5, 0.5]))
    assert later[0] == pytest.approx((fresh_equivalent(9) - 1) / 16)


def test_the_solution_is_that_of_a_search_over_a_fine_grid():
    case = programme(
        [[-1.2, 0.3, 0], [0.4, -0.8, 0.1]], kl=0.05, prior=[0.2, 0.3, 0.5], high=[0.5, 0.45, 1], passes=[9, 0, 2]
    )
    grid = np.array([(a, b, 1 - a - b) for a in np.arange(0, 0.501, 0.005) for b in np.arange(0, 0.451, 0.005)])
    best = grid[np.argmin([case.objective(w)[0] for w in grid])]
    assert solve(case) == pytest.approx(best, abs=0.005)
    assert case.objective(solve(case))[0] <= case.objective(best)[0]


@settings(deadline=None, max_examples=60)
@given(programmes())
def test_weights_are_a_mixture_within_its_bounds_and_no_exchange_lowers_the_loss(case):
    found = solve(case)
    if found is None:
        assert case.low.sum() > 1 or case.high.sum() < 1
        return
    assert found.sum() == pytest.approx(1)
    assert (found >= case.low - 1e-9).all()
    assert (found <= case.high + 1e-9).all()
    # Karush, Kuhn and Tucker: wherever weight could be taken the slope is no higher than wherever it could be put.
    slope = case.objective(found)[1]
    can_give, can_take = found > case.low + 1e-6, found < case.high - 1e-6
    if can_give.any() and can_take.any():
        assert slope[can_give].max() - slope[can_take].min() < 1e-4


@settings(deadline=None, max_examples=30)
@given(programmes(), st.floats(0.01, 0.5), st.floats(1.5, 10))
def test_a_higher_price_brings_the_mixture_nearer_to_the_prior_at_a_higher_loss(case, kl, factor):
    parts = {name: getattr(case, name) for name in Programme.__slots__}
    found = [solve(Programme(**parts | {"kl": price})) for price in (kl, kl * factor)]
    if found[0] is None:
        return
    free = Programme(**parts | {"kl": 0.0})
    losses = [free.objective(w)[0] for w in found]
    away = [float((w * np.log(np.maximum(w, 1e-12) / case.prior)).sum()) for w in found]
    assert losses[1] >= losses[0] - 1e-6
    assert away[1] <= away[0] + 1e-6


@settings(deadline=None, max_examples=30)
@given(programmes())
def test_equal_programmes_have_equal_solutions_and_the_level_of_an_exponent_says_nothing(case):
    first, again = solve(case), solve(case)
    assert (first is None and again is None) or (first == again).all()
    parts = {name: getattr(case, name) for name in Programme.__slots__}
    if first is not None:
        # A constant in t is a factor of the loss: with omega divided by it, the programme is the same.
        shifted = Programme(**parts | {"t": case.t + 0.7, "omega": case.omega * np.exp(-0.7)})
        assert solve(shifted) == pytest.approx(first, abs=1e-4)


@settings(deadline=None, max_examples=30)
@given(programmes())
def test_the_slopes_of_the_objective_are_exact(case):
    weights, step = np.full(len(case.prior), 1 / len(case.prior)), 1e-6
    _, slope = case.objective(weights)
    moves = step * np.eye(len(weights))
    moved = [(case.objective(weights + move)[0] - case.objective(weights - move)[0]) / (2 * step) for move in moves]
    assert slope == pytest.approx(np.array(moved), abs=1e-5)
