"""A recipe with another mixture: the same text with new weights, or all of it anew where the text does not allow that."""

import pytest

from mixer.errors import RecipeError
from mixer.recipe import edit as recipe_edit
from mixer.recipe import file as recipe_file

RECIPE = """\
# mixer sweep x.yaml
name: science
tokenizer: gpt2
sources:
  web: {kind: html, path: "pages/*.html"}   # crawled in May
  qa: {kind: jsonl, path: qa.jsonl}
stages:
  - name: adapt
    token_budget: 30M
    mixture:
      web: 6     # a guess
      "qa": 4e0  # another
  - {name: anneal, token_budget: 1M, mixture: {web: 1, qa: 1}}
"""


def written(folder, text=RECIPE, *, stage="adapt", mixture=None, overrides=()):
    (folder / "x.yaml").write_text(text)
    recipe = recipe_file.load(folder / "x.yaml", overrides=overrides)
    out = folder / "y.yaml"
    recipe_edit.write(
        out, recipe, text=None if overrides else text, stage=stage, mixture=mixture or {"web": 0.8547, "qa": 0.1453}
    )
    return out.read_text(), recipe_file.load(out)


def test_case_1_only_the_weights_change(tmp_path):
    text, _ = written(tmp_path)
    assert text == RECIPE.replace("web: 6 ", "web: 0.8547 ").replace("4e0", "0.1453")


def test_case_2_a_mixture_in_one_line(tmp_path):
    text, _ = written(tmp_path, stage="anneal", mixture={"qa": 0.25, "web": 0.75})
    assert text == RECIPE.replace("{web: 1, qa: 1}", "{web: 0.75, qa: 0.25}")


def test_case_3_weights_are_rounded_to_a_whole(tmp_path):
    _, recipe = written(tmp_path, mixture={"web": 2 / 3, "qa": 1 / 3})
    assert recipe.stages[0].mixture == {"web": 0.6667, "qa": 0.3333}


def test_a_shared_mixture_is_not_changed_in_the_other_stage(tmp_path):
    shared = RECIPE.replace("    mixture:\n", "    mixture: &both\n").replace(
        "mixture: {web: 1, qa: 1}", "mixture: *both"
    )
    for stage, other in (("adapt", 1), ("anneal", 0)):
        text, recipe = written(tmp_path, shared, stage=stage)
        assert "#" not in text
        assert recipe.stages[1 - other].mixture == {"web": 0.8547, "qa": 0.1453}
        assert recipe.stages[other].mixture == {"web": 6, "qa": 4}


def test_an_anchored_weight_is_not_changed_where_it_is_used_again(tmp_path):
    shared = RECIPE.replace("web: 6 ", "web: &w 6 ").replace("{web: 1, qa: 1}", "{web: *w, qa: 1}")
    _, recipe = written(tmp_path, shared)
    assert recipe.stages[0].mixture == {"web": 0.8547, "qa": 0.1453}
    assert recipe.stages[1].mixture == {"web": 6, "qa": 1}


def test_overrides_are_written_out(tmp_path):
    text, recipe = written(tmp_path, overrides=["stages.anneal.token_budget=2M"])
    assert recipe.stages[1].token_budget == 2_000_000
    assert recipe.stages[0].mixture == {"web": 0.8547, "qa": 0.1453}
    assert "#" not in text


def test_a_weight_of_nothing_cannot_be_written(tmp_path):
    with pytest.raises(
        RecipeError, match=r"stages\.adapt\.mixture: got a weight of 0 for `qa`, expected more than 0"
    ) as c:
        written(tmp_path, mixture={"web": 0.99999, "qa": 0.00001})
    assert c.value.hint == "remove `qa` from the stage by hand, and from `sources` if no other stage has it"
    assert not (tmp_path / "y.yaml").exists()
