"""The `mixer` command: what goes to stdout, what to stderr, and how it ends."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixer.cli import app
from tests import toys
from tests.command import mixer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return toys.recipe(toys.corpus(tmp_path))


def test_check_says_that_a_sound_recipe_is_sound(recipe):
    done = mixer("check", recipe)
    assert done.exit_code == 0
    assert done.stdout == f"{recipe}: recipe `toy` is sound: 3 sources, 2 stages\n"
    assert done.stderr == f"next: mixer plan {recipe}\n"


def test_an_error_of_the_user_ends_with_2_a_hint_and_no_traceback(recipe):
    done = mixer("check", recipe, "--set", "stages.0.mixture.wbe=3")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "unknown source 'wbe'; did you mean `web`?" in done.stderr
    assert "\n\nhint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_shipped_recipe_is_found_by_name_and_a_wrong_name_gets_the_nearest():
    assert mixer("check", "quickstart").exit_code == 0
    done = mixer("check", "quikstart")
    assert done.exit_code == 2
    assert "did you mean `quickstart`?" in done.stderr


def test_plan_writes_nothing_and_marks_what_it_guessed(recipe):
    done = mixer("plan", recipe)
    assert done.exit_code == 0, done.stderr
    assert "~" in done.stdout
    assert not (recipe.parent / "runs").exists()
    planned = json.loads(mixer("plan", recipe, "--json").stdout)
    assert planned["estimated"] == ["books", "pages", "web"]
    assert [stage["sequences"] for stage in planned["stages"]] == [150, 50]


def test_build_then_plan_counts_instead_of_guessing(recipe):
    built = mixer("build", recipe, "--workers", "1", "--json")
    assert built.exit_code == 0, built.stderr
    planned = json.loads(mixer("plan", recipe, "--json").stdout)
    assert planned["estimated"] == []
    assert planned["available"] == json.loads(built.stdout)["available"]


def test_the_samples_guess_is_near_the_count(recipe):
    guessed = json.loads(mixer("plan", recipe, "--json").stdout)["available"]
    counted = json.loads(mixer("build", recipe, "--workers", "1", "--json").stdout)["available"]
    assert all(abs(guessed[name] - counted[name]) <= 0.1 * counted[name] + 1 for name in counted)


def test_a_declared_source_is_planned_without_its_data(recipe):
    changes = ["--set", "sources.web.declared={tokens: 1M}", "--set", "sources.web.path=not/there.jsonl"]
    planned = json.loads(mixer("plan", recipe, "--json", *changes).stdout)
    assert planned["available"]["web"] == 1_000_000 // 64
    assert "web" in planned["estimated"]


def test_build_warns_when_a_declaration_was_wrong(recipe):
    done = mixer("build", recipe, "--workers", "1", "--set", "sources.web.declared={tokens: 1M}")
    assert "tokens, 1,000,000 were declared" in done.stderr


def test_build_ends_with_the_plan_the_run_and_the_next_command(recipe):
    done = mixer("build", recipe, "--workers", "1")
    assert done.exit_code == 0, done.stderr
    for part in ("exact_dedup", "adapt   web", "epochs so far", "Run: runs/toy"):
        assert part in done.stdout
    assert done.stderr.splitlines()[-1].startswith("next: ")
    trained = mixer("build", recipe, "--workers", "1", "--set", "train={model: smollm2, learning_rate: 1.0e-4}")
    assert f"\nnext: mixer train runs/toy --base {recipe.parent}\n" in trained.stderr


def test_the_next_command_means_the_same_run_and_changes_something(recipe):
    done = mixer("build", recipe, "--workers", "1", "--run", "my run", "--set", "seed=9")
    assert done.stderr.splitlines()[-1].endswith(
        f"mixer build {recipe} --run 'my run' --set seed=9 --set stages.adapt.mixture.web=6"
    )


def test_a_place_that_cannot_be_written_is_an_error_of_the_user(recipe):
    done = mixer("build", recipe, "--run", "/proc/x")
    assert done.exit_code == 2
    assert "hint: check the path" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers: got 0, expected at least 1"),
        (["--executor", "slurm"], "--executor: got 'slurm', expected `local`"),
    ],
)
def test_options_that_cannot_be_are_refused(recipe, arguments, message):
    done = mixer("build", recipe, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_schema_recipes_and_doctor_answer(tmp_path):
    assert json.loads(mixer("schema").stdout)["title"] == "curriculum-mixer recipe"
    assert "quickstart" in mixer("recipes").stdout
    shown = mixer("recipes", "quickstart").stdout
    assert shown.rstrip() == (ROOT / "recipes" / "quickstart.yaml").read_text("utf-8").rstrip()
    assert {check["name"] for check in json.loads(mixer("doctor", "--json").stdout)} > {"python", "polars"}


def test_every_command_explains_itself_with_an_example():
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        done = mixer(name, "--help")
        assert done.exit_code == 0
        assert f"Example: mixer {name}" in done.stdout


def test_output_that_nobody_reads_to_its_end_is_no_error():
    command = f"{sys.executable} -m mixer.cli schema | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" not in done.stderr


def test_the_quickstart_builds(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    done = mixer(
        "build", tmp_path / "recipes" / "quickstart.yaml", "--run", tmp_path / "run", "--workers", "1", "--json"
    )
    assert done.exit_code == 0, done.stderr
    # What the README says about reading a Run is run here.
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)[1]
    found: dict[str, object] = {}
    exec(block.replace("runs/quickstart", str(tmp_path / "run")), found)
    assert len(found["ids"]) == 512
    sources = json.loads(done.stdout)["sources"]
    assert {name: source["read"] for name, source in sources.items()} == {"science": 35, "general": 12, "qa": 10}
    assert sources["science"]["dropped"]["near_dedup"] == 3
    assert sources["science"]["dropped"]["exact_dedup"] == 2
    assert sources["general"]["kept"] == 12
