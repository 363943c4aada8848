"""The documentation agrees with the code: generated pages are fresh, every shipped recipe loads, README commands exist."""

import re
import sys
from pathlib import Path

import pytest

from mixer.recipe.file import load

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))


@pytest.mark.parametrize("name", ["recipes", "cli"])
def test_generated_pages_are_fresh(name):
    import generate

    assert (ROOT / "docs" / f"{name}.md").read_text("utf-8") == getattr(generate, name)(), "run python docs/generate.py"


@pytest.mark.parametrize(
    "path",
    [
        *ROOT.glob("recipes/*.yaml"),
        *ROOT.glob("benchmarks/*.yaml"),
        *ROOT.glob("benchmarks/synth/*.yaml"),
        *(ROOT / "benchmarks" / "retention" / f"{name}.yaml" for name in ("adapt", "bad_run", "heal")),
    ],
    ids=lambda p: p.stem,
)
def test_shipped_recipes_load_and_open_with_their_command(path):
    assert load(path).name
    first = path.read_text("utf-8").splitlines()[0]
    assert re.fullmatch(r"# mixer (plan|build|synth) \S+.*", first)
    assert path.stem in first


def test_the_recipe_in_the_readme_loads(tmp_path):
    block = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "science.yaml").write_text(block[1])
    assert load(tmp_path / "science.yaml").name == "science"


def test_make_knows_every_target_that_the_readme_names():
    readme = (ROOT / "README.md").read_text("utf-8") + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"\bmake ([a-z]+)\b", readme))
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert named
    assert named <= known


def test_the_readme_names_every_command():
    from mixer.cli import app

    readme = (ROOT / "README.md").read_text("utf-8")
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert commands
    assert all(f"mixer {command}" in readme for command in commands)


def test_the_number_of_sample_pages_in_the_readme_is_true():
    pages = len(list((ROOT / "recipes" / "sample").rglob("*.html")))
    assert f"{pages} HTML pages" in (ROOT / "README.md").read_text("utf-8")
