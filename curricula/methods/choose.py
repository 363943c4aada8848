"""The method that a recipe names."""

from pathlib import Path

from curricula.methods.base import Method
from mixer.recipe.methods import AnyMethod, BlockExpansionMethod, FreezeMethod, LoraMethod, OsftMethod


def method_of(section: AnyMethod, *, base: Path, seed: int) -> Method:
    """The method of a recipe's section; the model is given to its hooks.

    Args:
        section: The recipe's.
        base: Folder of the recipe, for paths.
        seed: For what a method draws.
    """
    match section:
        case FreezeMethod():
            from curricula.methods.freeze import Freeze

            return Freeze(section)
        case BlockExpansionMethod():
            from curricula.methods.block_expansion import BlockExpansion

            return BlockExpansion(section)
        case OsftMethod():
            from curricula.methods.osft import Osft

            return Osft(section, base=base)
        case LoraMethod():
            from curricula.methods.lora import Lora

            return Lora(section, seed=seed)
    return Method()
