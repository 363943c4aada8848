"""The learning rate by tokens seen: shapes by hand, known answers, and what a recipe may not say."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.schedule import Leg, Schedule, leg_of, schedule_of
from mixer.errors import RecipeError
from mixer.recipe.file import dump, load
from mixer.recipe.recipe import Recipe
from mixer.recipe.train import LearningRate, Segment
from tests import toys


def leg(tokens=1000, peak=1.0, **keys) -> Leg:
    return leg_of(Segment(**keys), peak=peak, tokens=tokens, name="train")


def test_wsd_by_hand():
    """1,000 tokens: up over 100, held to 800, down in a line over 200 to a tenth."""
    wsd = leg(schedule="wsd", warmup=0.1, decay=0.2, final=0.1)
    assert [wsd.rate(n) for n in (0, 50, 100, 500, 800)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert wsd.rate(900) == pytest.approx(0.55)
    assert wsd.rate(1000) == pytest.approx(0.1)


def test_wsd_decays_though_the_recipe_says_only_its_name():
    """SynE's code has a stable share of 1.0 by default, with which its WSD never decays."""
    wsd = leg(schedule="wsd")
    assert wsd.rate(900) == 1.0
    assert wsd.rate(1000) == pytest.approx(0.1)


def test_cosine_by_hand():
    cosine = leg(schedule="cosine", warmup=200, final=0.2)
    assert [cosine.rate(n) for n in (100, 200)] == [0.5, 1.0]
    assert cosine.rate(600) == pytest.approx(0.6)
    assert cosine.rate(1000) == pytest.approx(0.2)


def test_the_anneal_of_an_infinite_schedule_begins_at_the_constant_rate_and_reaches_the_last():
    """Known answer: at n = N_d the rate is the constant one; after t_a tokens it is the least (natural exponent)."""
    infinite = leg(schedule="infinite", warmup=100, cooldown=300, hold=0.4, decay=200, final=0.1)
    assert infinite.rate(100) == 1.0
    assert infinite.rate(250) == pytest.approx(0.7)
    assert [infinite.rate(n) for n in (400, 600, 800)] == [pytest.approx(0.4)] * 3
    assert infinite.rate(900) == pytest.approx(0.4 * math.sqrt(0.1 / 0.4))
    assert infinite.rate(1000) == pytest.approx(0.1)


def test_constant_holds_after_the_warm_up():
    constant = leg(schedule="constant", warmup=10, start=0.5)
    assert [constant.rate(n) for n in (0, 5, 10, 1000)] == [0.5, 0.75, 1.0, 1.0]


@given(
    st.sampled_from(["constant", "wsd", "cosine", "infinite"]),
    st.integers(1, 3000),
    st.floats(0.0, 0.3),
    st.floats(0.0, 1.0),
    st.integers(0, 3000),
)
def test_a_rate_stays_between_its_least_and_the_peak(schedule, tokens, warmup, start, seen):
    found = leg(tokens=tokens, schedule=schedule, warmup=warmup, start=start).rate(min(seen, tokens))
    assert min(start, 0.1) - 1e-12 <= found <= 1.0 + 1e-12


@given(st.sampled_from(["wsd", "cosine", "infinite"]), st.integers(1000, 5000))
def test_the_rate_changes_by_little_from_one_token_to_the_next(schedule, tokens):
    """No corner is a jump: a formula with a wrong denominator would leave one where its part begins or ends."""
    found = leg(tokens=tokens, schedule=schedule, warmup=0.1)
    rates = [found.rate(n) for n in range(tokens + 1)]
    assert max(abs(after - before) for before, after in pairwise(rates)) <= 1.1 * max(1 / (0.1 * tokens - 1), 0.01)


def recipe(tmp_path, stages, **train) -> Recipe:
    keys = {"model": "smollm2", "learning_rate": 1.0e-3, "tokens_per_step": 64} | train
    return load(toys.recipe(toys.corpus(tmp_path), stages=stages, train=keys))


def stage(name, **keys):
    return {"name": name, "token_budget": 6400, "mixture": {"web": 1, "books": 1, "pages": 1}} | keys


def test_stages_without_a_segment_of_their_own_share_one(tmp_path):
    """a and b share one leg; c re-warms from a tenth of its own peak; d goes back to the keys of `train`."""
    own = {"peak": 5.0e-4, "schedule": "cosine", "start": 0.1, "warmup": 100}
    found = schedule_of(
        recipe(tmp_path, [stage("a"), stage("b"), stage("c", learning_rate=own), stage("d")]), [1000, 2000, 500, 700]
    )
    assert [(leg.name, leg.tokens, leg.peak) for leg in found.legs] == [
        ("train", 3000, 1e-3),
        ("stages.c.learning_rate", 500, 5e-4),
        ("train", 700, 1e-3),
    ]
    assert found(3000) == pytest.approx(1e-4)
    assert found(3050) == pytest.approx((5e-5 + 5e-4) / 2)
    assert found(3500) == pytest.approx(5e-5)
    assert found.tokens == 4200


def test_the_last_token_of_a_leg_is_its_own():
    """A step that ends where a leg ends uses that leg's last rate, not the next one's first."""
    legs = [leg(schedule="wsd"), leg(peak=2.0, schedule="constant", warmup=0.0)]
    assert Schedule(legs)(1000) == pytest.approx(0.1)
    assert Schedule(legs)(1001) == 2.0


def test_the_table_has_the_corners():
    seen = dict(Schedule([leg(schedule="wsd", warmup=33, decay=77)]).table(points=4))
    assert {33, 250, 500, 923, 1000} <= set(seen)
    assert seen[33] == 1.0


def test_a_warm_up_longer_than_its_segment_is_refused():
    with pytest.raises(RecipeError, match=r"train: got warmup 2,000 \+ decay 100 tokens, expected at most 1,000"):
        leg(warmup=2000)


def test_an_amount_is_a_share_or_tokens():
    segment = LearningRate(warmup=0.25, decay="1K", final=0.0)
    found = leg_of(segment, peak=1.0, tokens=4000, name="x")
    assert (found.warmup, found.decay, found.rate(4000)) == (1000, 1000, 0.0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": {"schedule": "constant", "decay": 0.1}}, "train.decay: has no effect with `schedule: constant`"),
        (
            {"train": {"schedule": "wsd", "hold": 0.1}},
            "train.hold: has no effect with `schedule: wsd`, but with infinite",
        ),
        ({"train": {"schedule": "wsd", "decay": 0}}, "train.decay: got 0, expected some tokens"),
        ({"train": {"schedule": "infinite", "final": 0.0}}, "train.final: got 0, expected a number above 0"),
        (
            {"train": {"warmup": 0.6, "decay": 0.5}},
            "train.decay: got warmup 0.6 + decay 0.5, expected at most 1 in all",
        ),
        ({"train": {"tokens_per_step": 63}}, "train.tokens_per_step: got 63, expected at least one sequence of 64"),
        (
            {"sequence_length": 262_144, "train": {}},
            "train.tokens_per_step: got 131072, expected at least one sequence of 262,144",
        ),
        (
            {"train": {"instruct": {"path": "x.jsonl", "tokens_per_step": 10}}},
            "train.instruct.tokens_per_step: got 10, expected at least one sequence of 64",
        ),
        (
            {"train": {"instruct": {"path": "x.jsonl", "sequence_length": 262_144}}},
            "train.instruct.tokens_per_step: got 131072, expected at least one sequence of 262,144",
        ),
        ({"train": {"method": {"kind": "lora", "targets": []}}}, "train.method.targets: "),
        (
            {"train": {"method": {"kind": "lora", "dropout": 1.0}}},
            "train.method.dropout: got 1.0, expected a number below",
        ),
        ({"train": {"revision": "x"}}, "train.revision: has no effect on the packaged `smollm2`"),
        ({"train": {"warmup": 1.5}}, "train.warmup: got 1.5, expected 1 or less"),
        ({"train": {"betas": [0.9, 1.0]}}, "train.betas.1: got 1.0, expected a number below 1"),
        ({"train": {"method": {"kind": "osft", "share": 2.0}}}, "train.method.share: got 2.0, expected 1 or less"),
        ({"stage": {"peak": 1.0e-3}}, "stages.0.learning_rate: has no effect without `train`"),
        (
            {"train": {"instruct": {"path": "x.jsonl", "schedule": "cosine", "decay": 0.1}}},
            "train.instruct.decay: has no effect with `schedule: cosine`",
        ),
    ],
)
def test_what_a_recipe_may_not_say(tmp_path, changes, told):
    keys = {}
    if "train" in changes:
        keys["train"] = {"model": "smollm2", "learning_rate": 1.0e-3} | changes["train"]
    own = {"learning_rate": changes["stage"]} if "stage" in changes else {}
    keys |= {key: value for key, value in changes.items() if key == "sequence_length"}
    path = toys.recipe(toys.corpus(tmp_path), stages=[stage("a", **own)], **keys)
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert told in str(caught.value)


def test_a_resolved_recipe_loads_to_itself(tmp_path):
    """Every default is written out in the Run; none of them may then count as a key without effect."""
    found = recipe(
        tmp_path,
        [stage("a"), stage("b", learning_rate={"schedule": "infinite", "warmup": "1K"})],
        schedule="constant",
        instruct={"path": "chats.jsonl", "schedule": "cosine"},
        method={"kind": "lora"},
    )
    (tmp_path / "again.yaml").write_text(dump(found))
    assert load(tmp_path / "again.yaml") == found
