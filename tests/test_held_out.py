"""What retention measures is there before anything is paid for, and no source reads it."""

import json
from pathlib import Path

import pytest
import yaml

from tests import toys
from tests.command import mixer

SLICES = {"prose": {"path": "held/*.jsonl"}}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    toys.corpus(tmp_path)
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "prose.jsonl").write_text(json.dumps({"text": toys.sentences(900, 9)}))
    return tmp_path


def told(command: str, recipe: Path) -> list[str]:
    """What a command says of a recipe that it refuses; nothing is written."""
    done = mixer(command, recipe, "--run", recipe.parent / "run")
    assert done.exit_code == 2, done.output
    assert not (recipe.parent / "run" / "documents").exists()
    return done.stderr.splitlines()


@pytest.mark.parametrize("command", ["plan", "build"])
def test_files_that_are_not_there_are_all_told_before_anything_is_done(folder, command):
    slices = {"none": {"path": "nowhere.jsonl"}, "some": {"path": ["held/*.jsonl", "held/b*.jsonl"]}}
    tasks = [{"template": "mine.yaml", "path": "held/prose.jsonl"}, {"template": "arc", "path": "held/*.jsonl"}]
    recipe = toys.recipe(folder, retention={"slices": slices, "tasks": tasks})
    assert mixer("check", recipe).exit_code == 0
    assert told(command, recipe) == [
        f"error: retention.slices.none.path: no file: got `nowhere.jsonl` in {folder}, expected at least one match",
        f"retention.slices.some.path: no file: got `held/b*.jsonl` in {folder}, expected at least one match",
        f"retention.tasks.0.template: no file: got `mine.yaml` in {folder}, expected one",
        f"retention.tasks.1.path: no file: got `held/*.jsonl` in {folder}, expected one",
        "",
        "hint: a path is relative to the recipe; `*` matches within a folder, `**/` in folders at any depth",
    ]


@pytest.mark.parametrize("command", ["plan", "build"])
@pytest.mark.parametrize("path", ["./web.jsonl", "*.jsonl", "link.jsonl"])
def test_a_slice_is_no_file_of_a_source_by_whatever_name(folder, command, path):
    (folder / "link.jsonl").symlink_to("web.jsonl")
    recipe = toys.recipe(folder, retention={"slices": {"prose": {"path": path}}})
    assert mixer("check", recipe).exit_code == 0
    found = told(command, recipe)
    assert ", which `sources.web` reads too, expected text that is not trained on" in found[0]
    assert found[0].startswith("error: retention.slices.prose.path: got `")
    assert found[-1].startswith(
        "hint: name other files; what `validation` holds out of a source is measured by a slice"
    )


def test_conversations_and_tasks_are_held_out_too(folder):
    """A training on conversations comes after the stages, and is a training all the same."""
    train = {"model": "model", "learning_rate": 1.0e-3, "instruct": {"path": ["held/*.jsonl", "to-come/*.jsonl"]}}
    tasks = [{"template": "arc", "path": "web.jsonl"}]
    recipe = toys.recipe(folder, train=train, retention={"slices": SLICES, "tasks": tasks})
    assert told("build", recipe)[:2] == [
        "error: retention.slices.prose.path: got `held/prose.jsonl`, which `train.instruct` reads too,"
        " expected text that is not trained on",
        "retention.tasks.0.path: got `web.jsonl`, which `sources.web` reads too, expected text that is not trained on",
    ]


def test_what_is_there_is_planned_and_built(folder):
    tasks = [{"template": "arc", "path": "held/prose.jsonl"}]
    recipe = toys.recipe(folder, retention={"slices": SLICES, "tasks": tasks})
    assert mixer("plan", recipe).exit_code == 0
    assert mixer("build", recipe, "--workers", "1").exit_code == 0


def test_a_plan_that_reads_no_file_looks_for_none(folder):
    recipe = toys.recipe(folder, retention={"slices": {"none": {"path": "nowhere.jsonl"}}})
    content = yaml.safe_load(recipe.read_text())
    declared = {name: own | {"declared": {"tokens": "1M"}} for name, own in content["sources"].items()}
    recipe.write_text(yaml.safe_dump(content | {"sources": declared}))
    assert mixer("plan", recipe).exit_code == 0
    assert told("build", recipe)[0].startswith("error: retention.slices.none.path: no file")
