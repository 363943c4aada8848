"""The `sweep` section: what it takes, and every mistake in it with its line."""

from pathlib import Path

import pytest

from mixer.errors import RecipeError
from mixer.recipe import file as recipe_file

RECIPE = """\
name: science
tokenizer: gpt2
sources:
  web: {kind: html, path: "pages/*.html"}
  books: {kind: text, path: "books/*.txt"}
  qa: {kind: jsonl, path: qa.jsonl}
stages:
  - {name: adapt, token_budget: 30M, mixture: {web: 6, books: 2, qa: 2}}
  - {name: anneal, token_budget: 1M, mixture: {qa: 1}}
sweep:
  stage: adapt
  vary: {kind: share, sources: [qa], grid: [0.1, 0.2]}
  tokens_per_run: 2M
  targets: {science: 1}
"""


def load(folder: Path, *changes: tuple[str, str]):
    text = RECIPE
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (folder / "x.yaml").write_text(text)
    return recipe_file.load(folder / "x.yaml")


def test_case_1_a_share(tmp_path):
    sweep = load(tmp_path).sweep
    assert (sweep.vary.sources, sweep.vary.grid, sweep.tokens_per_run) == (("qa",), (0.1, 0.2), 2_000_000)
    assert (sweep.seeds, sweep.max_runs, sweep.keep, sweep.widest) == (1, None, {}, 0.2)


def test_case_2_all_weights_with_their_defaults(tmp_path):
    vary = load(tmp_path, ("{kind: share, sources: [qa], grid: [0.1, 0.2]}", "{kind: weights}")).sweep.vary
    assert (vary.mixtures, vary.prior, vary.strengths, vary.kl) == (24, "natural", (0.1, 5.0), 0.05)


def test_case_3_the_largest_share_that_keeps_a_slice_needs_no_target(tmp_path):
    assert load(tmp_path, ("targets: {science: 1}", "keep: {general: 0.03}")).sweep.targets == {}


def test_a_recipe_with_a_sweep_is_written_out_and_read_back(tmp_path):
    recipe = load(tmp_path)
    (tmp_path / "y.yaml").write_text(recipe_file.dump(recipe))
    assert recipe_file.load(tmp_path / "y.yaml") == recipe


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("stage: adapt", "stage: adapr"), "11: sweep.stage: unknown stage 'adapr'; did you mean `adapt`?"),
        (
            ("stage: adapt", "stage: anneal"),
            "11: sweep.stage: got a stage with one source, `qa`, expected several to choose weights for",
        ),
        (("sources: [qa]", "sources: [qaa]"), "12: sweep.vary.sources.0: unknown source 'qaa'; did you mean `qa`?"),
        (
            ("sources: [qa]", "sources: [qa, web, books]"),
            "12: sweep.vary.sources: got all sources of the stage, expected some, whose share against the rest varies",
        ),
        (
            ("tokens_per_run: 2M", "tokens_per_run: 2M\n  max_tokens: 500K"),
            "14: sweep.max_tokens: got 500K, expected at least the 2M of one run",
        ),
        (
            ("{kind: share, sources: [qa], grid: [0.1, 0.2]}", "{kind: weights, mixtures: 5}"),
            "12: sweep.vary.mixtures: got 5, expected at least 6: three more than the stage has sources",
        ),
        (
            ("mixture: {web: 6, books: 2, qa: 2}", "mixture: {temperature: 2}"),
            "11: sweep.stage: got a stage with more than numbers in its mixture, expected source -> weight, without rounds",
        ),
        (("sources: [qa]", "sources: replay"), "12: sweep.vary.sources: got 'replay', stage `adapt` has none"),
        (
            (
                "mixture: {web: 6, books: 2, qa: 2}",
                "mixture: {web: 6, books: 2}, replay: {share: 0.1, mixture: {qa: {from: 1, to: 2}}}",
            ),
            "11: sweep.stage: got a stage with more than numbers or presets in its mixtures, expected no more",
        ),
        (
            (
                "mixture: {web: 6, books: 2, qa: 2}",
                "mixture: {web: 6, qa: 2}, replay: {share: 0.1, mixture: {books: 1}}",
            ),
            "11: sweep.stage: got a stage with `replay`, expected `vary: {kind: share, sources: replay}` with it",
        ),
        (
            ("grid: [0.1, 0.2]", "grid: [0.1, 0.1]"),
            "12: sweep.vary.grid: got a share twice, expected each once; `seeds` repeats runs",
        ),
        (("grid: [0.1, 0.2]", "grid: [0.1, 1.2]"), "12: sweep.vary.grid.1: got 1.2, expected 1 or less"),
        (
            ("  targets: {science: 1}\n", ""),
            "10: sweep: missing key `targets`, the slices whose loss should fall, or `keep`",
        ),
        (
            ("kind: share", "kind: shares"),
            "12: sweep.vary.kind: got 'shares', expected one of share, weights; did you mean `share`?",
        ),
        (
            ("targets: {science: 1}", "targets: {science: 0}"),
            "14: sweep.targets.science: got 0, expected a number above 0",
        ),
        (
            ("tokens_per_run: 2M", "token_per_run: 2M"),
            "13: sweep: unknown key 'token_per_run'; did you mean `tokens_per_run`?",
        ),
    ],
)
def test_every_mistake_has_its_line(tmp_path, change, told):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, change)
    assert str(caught.value).replace(f"{tmp_path / 'x.yaml'}:", "").splitlines() == [told]


def test_all_weights_need_a_target_beside_what_is_kept(tmp_path):
    vary = ("{kind: share, sources: [qa], grid: [0.1, 0.2]}", "{kind: weights}")
    with pytest.raises(RecipeError, match=r"10: sweep: missing key `targets`, the slices whose loss should fall$"):
        load(tmp_path, vary, ("targets: {science: 1}", "keep: {general: 0.03}"))


def test_an_override_reaches_into_the_sweep(tmp_path):
    load(tmp_path)
    found = recipe_file.load(tmp_path / "x.yaml", overrides=["sweep.seeds=3", "sweep.vary.grid=[0.3, 0.4]"])
    assert (found.sweep.seeds, found.sweep.vary.grid) == (3, (0.3, 0.4))


@pytest.mark.parametrize("more", ["mixture: {web: {from: 1, to: 2}, qa: 2, books: 1}", "mixture: natural"])
def test_a_stage_of_more_than_numbers_is_refused(tmp_path, more):
    with pytest.raises(RecipeError, match=r"sweep\.stage: got a stage with more than numbers in its mixture"):
        load(tmp_path, ("mixture: {web: 6, books: 2, qa: 2}", more))
