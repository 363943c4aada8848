"""Shares of nested, ramped and computed mixtures: worked by hand first, then the laws."""

import itertools
import re
from fractions import Fraction as F

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import PlanError
from mixer.mixture import Sizes, apportion, spans
from mixer.plan import plan
from mixer.recipe.recipe import Recipe
from mixer.recipe.stage import Stage

SIZES = Sizes({"web": 300, "books": 100, "code": 50})
TOPICS = Sizes({"web/physics": 60, "web/biology": 30, "web/rest": 10, "books": 100})


def stage(mixture, **more) -> Stage:
    return Stage.model_validate({"name": "s", "token_budget": 1000, "mixture": mixture, **more})


def shares(mixture, sizes=SIZES, sequences=100, **more):
    [span] = spans(stage(mixture, **more), sizes, sequences)
    assert span.start == span.end
    return span.start


def test_case_1_groups_share_among_themselves_whatever_their_scale():
    # web: 8/10 * 3/4, books: 8/10 * 1/4, code: 2/10
    en = {"weight": 8, "mixture": {"web": 0.3, "books": 0.1}}
    assert shares({"en": en, "code": 2}) == {"web": F(3, 5), "books": F(1, 5), "code": F(1, 5)}


def test_case_2_replay_takes_its_share_from_the_whole():
    replay = {"share": 0.25, "mixture": {"books": 1, "code": 1}}
    assert shares({"web": 1}, replay=replay) == {"web": F(3, 4), "books": F(1, 8), "code": F(1, 8)}


def test_case_3_topics_share_their_source():
    mixture = {"web": {"weight": 4, "topics": {"physics": 3, "rest": 1}}, "books": 1}
    assert shares(mixture, TOPICS) == {"web/physics": F(3, 5), "web/rest": F(1, 5), "books": F(1, 5)}


def test_case_4_a_stage_that_names_no_topics_takes_them_as_they_come():
    assert shares({"web": 1, "books": 1}, TOPICS) == {
        "web/physics": F(3, 10),
        "web/biology": F(3, 20),
        "web/rest": F(1, 20),
        "books": F(1, 2),
    }


def test_case_5_presets():
    assert shares("natural") == {"web": F(2, 3), "books": F(2, 9), "code": F(1, 9)}
    assert shares({"temperature": 1, "sources": ["books", "code"]}) == {"books": F(2, 3), "code": F(1, 3)}
    # UniMax of methods.md 11.7: n = (1, 10, 100), B = 60, E = 4 gives (4, 28, 28).
    unimax = shares({"unimax": 4}, Sizes({"a": 1, "b": 10, "c": 100}), 60)
    assert unimax == {"a": F(4, 60), "b": F(28, 60), "c": F(28, 60)}


def test_case_6_a_preset_inside_a_group_sees_the_groups_budget():
    # Half of 120 sequences is 60: the same as above.
    sizes = Sizes({"a": 1, "b": 10, "c": 100, "d": 100})
    found = shares({"g": {"weight": 1, "mixture": {"unimax": 4, "sources": ["a", "b", "c"]}}, "d": 1}, sizes, 120)
    assert found == {"a": F(4, 120), "b": F(28, 120), "c": F(28, 120), "d": F(1, 2)}


def test_case_7_unimax_that_cannot_be_met_says_where():
    with pytest.raises(PlanError, match=r"stages\.s\.mixture: unimax: got a budget of 60"):
        shares({"unimax": 4}, Sizes({"a": 1, "b": 2}), 60)


def test_unimax_says_what_it_lacks_in_tokens_of_its_own_group():
    sizes = Sizes({"a": 20, "b": 300}, sequence_length=512)
    with pytest.raises(
        PlanError, match=r"got a budget of 512,000 tokens, expected at most 327,680: 2 epochs of"
    ) as caught:
        shares({"unimax": 2}, sizes, 1000)
    assert caught.value.hint == "cut the budget, allow it 3.13 epochs, or add data"


def test_unimax_of_less_than_a_sequence_is_still_a_mixture():
    replay = {"share": 0.05, "mixture": {"unimax": 4, "sources": ["books", "code"]}}
    assert shares({"web": 1}, sequences=15, replay=replay) == {"web": F(19, 20), "books": F(1, 40), "code": F(1, 40)}


def test_unimax_counts_the_epochs_of_the_stage_and_not_of_its_rounds():
    mixture = {"web": {"weight": 1, "topics": {"unimax": 1}}}
    stage = {"name": "learn", "token_budget": 1200, "mixture": mixture}
    sizes = {"web/physics": 20, "web/rest": 300, "books": 1, "code": 1}
    whole, cut = (plan(recipe([each]), sizes) for each in (stage, stage | {"adapt": {"rounds": 3}}))
    assert whole.stages[0].sources["web/physics"].sequences == 20
    assert sum(each.sources["web/physics"].sequences for each in cut.stages) == 20


def test_case_8_a_linear_ramp_moves_shares_straight_from_one_end_to_the_other():
    [span] = spans(stage({"web": {"from": 3, "to": 1}, "books": 1}), SIZES, 8)
    assert (span.start, span.end) == ({"web": F(3, 4), "books": F(1, 4)}, {"web": F(1, 2), "books": F(1, 2)})
    [segment] = apportion([span])
    assert segment.counts == {"web": 5, "books": 3}


def test_case_9_a_step_cuts_the_stage():
    first, second = spans(stage({"web": {"from": 3, "to": 1, "at": 0.25}, "books": 1}), SIZES, 8)
    assert (first.sequences, first.start, first.end) == (2, *[{"web": F(3, 4), "books": F(1, 4)}] * 2)
    assert (second.sequences, second.start, second.end) == (6, *[{"web": F(1, 2), "books": F(1, 2)}] * 2)


def test_case_10_a_ramp_between_two_places_leaves_the_ends_level():
    parts = spans(stage({"web": {"from": 0, "to": 1, "between": [0.25, 0.5]}, "books": 1}), SIZES, 100)
    assert [part.sequences for part in parts] == [25, 25, 50]
    assert [part.start["web"] for part in parts] == [0, 0, F(1, 2)]
    assert [part.end["web"] for part in parts] == [0, F(1, 2), F(1, 2)]


def test_case_11_the_tables_of_llama_3_syne_to_the_digit():
    # methods.md 1.2: stage I 92.5B at zh:en 2:8, stage II 7.5B at zh:en:synthetic 1:7:2.
    zh = {"web_zh": 0.70, "encyclopedia_zh": 0.05, "book_zh": 0.20, "qa_zh": 0.05}
    en = {"web": 0.40, "encyclopedia": 0.05, "book": 0.15, "qa": 0.05, "paper": 0.10, "math": 0.10, "code": 0.15}
    sizes = Sizes(dict.fromkeys([*zh, *en, "synthetic"], 10**9))
    one = shares({"zh": {"weight": 2, "mixture": zh}, "en": {"weight": 8, "mixture": en}}, sizes)
    two = shares({"zh": {"weight": 1, "mixture": zh}, "en": {"weight": 7, "mixture": en}, "synthetic": 2}, sizes)
    volumes = {name: F("92.5") * one.get(name, F(0)) + F("7.5") * two[name] for name in two}
    assert volumes["web"] + volumes["web_zh"] == F("45.175")
    assert volumes["book"] + volumes["book_zh"] == F("15.7375")
    assert volumes["code"] == F("11.8875")
    assert volumes["synthetic"] == F("1.5")
    assert sum(volumes.values()) == 100


def test_weights_that_are_all_zero_somewhere_are_refused():
    with pytest.raises(PlanError, match=r"stages\.s\.mixture: got weights that are all 0 at 1 of the stage"):
        spans(stage({"web": {"from": 1, "to": 0}}), SIZES, 8)
    with pytest.raises(PlanError, match=r"stages\.s\.mixture\.web\.topics: got weights that are all 0 at 0 of"):
        spans(stage({"web": {"weight": 1, "topics": {"physics": {"from": 0, "to": 1}}}}), TOPICS, 8)


number = st.floats(0.01, 100).map(lambda x: round(x, 3))
weight = number | st.builds(lambda a, b: {"from": a, "to": b}, number, number | st.just(0.0))


@given(st.data(), st.integers(1, 10**9))
def test_shares_sum_to_one_and_sequences_to_the_stage(data, sequences):
    inner = {"weight": data.draw(weight), "mixture": {"books": data.draw(weight), "code": data.draw(number)}}
    found = spans(stage({"web": data.draw(number), "group": inner}), SIZES, sequences)
    assert sum(part.sequences for part in found) == sequences
    for part in found:
        assert sum(part.start.values()) == sum(part.end.values()) == 1
    counts = [segment.counts for segment in apportion(found)]
    assert sum(sum(each.values()) for each in counts) == sequences


@given(st.integers(2, 9), st.integers(20, 10**6))
def test_rounds_of_a_ramp_join_to_the_whole_ramp(rounds, sequences):
    whole = stage({"web": {"from": 0, "to": 1, "between": [0.3, 0.9]}, "books": 1})
    parts = [(F(i, rounds), F(i + 1, rounds)) for i in range(rounds)]
    found = [spans(whole, SIZES, sequences, part) for part in parts]
    ends = [(each[0].start["web"], each[-1].end["web"]) for each in found]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ends))
    assert (ends[0][0], ends[-1][1]) == (0, F(1, 2))


def recipe(stages, **more) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "r",
            "tokenizer": "toy.json",
            "sequence_length": 10,
            "max_epochs": 8,
            "sources": {name: {"kind": "text", "path": "x"} for name in ("web", "books", "code")},
            "scores": {"topic": {}, "perplexity": {"model": "smollm2"}},
            "stages": stages,
            **more,
        }
    )


ROUNDS = {
    "name": "learn",
    "token_budget": 1200,
    "mixture": {"web": {"weight": 3, "topics": {"physics": 1, "rest": 1}}, "books": 1},
    "adapt": {"rounds": 3},
}
AVAILABLE = {"web/physics": 30, "web/rest": 60, "books": 20, "code": 5}


def test_a_stage_with_rounds_is_planned_as_that_many_stages_in_a_row():
    planned = plan(recipe([ROUNDS]), AVAILABLE)
    assert [each.name for each in planned.stages] == ["learn-1", "learn-2", "learn-3"]
    assert [each.sequences for each in planned.stages] == [40, 40, 40]
    assert {n: s.sequences for n, s in planned.stages[1].sources.items()} == {
        "web/physics": 15,
        "web/rest": 15,
        "books": 10,
    }
    assert planned.stages[2].sources["web/physics"].epochs == 1.5


def test_a_revision_changes_its_round_and_those_after_it():
    revisions = {"learn-2": {"web": {"web/physics": F(2, 3), "web/rest": F(1, 3)}}}
    planned = plan(recipe([ROUNDS]), AVAILABLE, revisions=revisions)
    assert [each.sources["web/physics"].sequences for each in planned.stages] == [15, 20, 20]
    assert [each.sources["books"].sequences for each in planned.stages] == [10, 10, 10]


def test_a_stage_again_takes_the_same_part_of_every_pool_and_counts_as_repetition():
    again = {"name": "again", "resample": {"stage": "learn", "fraction": 0.5}}
    planned = plan(recipe([ROUNDS, again]), AVAILABLE)
    last = planned.stages[-1]
    assert (last.resample, last.sequences) == ("learn", 23 + 22 + 15)
    assert last.sources["books"].sequences == 15
    assert last.sources["books"].epochs == (30 + 15) / 20


def test_a_stage_again_that_would_pass_max_epochs_says_so():
    again = {"name": "again", "resample": {"stage": "learn", "fraction": 0.5}}
    with pytest.raises(PlanError, match=r"stages\.1 \(again\): source `books` needs 2\.25 epochs, max_epochs is 2"):
        plan(recipe([ROUNDS, again], max_epochs=2), AVAILABLE)


def test_a_topic_that_no_stage_names_is_said_to_be_left_out():
    mixture = {"web": {"weight": 3, "topics": {"physics": 1}}, "books": 1}
    planned = plan(recipe([{"name": "s", "token_budget": 400, "mixture": mixture}]), AVAILABLE)
    assert "no stage draws from `web/rest`: 60 sequences are left out" in planned.warnings


def test_repetition_is_told_with_what_it_is_worth():
    stages = [{"name": "s", "token_budget": 1000, "mixture": {"books": 1, "web": 1, "code": 1}}]
    planned = plan(recipe(stages), {"books": 20, "web": 200, "code": 5})
    books = planned.stages[0].sources["books"]
    # 33.3 sequences each; the one left over goes to the first by name.
    assert books.epochs == 34 / 20
    assert 0.98 * 340 < books.fresh_tokens < 340
    [told] = [warning for warning in planned.warnings if "`code`" in warning]
    assert re.search(r"6\.60 epochs, more than 4: its tokens are worth 8\d% of fresh ones", told)
