"""Budgets in whole sequences: worked cases first, then the laws."""

import math
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixer.errors import PlanError
from mixer.mixture import allocate
from mixer.plan import plan
from mixer.recipe.recipe import Recipe

NAMES = ("science", "qa", "replay")


def recipe(stages, **changes) -> Recipe:
    """A recipe with three sources and 10-token sequences; `stages` maps a name to (budget, mixture)."""
    return Recipe.model_validate(
        {
            "name": "toy",
            "tokenizer": "toy.json",
            "sequence_length": 10,
            "max_epochs": 1.0,
            "sources": {name: {"kind": "text", "path": "x"} for name in NAMES},
            "stages": stages
            if isinstance(stages, list)
            else [{"name": n, "token_budget": b, "mixture": m} for n, (b, m) in stages.items()],
            **changes,
        }
    )


def counts(planned):
    return [{name: share.sequences for name, share in stage.sources.items()} for stage in planned.stages]


def test_case_1_weights_that_divide_evenly():
    assert allocate({"a": 5, "b": 3, "c": 2}, sequences=10) == {"a": 5, "b": 3, "c": 2}


def test_case_2_the_largest_remainder_gets_the_rest():
    # 62.1, 25.05, 12.85 of 100: the two sequences left over go to c (.85) and then to a (.1).
    assert allocate({"a": 0.621, "b": 0.2505, "c": 0.1285}, sequences=100) == {"a": 62, "b": 25, "c": 13}


def test_case_3_equal_remainders_go_by_name_not_by_position():
    assert allocate({"b": 1, "a": 1}, sequences=3) == {"b": 1, "a": 2}


def test_case_4_the_peer_case_that_loses_a_sequence_elsewhere():
    # formats.md B.2: 1003 windows at .62/.25/.13; others give 621/251/131 or 602/264/137.
    assert allocate({"a": 0.62, "b": 0.25, "c": 0.13}, sequences=1003) == {"a": 622, "b": 251, "c": 130}


def test_case_5_a_budget_is_rounded_down_to_whole_sequences():
    planned = plan(recipe({"s": (109, {"science": 1})}), dict.fromkeys(NAMES, 10))
    assert planned.stages[0].sequences == 10


def test_case_6_epochs_count_over_stages():
    stages = {"one": (60, {"science": 1}), "two": (80, {"science": 1, "qa": 1})}
    planned = plan(recipe(stages), {"science": 10, "qa": 10, "replay": 10})
    assert [stage.sources["science"].epochs for stage in planned.stages] == [0.6, 1.0]


def test_a_source_that_passes_max_epochs_stops_the_plan_and_says_what_would_mend_it():
    stages = {
        "adapt": (1000, {"science": 6, "replay": 4}),
        "anneal": (500, {"science": 5, "qa": 2, "replay": 3}),
    }
    with pytest.raises(PlanError) as caught:
        plan(recipe(stages, max_epochs=1.4), {"science": 100, "qa": 7, "replay": 100})
    assert str(caught.value) == (
        "stages.1 (anneal): source `qa` needs 1.43 epochs, max_epochs is 1.4; lower its weight from 2 to 1.75,"
        " raise max_epochs to 1.43 or cut token_budget from 500 to 450"
    )
    assert "on_shortfall" in caught.value.hint


def test_every_problem_is_reported_at_once():
    stages = {"a": (100, {"science": 1, "qa": 1}), "b": (5, {"science": 1})}
    with pytest.raises(PlanError) as caught:
        plan(recipe(stages), {"science": 1, "qa": 2, "replay": 0})
    text = str(caught.value)
    assert text.count("stages.0") == 2
    assert "stages.1 (b): token_budget: got 5, expected at least one sequence (10)" in text


def test_a_source_that_would_get_nothing_is_an_error_not_a_silent_zero():
    with pytest.raises(PlanError, match=r"source `qa` gets 0 of 10 sequences; raise token_budget to 1\.01K"):
        plan(recipe({"s": (100, {"science": 100, "qa": 1})}), dict.fromkeys(NAMES, 100))


def test_a_source_without_a_whole_sequence_is_named():
    with pytest.raises(PlanError, match="source `qa` has no whole sequence of 10 tokens"):
        plan(recipe({"s": (100, {"science": 1, "qa": 1})}), {"science": 100, "qa": 0, "replay": 1})


def test_cap_shortens_the_stage_and_says_so():
    planned = plan(
        recipe({"s": (100, {"science": 1, "qa": 1})}, on_shortfall="cap"),
        {"science": 9, "qa": 3, "replay": 1},
    )
    assert counts(planned) == [{"science": 5, "qa": 3}]
    assert planned.warnings == ("stages.0 (s): capped at max_epochs, 8 of 10 sequences: qa (5 -> 3)",)


def test_redistribute_keeps_the_budget_and_says_so():
    planned = plan(
        recipe({"s": (100, {"science": 1, "qa": 1, "replay": 2})}, on_shortfall="redistribute"),
        {"science": 9, "qa": 1, "replay": 9},
    )
    assert counts(planned) == [{"science": 3, "qa": 1, "replay": 6}]
    told = "2 of 10 sequences moved at max_epochs: from qa (3 -> 1) to science (2 -> 3), replay (5 -> 6)"
    assert planned.warnings == (f"stages.0 (s): {told}",)


@pytest.mark.parametrize("policy", ["cap", "redistribute"])
def test_a_replay_share_that_a_policy_breaks_is_told(policy):
    stage = {
        "name": "s",
        "token_budget": 1000,
        "mixture": {"science": 1},
        "replay": {"share": 0.2, "mixture": {"replay": 1}},
    }
    own = recipe([stage], on_shortfall=policy)
    share = {"redistribute": "0.050", "cap": "0.059"}[policy]
    warnings = plan(own, {"science": 1000, "qa": 1, "replay": 5}).warnings
    assert f"stages.0 (s): replay comes to {share} of the stage instead of 0.2" in warnings
    assert not plan(own, {"science": 1000, "qa": 1, "replay": 20}).warnings


@pytest.mark.parametrize("policy", ["cap", "redistribute"])
def test_a_source_that_earlier_stages_used_up_is_named_and_not_given_a_silent_zero(policy):
    stages = {"a": (100, {"science": 1}), "b": (40, {"science": 1, "qa": 1})}
    with pytest.raises(PlanError, match=r"stages.1 \(b\): source `science` is used up"):
        plan(recipe(stages, on_shortfall=policy), {"science": 10, "qa": 10, "replay": 1})


def test_redistribute_fails_when_all_sources_together_are_too_small():
    own = recipe({"s": (100, {"science": 1, "qa": 1})}, on_shortfall="redistribute")
    told = "asks for 10 sequences, all its sources together have 7 left; raise max_epochs to 1.51 or cut token_budget"
    with pytest.raises(PlanError, match=re.escape(f"{told} from 100 to 70")):
        plan(own, {"science": 3, "qa": 4, "replay": 1})


def test_advice_that_would_only_move_the_problem_is_not_given():
    # A lower weight of `science` would ask too much of `qa`.
    with pytest.raises(PlanError, match=r"raise max_epochs to 1\.5 or cut token_budget from 1K to 660$") as caught:
        plan(recipe({"s": (1000, {"science": 6, "qa": 4})}), {"science": 40, "qa": 40, "replay": 1})
    assert "weight" not in str(caught.value)


def test_a_stage_again_is_told_the_fraction_that_fits_and_no_policy():
    stages = [
        {"name": "s", "token_budget": 1000, "mixture": {"science": 1}},
        {"name": "t", "resample": {"stage": "s", "fraction": 0.5}},
    ]
    told = "needs 1.50 epochs, max_epochs is 1.2; raise max_epochs to 1.5 or lower the fraction from 0.5 to 0.2"
    with pytest.raises(PlanError, match=re.escape(told)) as caught:
        plan(recipe(stages, max_epochs=1.2), {"science": 100, "qa": 1, "replay": 1})
    assert caught.value.hint == "change the numbers above, add data"


def test_a_share_that_no_budget_would_fill_is_not_told_a_budget():
    with pytest.raises(PlanError, match=r"source `qa` gets 0 of 15 sequences; raise its weight, or drop it"):
        plan(
            recipe({"s": (150, {"temperature": 0.001, "sources": ["science", "qa"]})}),
            {"science": 20, "qa": 10, "replay": 1},
        )


def test_a_source_without_a_sequence_is_told_where_a_preset_gives_it_none():
    planned = plan(recipe({"s": (100, "natural")}), {"science": 20, "qa": 0, "replay": 20})
    assert "stages.0 (s): source `qa` has no whole sequence and gets none" in planned.warnings


weights = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), st.floats(1e-3, 1e3), min_size=1, max_size=30)


@given(weights, st.integers(0, 10**12))
def test_parts_sum_to_the_whole_and_stay_within_one_of_their_share(weights, sequences):
    parts = allocate(weights, sequences=sequences)
    assert sum(parts.values()) == sequences
    total = math.fsum(weights.values())
    for name, part in parts.items():
        assert abs(part - sequences * weights[name] / total) < 1 + 1e-9 * sequences


@given(weights, st.integers(1, 10**6), st.randoms())
def test_allocation_depends_on_names_and_weights_alone(weights, sequences, random):
    shuffled = list(weights.items())
    random.shuffle(shuffled)
    assert allocate(dict(shuffled), sequences=sequences) == allocate(weights, sequences=sequences)


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), min_size=3, max_size=3), st.integers(10, 20_000), st.floats(0.5, 5))
def test_no_policy_ever_passes_max_epochs(sizes, budget, max_epochs):
    available = dict(zip(NAMES, sizes, strict=True))
    for policy in ("fail", "cap", "redistribute"):
        asked = recipe(
            {"s": (budget, dict.fromkeys(NAMES, 1.0)), "t": (budget, dict.fromkeys(NAMES, 2.0))},
            on_shortfall=policy,
            max_epochs=round(max_epochs, 2),
        )
        try:
            planned = plan(asked, available)
        except PlanError:
            continue
        last = planned.stages[-1].sources
        assert all(last[name].epochs <= asked.max_epochs + 1e-12 for name in NAMES)
        if policy != "cap":
            assert all(stage.sequences == budget // 10 for stage in planned.stages)


part = st.sampled_from([0.7, 1.0, 2.0, 3.0, 10.0])
whole = st.fixed_dictionaries({"science": part, "qa": part}, optional={"replay": part})
some = st.fixed_dictionaries({"science": part}, optional={"qa": part, "replay": part})
held = st.fixed_dictionaries(
    {"science": st.integers(100, 400), "qa": st.integers(1, 30), "replay": st.integers(50, 300)}
)


@settings(deadline=None)
@given(whole, some, held, st.integers(20, 200), st.integers(10, 100), st.sampled_from([1.0, 1.5]))
def test_each_remedy_that_the_error_offers_is_enough(one, two, available, first, second, max_epochs):
    asked = {"s": [first * 10, one], "t": [second * 10, two]}

    def problem(stages, max_epochs):
        try:
            plan(recipe(stages, max_epochs=max_epochs), available)
        except PlanError as error:
            return str(error)
        return ""

    told = problem(asked, max_epochs)
    assume("needs" in told and "\n" not in told)
    name = told[len("stages.0 (")]
    offers = re.findall(r"(weight|max_epochs|token_budget)(?: from \S+)? to ([0-9.e+-]+[KMB]?)", told)
    assert offers
    for change, value in offers:
        mended, epochs = {key: list(pair) for key, pair in asked.items()}, max_epochs
        if change == "max_epochs":
            epochs = float(value)
        elif change == "token_budget":
            mended[name][0] = value if value[-1] in "KMB" else int(value)
        else:
            mended[name][1] = mended[name][1] | {re.findall("source `(.*?)`", told)[0]: float(value)}
        assert not problem(mended, epochs)


def test_a_synthetic_source_may_be_empty_where_others_fill_in():
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "tokenizer": "smollm2",
            "sequence_length": 10,
            "sources": {
                "web": {"kind": "text", "path": "x"},
                "qa": {"kind": "synth", "task": "science_qa", "from": "web"},
            },
            "models": {"m": {"path": "smollm2"}},
            "synth": {"science_qa": {"model": "m"}},
            "on_shortfall": "redistribute",
            "stages": [{"name": "a", "token_budget": 100, "mixture": {"web": 8, "qa": 2}}],
        }
    )
    found = plan(recipe, {"web": 10, "qa": 0})
    assert {name: share.sequences for name, share in found.stages[0].sources.items()} == {"web": 10, "qa": 0}
    assert "`qa` has no whole sequence left and gets none" in found.warnings[-1] + found.warnings[0]
    with pytest.raises(PlanError, match="source `qa` has no whole sequence"):
        plan(recipe.model_copy(update={"on_shortfall": "fail"}), {"web": 10, "qa": 0})
