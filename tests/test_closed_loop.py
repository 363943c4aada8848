"""Rounds in a closed loop, on a real small model: losses by topic plan the next round, and hard sequences come again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from curricula.closed_loop import before_stage, check_validation
from mixer.cli import app
from mixer.errors import RecipeError, SourceError
from mixer.ordering import digest_of
from mixer.recipe.file import load
from tests import training
from tests.test_curriculum import STAGES, build_in, corpus  # noqa: F401
from tests.tiny_model import tiny_model


@pytest.fixture(scope="module")
def folder(corpus) -> Path:  # noqa: F811
    """The corpus, a tiny model, and a Run of three rounds and a stage again."""
    tiny_model(corpus / "model")
    build_in(corpus, "run", stages=STAGES[:2], train=training.TRAIN)
    return corpus


def lines(folder: Path, name: str) -> list[dict]:
    text = (folder / "run/checkpoints/plain" / name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def looped(folder: Path, said: list[str], **hooks):
    """Train, with rounds planned as they come."""
    run = folder / "run"

    def next_stage(stage, _):
        before_stage(run, run / "checkpoints" / "plain", stage, say=said.append)

    return training.run(folder, "plain", next_stage=next_stage, **hooks)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A copy of the Run, trained to its end, and what was said."""
    said: list[str] = []
    copy = training.copied(folder, tmp_path_factory.mktemp("trained"))
    assert looped(copy, said).folder is not None
    return copy, said


def test_rounds_are_planned_by_the_training_itself(trained):
    folder, said = trained
    run = folder / "run"
    history = json.loads((run / "adapt/history.json").read_text())["rounds"]
    assert [one["round"] for one in history] == ["learn-2", "learn-3"]
    assert history[0]["method"] == "plain"
    measured = {
        line["tokens"]: {f"{x['source']}/{x['topic']}": x["loss"] for x in line["losses"]}
        for line in lines(folder, "validation.jsonl")
    }
    assert history[0]["before"] == pytest.approx(measured[0])
    assert history[0]["after"] == pytest.approx(measured[20 * 64])
    assert history[1]["before"] == history[0]["after"]
    assert any(line.startswith("learn-2: web/biology 0.500 -> ") for line in said)
    assert len(np.load(run / "order/again.npy")) == len(np.load(run / "checkpoints/plain/losses/again.npy"))
    recorded = json.loads((run / "checkpoints/plain/losses/orders.json").read_text())
    assert recorded == {name: digest_of(np.load(run / f"order/{name}.npy")) for name in recorded}
    assert list(recorded) == ["again", "learn-1", "learn-2", "learn-3"]
    trained = {line["stage"] for line in lines(folder, "metrics.jsonl")}
    assert trained == {"learn-1", "learn-2", "learn-3", "again"}


def test_a_training_that_is_killed_in_a_later_round_ends_as_one_that_is_not(folder, trained, tmp_path):
    killed = training.copied(folder, tmp_path / "killed")

    def kill(stage, _):
        if stage == "learn-3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        looped(killed, [], after_step=kill)
    looped(killed, [])
    one, other = (load_file(each / "run/checkpoints/plain/final/model.safetensors") for each in (killed, trained[0]))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_round_without_losses_at_its_ends_says_what_is_missing(folder, tmp_path):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    with pytest.raises(SourceError, match="got no losses at 0 tokens seen, expected some at both ends of the round"):
        before_stage(run, tmp_path, "learn-2", say=lambda _: None)


def test_rounds_without_anything_held_out_are_refused_before_training(corpus):  # noqa: F811
    build_in(corpus, "bare", stages=STAGES[:1], validation=None)
    with pytest.raises(RecipeError, match="got nothing held out of web/biology, web/rest, expected some of each topic"):
        check_validation(corpus / "bare", say=lambda _: None)
    check_validation(corpus / "run", say=lambda _: None)


def test_all_rounds_of_a_stage_share_its_learning_rate(folder):
    recipe = load(folder / "run/recipe.yaml")
    assert recipe.train is not None
    job = training.job(folder)
    assert len(job.schedule.legs) == 1
    assert job.schedule.legs[0].tokens == job.tokens


def test_rounds_may_be_planned_by_hand_from_a_trainings_losses(folder, trained, tmp_path):
    run = training.copied(folder, tmp_path / "by-hand") / "run"
    shutil.copytree(trained[0] / "run/checkpoints", run / "checkpoints")
    for expected in ("learn-2", "learn-3"):
        done = CliRunner().invoke(app, ["adapt", str(run), "--name", "plain", "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["round"] == expected
    by_itself = json.loads((trained[0] / "run/adapt/history.json").read_text())
    assert json.loads((run / "adapt/history.json").read_text()) == by_itself
    done = CliRunner().invoke(app, ["adapt", str(run), "--name", "plain"])
    assert "got no round that is still to be planned" in done.stderr
