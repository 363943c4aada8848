"""Recipes as files: read and override them, write them out in full, describe them for editors.

Everything wrong with a recipe is reported at once, one line a problem: `FILE:LINE: key: got X, expected Y`.
"""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

from mixer.errors import RecipeError
from mixer.recipe import override as recipe_override
from mixer.recipe import problems as recipe_problems
from mixer.recipe import yaml as recipe_yaml
from mixer.recipe.recipe import Recipe
from mixer.recipe.yaml import Problem, Tree

_MOST_BYTES = 1_000_000
_MOST_SHOWN = 60


def load(path: Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """The Recipe that a YAML file holds, with `--set` overrides applied in their order.

    Args:
        path: The file, UTF-8.
        overrides: `stages.0.token_budget=30M`, `stages.anneal.token_budget=30M` (a list item by its name),
            `clean.pii=mask`; the value is read like one in the file.

    Raises:
        RecipeError: The file cannot be read, or anything in it or in the overrides is wrong.
    """
    text = _read(path)
    tree = recipe_yaml.parse(text)
    if isinstance(tree.value, dict):
        for override in overrides:
            recipe_override.apply(override, tree)
    problems = _problems(tree)
    if not problems:
        return Recipe.model_validate(tree.value)
    in_file = frozenset(_problems(recipe_yaml.parse(text)))
    blame = " ".join(f"--set {_short(override)}" for override in overrides)
    raise RecipeError(
        "\n".join(_lines(problems, path=path, tree=tree, in_file=in_file, blame=blame)),
        hint=_clean(f"correct these, then run `mixer check {path}`; `mixer schema` describes every key"),
    )


def dump(recipe: Recipe) -> str:
    """YAML of the recipe with every default written out; `load` reads an equal recipe back."""
    return recipe_yaml.dump(recipe.model_dump(mode="json", by_alias=True))


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a recipe file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_closed(Recipe.model_json_schema()),
        "title": "curriculum-mixer recipe",
    }


def _closed(part: Any) -> Any:
    """The same schema, with keys that match none of a mapping's patterns refused; pydantic lets them pass."""
    if isinstance(part, list):
        return [_closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    refusal = {"additionalProperties": False} if "patternProperties" in part else {}
    return {key: _closed(value) for key, value in part.items()} | refusal


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        told = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror or error).lower()
        hint = "`mixer recipes` lists the recipes that come along; `mixer recipes NAME` prints one"
        raise RecipeError(f"{_clean(path)}: {told}", hint=hint) from None
    if len(content) > _MOST_BYTES:
        told = f"{_clean(path)}: over {_MOST_BYTES // 10**6} MB, expected a recipe"
        raise RecipeError(told, hint="name long lists of input files by a glob such as `pages/**/*.html`")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        told = f"{_clean(path)}:{line}: got byte 0x{content[error.start]:02x}, expected UTF-8 text"
        hint = "save it as UTF-8, for example with `iconv -f LATIN1 -t UTF-8`"
        raise RecipeError(told, hint=hint) from None


def _problems(tree: Tree) -> list[Problem]:
    if not tree.lines:
        empty = Problem((), "got an empty file, expected a mapping with `name`, `sources`, `stages`", ())
        return tree.problems or [empty]
    if tree.problems and not isinstance(tree.value, dict):
        return tree.problems
    told = {problem.spot for problem in tree.problems if problem.spot}
    return tree.problems + [
        problem
        for problem in recipe_problems.find(tree.value)
        if not any(problem.spot[:length] in told for length in range(1, len(problem.spot) + 1))
    ]


def _lines(
    problems: Sequence[Problem], *, path: Path, tree: Tree, in_file: frozenset[Problem], blame: str
) -> list[str]:
    """One line a problem: those with a line in the file by line, then those of overrides."""
    lines: list[tuple[float, str]] = []
    for problem in problems:
        override = problem.override or tree.override_of(problem.spot)
        line = problem.line or tree.line_of(problem.spot)
        where = f"--set {_short(override)}" if override else f"{path}:{line}"
        what = f"{'.'.join(_short(str(key)) for key in problem.what)}: " if problem.what else ""
        after = "" if override or problem in in_file else f" (after {blame})"
        lines.append((inf if override else line, _clean(f"{where}: {what}{problem.text}{after}")))
    return list(dict.fromkeys(text for _, text in sorted(lines, key=lambda entry: entry[0])))


def _short(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def _clean(text: object) -> str:
    return recipe_yaml.printable(str(text))
