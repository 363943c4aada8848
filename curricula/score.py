"""The scores that a recipe can take, each made ready for `mixer.score`: its fingerprint, and how a worker opens it.

What learns from documents of the recipe learns once, here, and is kept in the Run's cache under a hash of what it
learned from; workers open the folder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from curricula import difficulty, quality, topic
from curricula.model import fingerprint, model_folder
from mixer import disciplines
from mixer.context import Context
from mixer.errors import RecipeError
from mixer.recipe_scores import Perplexity, Quality, Seeds, Text, Topic
from mixer.run import digest
from mixer.score import Scorer, Scoring
from mixer.table import scan

Documents = Mapping[str, Sequence[Path]]
"""Source -> folders of its documents, one a unit."""

_SHOWN = ("accuracy", "accuracy_known", "auc")


def open_score(context: Context, name: str, documents: Documents) -> Scoring:
    """A score, ready to be taken.

    Args:
        context: The build.
        name: One of the recipe's `scores`.
        documents: What scores that learn may learn from.

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
        scorer = difficulty.DifficultyScorer(self.folder, **_options(self.settings))

        def score(texts: Sequence[str]) -> dict[str, list[Any]]:
            found = scorer(texts)
            names = ("loss", "bits_per_byte", "tail", "tokens")
            values = {"value": [each.perplexity for each in found]}
            return values | {key: [getattr(each, key) for each in found] for key in names}

        return score


def _perplexity(context: Context, settings: Perplexity, _: Documents) -> Scoring:
    folder = model_folder(settings.model, base=context.base, store=context.store, revision=settings.revision)
    inputs = {"model": fingerprint(folder, context.store), **_options(settings), "version": difficulty.VERSION}
    return Scoring(inputs, OpenPerplexity(folder, settings))


def _options(settings: Perplexity) -> dict[str, Any]:
    return settings.model_dump(mode="json", include={"dtype", "max_length", "max_tokens"})


@dataclass(frozen=True, slots=True)
class OpenTopic:
    """Opens a trained head, or compares with descriptions."""

    folder: Path | None
    labels: tuple[tuple[str, str], ...]
    threshold: float

    def __call__(self) -> Scorer:
        if self.folder is not None:
            model = topic.load(self.folder)
        else:
            model = topic.zero_shot(dict(self.labels), threshold=self.threshold)

        def score(texts: Sequence[str]) -> dict[str, list[Any]]:
            found = model.predict(texts)
            return {"value": [each.label for each in found], "probability": [each.probability for each in found]}

        return score


def _topic(context: Context, settings: Topic, documents: Documents) -> Scoring:
    if settings.seeds is None:
        labels = tuple(_labels(settings).items())
        inputs = {"labels": labels, "threshold": settings.threshold, "version": topic.VERSION}
        return Scoring(inputs, OpenTopic(None, labels, settings.threshold))
    seeds = settings.seeds
    inputs = {
        "seeds": seeds.model_dump(mode="json"),
        "learned from": _names(documents, seeds.sources),
        "threshold": settings.threshold,
        "version": topic.VERSION,
    }
    folder = context.cache / "models" / digest(["topic", inputs])
    if not folder.is_dir():
        rows = [row for row in _seeds(documents, seeds) if row[1]]
        if not rows:
            raise RecipeError(
                f"scores.topic.seeds.field: got no document with the field {seeds.field!r}, expected labels there",
                hint="carry the field by the source's `columns: {keep: [...]}`",
            )
        texts, marks, groups = (list(column) for column in zip(*rows, strict=True))
        model = topic.train(texts, marks, groups, threshold=settings.threshold)
        model.save(folder)
        context.say(f"topic: learned from {len(texts):,} documents; {_told(model.report)}")
    return Scoring(inputs, OpenTopic(folder, (), settings.threshold))


def _labels(settings: Topic) -> dict[str, str]:
    if settings.labels is None:
        return {name: description for name, (_, description) in disciplines.NAMES.items()}
    if isinstance(settings.labels, dict):
        return settings.labels
    known = {name: description for name, (_, description) in disciplines.NAMES.items()}
    return {label: known.get(label, label) for label in settings.labels}


def _seeds(documents: Documents, seeds: Seeds) -> Iterator[tuple[str, str, str]]:
    """Text, label (empty where there is none) and group of each seed document."""
    for source in seeds.sources:
        for text, url, metadata in _rows(documents, source):
            group = metadata.get(seeds.group) if seeds.group else urlsplit(url or "").netloc
            yield text, str(metadata.get(seeds.field) or ""), str(group or source)


def _rows(documents: Documents, source: str) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    for folder in documents.get(source, ()):
        table = scan(folder / "documents.parquet").select("text", "url", "metadata").collect()
        for text, url, metadata in table.iter_rows():
            yield text, url, orjson.loads(metadata)


def _names(documents: Documents, sources: Sequence[str]) -> list[list[str]]:
    return [[folder.name for folder in documents.get(source, ())] for source in sources]


def _told(report: Mapping[str, Any]) -> str:
    """The figures of a report that people ask for first."""
    found = [f"{key.replace('_', ' of ')} {report[key]:.3f}" for key in _SHOWN if report.get(key) is not None]
    return f"on groups that it did not see: {', '.join(found)}" if found else "nothing could be held out to test it"


@dataclass(frozen=True, slots=True)
class OpenQuality:
    """Opens a trained classifier."""

    folder: Path

    def __call__(self) -> Scorer:
        model = quality.load(self.folder)
        return lambda texts: {"value": [model.score(text) for text in texts]}


def _quality(context: Context, settings: Quality, documents: Documents) -> Scoring:
    inputs = {
        "positive": _names(documents, settings.positive),
        "negative": _names(documents, settings.negative),
        "version": quality.VERSION,
    }
    folder = context.cache / "models" / digest(["quality", inputs])
    if not folder.is_dir():
        good, their_sites = _examples(documents, settings.positive)
        poor, other_sites = _examples(documents, settings.negative)
        model = quality.train(good, poor, groups=(their_sites, other_sites))
        model.save(folder)
        context.say(f"quality: learned from {len(good):,} good and {len(poor):,} poor; {_told(model.report)}")
    return Scoring(inputs, OpenQuality(folder))


def _examples(documents: Documents, sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts, and the site of each; a text without one stands for itself."""
    rows = [row for source in sources for row in _rows(documents, source)]
    sites = [urlsplit(url or "").netloc or f"{sources[0]}#{number}" for number, (_, url, _) in enumerate(rows)]
    return [text for text, _, _ in rows], sites


@dataclass(frozen=True, slots=True)
class OpenText:
    """Opens nothing: figures that need no model."""

    def __call__(self) -> Scorer:
        return _measured


def _measured(texts: Sequence[str]) -> dict[str, list[Any]]:
    rows = [quality.heuristics(text) for text in texts]
    names = {"value": "characters", **{key: key for key in ("words", "compression", "diversity", "symbols")}}
    return {column: [row[key] for row in rows] for column, key in names.items()}


def _text(_: Context, settings: Text, __: Documents) -> Scoring:
    return Scoring({"score": type(settings).__name__, "version": quality.VERSION}, OpenText())


_READY: dict[type, Callable[..., Scoring]] = {Perplexity: _perplexity, Topic: _topic, Quality: _quality, Text: _text}
