"""A recipe with another mixture, or share of replay, in one stage: the same text with new numbers in place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mixer.errors import RecipeError
from mixer.mixture import allocate
from mixer.recipe import file as recipe_file
from mixer.recipe import yaml as recipe_yaml
from mixer.recipe.recipe import Recipe
from mixer.recipe.stage import Stage
from mixer.run import write_text

_PARTS = 10_000


def write(path: Path, recipe: Recipe, *, text: str | None, stage: str, mixture: Mapping[str, float]) -> None:
    """Write a recipe whose stage has this mixture, to four decimals.

    The text is edited in place where that gives this very recipe. Else, as where an alias shares the mixture with other
    stages, the recipe is written anew with every default, without comments.

    Args:
        path: Where to.
        recipe: The recipe.
        text: What it was read from; None where values were overridden.
        stage: The name of the stage.
        mixture: Source -> fraction, for each source that the stage has.

    Raises:
        RecipeError: A weight is 0 to four decimals, which no mixture can hold.
    """
    weights = _rounded(stage, mixture)
    _write(path, recipe, text, stage, "mixture", weights)


def write_replay(path: Path, recipe: Recipe, *, text: str | None, stage: str, share: float) -> None:
    """Write a recipe whose stage replays this share, to four decimals; see `write`.

    Raises:
        RecipeError: The share is 0 or 1 to four decimals, which no replay is.
    """
    rounded = round(share, 4)
    if not 0 < rounded < 1:
        raise RecipeError(
            f"stages.{stage}.replay.share: got {rounded:g}, expected more than 0 and less than 1",
            hint="change `replay` by hand",
        )
    _write(path, recipe, text, stage, "replay", {"share": rounded})


def _write(path: Path, recipe: Recipe, text: str | None, stage: str, key: str, numbers: Mapping[str, float]) -> None:
    wanted = _changed(recipe, stage, key, numbers)
    index = [found.name for found in recipe.stages].index(stage)
    edited = _edited(text, index, key, numbers) if text is not None else ""
    write_text(path, edited if _says(edited, wanted) else recipe_file.dump(wanted))


def _rounded(stage: str, mixture: Mapping[str, float]) -> dict[str, float]:
    counts = allocate({name: weight for name, weight in mixture.items() if weight > 0}, sequences=_PARTS)
    weights = {name: counts.get(name, 0) / _PARTS for name in mixture}
    if none := [name for name, weight in weights.items() if not weight]:
        raise RecipeError(
            f"stages.{stage}.mixture: got a weight of 0 for `{none[0]}`, expected more than 0",
            hint=f"remove `{none[0]}` from the stage by hand, and from `sources` if no other stage has it",
        )
    return weights


def _changed(recipe: Recipe, stage: str, key: str, numbers: Mapping[str, float]) -> Recipe:
    """The recipe with these numbers below a key of a stage."""
    stages = []
    for found in recipe.stages:
        if isinstance(found, Stage) and found.name == stage:
            old = getattr(found, key)
            new = {name: numbers[name] for name in old} if isinstance(old, dict) else old.model_copy(update=numbers)
            found = found.model_copy(update={key: new})  # noqa: PLW2901
        stages.append(found)
    return recipe.model_copy(update={"stages": tuple(stages)})


def _edited(text: str, index: int, key: str, numbers: Mapping[str, float]) -> str:
    """The text with the numbers of a stage replaced where they stand, from the last one to the first."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    found = _child(_child(root, "stages").value[index], key)
    named = [(name, value) for name, value in found.value if name.value in numbers]
    for name, value in sorted(named, key=lambda pair: -pair[1].start_mark.index):
        text = text[: value.start_mark.index] + f"{numbers[name.value]:g}" + text[value.end_mark.index :]
    return text


def _child(node: Any, key: str) -> Any:
    return next(value for name, value in node.value if name.value == key)


def _says(text: str, recipe: Recipe) -> bool:
    """Whether a text loads as this very recipe."""
    tree = recipe_yaml.parse(text)
    if tree.problems or not isinstance(tree.value, dict):
        return False
    return bool(recipe_file.dump(recipe) == recipe_file.dump(Recipe.model_validate(tree.value)))
