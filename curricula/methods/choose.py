"""The method that a recipe names."""

from pathlib import Path

from curricula.methods.base import Method
from mixer.errors import RecipeError
from mixer.recipe_methods import AnyMethod, PlainMethod


def method_of(section: AnyMethod, *, base: Path, seed: int) -> Method:
    """The method of a recipe's section; the model is given to its hooks.

    Args:
        section: The recipe's.
        base: Folder of the recipe, for paths.
        seed: For what a method draws.
    """
    if isinstance(section, PlainMethod):
        return Method()
    raise RecipeError(f"train.method: got {section.kind!r}, expected `plain`", hint=f"nothing at {base} with {seed}")
