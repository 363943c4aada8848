"""Which mixtures a sweep tries: by hand, then what every draw keeps to."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curricula.search.mixtures import around, at_shares
from mixer.errors import PlanError

PRIOR = {"web": 0.7, "books": 0.2, "qa": 0.1}
FREE = dict.fromkeys(PRIOR, 1.0)


def draws(count=12, *, prior=PRIOR, caps=FREE, first=(), strengths=(0.1, 5.0), minimum=0.002, seed=7):
    return around(prior, first=first, count=count, caps=caps, strengths=strengths, minimum=minimum, seed=seed)


def test_case_1_a_share_leaves_the_proportions_of_all_others():
    found = at_shares({"web": 0.6, "books": 0.2, "qa": 0.2}, ["qa"], [0.0, 0.5, 1.0])
    assert found == [
        {"web": 0.75, "books": 0.25, "qa": 0.0},
        {"web": 0.375, "books": 0.125, "qa": 0.5},
        {"web": 0.0, "books": 0.0, "qa": 1.0},
    ]


def test_case_2_several_sources_share_a_share_in_their_own_proportions():
    found = at_shares({"web": 0.5, "books": 0.3, "qa": 0.2}, ["qa", "books"], [0.25])
    assert found == [{"web": 0.75, "books": 0.15, "qa": 0.1}]


def test_case_3_what_must_be_among_them_comes_first_and_once():
    uniform = dict.fromkeys(PRIOR, 1 / 3)
    found = draws(5, first=[uniform, PRIOR, uniform])
    assert found[0] == pytest.approx(uniform, abs=1e-4)
    assert found[1] == PRIOR
    assert len(found) == 5


def test_a_longer_sweep_begins_with_the_mixtures_of_a_shorter_one():
    assert draws(20)[:6] == draws(6)


def test_another_seed_draws_other_mixtures():
    assert draws(seed=8) != draws(seed=7)


def test_strong_draws_lie_near_the_prior_and_weak_ones_far():
    def mean_distance(strengths):
        found = np.array([list(m.values()) for m in draws(30, strengths=strengths)])
        return np.linalg.norm(found - list(PRIOR.values()), axis=1).mean()

    assert mean_distance((50.0, 50.0)) < 0.1 < 0.5 < mean_distance((0.3, 0.3))


def test_too_few_different_mixtures_within_the_caps_are_refused():
    told = "sweep.vary: got 0 mixtures in 2,000 draws that differ and are within max_epochs, expected 3"
    with pytest.raises(PlanError, match=re.escape(told)) as caught:
        draws(3, caps={"web": 0.1, "books": 0.1, "qa": 0.1})
    assert "lower `mixtures` or `tokens_per_run`" in caught.value.hint


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**40), st.integers(2, 6), st.floats(0.3, 1.0), st.sampled_from([0.0, 0.002, 0.05]))
def test_draws_are_mixtures_within_their_caps_with_no_crumbs_and_no_two_alike(seed, size, cap, minimum):
    prior = {f"s{i}": (i + 1) / (size * (size + 1) / 2) for i in range(size)}
    caps = dict.fromkeys(prior, max(cap, 2 / size))
    found = draws(8, prior=prior, caps=caps, strengths=(1.0, 5.0), minimum=minimum, seed=seed)
    for mixture in found:
        assert round(sum(mixture.values()) * 10_000) == 10_000
        assert all(weight == 0 or minimum - 1e-4 <= weight <= caps[name] for name, weight in mixture.items())
    rows = np.array([list(mixture.values()) for mixture in found])
    gaps = [np.linalg.norm(rows[i] - rows[j]) for i in range(8) for j in range(i)]
    assert min(gaps) >= 0.01
