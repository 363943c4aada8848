"""Rounds revised by losses, without a Run: the room of a topic by hand first, then the law: what is left can be drawn."""

from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curricula.order import order
from curricula.revise import revise
from mixer.errors import PlanError, RecipeError
from mixer.history import Revision, as_shares
from mixer.ordering import draws_of
from mixer.plan import plan
from mixer.recipe.recipe import Recipe
from mixer.types import Pool

WEB = {"weight": 1, "topics": {"biology": 1, "rest": 1}}
ROSE = {"web/biology": 2.0, "web/rest": 3.0}, {"web/biology": 3.0, "web/rest": 2.9}
FLAT = (ROSE[0], ROSE[0])


def recipe(*stages, **more) -> Recipe:
    """One-token sequences; the first stage is cut in rounds."""
    return Recipe.model_validate(
        {
            "name": "r",
            "tokenizer": "toy.json",
            "sequence_length": 2,
            "max_epochs": 1,
            "sources": {name: {"kind": "text", "path": "x"} for name in ("web", "books")},
            "scores": {"topic": {"labels": ["biology", "physics"], "sources": ["web"]}},
            "stages": list(stages),
            **more,
        }
    )


def learn(sequences, *, rounds=2, web=WEB, **mixture):
    return {
        "name": "learn",
        "token_budget": 2 * sequences,
        "mixture": {"web": web, **mixture},
        "adapt": {"rounds": rounds},
    }


def pools(biology, rest, books=1000) -> dict[str, Pool]:
    sizes = {
        "web/biology": ("web", "biology", biology),
        "web/rest": ("web", "rest", rest),
        "books": ("books", None, books),
    }
    return {name: Pool(source, topic, 0, size) for name, (source, topic, size) in sizes.items()}


def revised(own, sizes, *, losses=ROSE, number=2, history=()):
    return revise(own, sizes, list(history), (own.mixed_stages[0], number), losses, method="hand")


def share(found, pool="web/biology"):
    return as_shares(found.revision.shares["web"])[pool]


def test_case_1_the_room_is_for_all_rounds_that_are_left():
    # 100 sequences in 4 rounds; biology gave 13 of 62 (or 12), so 49 are left for 75: share 0.66, and not 1.
    found = revised(recipe(learn(100, rounds=4)), pools(62, 1000))
    assert float(share(found)) == pytest.approx(49.5 / 75, abs=0.015)
    assert found.planned.stages[-1].sources["web/biology"].epochs <= 1


def test_case_2_what_later_stages_draw_is_not_given_away():
    late = {"name": "late", "token_budget": 2 * 40, "mixture": {"web": WEB, "books": 1}}
    found = revised(recipe(learn(40), late), pools(32, 1000))
    # Biology: 32, of which 10 are drawn and 10 are for the later stage: 12 of the 20 of this round.
    assert share(found) == pytest.approx(F(12, 20), abs=1e-6)


def test_case_3_a_stage_again_takes_its_part_of_what_the_rounds_become():
    again = {"name": "again", "resample": {"stage": "learn", "fraction": 0.5}}
    found = revised(recipe(learn(40), again), pools(36, 1000))
    # 10 are drawn and come again by half: 36 - 15 = 21, of which one and a half go with each of this round's 20.
    assert share(found) == pytest.approx(F(14, 20), abs=0.06)
    assert found.planned.stages[-1].sources["web/biology"].epochs <= 1


def test_case_4_the_last_sequence_may_be_drawn():
    for sequences in (506, 505, 504):
        found = revised(
            recipe(learn(sequences, web={"weight": 1, "topics": {"biology": 258, "rest": 249}})),
            pools(258, 249),
            losses=FLAT,
        )
        assert sum(each.sequences for each in found.planned.stages) == sequences


def test_case_5_where_nothing_can_move_shares_stay_and_the_round_is_known():
    found = revised(recipe(learn(100)), pools(50, 50))
    assert [each.sources["web/biology"].sequences for each in found.planned.stages] == [25, 25]


@pytest.mark.parametrize("weight", [{"from": 0, "to": 1, "at": 0.5}, {"from": 1, "to": 0, "at": 0.5}])
def test_case_6_a_source_that_begins_or_ends_within_the_stage(weight):
    found = revised(recipe(learn(40, web=WEB | {"weight": weight}, books=1)), pools(100, 100))
    # One that ends has no share left to change; one that begins takes the recipe's as those of the round before.
    assert bool(found.revision.shares) == (weight["to"] == 1)
    assert sum(each.sequences for each in found.planned.stages) == 40


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ({"web/biology": 2.0}, "got no loss of web/rest, expected one of each topic"),
        (ROSE[0] | {"web/biology": float("nan")}, "got nan as the loss of `web/biology`, expected a finite number"),
        (ROSE[0] | {"web/typo": 1.0}, "got a loss of `web/typo`, expected losses of web/biology, web/rest"),
    ],
)
def test_losses_that_are_missing_no_numbers_or_of_nothing_are_refused(losses, told):
    with pytest.raises(RecipeError, match=told):
        revised(recipe(learn(40)), pools(100, 100), losses=(ROSE[0], losses))


def test_the_losses_of_the_last_round_are_not_those_of_the_next():
    own = recipe(learn(60, rounds=3))
    first = revised(own, pools(100, 100)).revision
    with pytest.raises(
        RecipeError, match="got the losses that planned `learn-2`, expected those of that round, for `learn-3`"
    ):
        revised(own, pools(100, 100), number=3, history=[first])
    other = (ROSE[1], {"web/biology": 2.5, "web/rest": 2.7})
    assert revised(own, pools(100, 100), number=3, history=[first], losses=other).revision.round == "learn-3"


loss = st.floats(0.5, 5)


@settings(deadline=None)
@given(st.data())
def test_after_any_rounds_all_that_is_left_can_be_drawn(data):
    """And what was trained on stays: the rounds before the revised one are planned as they were."""
    draw = data.draw
    rounds = draw(st.integers(2, 5))
    first = learn(
        draw(st.integers(20, 200)),
        rounds=rounds,
        web={
            "weight": draw(st.sampled_from([1, 3, {"from": 1, "to": 2}])),
            "topics": {"biology": draw(st.integers(1, 9)), "rest": 3},
        },
        books=1,
    )
    late = {
        "name": "late",
        "token_budget": 2 * draw(st.integers(10, 200)),
        "mixture": {"web": draw(st.sampled_from([1, WEB])), "books": 1},
    }
    again = {"name": "again", "resample": {"stage": "learn", "fraction": draw(st.sampled_from([0.1, 0.5]))}}
    policy = draw(st.sampled_from(["fail", "cap", "redistribute"]))
    own = recipe(
        first,
        late,
        *draw(st.sampled_from([[], [again]])),
        on_shortfall=policy,
        max_epochs=draw(st.sampled_from([1, 1.5])),
    )
    sizes = pools(draw(st.integers(10, 200)), draw(st.integers(10, 200)), draw(st.integers(50, 300)))
    history: list[Revision] = []
    try:
        before = plan(own, {name: pool.available for name, pool in sizes.items()})
    except PlanError:
        assume(False)
    for number in range(2, rounds + 1):
        losses = [{pool: draw(loss) for pool in ROSE[0]} for _ in range(2)]
        if history and (history[-1].before, history[-1].after) == tuple(losses):
            assume(False)
        found = revised(own, sizes, losses=losses, number=number, history=history)
        assert found.planned.stages[: number - 1] == before.stages[: number - 1]
        assert len(found.planned.stages) == len(before.stages)
        before, history = found.planned, [*history, found.revision]


def drawn(planned, sizes) -> dict[str, list[int]]:
    """Pool -> its sequences in the order in which all stages train on them."""
    names = list(sizes)
    found: dict[str, list[int]] = {name: [] for name in names}
    for stage, draws in draws_of(planned, sizes):
        for place, sequence in np.concatenate([*order(draws, seed=7, segments=stage.segments)]).tolist():
            found[draws[place].name].append(sequence)
    return found


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_nothing_repeats_before_all_of_it_was_seen_and_cursors_go_on_whatever_the_losses(data):
    """Over rounds whose weights change midway, and a later stage, each pool is read as one endless shuffle."""
    draw = data.draw
    late = {"name": "late", "token_budget": 2 * draw(st.integers(10, 60)), "mixture": {"web": 1, "books": 1}}
    own = recipe(learn(draw(st.integers(30, 90)), rounds=3, books={"from": 1, "to": 2}), late, max_epochs=4)
    sizes = pools(draw(st.integers(15, 60)), draw(st.integers(15, 60)), draw(st.integers(15, 60)))
    history: list[Revision] = []
    try:
        plans = [plan(own, {name: pool.available for name, pool in sizes.items()})]
        for number in (2, 3):
            losses = [{pool: draw(loss) for pool in ROSE[0]} for _ in range(2)]
            found = revised(own, sizes, losses=losses, number=number, history=history)
            plans, history = [*plans, found.planned], [*history, found.revision]
    except (PlanError, RecipeError):
        assume(False)
    runs = [drawn(each, sizes) for each in plans]
    for name, pool in sizes.items():
        last = runs[-1][name]
        assert last
        for begin in range(0, len(last), pool.available):
            passed = last[begin : begin + pool.available]
            assert len(set(passed)) == len(passed)
        for other in runs[:-1]:
            both = min(len(last), len(other[name]))
            assert last[:both] == other[name][:both]
