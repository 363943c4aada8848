"""Recipes as files: what loads, what cannot be read, and the round trip through `dump` and `schema`."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mixer import doctor
from mixer.errors import RecipeError
from mixer.recipe import file as recipe_file
from mixer.recipe import override as recipe_override
from mixer.recipe import problems as recipe_problems
from mixer.recipe import recipe
from mixer.recipe import section as recipe_section
from mixer.recipe import yaml as recipe_yaml
from mixer.recipe.recipe import Recipe

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "recipes").rglob("*.yaml"))
RECIPE = """\
name: science
tokenizer: {path: gpt2, revision: '1e9'}
sequence_length: 1024
sources:
  web:    {kind: html, path: ["a/*.html", "b/*.html"], language: no}
  replay: {kind: hub, path: HuggingFaceFW/fineweb-edu, max_documents: 200_000, declared: {tokens: 10B}}
  qa:     {kind: jsonl, path: qa.jsonl, columns: {text: [question, answer]}, filters: []}
clean: {language: {keep: [en, no]}, dedup: {near: null}}
stages:
  - {name: adapt, token_budget: 92.5B, mixture: {web: 6, replay: 4}}
  - {name: anneal, token_budget: 1e7, mixture: {web: 5, qa: 2.5}}
"""


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_1_a_recipe_loads_with_its_defaults(tmp_path: Path) -> None:
    recipe = recipe_file.load(write(tmp_path, RECIPE))
    assert [stage.token_budget for stage in recipe.stages] == [92_500_000_000, 10_000_000]
    assert recipe.sources["web"].language == "no"
    assert recipe.tokenizer.revision == "1e9"
    assert (recipe.packing, recipe.max_epochs) == ("concat_and_chunk", 4.0)


def test_2_anchors_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    text = RECIPE.replace("{web: 6, replay: 4}", "&mix {web: 6, replay: 4}").replace("{web: 5, qa: 2.5}", "*mix")
    text = text.replace("  qa:     {kind: jsonl", "  # qa: {kind: jsonl")
    recipe = recipe_file.load(write(tmp_path, b"\xef\xbb\xbf" + text.encode()))
    assert recipe.stages[0].mixture == recipe.stages[1].mixture


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ":1: got an empty file, expected a mapping with `name`, `sources`, `stages`"),
        ("# nothing\n", ":1: got an empty file, expected a mapping with `name`, `sources`, `stages`"),
        ("- a\n", ":1: got ['a'], expected a mapping with `name`, `sources`, `stages`"),
        ("null\n", ":1: got null, expected a mapping with `name`, `sources`, `stages`"),
        ("name: a\n\tseed: 1\n", ":2: got a tab, expected spaces for indentation"),
        ("a: [", ":1: not valid YAML: expected the node content, but found '<stream end>' (while parsing"),
    ],
)
def test_what_is_no_recipe_at_all_says_so(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(RecipeError) as caught:
        recipe_file.load(path, overrides=["seed=1"])
    assert str(caught.value).startswith(f"{path}{message}")


def load_file(folder: Path, content: str | bytes) -> object:
    return recipe_file.load(write(folder, content))


RAISES: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "count": (lambda _: recipe_section.parse_count("x"), ValueError, "^a whole count such as"),
    "tokenizer": (
        lambda _: Recipe.model_validate({"tokenizer": 5}),
        ValueError,
        "a path or hub id, or a mapping with `path`",
    ),
    "benchmark files": (
        lambda _: recipe.Decontaminate.model_validate({"against": [5]}),
        ValueError,
        "a file or glob, or a mapping with `path`",
    ),
    "no file": (lambda folder: recipe_file.load(folder / "no.yaml"), RecipeError, r"no\.yaml: no such file$"),
    "folder": (recipe_file.load, RecipeError, ": is a directory$"),
    "too long": (
        lambda folder: load_file(folder, b"#" * 1_000_001),
        RecipeError,
        "over 1 MB, expected a recipe$",
    ),
    "not UTF-8": (
        lambda folder: load_file(folder, b"a: 1\n\xff"),
        RecipeError,
        ":2: got byte 0xff, expected UTF-8 text$",
    ),
    "too deep": (
        lambda folder: load_file(folder, "[" * 99),
        RecipeError,
        ":1: nested deeper than 40 levels$",
    ),
    "alias bomb": (lambda folder: load_file(folder, "a: &a [*a]"), RecipeError, ":1: over 5 MB or 40 levels"),
    "mistakes": (
        lambda folder: load_file(folder, "a: 1"),
        RecipeError,
        r"(?s):1: missing key `name`\n.*\n.*unknown",
    ),
}


@pytest.mark.parametrize(("call", "error", "match"), RAISES.values(), ids=RAISES)
def test_each_refusal_says_what_is_wrong(
    tmp_path: Path, call: Callable[[Path], object], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match) as caught:
        call(tmp_path)
    assert caught.type is not RecipeError or caught.value.hint


def test_every_raise_has_a_row_above(tmp_path: Path) -> None:
    modules = (recipe, recipe_section, recipe_yaml, recipe_problems, recipe_override, recipe_file, doctor)
    files = {module.__file__: Path(str(module.__file__)).read_text("utf-8") for module in modules}
    written = {
        (file, node.lineno)
        for file, text in files.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Raise)
    }
    reached: set[tuple[str, int]] = set()

    def trace(frame: FrameType, *_: object) -> Any:
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace if frame.f_code.co_filename in files else None

    before = sys.gettrace()
    for call, error, match in RAISES.values():
        sys.settrace(trace)
        try:
            with pytest.raises(error, match=match):
                call(tmp_path)
        finally:
            sys.settrace(before)
    assert len(written) >= 8
    assert written <= reached


LANGUAGES = st.from_regex(r"[a-z]{2,3}([-_][A-Za-z]{1,4}){0,2}", fullmatch=True)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True)
COLUMNS = st.fixed_dictionaries(
    {}, optional={"text": st.text() | st.lists(st.text(), max_size=3), "id": st.none() | st.text()}
)
SHARED = {
    "language": st.none() | LANGUAGES,
    "max_documents": st.integers(1, 10**18),
    "filters": st.none() | st.lists(st.sampled_from(["c4", "fineweb"]), max_size=2),
    "declared": st.fixed_dictionaries({"tokens": st.integers(1, 10**18)}),
}
SOURCES = st.fixed_dictionaries(
    {"kind": st.sampled_from(["html", "jsonl"]), "path": st.text() | st.lists(st.text(), max_size=3)},
    optional={**SHARED, "columns": COLUMNS},
) | st.fixed_dictionaries(
    {"kind": st.just("text"), "path": st.text()},
    optional={**SHARED, "split": st.sampled_from(["file", "line"])},
)
CLEAN = st.fixed_dictionaries(
    {},
    optional={
        "pii": st.sampled_from(["keep", "mask"]),
        "dedup": st.fixed_dictionaries({"exact": st.booleans(), "near": st.none()}),
        "language": st.fixed_dictionaries({"keep": st.lists(LANGUAGES, min_size=1), "threshold": st.floats(0, 1)}),
    },
)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    sources = draw(st.dictionaries(NAMES, SOURCES, min_size=1, max_size=3))
    weights = {name: draw(st.floats(0, 1e9, exclude_min=True)) for name in sources}
    stages = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    budgets = st.integers(1, 10**18)
    return Recipe.model_validate(
        {
            "name": draw(NAMES),
            "seed": draw(st.integers()),
            "tokenizer": draw(st.text()),
            "sources": sources,
            "clean": draw(CLEAN),
            "stages": [{"name": s, "token_budget": draw(budgets), "mixture": weights} for s in stages],
        }
    )


@given(recipes())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_recipe_comes_back_from_its_dump(tmp_path: Path, recipe: Recipe) -> None:
    assert recipe_file.load(write(tmp_path, recipe_file.dump(recipe))) == recipe


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_load_and_come_back_from_their_dump(tmp_path: Path, path: Path) -> None:
    recipe = recipe_file.load(path)
    assert recipe_file.load(write(tmp_path, recipe_file.dump(recipe))) == recipe


def test_there_are_shipped_recipes() -> None:
    assert SHIPPED


def test_a_dump_spells_every_default_out(tmp_path: Path) -> None:
    text = recipe_file.dump(recipe_file.load(write(tmp_path, RECIPE)))
    assert "packing: concat_and_chunk\n" in text
    assert "    near: null\n" in text
    assert "    language: 'no'\n" in text
    assert set(yaml.safe_load(text)) == set(Recipe.model_fields)


VALIDATOR = Draft202012Validator(recipe_file.schema())


def faults(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(recipe_yaml.parse(text).value)]


def test_the_schema_is_one_and_has_a_title() -> None:
    schema = recipe_file.schema()
    Draft202012Validator.check_schema(schema)
    assert (schema["$schema"], schema["title"]) == (
        "https://json-schema.org/draft/2020-12/schema",
        "curriculum-mixer recipe",
    )


def test_the_schema_takes_what_loads() -> None:
    texts = [RECIPE, *(path.read_text("utf-8") for path in SHIPPED)]
    assert [faults(text) for text in texts] == [[]] * len(texts)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("sequence_length", "sequence_lenght"),
        ("language: no", "languages: no"),
        ("kind: html", "kind: htm"),
        ("92.5B", "lots"),
        ("92.5B", "0"),
        ("web: 5", "web: -5"),
        ("{path: gpt2, revision: '1e9'}", "5"),
        ("  replay:", "  re play:"),
        ("near: null", "near: {ngram: 1}"),
        ("stages:", "retention: {slices: {prose: {path: prose.jsonl, max_documents: 1}}}\nstages:"),
    ],
)
def test_the_schema_refuses_what_does_not_load(tmp_path: Path, before: str, after: str) -> None:
    text = RECIPE.replace(before, after)
    assert text != RECIPE
    assert faults(text)
    with pytest.raises(RecipeError, match=r"x\.yaml:\d+: "):
        recipe_file.load(write(tmp_path, text))


def test_the_schema_describes_keys_and_takes_a_tokenizer_s_bare_path() -> None:
    schema = recipe_file.schema()
    assert schema["properties"]["sequence_length"]["description"] == "Tokens a sequence."
    assert {"type": "string"} in schema["properties"]["tokenizer"]["anyOf"]
    assert faults(RECIPE.replace("{path: gpt2, revision: '1e9'}", "gpt2")) == []


def test_importing_is_cheap() -> None:
    code = "import sys, mixer.recipe.file, mixer.doctor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"pydantic", "yaml"} <= loaded
    assert not loaded & {"numpy", "torch", "vllm", "datatrove", "polars", "pyarrow", "transformers", "click"}
