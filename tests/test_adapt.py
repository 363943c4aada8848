"""The topic mixture of the next round: the paper's figure first, then bounds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.adapt import bounded, factors, update
from mixer.errors import PlanError
from mixer.recipe.stage import Adapt

ROSE = {"a": 1.26, "b": 1.82, "c": 1.54}, {"a": 1.32, "b": 1.45, "c": 1.60}
THIRDS = dict.fromkeys("abc", 1 / 3)
FREE = {"weights": {}, "floors": {}, "caps": dict.fromkeys("abc", 1.0)}


def rule(**keys) -> Adapt:
    return Adapt.model_validate({"rounds": 2, "clip": [1e-9, 1e9], **keys})


def test_case_1_the_figure_of_llama_3_syne():
    # methods.md 1.3: losses 1.26->1.32, 1.82->1.45, 1.54->1.60 from equal shares give (.4508, .0984, .4508).
    found = update(THIRDS, *ROSE, rule=rule(), **FREE)
    assert [round(share, 4) for share in found.values()] == [0.4508, 0.0984, 0.4508]


def test_case_2_factors_are_clipped():
    assert factors(*ROSE, alpha=1.0, weights={}, clip=(0.5, 1.1)) == {"a": 1.1, "b": 0.5, "c": 1.1}


def test_case_3_nothing_moves_where_no_loss_moves():
    assert update(THIRDS, ROSE[0], ROSE[0], rule=rule(), **FREE) == pytest.approx(THIRDS)


def test_case_4_a_weight_counts_a_topics_change_more():
    plain, heavy = (factors(*ROSE, alpha=1.0, weights=weights) for weights in ({}, {"a": 3.0}))
    assert heavy["a"] - 1 == pytest.approx(3 * (plain["a"] - 1))
    assert heavy["b"] == plain["b"]


def test_case_5_a_floor_holds_and_the_others_keep_their_proportions():
    found = bounded({"a": 0.6, "b": 0.39, "c": 0.01}, {"c": 0.1}, dict.fromkeys("abc", 1.0))
    assert found == pytest.approx({"a": 0.9 * 0.6 / 0.99, "b": 0.9 * 0.39 / 0.99, "c": 0.1})


def test_case_6_a_cap_holds_and_what_is_over_goes_to_the_others_in_proportion():
    found = bounded({"a": 0.8, "b": 0.15, "c": 0.05}, {}, {"a": 0.4, "b": 1.0, "c": 1.0})
    assert found == pytest.approx({"a": 0.4, "b": 0.45, "c": 0.15})


def test_case_7_what_has_no_share_fills_in_only_when_nothing_else_can():
    assert bounded({"a": 1.0, "b": 0.0}, {}, {"a": 0.7, "b": 1.0}) == pytest.approx({"a": 0.7, "b": 0.3})


def test_too_little_to_draw_from_is_an_error_with_the_room_of_each():
    with pytest.raises(PlanError, match=r"got room for 0\.900 of the next round \(a 0\.400, b 0\.500\)"):
        bounded({"a": 0.5, "b": 0.5}, {}, {"a": 0.4, "b": 0.5})
    with pytest.raises(PlanError, match="floors that sum to more than 1"):
        bounded({"a": 0.5, "b": 0.5}, {"a": 0.7, "b": 0.7}, {"a": 1.0, "b": 1.0})


losses = st.floats(0.1, 10)


@given(
    st.lists(
        st.tuples(st.floats(0.001, 1), losses, losses, st.floats(0, 0.1), st.floats(0.3, 1)), min_size=4, max_size=9
    )
)
def test_shares_sum_to_one_and_stay_within_their_bounds(topics):
    total = sum(topic[0] for topic in topics)
    names = range(len(topics))
    shares, before, after, floors, caps = (
        {i: topics[i][k] / (total if k == 0 else 1) for i in names} for k in range(5)
    )
    found = update(shares, before, after, rule=Adapt(rounds=2), weights={}, floors=floors, caps=caps)
    assert math.isclose(sum(found.values()), 1, abs_tol=1e-9)
    for i in names:
        assert min(floors[i], caps[i]) - 1e-9 <= found[i] <= caps[i] + 1e-9
