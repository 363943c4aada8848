"""What sources can give to a stage: by hand."""

from fractions import Fraction

import pytest

from curricula.search.stock import Stock, stock_of
from mixer.plan import plan
from mixer.recipe.recipe import Recipe
from mixer.types import Plan, Share, StagePlan

STOCK = Stock({"web": 0.5, "qa": 0.5}, {"web": 300, "qa": 10}, {"web": 0, "qa": 15}, 100, 4.0)


def test_case_1_room_is_what_other_stages_leave_of_the_epochs():
    assert STOCK.room == {"web": 1200, "qa": 25}
    assert STOCK.caps == {"web": 1.0, "qa": 0.25}
    # 15 tokens elsewhere and half of 100 here are 6.5 epochs of 10.
    assert STOCK.epochs(STOCK.mixture) == {"web": 50 / 300, "qa": 6.5}


def test_case_2_baselines_count_what_is_there_and_unimax_what_is_left():
    assert STOCK.baselines() == {
        "uniform": {"web": 0.5, "qa": 0.5},
        "natural": {"web": float(Fraction(300, 310)), "qa": float(Fraction(10, 310))},
        "unimax": {"web": 0.75, "qa": 0.25},
        "stage": {"web": 0.5, "qa": 0.5},
    }


def test_case_3_without_tokens_enough_there_is_no_unimax():
    assert set(Stock(STOCK.mixture, STOCK.available, STOCK.used, 10_000, 4.0).baselines()) == {
        "uniform",
        "natural",
        "stage",
    }


def test_a_planned_stage_knows_what_the_others_draw():
    recipe = Recipe.model_validate(
        {
            "name": "toy",
            "tokenizer": "toy.json",
            "sequence_length": 10,
            "sources": {name: {"kind": "text", "path": "x"} for name in ("web", "qa", "code")},
            "stages": [
                {"name": "adapt", "token_budget": 100, "mixture": {"web": 3, "qa": 1}},
                {"name": "anneal", "token_budget": 40, "mixture": {"qa": 1, "code": 1}},
            ],
        }
    )
    planned = plan(recipe, {"web": 20, "qa": 5, "code": 5})
    # 10 sequences at 3 to 1 are 7 and 3 (7.5 and 2.5, and `qa` comes first by name).
    found = stock_of(planned, "adapt", max_epochs=4.0)
    assert found.mixture == {"web": 0.75, "qa": 0.25}
    assert found.available == {"web": 200, "qa": 50}
    assert found.used == {"web": 0, "qa": 20}
    assert found.budget == 100
    assert stock_of(planned, "anneal", max_epochs=4.0).used == {"qa": 30, "code": 0}
    assert sum(found.caps.values()) == pytest.approx(2.0)


def test_topics_of_a_source_count_together_where_another_stage_mixes_it_by_topic():
    share = Share(1.0, 0.5, 5, 50, 0.1)
    adapt = StagePlan("adapt", 150, 15, {"web/a": share, "web/rest": share, "qa": share})
    late = StagePlan("late", 50, 5, {"web/a": share})
    available = {"web/a": 20, "web/rest": 30, "qa": 40}
    found = stock_of(Plan((adapt, late), available, 10), "adapt", max_epochs=4.0)
    assert found.mixture == {"web": 1.0, "qa": 0.5}
    assert found.available == {"web": 500, "qa": 400}
    assert found.used == {"web": 50, "qa": 0}
