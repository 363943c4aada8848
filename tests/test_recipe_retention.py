"""What a recipe may say of retention, and each way to say it wrongly."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixer.cli import app
from mixer.errors import RecipeError
from mixer.recipe.file import load
from mixer.recipe.problems import find
from mixer.recipe.retention_problems import kind_of

GENERAL = {"path": "general.jsonl"}


def problems(retention, **changes) -> list[str]:
    tree = {
        "name": "toy",
        "tokenizer": "bytes",
        "sources": {name: {"kind": "jsonl", "path": f"{name}.jsonl"} for name in ("web", "old")},
        "stages": [{"name": "adapt", "token_budget": 9600, "mixture": {"web": 3, "old": 1}}],
        "train": {"model": "model", "learning_rate": 1.0e-3},
        "retention": retention,
    } | changes
    return [f"{'.'.join(map(str, one.what))}: {one.text}" for one in find(tree)]


def slices(**own) -> dict:
    return {"slices": {"general": GENERAL} | own}


@pytest.mark.parametrize(
    ("path", "kind"),
    [("a/b.txt.zst", "text"), ("x.jsonl", "jsonl"), ("*.parquet", "parquet"), ("x.csv", None), ("y.gz", None)],
)
def test_the_ending_says_how_a_file_is_read(path, kind):
    assert kind_of(path) == kind


def test_a_whole_section_is_taken():
    own = {
        "slices": {
            "general": {"path": ["a.jsonl", "b.jsonl.zst"], "field": ["question", "answer"]},
            "web": {"source": "web", "kind": "domain", "stage": "adapt"},
            "wiki": {"path": "wiki.txt", "split": "blank_line"},
        },
        "tasks": [{"template": "mmlu", "path": "mmlu.jsonl", "shots": 2}, {"template": "arc", "path": "arc.jsonl"}],
        "least_gain": 0.1,
        "guard": {"every": "1M", "slices": ["general", "web"], "on_forgetting": "raise_replay", "replay": ["old"]},
    }
    assert problems(own, validation={}) == []


@pytest.mark.parametrize(
    ("retention", "told"),
    [
        (slices(a={}), "retention.slices.a: expected either `path` (files) or `source`"),
        (slices(a={"path": "a.jsonl", "source": "web"}), "retention.slices.a: expected either `path`"),
        (slices(a={"path": "a.csv"}), "retention.slices.a.path: got 'a.csv', expected files that end in .jsonl"),
        (slices(a={"path": ["a.txt", "a.jsonl"]}), "retention.slices.a.path: got files of several kinds"),
        (slices(a={"path": "a.txt", "field": "body"}), "retention.slices.a.field: has no effect on plain text files"),
        (slices(a={"path": "a.jsonl", "split": "line"}), "retention.slices.a.split: has no effect on files with rows"),
        (slices(a={"path": "a.jsonl", "topic": "x"}), "retention.slices.a.topic: has no effect on files, but with"),
        (slices(a={"path": "a.jsonl", "stage": "adpat"}), "retention.slices.a.stage: unknown stage 'adpat'; did you"),
        (slices(a={"source": "wbe"}), "retention.slices.a.source: unknown source 'wbe'; did you mean `web`?"),
        (slices(a={"source": "web"}), "retention.slices.a.source: got no `validation` in the recipe"),
        (slices(a={"path": []}), "retention.slices.a.path: got [], expected text or at least 1 entry"),
        (slices(a={"path": "a.jsonl", "field": []}), "retention.slices.a.field: got [], expected text or at least 1"),
        (slices(a={"path": "web.jsonl"}), "retention.slices.a.path: got 'web.jsonl', which source `web` reads too"),
        (slices(a={"path": ["b.jsonl", "old.jsonl"]}), "slices.a.path: got 'old.jsonl', which source `old` reads too"),
        (
            slices(a={"path": "a.jsonl", "max_documents": 1}),
            "retention.slices.a.max_documents: got 1, expected 2 or more",
        ),
        (
            slices(a={"path": "a.jsonl", "min_bytes": 500, "max_bytes": "0.1K"}),
            "retention.slices.a.min_bytes: got 500, expected at most the 100 of `max_bytes`: no document would be long",
        ),
        (
            slices(a={"path": "a.jsonl", "max_bytes": 100}),
            "retention.slices.a.max_bytes: got 100, expected at least the 200 of `min_bytes`: no document would be",
        ),
        (slices() | {"max_drop": 3}, "retention.max_drop: got 3, expected 1 or less"),
        (
            slices() | {"confidence": 0.99, "replicates": 499},
            "retention.replicates: got 499 draws at a confidence of 0.99, expected 500 at least: 5 of them must lie",
        ),
        (
            slices() | {"confidence": 0.999},
            "retention.confidence: got 2,000 draws at a confidence of 0.999, expected 5,000 at least",
        ),
        (
            slices() | {"tasks": ["sciq"]},
            "retention.tasks.0: got 'sciq', expected a mapping such as `{template: sciq, path: FILE}`",
        ),
        (
            slices() | {"tasks": [{"template": "mmul", "path": "a.jsonl"}]},
            "retention.tasks.0.template: unknown template 'mmul'; did you mean `mmlu`?",
        ),
        (
            slices() | {"tasks": [{"template": "my/own", "path": "a.jsonl"}]},
            "sciq; or a task file, which ends in .yaml",
        ),
        (
            slices() | {"tasks": [{"template": f"{name}/q.yaml", "path": "a.jsonl"} for name in "xy"]},
            "retention.tasks.1: got two tasks `q`, expected a name for each; add `name`",
        ),
        (
            slices() | {"tasks": [{"template": name, "path": "a.jsonl"} for name in ("mmlu", "my/mmlu.yaml")]},
            "retention.tasks.1: got two tasks `mmlu`, expected a name for each; add `name`",
        ),
        ({"slices": {"a": GENERAL | {"kind": "domain"}}}, "retention.slices: got no slice of `kind: general`"),
        (slices() | {"least_gain": 0.1}, "retention.least_gain: has no effect without a slice of `kind: domain`"),
        (
            slices() | {"tasks": [{"template": "arc", "path": "a.jsonl"}] * 2},
            "retention.tasks.1: got two tasks `arc`, expected a name for each",
        ),
        (slices() | {"guard": {"every": 9, "slices": ["genral"]}}, "did you mean `general`?"),
        (
            slices(a={"path": "a.jsonl", "kind": "domain"}) | {"guard": {"every": 9, "slices": ["a"]}},
            "retention.guard.slices: got no slice of `kind: general`, expected one at least: nothing else can be forgotten",
        ),
        (slices() | {"guard": {"every": 9, "replay": ["odl"]}}, "retention.guard.replay.0: unknown source 'odl'"),
        (
            slices() | {"guard": {"every": 9, "on_forgetting": "raise_replay"}},
            "retention.guard.on_forgetting: got no stage with `replay` and no `replay` here",
        ),
    ],
)
def test_what_is_wrong_is_said(retention, told):
    found = problems(retention)
    assert any(told in line for line in found), found


def test_a_source_of_the_slice_says_what_is_cleaned():
    found = problems(slices(a={"source": "web", "format": "html"}), validation={})
    assert found == ["retention.slices.a.format: has no effect with `source`, but with `path`; remove it"]


def test_what_validation_does_not_hold_out_is_not_measured():
    own = slices(a={"source": "web"})
    assert problems(own, validation={"sources": ["old"]}) == [
        "retention.slices.a.source: got 'web', expected one that `validation.sources` names: nothing is held out of others;"
        " add it there"
    ]
    assert problems(own, validation={"sources": ["old", "web"]}) == []


def test_token_ids_have_no_text_to_measure():
    sources = {
        "web": {"kind": "tokens", "format": "flat", "path": "x.bin"},
        "old": {"kind": "jsonl", "path": "o.jsonl"},
    }
    assert problems(slices(a={"source": "web"}), sources=sources, validation={}) == [
        "retention.slices.a.source: got 'web', which holds token ids, no text to measure"
    ]


@pytest.mark.parametrize(
    ("entry", "topic", "told"),
    [
        (1, "physics", ["has no effect: no stage mixes `web` by `topics`; remove it, or mix it by topic"]),
        ({"weight": 1, "topics": {"physics": 1}}, "phisics", ["unknown topic 'phisics'; did you mean `physics`?"]),
        ({"weight": 1, "topics": {"physics": 1}}, "physics", []),
        ({"weight": 1, "topics": {"physics": 1}}, "rest", []),
        ({"weight": 1, "topics": "natural"}, "chemistry", []),
    ],
)
def test_a_topic_is_one_that_a_stage_mixes_its_source_by(entry, topic, told):
    stages = [{"name": "adapt", "token_budget": 9600, "mixture": {"web": entry, "old": 1}}]
    own = slices(a={"source": "web", "topic": topic})
    found = problems(own, stages=stages, scores={"topic": {}}, validation={})
    assert found == [f"retention.slices.a.topic: {line}" for line in told]


def test_each_mistake_is_told_with_its_line(tmp_path):
    text = """\
name: toy
tokenizer: smollm2
sources:
  web: {kind: jsonl, path: web.jsonl}
stages:
  - {name: adapt, token_budget: 9600, mixture: {web: 1}}
retention:
  slices:
    general:
      path: web.jsonl
    short:
      path: held.jsonl
      min_bytes: 5000
  tasks:
    - template: sciqq
      path: sciq.jsonl
    - sciq
"""
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load(tmp_path / "x.yaml")
    places = [line.removeprefix(f"{tmp_path}/").split(": ")[:2] for line in str(caught.value).splitlines()]
    assert places == [
        ["x.yaml:10", "retention.slices.general.path"],
        ["x.yaml:13", "retention.slices.short.min_bytes"],
        ["x.yaml:15", "retention.tasks.0.template"],
        ["x.yaml:17", "retention.tasks.1"],
    ]


def documented(name: str) -> list[str]:
    """Blocks of the page on retention."""
    page = (Path(__file__).parents[1] / "docs" / "retention.md").read_text("utf-8")
    return [block.removeprefix(name) for block in page.split("```")[1::2] if block.startswith(f"{name}\n")]


def test_the_recipe_in_the_docs_loads(tmp_path):
    [block] = documented("yaml")
    (tmp_path / "science.yaml").write_text(block)
    retention = load(tmp_path / "science.yaml").retention
    assert retention.guard.on_forgetting == "raise_replay"
    assert [task.template for task in retention.tasks] == ["arc", "mmlu"]


def test_the_commands_in_the_docs_are_understood(tmp_path, monkeypatch):
    """Each is refused for its missing Run or files alone, never for its words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "science.yaml").write_text(documented("yaml")[0])
    lines = [line for block in documented("") for line in block.splitlines() if line.startswith("mixer ")]
    assert len(lines) > 4
    for line in lines:
        words = line.split(" > ")[0].split()[1:]
        found = CliRunner(env={"XDG_CACHE_HOME": str(tmp_path)}).invoke(app, words)
        assert found.exit_code == 2
        assert re.search(r"got no (recipe\.yaml|file)|no files?", found.output), found.output


def test_the_templates_in_the_docs_are_those_that_are_shipped():
    root = Path(__file__).parents[1]
    table = (root / "docs" / "retention.md").read_text("utf-8").split("## Tasks")[1].split("## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {path.stem for path in (root / "curricula/retention/templates").glob("*.yaml")}
