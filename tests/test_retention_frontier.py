"""The table of the comparison of methods, by hand: shares of plain's gain and forgetting, and what reaches the aim."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "retention"))

import frontier


def told(arm: str, rate: float, gain: float, lost: float, low: float, seed: int = 1) -> dict:
    """A result with one general slice."""
    change = {"value": lost, "low": low}
    rows = [{"name": "prose", "kind": "general", "difference": change}]
    return {
        "arm": arm, "rate": rate, "seed": seed, "gain": gain, "slices": rows, "tasks": [], "gate": {"passes": lost < 0.02},
    }  # fmt: skip


def test_shares_by_hand():
    """With the first seed plain gains 0.2 and loses 0.1; 0.19 at 0.02 is what is aimed at, 0.19 at 0.03 is not.

    What plain did with another seed, on other text, is no measure of these: of both seeds 0.19 would be 76%.
    """
    found = [
        told("plain", 1e-4, 0.2, 0.1, 0.08),
        told("plain", 1e-4, 0.3, 0.3, 0.08, 2),
        told("plain", 1e-5, 0.1, 0.01, 0.0),
        told("blocks", 1e-4, 0.19, 0.02, 0.01),
        told("lora", 1e-4, 0.19, 0.03, 0.01),
        told("osft", 1e-4, 0.27, 0.06, 0.01, 2),
        told("general", 1e-4, 0.01, -0.01, -0.02),
    ]
    rows = {
        row["title"]: row for row in frontier.compared(frontier.points_of(found), reference="plain", control="general")
    }
    plain, blocks, lora, osft = (rows[f"{arm} at 0.0001"] for arm in ("plain", "blocks", "lora", "osft"))
    assert (plain["gain"], plain["lost"]["prose"]) == (pytest.approx(0.25), pytest.approx(0.2))
    for row, gain, worst in ((plain, 1.0, 1.0), (blocks, 0.95, 0.2), (lora, 0.95, 0.3), (osft, 0.9, 0.2)):
        assert (row["gain_share"], row["worst_share"]) == (pytest.approx(gain), pytest.approx(worst))
    assert blocks["gain_less_control"] == pytest.approx(0.18)
    assert blocks["lost_less_control"]["prose"] == pytest.approx(0.03)
    assert "slice that it forgot: blocks at 0.0001, osft at 0.0001" in frontier.table(list(rows.values()))


def test_what_one_slice_gains_makes_up_for_nothing_on_another():
    """Plain loses 0.1 and 0.3; of that 0.02 on one slice and a gain of 0.4 on the other are a twentieth."""
    found = [told("plain", 1e-4, 0.2, 0.1, 0.08), told("osft", 1e-4, 0.2, 0.02, 0.01)]
    for result, lost in zip(found, (0.3, -0.4), strict=True):
        change = {"value": lost, "low": 0.1}
        result["slices"].append({"name": "code", "kind": "general", "difference": change})
    row = frontier.compared(frontier.points_of(found), reference="plain", control=None)[0]
    assert (row["title"], row["together_share"]) == ("osft at 0.0001", pytest.approx(0.05))
    assert row["worst_share"] == pytest.approx(0.2)


def test_the_measure_is_at_the_rate_that_the_first_seed_chose_and_of_the_seeds_that_both_have():
    """With seed 1 plain is best at 2e-4; over both seeds 6e-5, of which there is one, would seem better."""
    found = [
        told("plain", 2e-4, 0.080, 0.1, 0.08),
        told("plain", 2e-4, 0.074, 0.2, 0.08, 2),
        told("plain", 6e-5, 0.079, 0.05, 0.04),
        told("osft", 2e-4, 0.080, 0.1, 0.08),
        told("osft", 2e-4, 0.074, 0.1, 0.08, 2),
        told("osft", 2e-4, 0.074, 9.9, 0.08, 3),
    ]
    rows = {row["title"]: row for row in frontier.compared(frontier.points_of(found), reference="plain", control=None)}
    assert rows["osft at 0.0002"]["gain_share"] == pytest.approx(1.0)
    assert rows["osft at 0.0002"]["worst_share"] == pytest.approx(0.1 / 0.15)


@given(st.floats(1e-9, 1.0), st.floats(1e-9, 1.0))
def test_no_two_rates_share_a_name_and_a_name_says_its_rate(one, other):
    names = [frontier.training_of("a-b", rate) for rate in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    found = frontier._TRAINING.fullmatch(names[0])
    assert (found[1], float(found[2])) == ("a-b", one)


def test_nothing_is_reached_where_the_reference_forgot_nothing_for_certain():
    points = frontier.points_of([told("plain", 1e-4, 0.2, 0.01, -0.01), told("lora", 1e-4, 0.2, 0.0, -0.01)])
    rows = frontier.compared(points, reference="plain", control=None)
    assert [(row["worst_share"], row["reaches"], row["gain_less_control"]) for row in rows] == [(None, False, None)] * 2
    assert "n/a" in frontier.table(rows)
