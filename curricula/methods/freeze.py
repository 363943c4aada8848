"""Train only the parameters that patterns name.

Price: none; frozen parameters have no gradient and no optimizer state. Freezing old weights does not freeze what the
model computes: a trained upper block still changes every answer.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from curricula.methods.base import Method
from mixer.errors import RecipeError
from mixer.recipe.methods import FreezeMethod

if TYPE_CHECKING:
    import torch


class Freeze(Method):
    """What matches `train` and not `freeze` trains."""

    def __init__(self, section: FreezeMethod) -> None:
        self.section = section

    def prepare(self, model: Any) -> Any:
        """The model itself, once every pattern is known to match something.

        Raises:
            RecipeError: A pattern matches no parameter, or all or none of the parameters would train.
        """
        names = [name for name, _ in model.named_parameters()]
        for key in ("train", "freeze"):
            for pattern in getattr(self.section, key):
                self._check(model, key, pattern, names)
        training = sum(map(self._trains, names))
        if training in (0, len(names)):
            raise RecipeError(
                f"train.method: got {training} of {len(names)} parameters that train, expected some and not all",
                hint="use `kind: plain` to train them all" if training else "name fewer in `freeze` or more in `train`",
            )
        return model

    def trainable(self, model: Any) -> Iterator[tuple[str, "torch.nn.Parameter"]]:
        """Yield the parameters whose names are chosen."""
        for name, parameter in model.named_parameters():
            if self._trains(name):
                yield name, parameter

    def _trains(self, name: str) -> bool:
        chosen = any(fnmatchcase(name, pattern) for pattern in self.section.train)
        return chosen and not any(fnmatchcase(name, pattern) for pattern in self.section.freeze)

    def _check(self, model: Any, key: str, pattern: str, names: list[str]) -> None:
        if any(fnmatchcase(name, pattern) for name in names):
            return
        every = dict(model.named_parameters(remove_duplicate=False))
        tied = [name for name in every if fnmatchcase(name, pattern)]
        owner = next((name for name in names if tied and every[name] is every[tied[0]]), "")
        raise RecipeError(
            f"train.method.{key}: got {pattern!r}, expected a pattern that matches a parameter",
            hint=f"`{tied[0]}` is tied to `{owner}`: name that" if tied else f"names look like `{names[-1]}`",
        )
