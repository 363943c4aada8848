"""`--set`: where a value goes, and what a mistaken path or value is told."""

from pathlib import Path

import pytest

from mixer.errors import RecipeError
from mixer.recipe import file as recipe_file
from mixer.recipe.recipe import NearDedup

RECIPE = """\
name: science
tokenizer: gpt2
sources:
  web: {kind: html, path: "*.html"}
  v1.5: {kind: text, path: "*.txt"}
stages:
  - {name: adapt, token_budget: 30M, mixture: {web: 6, v1.5: 4}}
  - {name: anneal, token_budget: 10M, mixture: {web: 5}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def told(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError, match="--set") as caught:
        recipe_file.load(path, overrides=overrides)
    return str(caught.value).replace(str(path), "x.yaml").splitlines()


def test_1_a_stage_is_named_by_its_index_or_by_its_name(path: Path) -> None:
    recipe = recipe_file.load(path, overrides=["stages.0.token_budget=1K", "stages.anneal.token_budget=2e3"])
    assert [stage.token_budget for stage in recipe.stages] == [1_000, 2_000]


def test_2_a_section_that_the_file_leaves_out_is_made(path: Path) -> None:
    recipe = recipe_file.load(path, overrides=["clean.pii=mask", "clean.dedup.near.threshold=0.5"])
    assert recipe.clean.pii == "mask"
    assert recipe.clean.dedup.near == NearDedup(threshold=0.5)


def test_3_values_are_read_like_those_in_the_file(path: Path) -> None:
    recipe = recipe_file.load(path, overrides=["sources.web.language=no", "clean.filters=[c4]", "seed=1_0"])
    assert (recipe.sources["web"].language, recipe.clean.filters, recipe.seed) == ("no", ("c4",), 10)


@pytest.mark.parametrize(
    ("overrides", "spot", "value"),
    [
        (["tokenizer.bos=true"], "tokenizer.bos", True),
        (["tokenizer=other"], "tokenizer.path", "other"),
        (["sources.v1.5.path=a=b"], "sources.v1.5.path", "a=b"),
        (["stages.0.mixture.v1.5=9"], "stages.0.mixture.v1.5", 9.0),
        (["stages.1.mixture.v1.5=9"], "stages.1.mixture.v1.5", 9.0),
        (["stages.1={name: b, token_budget: 1, mixture: {web: 1}}"], "stages.1.name", "b"),
        (["sources.new={kind: text, path: a}", "stages.0.mixture.new=1"], "sources.new.path", "a"),
        (["seed=1", "seed=2"], "seed", 2),
        (["seed=lots", "seed=2"], "seed", 2),
        (["clean={pii: mask}", "clean.repair=false"], "clean.pii", "mask"),
        (["clean.language=null"], "clean.language", None),
        (["clean.language="], "clean.language", None),
        (["stages.anneal.name=b", "stages.b.token_budget=5"], "stages.1.token_budget", 5),
    ],
)
def test_a_value_goes_where_its_path_says(path: Path, overrides: list[str], spot: str, value: object) -> None:
    node: object = recipe_file.load(path, overrides=overrides).model_dump(mode="json")
    for key in spot.replace("v1.5", "v1_5").split("."):
        node = node[int(key)] if isinstance(node, list) else node[key.replace("v1_5", "v1.5")]  # type: ignore[index]
    assert node == value


COUNT = "a whole count such as 1_000_000, 30M or 92.5B"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.0.token_budget=lots", f"stages.0.token_budget: got 'lots', expected {COUNT}"),
        ("stages.aneal.token_budget=1", "stages: unknown item 'aneal'; did you mean `anneal`?"),
        ("stages.2.token_budget=1", "stages: unknown item '2'; it has 2, counted from 0"),
        ("stages.-1.token_budget=1", "stages: unknown item '-1'; it has 2, counted from 0"),
        ("clean.pi=mask", "clean: unknown key 'pi'; did you mean `pii`?"),
        ("clean.lang.keep=[en]", "clean: unknown key 'lang'; did you mean `language`?"),
        ("tokenizr.bos=true", "unknown key 'tokenizr'; did you mean `tokenizer`?"),
        ("tokenizer.boss=true", "tokenizer: unknown key 'boss'; did you mean `bos`?"),
        ("sources.wbe.path=a", "sources: unknown key 'wbe'; did you mean `web`?"),
        ("sources.zzz.path=a", "sources: unknown key 'zzz'; known keys: web, v1.5"),
        ("stages.0.mixture.wbe=1", "stages.0.mixture: unknown source 'wbe'; did you mean `web`?"),
        (
            "clean.filters.0=c4",
            "clean: `filters` is not in the file, so nothing inside it can be set; set it",
        ),
        ("name.first=a", "name: is 'science', which has no key 'first'"),
        ("clean.language.threshold=0.3", "clean.language: missing key `keep`"),
        ("seed", "expected key.path=value, such as stages.0.token_budget=30M"),
        ("=5", "expected key.path=value, such as stages.0.token_budget=30M"),
        ("stages..name=5", "expected key.path=value, such as stages.0.token_budget=30M"),
        ("seed=[1", "seed: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("clean={pii: mask, pii: keep}", "clean: duplicate key 'pii', first on line 1"),
        ("stages.1=5", "stages.1: got 5, expected a mapping"),
        ("stages=[]", "stages: got [], expected at least 1 entry"),
    ],
)
def test_a_mistaken_override_is_blamed_itself(path: Path, override: str, message: str) -> None:
    [line] = told(path, override)
    assert line.startswith(f"--set {override}: {message}")


def test_a_fault_that_an_override_brings_out_in_the_file_names_both(path: Path) -> None:
    override = "stages.0.mixture={web: 1}"
    assert told(path, override) == [
        f"x.yaml:5: sources.v1.5: source `v1.5` is in no stage's mixture (after --set {override})"
    ]


def test_faults_of_the_file_are_not_blamed_on_an_override(path: Path) -> None:
    path.write_text(RECIPE.replace("gpt2", "5"), encoding="utf-8")
    assert told(path, "seed=lots") == [
        "x.yaml:2: tokenizer: got 5, expected a path or hub id, or a mapping with `path`",
        "--set seed=lots: seed: got 'lots', expected a whole number",
    ]


def test_an_override_mends_the_file(path: Path) -> None:
    path.write_text(RECIPE.replace("30M", "lots"), encoding="utf-8")
    assert recipe_file.load(path, overrides=["stages.adapt.token_budget=30M"]).stages[0].token_budget == 30_000_000


def test_a_refused_override_leaves_no_half_made_section(path: Path) -> None:
    assert told(path, "clean.language.zzzz=1") == [
        "--set clean.language.zzzz=1: clean.language: unknown key 'zzzz'; known keys: keep, threshold"
    ]


def test_a_long_override_is_shown_short_and_without_control_characters(path: Path) -> None:
    [line] = told(path, "seed=\x1b" + "x" * 100)
    assert line.startswith(r"--set seed=\x1b" + "x" * 51 + "...: seed: character U+001B cannot stand in YAML")
