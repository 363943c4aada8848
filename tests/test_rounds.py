"""`mixer adapt` on a Run: nothing is written for a round that cannot be, none is planned twice, and options must agree."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from curricula import closed_loop, rounds
from curricula.scheduler import Scheduler
from mixer.cli import app
from mixer.commands.build import _another
from mixer.errors import PlanError, RecipeError, SourceError
from mixer.ordering import ORDERS, digest_of
from mixer.recipe.file import load
from mixer.replan import open_run, replan
from mixer.run import write_json
from tests.test_curriculum import STAGES, build_in, built, corpus  # noqa: F401

ROSE = {"web/biology": 2.0, "web/rest": 3.0}, {"web/biology": 3.0, "web/rest": 2.9}
LATER = ROSE[1], {"web/biology": 3.1, "web/rest": 2.7}


@pytest.fixture
def run(built, tmp_path) -> Path:  # noqa: F811
    return shutil.copytree(built[0], tmp_path / "run")


def changed(run: Path, change: Callable[[dict[str, Any]], None], say=lambda _: None) -> Path:
    """The Run with another recipe, planned anew."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    change(recipe)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    replan(run, open_run(run), Scheduler(), say, done=0)
    return run


def history(run: Path) -> list[str]:
    path = run / "adapt/history.json"
    return [one["round"] for one in json.loads(path.read_text())["rounds"]] if path.exists() else []


def adapt(run: Path, losses, **more):
    return rounds.adapt(run, *losses, method="hand", say=lambda _: None, **more)


def test_rounds_of_a_stage_that_takes_nearly_all_there_is_are_planned_one_after_another(run):
    # One topic may not take from the rounds after it: 480 of 507 sequences, in 4 rounds.
    def tight(recipe):
        recipe["max_epochs"], recipe["stages"] = 1.0, recipe["stages"][:1]
        stage = recipe["stages"][0]
        stage["mixture"]["books"] = 0.1
        stage["token_budget"], stage["adapt"]["rounds"] = 64 * 480, 4

    changed(run, tight)
    for losses in (ROSE, LATER, ROSE):
        adapt(run, losses)
    assert history(run) == ["learn-2", "learn-3", "learn-4"]


def test_a_round_that_cannot_be_ordered_leaves_no_trace_in_the_history(run, monkeypatch):
    def fails(*_, **__):
        raise PlanError("no")

    with monkeypatch.context() as patched:
        patched.setattr(rounds, "replan", fails)
        with pytest.raises(PlanError):
            adapt(run, ROSE)
    assert history(run) == []
    assert adapt(run, ROSE).name == "learn-2"


def test_raising_max_epochs_keeps_the_rounds(corpus, built):  # noqa: F811
    run = shutil.copytree(built[0], corpus / "raised")
    adapt(run, ROSE)
    before = np.load(run / "order/learn-2.npy")
    _, said = build_in(corpus, "raised", max_epochs=9)
    assert np.array_equal(np.load(run / "order/learn-2.npy"), before)
    assert not any("set aside" in line for line in said)
    assert history(run) == ["learn-2"]


def test_the_same_losses_twice_plan_one_round(run):
    adapt(run, ROSE)
    with pytest.raises(RecipeError, match="got the losses that planned `learn-2`"):
        adapt(run, ROSE)
    assert history(run) == ["learn-2"]


def test_a_training_that_comes_second_goes_on_with_the_round_of_the_first(run, monkeypatch):
    def slow(*_, **__):
        adapt(run, ROSE)
        return ROSE

    said: list[str] = []
    monkeypatch.setattr(closed_loop, "validated_around", slow)
    closed_loop.before_stage(run, run / "checkpoints/plain", "learn-2", say=said.append)
    assert history(run) == ["learn-2"]
    assert any("got losses for `learn-2`, expected some for a later round: hand planned it" in line for line in said)


def recorded(run: Path, folder: Path) -> Path:
    """Losses for all rounds of `learn`, as made by hand."""
    folder.mkdir()
    for name in ("learn-1", "learn-2", "learn-3"):
        np.save(folder / f"{name}.npy", np.linspace(1, 9, len(np.load(run / f"order/{name}.npy")), dtype=np.float32))
    return folder


def test_what_a_build_suggests_for_a_stage_of_rounds_is_a_recipe(run):
    change = _another(open_run(run))
    assert change == "stages.learn.adapt.alpha=2"
    assert load(run / "recipe.yaml", overrides=[change]).mixed_stages[0].adapt.alpha == 2


@pytest.mark.parametrize("key", ["seed", "token_budget"])
def test_losses_of_another_order_choose_nothing(run, tmp_path, key):
    def change(recipe):
        if key == "seed":
            recipe["seed"] = 99
        else:
            recipe["stages"][0]["token_budget"] = 64 * 90

    folder, said = recorded(run, tmp_path / "npy"), []
    assert rounds.resample(run, folder, say=said.append) == ["again"]
    assert (run / "order/again.npy").is_file()
    changed(run, change, say=said.append)
    assert not (run / "order/again.npy").exists()
    assert any("holds losses of `learn-1`, `learn-2`, `learn-3` in another order" in line for line in said)
    assert "stage `again` waits for the losses of `learn`: train it, then mixer adapt" in said


def test_losses_that_a_training_recorded_in_another_order_are_refused(run, tmp_path):
    folder = recorded(run, tmp_path / "npy")
    orders = {name: digest_of(np.load(run / f"order/{name}.npy")) for name in ("learn-1", "learn-2", "learn-3")}
    write_json(folder / ORDERS, orders)
    assert rounds.resample(run, folder, say=lambda _: None) == ["again"]
    write_json(folder / ORDERS, orders | {"learn-2": "0" * 32})
    with pytest.raises(SourceError, match="got losses in another order of stage `learn-2`, expected the Run's own"):
        rounds.resample(run, folder, say=lambda _: None)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "got no losses, expected --name, or --before and --after, or --losses"),
        (["--before", "0.json"], "got --before, expected --name, or --before and --after"),
        (
            ["--name", "plain", "--before", "0.json", "--after", "1.json"],
            "got --name and --before and --after, expected",
        ),
        (["--losses", "npy", "--before", "0.json"], "got --losses and --before, expected"),
        (["--losses", "npy", "--json"], "got --losses and --json, expected"),
        (["--name", "nope"], "got nope, no such training"),
        (["--name", "../../x"], "got ../../x, no such training"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run, options, told):
    (run / "checkpoints/plain").mkdir(parents=True)
    done = CliRunner().invoke(app, ["adapt", str(run), *options])
    assert done.exit_code == 2
    assert told in done.stderr
    if "--name" in options and "--before" not in options:
        assert "known: plain" in done.stderr
