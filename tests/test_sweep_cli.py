"""`mixer sweep`: from a file of losses, or from runs, to a table, a report and a recipe that loads."""

import json
from pathlib import Path

import numpy as np
import pytest

from curricula.search.laws import DCpt
from mixer.commands import sweep as command
from mixer.recipe import file as recipe_file
from tests.command import mixer

RECIPE = """\
# mixer sweep science.yaml --losses losses.jsonl
name: science
seed: 7
tokenizer: bytes
sequence_length: 1000
sources:
  web: {kind: jsonl, path: web.jsonl, declared: {tokens: 1B}}
  books: {kind: jsonl, path: books.jsonl, declared: {tokens: 100M}}
  qa: {kind: jsonl, path: qa.jsonl, declared: {tokens: 50M}}
stages:
  - {name: adapt, token_budget: 100M, mixture: {web: 6, books: 2, qa: 2}}  # qa is a guess
sweep:
  stage: adapt
  vary: {kind: share, sources: [qa]}
  tokens_per_run: 10M
  seeds: 2
  targets: {science: 1}
  replicates: 40
"""
LAW = DCpt(e=2.2, b=0.9, eta=1.3, c=0.05, eps=0.03, gamma=0.7)
"""Least at a share of 0.148."""
GRID = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7)


def loss(qa: float, rng: np.random.Generator) -> float:
    return float(LAW.predict(np.array([[qa]]))[0] * np.exp(0.002 * rng.standard_normal()))


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    from tests import toys

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    toys.byte_tokenizer(tmp_path / "bytes")
    rng = np.random.default_rng(0)
    rows = [
        {
            "mixture": {"web": 3 * (1 - qa), "books": 1 - qa, "qa": 4 * qa},
            "seed": seed,
            "losses": {"science": loss(qa, rng)},
        }
        for qa in GRID
        for seed in (0, 1)
    ]
    (tmp_path / "losses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "science.yaml").write_text(RECIPE)
    return tmp_path / "science.yaml"


def test_case_1_a_planted_best_share_is_found_and_written_into_the_recipe(recipe):
    done = mixer("sweep", recipe, "--losses", "losses.jsonl", "--out", "better.yaml")
    assert done.exit_code == 0, done.stderr
    assert "answer: better than uniform by" in done.stdout
    for row in ("recommended", "uniform", "natural", "unimax", "stage"):
        assert row in done.stdout
    assert done.stderr.splitlines()[-1] == "next: mixer plan better.yaml"
    mixture = recipe_file.load(Path("better.yaml")).stages[0].mixture
    assert mixture["qa"] == pytest.approx(0.148, abs=0.02)
    assert mixture["web"] == pytest.approx(3 * mixture["books"], abs=1e-3)
    changed = set(Path("better.yaml").read_text().splitlines()) ^ set(RECIPE.splitlines())
    assert len(changed) == 2
    assert all(line.endswith("# qa is a guess") for line in changed)
    assert mixer("plan", "better.yaml").exit_code == 0


def test_case_2_the_report_holds_the_same_as_json(recipe):
    done = mixer("sweep", recipe, "--losses", "losses.jsonl", "--json", "--run", "there")
    found = json.loads(done.stdout)
    assert found == json.loads(Path("there/sweep/report.json").read_text())
    assert found["verdict"]["kind"] == "answer"
    assert found["recommended"]["qa"]["low"] < found["recommended"]["qa"]["value"] < found["recommended"]["qa"]["high"]
    assert [row["name"] for row in found["rows"]] == ["recommended", "uniform", "natural", "unimax", "stage"]
    assert len(found["tried"]) == 9
    assert found["laws"]["science"]["law"] == "DCpt"


def test_case_3_no_answer_is_said_and_no_recipe_written(recipe):
    done = mixer("sweep", recipe, "--losses", "losses.jsonl", "--out", "better.yaml", "--set", "sweep.widest=0.001")
    assert done.exit_code == 2
    assert "no answer (too_wide): the fraction of" in done.stdout
    assert "error: --out: got no answer (too_wide), expected one to write: the fraction of" in done.stderr
    assert "\n\nhint: " in done.stderr
    assert not Path("better.yaml").exists()
    # Without --out a refusal is a result like another.
    assert mixer("sweep", recipe, "--losses", "losses.jsonl", "--set", "sweep.widest=0.001").exit_code == 0


@pytest.mark.parametrize("sources", ["replay", "[qa]"])
def test_a_share_of_replay_is_found_and_written(recipe, sources):
    replayed = RECIPE.replace(
        "mixture: {web: 6, books: 2, qa: 2}}", "mixture: {web: 3, books: 1}, replay: {share: 0.2, mixture: {qa: 1}}}"
    )
    recipe.write_text(replayed.replace("sources: [qa]", f"sources: {sources}"))
    done = mixer("sweep", recipe, "--losses", "losses.jsonl", "--out", "better.yaml")
    assert done.exit_code == 0, done.stderr
    stage = recipe_file.load(Path("better.yaml")).stages[0]
    assert stage.replay.share == pytest.approx(0.148, abs=0.02)
    assert stage.mixture == {"web": 3, "books": 1}
    changed = set(Path("better.yaml").read_text().splitlines()) ^ set(recipe.read_text().splitlines())
    assert len(changed) == 2
    assert all(line.endswith("# qa is a guess") for line in changed)


def test_another_stage_may_mix_a_swept_source_by_topic(recipe):
    late = "  - {name: late, token_budget: 1M, mixture: {web: {weight: 1, topics: {physics: 1, rest: 1}}}}\nsweep:"
    scores = "scores: {topic: {labels: [physics, biology], sources: [web]}}\nstages:"
    recipe.write_text(RECIPE.replace("sweep:", late).replace("stages:", scores))
    done = mixer("sweep", recipe, "--losses", "losses.jsonl")
    assert done.exit_code == 0, done.stderr
    assert "answer: better than uniform by" in done.stdout


def test_overridden_values_are_written_too(recipe):
    arguments = ["--losses", "losses.jsonl", "--out", "better.yaml", "--set", "seed=9"]
    done = mixer("sweep", recipe, *arguments)
    assert done.exit_code == 0, done.stderr
    assert recipe_file.load(Path("better.yaml")).seed == 9


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "science: got no `train` and no `--losses`, expected what to train, or losses of runs made elsewhere"),
        (["--losses", "none.jsonl"], "none.jsonl: got [Errno 2] No such file or directory"),
        (["--losses", "losses.jsonl", "--out", "science.yaml"], "--out: got science.yaml, expected another file in"),
        (
            ["--losses", "losses.jsonl", "--out", "sub/better.yaml"],
            "--out: got sub/better.yaml, expected another file in",
        ),
        (["--set", "sweep=null"], "science.yaml: got no `sweep`, expected one: what to vary"),
    ],
)
def test_what_the_user_can_mend_ends_with_2_and_a_hint(recipe, arguments, told):
    done = mixer("sweep", recipe, *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert "\n\nhint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_surrogate_closes_the_loop_and_a_kill_costs_one_run_at_most(recipe, monkeypatch):
    class Simulated:
        made_by = "simulated"
        runs = 0
        dies_after = 7

        def __call__(self, mixture, *, tokens, seed):
            if Simulated.runs == Simulated.dies_after:
                raise SystemExit(137)
            Simulated.runs += 1
            rng = np.random.default_rng([round(mixture["qa"] * 10_000), seed])
            return {"science": loss(mixture["qa"], rng)}

    monkeypatch.setattr(command, "open_surrogate", lambda run, recipe, base, wanted: Simulated())
    assert mixer("sweep", recipe).exit_code == 137
    assert len(Path("runs/science/sweep/results.jsonl").read_text().splitlines()) == 7
    Simulated.dies_after = None
    done = mixer("sweep", recipe)
    assert done.exit_code == 0, done.stderr
    assert Simulated.runs == 18
    assert "run 8 of 18: web " in done.stderr
    assert "answer: " in done.stdout
    table = Path("runs/science/sweep/results.jsonl").read_bytes()
    # A second sweep trains nothing, and its table is a file of losses like another.
    again = mixer("sweep", recipe)
    assert again.stdout == done.stdout
    assert Path("runs/science/sweep/results.jsonl").read_bytes() == table
    assert mixer("sweep", recipe, "--losses", "runs/science/sweep/results.jsonl").stdout == done.stdout
