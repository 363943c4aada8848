"""One row per kind of mistake in models, synthetic sources and their tasks: what is changed, and what comes back."""

import pytest

from mixer.errors import RecipeError
from mixer.recipe import file as recipe_file
from mixer.recipe.synth_problems import CHECKS
from synth.candidate import Pair
from synth.verify import page_checks

RECIPE = """\
name: science
tokenizer: smollm2
sources:
  web: {kind: html, path: "pages/*.html"}
  qa: {kind: synth, task: science_qa, from: web}
models:
  teacher: {path: smollm2}
synth:
  science_qa: {model: teacher, verify: {votes: 5}}
stages:
  - {name: only, token_budget: 1M, mixture: {web: 6, qa: 4}}
"""


def problem_of(folder, before, after):
    assert RECIPE.count(before) == 1
    path = folder / "x.yaml"
    path.write_text(RECIPE.replace(before, after), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        recipe_file.load(path)
    return str(caught.value).replace(f"{path}:", "")


def test_a_sound_recipe_has_no_problems(tmp_path):
    (tmp_path / "x.yaml").write_text(RECIPE, encoding="utf-8")
    assert recipe_file.load(tmp_path / "x.yaml").synth_sources.keys() == {"qa"}


def test_pages_may_be_written_from_and_not_trained_on(tmp_path):
    (tmp_path / "x.yaml").write_text(RECIPE.replace("web: 6, qa: 4", "qa: 1"), encoding="utf-8")
    assert recipe_file.load(tmp_path / "x.yaml").mixed_stages[0].mixture.keys() == {"qa"}
    told = problem_of(tmp_path, "web: 6, qa: 4", "web: 6")
    assert told.startswith("5: sources.qa: source `qa` is in no stage's mixture")


@pytest.mark.parametrize("origin", ["wbe", "[web]", "{web: 1}", "7", ""])
def test_pages_that_are_named_wrongly_are_one_problem_and_no_crash(tmp_path, origin):
    """`web` is what a misspelt name means; of what is no name nothing is known, and `web` is then in no mixture."""
    text = RECIPE.replace("web: 6, qa: 4", "qa: 1").replace("from: web", f"from: {origin}")
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        recipe_file.load(tmp_path / "x.yaml")
    told = str(caught.value)
    assert "sources.qa.from: " in told
    assert ("is in no stage's mixture" in told) == (origin != "wbe")


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("from: web", "from: wbe", "5: sources.qa.from: unknown source 'wbe'; did you mean `web`?"),
        (
            "from: web",
            "from: qa",
            "5: sources.qa.from: got 'qa', expected a source that is read, not one that is written",
        ),
        (
            "model: teacher",
            "model: teachr",
            "9: synth.science_qa.model: unknown model 'teachr'; did you mean `teacher`?",
        ),
        ("{votes: 5}", "{votes: 3}", "9: synth.science_qa.verify.agree: got 4, expected at most the 3 votes"),
        ("{votes: 5}", "{votes: 0, novel: true}", "novel: has no effect without votes; set `votes` or remove it"),
        ("{votes: 5}", "{thresholds: {on_pag: 0.5}}", "unknown check 'on_pag'; did you mean `on_page`?"),
        ("{votes: 5}", "{thresholds: {on_page: 1.5}}", "synth.science_qa.verify.thresholds.on_page: got 1.5"),
        ("{path: smollm2}", "{path: smollm2, name: x}", "models.teacher.name: has no effect for the packaged model"),
        ("{path: smollm2}", "{path: smollm2, endpoint: x}", "models.teacher: expected either `path` or `endpoint`"),
        ("{path: smollm2}", '{endpoint: "http://x"}', "missing key `name`: what the endpoint calls the model"),
        (
            "model: teacher,",
            "model: teacher, grounding: inspiration, answers: free,",
            "synth.science_qa.answers: has no",
        ),
        ("{votes: 5}}", "{support: true}, grounding: inspiration}", "verify.support: has no effect with `grounding"),
        ("task: science_qa", "task: rephrase", "task 'rephrase' has no settings, expected `synth: {rephrase: {model"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_was_expected(tmp_path, before, after, problem):
    assert problem in problem_of(tmp_path, before, after)


def test_thresholds_may_name_exactly_the_checks_that_there_are():
    pair = Pair("Which rock forms when magma cools slowly?", "Granite", evidence=("Granite forms.",))
    free = [check.name for check in page_checks(pair, "Granite forms. Basalt is another rock of the deep.")]
    assert sorted([*free, "votes", "support", "novel"]) == sorted(CHECKS)
