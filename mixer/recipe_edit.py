"""A recipe with another mixture in one stage: the same text, comments and all, with new weights in place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mixer import recipe_file, recipe_yaml
from mixer.errors import RecipeError
from mixer.mixture import allocate
from mixer.recipe import Recipe
from mixer.recipe_stage import Stage
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
    wanted = _with_mixture(recipe, stage, weights)
    index = [found.name for found in recipe.stages].index(stage)
    edited = _edited(text, index, weights) if text is not None else ""
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


def _with_mixture(recipe: Recipe, stage: str, weights: Mapping[str, float]) -> Recipe:
    stages = [
        found.model_copy(update={"mixture": {name: weights[name] for name in dict(found.mixture)}})
        if isinstance(found, Stage) and found.name == stage
        else found
        for found in recipe.stages
    ]
    return recipe.model_copy(update={"stages": tuple(stages)})


def _edited(text: str, index: int, weights: Mapping[str, float]) -> str:
    """The text with the weights of a stage replaced where they stand, from the last one to the first."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    mixture = _child(_child(root, "stages").value[index], "mixture")
    for key, value in sorted(mixture.value, key=lambda pair: -pair[1].start_mark.index):
        text = text[: value.start_mark.index] + f"{weights[key.value]:g}" + text[value.end_mark.index :]
    return text


def _child(node: Any, key: str) -> Any:
    return next(value for name, value in node.value if name.value == key)


def _says(text: str, recipe: Recipe) -> bool:
    """Whether a text loads as this very recipe."""
    tree = recipe_yaml.parse(text)
    if tree.problems or not isinstance(tree.value, dict):
        return False
    return bool(recipe_file.dump(recipe) == recipe_file.dump(Recipe.model_validate(tree.value)))
