"""The scores that a recipe can take, each made ready for `mixer.score`: its fingerprint, and how a worker opens it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricula import difficulty
from curricula.model import fingerprint, model_folder
from mixer.context import Context
from mixer.recipe_scores import Perplexity
from mixer.score import Scorer, Scoring


def open_score(context: Context, name: str, documents: Mapping[str, Sequence[Path]]) -> Scoring:
    """A score, ready to be taken.

    Args:
        context: The build.
        name: One of the recipe's `scores`.
        documents: Source -> folders of its documents, for scores that learn from some.

    Raises:
        RecipeError: Its model, or what it should learn from, is not there.
    """
    settings = context.recipe.scores.taken[name]
    return _READY[type(settings)](context, settings, documents)


@dataclass(frozen=True, slots=True)
class OpenPerplexity:
    """Opens the model of a perplexity score."""

    folder: Path
    settings: Perplexity

    def __call__(self) -> Scorer:
        options = self.settings.model_dump(include={"dtype", "max_length", "max_tokens"})
        scorer = difficulty.DifficultyScorer(self.folder, **options)

        def score(texts: Sequence[str]) -> dict[str, list[Any]]:
            found = scorer(texts)
            values = {"value": [each.perplexity for each in found]}
            names = ("loss", "bits_per_byte", "tail", "tokens")
            return values | {key: [getattr(each, key) for each in found] for key in names}

        return score


def _perplexity(context: Context, settings: Perplexity, _: Mapping[str, Sequence[Path]]) -> Scoring:
    folder = model_folder(settings.model, base=context.base, store=context.store, revision=settings.revision)
    inputs = {
        "model": fingerprint(folder, context.store),
        **settings.model_dump(mode="json", include={"dtype", "max_length", "max_tokens"}),
        "version": difficulty.VERSION,
    }
    return Scoring(inputs, OpenPerplexity(folder, settings))


_READY: dict[type, Callable[..., Scoring]] = {Perplexity: _perplexity}
