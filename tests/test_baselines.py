"""Mixtures from token counts alone: worked cases first, then the laws."""

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.baselines import effective_tokens, fresh_equivalent, natural, temperature, unimax
from mixer.errors import PlanError

COUNTS = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 10**12), min_size=1, max_size=8)


def test_case_1_natural_is_what_the_sources_hold():
    assert natural({"web": 3, "qa": 1}) == {"web": Fraction(3, 4), "qa": Fraction(1, 4)}


def test_case_2_a_temperature_of_2_takes_square_roots():
    assert temperature({"web": 900, "qa": 100}, t=2) == pytest.approx({"web": 0.75, "qa": 0.25})


def test_case_3_temperature_runs_from_natural_to_uniform():
    assert temperature({"web": 7, "qa": 3}, t=1) == natural({"web": 7, "qa": 3})
    assert temperature({"web": 7, "qa": 3}, t=math.inf) == {"web": Fraction(1, 2), "qa": Fraction(1, 2)}


def test_case_4_unimax_gives_a_small_source_its_epochs_and_the_rest_evenly():
    # methods.md 11.7 in the paper's numbers: shares of 20, 28 and 28; the first can take only 4 x 1.
    assert list(unimax({"a": 1, "b": 10, "c": 100}, budget=60, max_epochs=4).values()) == [4, 28, 28]


def test_case_5_unimax_keeps_the_order_of_its_input():
    assert list(unimax({"c": 100, "a": 1, "b": 10}, budget=60, max_epochs=4).items()) == [
        ("c", 28),
        ("a", 4),
        ("b", 28),
    ]


def test_case_6_unimax_refuses_a_pool_that_is_too_small_with_the_arithmetic():
    told = "unimax: got a budget of 60 tokens, expected at most 12: 4 epochs of the 3 tokens of 2 sources"
    with pytest.raises(PlanError, match=re.escape(told)) as caught:
        unimax({"a": 1, "b": 2}, budget=60, max_epochs=4)
    assert caught.value.hint == "cut the budget, allow it 20 epochs, or add data"
    assert unimax({"a": 1, "b": 2}, budget=60, max_epochs=20) == {"a": 20, "b": 40}


def test_case_7_a_pool_that_just_suffices_is_used_up():
    assert unimax({"a": 1, "b": 2}, budget=12, max_epochs=4) == {"a": 4, "b": 8}
    # 0.1 is one tenth, not its nearest float.
    assert unimax({"a": 10, "b": 10}, budget=2, max_epochs=0.1) == {"a": 1, "b": 1}


def test_case_8_what_repeated_tokens_are_worth():
    # methods.md 10.16 and 11.7.
    known = {1: 1.0, 2: 1.97, 4: 3.726, 8: 6.62, 16: 10.582, 40: 15.2}
    for epochs, worth in known.items():
        assert fresh_equivalent(epochs) == pytest.approx(worth, abs=0.05 if epochs in (2, 8, 40) else 5e-4)
    assert effective_tokens(1000, 4) == pytest.approx(3726, abs=0.5)
    assert fresh_equivalent(0.3) == 0.3


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: natural({"a": 0}), "natural: got 1 sources that hold 0 tokens, expected at least one token"),
        (lambda: natural({}), "natural: got 0 sources that hold 0 tokens, expected at least one token"),
        (lambda: temperature({"a": 1}, t=0), "temperature: got 0, expected more than 0"),
        (lambda: temperature({"a": 1}, t=math.nan), "temperature: got nan, expected more than 0"),
        (
            lambda: unimax({"a": 0}, budget=1, max_epochs=4),
            "unimax: got a budget of 1 tokens, expected at most 0: 4 epochs of the 0 tokens of 1 sources",
        ),
    ],
)
def test_what_cannot_be_shared_out_is_refused(call, told):
    with pytest.raises(PlanError, match=re.escape(told)) as caught:
        call()
    assert caught.value.hint


@given(COUNTS, st.floats(0.05, 50))
def test_fractions_are_exact_and_keep_the_order_of_sizes(available, t):
    if not sum(available.values()):
        return
    parts = temperature(available, t=t)
    assert sum(parts.values()) == 1
    assert list(parts) == list(available)
    for one in available:
        for other in available:
            assert available[one] > available[other] or parts[one] <= parts[other]


@given(COUNTS, st.integers(0, 10**12), st.floats(0.01, 50))
def test_unimax_spends_the_budget_within_the_epochs_and_evenly(available, budget, max_epochs):
    epochs = Fraction(str(max_epochs))
    budget = min(budget, int(epochs * sum(available.values())))
    given_ = unimax(available, budget=budget, max_epochs=max_epochs)
    assert sum(given_.values()) == budget
    assert all(given_[name] <= epochs * available[name] for name in available)
    # Whoever gets less than another has used up its epochs.
    most = max(given_.values())
    assert all(tokens in (most, epochs * available[name]) for name, tokens in given_.items())


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_repetition_never_teaches_more_than_new_tokens_and_never_less_than_fewer_passes(one, other):
    low, high = sorted((one, other))
    assert fresh_equivalent(low) <= fresh_equivalent(high) <= max(high, 0)
    assert fresh_equivalent(high) <= 16.4
