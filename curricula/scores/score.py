"""The scores that a recipe can take, each made ready for `mixer.score`: its fingerprint, and how a worker opens it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricula import causal, difficulty
from curricula.model import fingerprint, model_folder
from curricula.scores import heuristics, kenlm, learned
from curricula.scores.learned import Documents, Label
from mixer.context import Context
from mixer.errors import RecipeError
from mixer.recipe.scores import Education, KenLM, Perplexity, Quality, Text, Topic
from mixer.run import read_json
from mixer.score import Scorer, Scoring


def open_score(context: Context, name: str, documents: Documents, label: Label | None = None) -> Scoring:
    """A score, ready to be taken.

    Args:
        context: The build.
        name: One of the recipe's `scores`.
        documents: What scores that learn may learn from.
        label: Asks teachers, for the scores that have one.

    Raises:
        RecipeError: Its model, or what it should learn from, is not there.
        SourceError: Its teacher gave nothing to learn from.
        EngineError: Its teacher cannot be asked.
    """
    settings = context.recipe.scores.taken[name]
    return _READY[type(settings)](context, settings, documents, label)


@dataclass(frozen=True, slots=True)
class OpenPerplexity:
    """Opens the model of a perplexity score."""

    folder: Path
    options: Mapping[str, Any]

    def __call__(self) -> Scorer:
        scorer = difficulty.DifficultyScorer(self.folder, **self.options)

        def score(texts: Sequence[str], urls: Sequence[str | None]) -> dict[str, list[Any]]:
            found = scorer(texts)
            told = {"value": "perplexity", **{key: key for key in ("loss", "bits_per_byte", "tail")}}
            # A text without a token has no perplexity, as it has none in an n-gram model.
            values = {
                column: [getattr(each, name) if each.tokens else None for each in found]
                for column, name in told.items()
            }
            return values | {"tokens": [each.tokens for each in found]}

        return score


def _perplexity(context: Context, settings: Perplexity, *_: Any) -> Scoring:
    folder = model_folder(settings.model, base=context.base, store=context.store, revision=settings.revision)
    _check_length(settings, folder)
    options = settings.model_dump(mode="json", include={"dtype", "max_length", "max_tokens"})
    # What `auto` stands for on this machine: another one may give other values.
    options["dtype"] = causal.dtype_of(settings.dtype, causal.device())
    inputs = {"model": fingerprint(folder, context.store), **options, "version": difficulty.VERSION}
    return Scoring(inputs, OpenPerplexity(folder, options))


def _check_length(settings: Perplexity, folder: Path) -> None:
    most = (read_json(folder / "config.json") or {}).get("max_position_embeddings")
    if most and settings.max_length and settings.max_length > most:
        raise RecipeError(
            f"scores.perplexity.max_length: got {settings.max_length:,}, expected at most {most:,}, the context of "
            f"`{settings.model}`",
            hint="leave it out: longer documents are read in windows anyway",
        )


@dataclass(frozen=True, slots=True)
class OpenText:
    """Opens nothing: figures that need no model."""

    def __call__(self) -> Scorer:
        return _measured


def _measured(texts: Sequence[str], urls: Sequence[str | None]) -> dict[str, list[Any]]:
    rows = [heuristics.heuristics(text) for text in texts]
    names = {"value": "characters", **{key: key for key in ("words", "compression", "diversity", "symbols")}}
    return {column: [row[key] for row in rows] for column, key in names.items()}


def _text(_: Context, settings: Text, *__: Any) -> Scoring:
    return Scoring({"score": type(settings).__name__, "version": heuristics.VERSION}, OpenText())


_READY: dict[type, Callable[..., Scoring]] = {
    Perplexity: _perplexity,
    KenLM: kenlm.ready,
    Topic: learned.ready_topic,
    Education: learned.ready_education,
    Quality: learned.ready_quality,
    Text: _text,
}
