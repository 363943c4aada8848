"""`mixer retention` on a real small Run: what it tells, how it ends, and what it refuses."""

import json
import shlex
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from curricula.held import fingerprints
from curricula.retention.survey import trainings_of
from mixer.cli import app
from mixer.errors import CheckpointError, RecipeError
from tests import retained, training


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return retained.build(tmp_path_factory.mktemp("built"))


def mixer(folder: Path, *arguments: object):
    command = ["retention", folder / "run", "--base", folder, *arguments]
    return CliRunner(env={"XDG_CACHE_HOME": str(folder / "cache")}).invoke(app, [str(word) for word in command])


def test_the_command_reports_every_slice_and_passes(built, tmp_path):
    folder = training.copied(built, tmp_path)
    done = mixer(folder, "--mix", "0.5", "--mix", "0.504", "--mix", "0.5")
    assert done.exit_code == 0, done.output
    report = json.loads((folder / "run/retention/report.json").read_text())
    rows = {row["name"]: row for row in report["trainings"]["short"]["slices"]}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "prose": "general", "numbers": "general", "books": "domain",
    }  # fmt: skip
    assert rows["books"]["difference"]["value"] < 0
    mixed = report["trainings"]["short"]["interpolated"]
    assert {share: found["gate"]["passes"] for share, found in mixed.items()} == {"0.50": True, "0.504": True}
    assert set(report["trainings"]["short"]["probes"]["divergence"]) == {"prose", "numbers"}
    documents = pl.read_parquet(folder / "run/retention/documents.parquet")
    assert documents.columns == ["slice", "id", "bytes", "bits_before", "bits_after", "training"]
    assert (folder / "run/retention/frontier.svg").read_text().startswith("<?xml")
    assert "gate: passes" in done.stdout
    assert done.stderr.splitlines()[-1] == f"next: look at {folder}/run/retention/frontier.svg"


def test_the_next_command_measures_weights_in_between(built, tmp_path):
    folder = training.copied(built, tmp_path)
    done = mixer(folder, "--name", "short", "--no-tasks", "--set", "retention.probes=false")
    told = (
        f"mixer retention {folder}/run --name short --base {folder} --no-tasks --mix 0.3 --set retention.probes=false"
    )
    assert done.stderr.splitlines()[-1] == f"next: {told}"
    again = CliRunner(env={"XDG_CACHE_HOME": str(folder / "cache")}).invoke(app, shlex.split(told)[1:])
    assert again.exit_code == 0, again.output
    report = json.loads((folder / "run/retention/report.json").read_text())
    assert list(report["trainings"]["short"]["interpolated"]) == ["0.30"]


def test_a_failed_gate_ends_with_exit_code_3(built, tmp_path):
    folder = training.copied(built, tmp_path)
    done = mixer(folder, "--set", "retention.max_forgetting=0.0", "--set", "retention.least_gain=9.0", "--json")
    assert done.exit_code == 3, done.output
    gate = json.loads(done.stdout)["trainings"]["short"]["gate"]
    assert not gate["passes"]
    assert any(reason.startswith("books gained") for reason in gate["reasons"])
    assert "gate failed: short" in done.stderr


def test_a_base_against_itself_loses_nothing(built, tmp_path):
    folder = training.copied(built, tmp_path)
    training.copied(folder / "model", folder / "run/checkpoints/nothing/final")
    done = mixer(folder, "--name", "nothing", "--json", "--set", "retention.max_forgetting=0.0")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["trainings"]["nothing"]
    assert {row["difference"]["value"] for row in found["slices"]} == {0.0}
    assert set(found["probes"]["weight_change"].values()) == {0.0}
    assert found["probes"]["token_shift"]["unshifted"] > 0.99
    assert found["probes"]["divergence"]["prose"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--name", "other"], "got no finished training `other`, expected one of short"),
        (["--mix", "1.5"], "--mix: got 1.5, expected a share between 0 and 1"),
        (["--set", "retention=null"], "got no `retention`, expected one"),
    ],
)
def test_what_cannot_be_measured_is_refused(built, arguments, told):
    done = mixer(built, *arguments)
    assert done.exit_code == 2, done.output
    assert told in done.stderr


def test_a_training_from_before_other_documents_were_held_out_is_refused(built, tmp_path):
    """It trained on some of those that are held out now."""
    folder = training.copied(built, tmp_path)
    before = fingerprints(folder / "run", ["more"])
    retained.build_run(folder, held_out=64)
    assert fingerprints(folder / "run", ["more"]).keys() == before.keys() == {"more"}
    assert fingerprints(folder / "run", ["more"]) != before
    done = mixer(folder)
    assert done.exit_code == 2, done.output
    assert (
        "short/final: got a training from before `more` was packed anew or had other documents held out" in done.stderr
    )
    assert "hint: train again under another name" in done.stderr
    training.run(folder, "since", "train.tokens_per_step=3200")
    assert mixer(folder, "--name", "since").exit_code == 0


def test_a_run_without_trainings_or_recipe_is_refused(built, tmp_path):
    done = CliRunner().invoke(app, ["retention", str(tmp_path)])
    assert (done.exit_code, "got no recipe.yaml" in done.stderr) == (2, True)
    with pytest.raises(CheckpointError, match="got no finished training, expected one"):
        trainings_of(tmp_path)


def test_a_training_is_measured_against_the_model_that_it_began_with(built, tmp_path):
    """Against another base, what the two differ in would be told as learned."""
    folder = training.copied(built, tmp_path)
    training.copied(folder / "run/checkpoints/short/final", folder / "other")
    training.run(folder, "second", "train.model=other", "train.tokens_per_step=3200")
    refused = mixer(folder, "--name", "second")
    assert refused.exit_code == 2, refused.output
    assert "second/final: got a training that began with another model than `train.model`" in refused.stderr
    assert "hint: give `--set train.model=` as `mixer train` had it" in refused.stderr
    done = mixer(folder, "--name", "second", "--set", "train.model=other", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["base"]["folder"] == str(folder / "other")


def test_tasks_without_lm_eval_are_refused_unless_left_out(built, tmp_path, monkeypatch):
    folder = training.copied(built, tmp_path)
    monkeypatch.setattr("curricula.retention.tasks.is_installed", lambda: False)
    task = "retention.tasks=[{template: arc, path: items.jsonl}]"
    done = mixer(folder, "--set", task)
    assert (done.exit_code, "got 1 tasks and no lm-eval" in done.stderr) == (2, True)
    assert mixer(folder, "--set", task, "--no-tasks").exit_code == 0


def test_a_recipe_without_retention_is_refused(built):
    from curricula.retention.survey import retention_of
    from mixer.recipe.file import load

    with pytest.raises(RecipeError, match="got no `retention`"):
        retention_of(load(built / "run/recipe.yaml", overrides=["retention=null"]))


def test_a_best_model_that_may_still_be_replaced_is_measured_only_where_it_is_named(tmp_path):
    """`over` ended, `stopped` was ended by the guard, and `runs` goes on."""
    for name, last in (("over", "on"), ("stopped", "stop"), ("runs", "best")):
        folder = tmp_path / "checkpoints" / name
        (folder / "best").mkdir(parents=True)
        (folder / "guard.jsonl").write_text(json.dumps({"step": 9, "action": last}) + "\n")
    (tmp_path / "checkpoints/over/final").mkdir()
    assert list(trainings_of(tmp_path)) == ["over", "over/best", "stopped/best"]
    assert list(trainings_of(tmp_path, ["runs/best"])) == ["runs/best"]
