"""What a recipe may not say of the guard: what would never act, or could not."""

import pytest
import yaml
from typer.testing import CliRunner

from mixer.cli import app
from tests.test_recipe_retention import problems, slices


def test_a_guard_needs_something_to_train():
    assert "retention.guard: has no effect without `train`; add it, or remove this" in problems(
        slices() | {"guard": {"every": 9}}, train=None
    )


RAISED = {"guard": {"every": 9, "on_forgetting": "raise_replay", "replay": ["old"]}}


@pytest.mark.parametrize(
    ("stage", "odd"),
    [
        ({"mixture": {"web": {"from": 1, "to": 2}, "old": 1}}, "a ramp"),
        ({"replay": {"share": 0.1, "mixture": {"old": {"from": 1, "to": 2}}}, "mixture": {"web": 1}}, "a ramp"),
        ({"mixture": {"web": 1, "old": 1}, "order": {"web": {"by": "perplexity"}}}, "order"),
        ({"mixture": {"web": {"weight": 1, "topics": {"physics": 1, "rest": 1}}, "old": 1}, "adapt": {"rounds": 2}}, "adapt"),
    ],
)  # fmt: skip
def test_only_plain_stages_are_planned_again(stage, odd):
    """A later round has no order yet, and what comes again was chosen from another order than the raised one."""
    stages = [{"name": "adapt", "token_budget": 9600} | stage, {"name": "again", "resample": {"stage": "adapt"}}]
    scores = {"perplexity": {"model": "m"}, "topic": {}}
    assert problems(slices() | RAISED, stages=stages, scores=scores) == [
        f"retention.guard.on_forgetting: got stage `adapt` with {odd}, stage `again` with resample, expected stages of"
        " one mixture in random order: what is left of any other has no simple rest to plan again; use `stop` or `warn`,"
        f" or take {odd} and resample out"
    ]
    stopping = slices() | {"guard": RAISED["guard"] | {"on_forgetting": "stop"}}
    assert problems(stopping, stages=stages, scores=scores) == []


def test_the_same_is_refused_when_a_training_alone_is_told_to_raise_replay(tmp_path):
    """A Run of rounds was built with `warn`, and `mixer train --set` asks for more."""
    topics = {"web": {"weight": 1, "topics": {"physics": 1, "rest": 1}}}
    stages = [{"name": "adapt", "token_budget": 9600, "mixture": topics, "adapt": {"rounds": 2}}]
    tree = {
        "name": "toy",
        "tokenizer": "bytes",
        "sources": {name: {"kind": "jsonl", "path": f"{name}.jsonl"} for name in ("web", "old")},
        "scores": {"topic": {}},
        "stages": stages,
        "train": {"model": "model", "learning_rate": 1.0e-3},
        "retention": slices() | {"guard": RAISED["guard"] | {"on_forgetting": "warn"}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    told = "got stage `adapt` with adapt, expected stages of one mixture in random order"
    done = CliRunner().invoke(app, ["train", str(tmp_path), "--set", "retention.guard.on_forgetting=raise_replay"])
    assert done.exit_code == 2
    assert told in str(done.exception) + done.output


NOTHING_GIVES_WAY = "nothing is left whose place raised replay could take; name those alone that must not be forgotten"


@pytest.mark.parametrize(
    ("stages", "replay", "refused"),
    [
        ([{"mixture": {"web": 1, "old": 1}}], ["web", "old"], True),
        ([{"mixture": {"web": 1}}, {"mixture": {"old": 1}}], ["web", "old"], True),
        ([{"mixture": {"web": 1}, "replay": {"share": 0.1, "mixture": {"old": 1}}}], ["web"], True),
        ([{"mixture": {"old": 1}}, {"mixture": {"web": 1}}], ["old"], False),
        ([{"mixture": {"web": 1}, "replay": {"share": 0.1, "mixture": {"old": 1}}}], ["old"], False),
        ([{"mixture": {"group": {"weight": 1, "mixture": {"web": 1, "old": 1}}}}], ["web", "old"], True),
    ],
)
def test_raised_replay_needs_something_that_gives_way(stages, replay, refused):
    named = [{"name": f"s{n}", "token_budget": 9600} | stage for n, stage in enumerate(stages)]
    found = problems(slices() | {"guard": RAISED["guard"] | {"replay": replay}}, stages=named)
    told = "retention.guard.replay: got all sources of the stages' own `mixture`, expected some of them at most: "
    assert found == ([told + NOTHING_GIVES_WAY] if refused else [])
    warning = slices() | {"guard": RAISED["guard"] | {"replay": replay, "on_forgetting": "warn"}}
    assert problems(warning, stages=named) == []


def test_stages_that_only_replay_each_other_leave_nothing_to_raise():
    pairs = [("web", "old"), ("old", "web")]
    stages = [
        {"name": new, "token_budget": 9600, "mixture": {new: 1}, "replay": {"share": 0.1, "mixture": {old: 1}}}
        for new, old in pairs
    ]
    own = slices() | {"guard": {"every": 9, "on_forgetting": "raise_replay"}}
    assert problems(own, stages=stages[:1]) == []
    [told] = problems(own, stages=stages)
    assert told.startswith("retention.guard.on_forgetting: got stages of nothing but each other's replay, expected")


@pytest.mark.parametrize(
    ("shares", "got"), [([0.89], None), ([0.9], "0.9"), ([0.9, 0.95], "0.9 and 0.95"), ([0.9, None], None)]
)
def test_replay_that_is_nine_tenths_already_cannot_be_raised(shares, got):
    replays = [{"replay": {"share": share, "mixture": {"old": 1}}} if share else {} for share in shares]
    stages = [
        {"name": f"s{n}", "token_budget": 9600, "mixture": {"web": 1}} | replay for n, replay in enumerate(replays)
    ]
    own = slices() | {"guard": {"every": 9, "on_forgetting": "raise_replay"}}
    told = (
        f"retention.guard.on_forgetting: got stages with {got} of `replay`, expected less than 0.9 in one: it is raised"
    )
    told += " no further than that, so the guard could do nothing; use `stop` or `warn`, or replay less"
    assert problems(own, stages=stages) == ([told] if got else [])
    assert problems(slices() | {"guard": {"every": 9, "on_forgetting": "stop"}}, stages=stages) == []


def test_a_source_that_only_a_guard_draws_from_is_in_use():
    stages = [{"name": "adapt", "token_budget": 9600, "mixture": {"web": 1}}]
    assert problems(slices(), stages=stages) == ["sources.old: source `old` is in no stage's mixture"]
    own = slices() | {"guard": {"every": 9, "on_forgetting": "raise_replay", "replay": ["old"]}}
    assert problems(own, stages=stages) == []
