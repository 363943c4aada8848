"""The sweep's own runs on a real small model: base losses, losses after a mixture, the same ones again, nothing left behind."""

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from curricula.search.surrogate import TrainedSurrogate
from curricula.search.sweep import Job as Wanted
from mixer.cli import app
from mixer.errors import PlanError, RecipeError
from mixer.recipe.file import load
from tests import toys, training
from tests.test_build import run_build
from tests.tiny_model import tiny_model

SWEEP = {
    "stage": "adapt",
    "vary": {"kind": "share", "sources": ["books"], "grid": [0.1, 0.3, 0.5, 0.7, 0.9]},
    "tokens_per_run": 3200,
    "targets": {"web": 1, "books": 1},
    "replicates": 20,
}
CHANGES = {
    "sources": {
        "web": toys.sources()["web"],
        "books": {"kind": "text", "path": "parts.txt", "split": "line", "language": "en"},
    },
    "stages": [{"name": "adapt", "token_budget": 9600, "mixture": {"web": 5, "books": 5}}],
    "validation": {"sequences": 2},
    "train": training.TRAIN,
    "sweep": SWEEP,
}


def corpus(folder: Path) -> Path:
    toys.corpus(folder)
    (folder / "parts.txt").write_text("".join(toys.sentences(500 + n, 3) + "\n" for n in range(60)))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = corpus(tmp_path_factory.mktemp("sweep"))
    tiny_model(folder / "model")
    run_build(folder, **CHANGES)
    torch.set_num_threads(1)
    return folder


def surrogate(folder: Path) -> TrainedSurrogate:
    recipe = load(folder / "toy.yaml")
    return TrainedSurrogate(folder / "run", recipe, base=folder, store=folder / "store", say=lambda _: None)


def test_a_run_lowers_the_base_models_losses_and_is_the_same_again(folder):
    found = surrogate(folder)
    base = found({}, tokens=0, seed=0)
    assert base.keys() == {"web", "books"}
    mixture = {"web": 0.5, "books": 0.5}
    after = found(mixture, tokens=6400, seed=0)
    assert all(after[name] < base[name] - 0.3 for name in base)
    assert found(mixture, tokens=6400, seed=0) == after
    assert found(mixture, tokens=6400, seed=1) != after
    assert not list((folder / "run/sweep/runs").iterdir())


def test_another_model_or_setting_makes_other_runs(folder):
    recipe = load(folder / "toy.yaml", overrides=["train.learning_rate=1.0e-3"])
    other = TrainedSurrogate(folder / "run", recipe, base=folder, store=folder / "store", say=lambda _: None)
    assert other.made_by != surrogate(folder).made_by == surrogate(folder).made_by


def test_mixer_sweep_trains_what_is_missing_and_says_what_it_found(folder, monkeypatch):
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, ["sweep", "toy.yaml", "--run", "run"])
    assert done.exit_code == 0, done.output
    assert "run 5 of 5: web 0.1, books 0.9, 3,200 tokens, seed 0" in done.stderr
    assert len((folder / "run/sweep/results.jsonl").read_text().splitlines()) == 5
    *_, verdict = done.stdout.strip().splitlines()
    assert re.match(r"(answer|no answer \(\w[\w ]*\)): \w", verdict)
    again = CliRunner().invoke(app, ["sweep", "toy.yaml", "--run", "run"])
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert not re.search(r"run \d of 5", again.stderr)


def test_runs_that_cannot_be_planned_are_refused_before_the_first(folder):
    found = surrogate(folder)
    good, short = (Wanted({"web": 0.97, "books": 0.03}, tokens, 0) for tokens in (3200, 320))
    found.check([Wanted({}, 0, 0), good])
    with pytest.raises(
        PlanError, match=r"got run 2, which cannot be planned, expected all to be: .*gets 0 of 5 sequences"
    ):
        found.check([good, short])


def test_a_run_that_holds_nothing_out_cannot_measure(tmp_path):
    folder = corpus(tmp_path)
    tiny_model(folder / "model")
    run_build(folder, **CHANGES | {"validation": None})
    with pytest.raises(RecipeError, match="got nothing held out, expected sequences to measure losses on"):
        surrogate(folder)
