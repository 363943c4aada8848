"""The scores that a recipe can take, each made ready for `mixer.score`: its fingerprint, and how a worker opens it.

What learns from documents of the recipe, or from what a teacher says of them, learns once, here, and is kept in the
Run's cache under a hash of what it learned from; workers open the folder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import polars as pl

from curricula import difficulty, education, kenlm, quality, topic
from curricula.model import fingerprint, model_folder
from mixer import disciplines
from mixer.context import Context
from mixer.errors import RecipeError
from mixer.recipe_scores import Education, KenLM, Perplexity, Quality, Seeds, Teacher, Text, Topic
from mixer.run import digest
from mixer.score import Scorer, Scoring
from mixer.table import scan

Documents = Mapping[str, Sequence[Path]]
"""Source -> folders of its documents, one a unit."""

Rows = list[tuple[str, str, str]]
"""Text, label, and site or book of documents to learn from."""

Label = Callable[
    [Context, str, Teacher, Mapping[str, str] | None, Sequence[Path]],
    tuple[Mapping[str, Any], Callable[[], Rows]],
]
"""Score, teacher, labels with descriptions (None for grades 0 to 5), units to sample -> what decides the labels, and
a way to have them; `synth.synthesize.Synthesizer.labels`, handed in."""

_MOST_EXAMPLES = 50_000
"""Documents of a source that are learned from."""
_SHOWN = ("accuracy", "accuracy_known", "auc", "error", "error_average")


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
    settings: Perplexity

    def __call__(self) -> Scorer:
        scorer = difficulty.DifficultyScorer(self.folder, **_options(self.settings))

        def score(texts: Sequence[str], urls: Sequence[str | None]) -> dict[str, list[Any]]:
            found = scorer(texts)
            names = ("loss", "bits_per_byte", "tail", "tokens")
            values = {"value": [each.perplexity for each in found]}
            return values | {key: [getattr(each, key) for each in found] for key in names}

        return score


def _perplexity(context: Context, settings: Perplexity, *_: Any) -> Scoring:
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
    is_by_site: bool

    def __call__(self) -> Scorer:
        if self.folder is not None:
            model = topic.load(self.folder)
        else:
            model = topic.zero_shot(dict(self.labels), threshold=self.threshold)

        def score(texts: Sequence[str], urls: Sequence[str | None]) -> dict[str, list[Any]]:
            # A document without a url is a site of its own, so it is judged alone.
            sites = [_site(url) or f"#{number}" for number, url in enumerate(urls)]
            found = model.predict(texts, sites=sites if self.is_by_site else None)
            return {"value": [each.label for each in found], "probability": [each.probability for each in found]}

        return score


def _topic(context: Context, settings: Topic, documents: Documents, label: Label | None) -> Scoring:
    own: dict[str, Any] = {"threshold": settings.threshold, "by_site": settings.by_site, "version": topic.VERSION}
    if settings.teacher is not None:
        told, ask = _asked(context, "topic", documents, label)
        learned = f"documents that `{settings.teacher.model}` labelled; held against its labels,"
    elif settings.seeds is not None:
        seeds = settings.seeds
        told = {"seeds": seeds.model_dump(mode="json"), "learned from": _names(documents, seeds.sources)}
        ask, learned = partial(_seeds, documents, seeds), "documents;"
    else:
        labels = tuple(_labels(settings).items())
        return Scoring(own | {"labels": labels}, OpenTopic(None, labels, settings.threshold, settings.by_site))
    inputs = {**told, **own}
    folder = context.cache / "models" / digest(["topic", inputs])
    if not folder.is_dir():
        texts, marks, groups = (list(column) for column in zip(*ask(), strict=True))
        # Few sites a label teach a site's style; descriptions pull the head towards the subject.
        known = _labels(settings)
        descriptions = known if set(marks) <= set(known) else None
        model = topic.train(texts, marks, groups, descriptions=descriptions, threshold=settings.threshold)
        model.save(folder)
        context.say(f"topic: learned from {len(texts):,} {learned} {_told(model.report)}")
    return Scoring(inputs, OpenTopic(folder, (), settings.threshold, settings.by_site))


def _asked(
    context: Context, name: str, documents: Documents, label: Label | None
) -> tuple[Mapping[str, Any], Callable[[], Rows]]:
    """What a score with a teacher is made with, and a way to have the teacher's labels."""
    settings = context.recipe.scores.taken[name]
    assert isinstance(settings, Topic | Education)
    teacher = settings.teacher
    assert teacher is not None
    assert label is not None, "a score with a teacher needs somebody who asks it"
    sampled = [source for source in teacher.sources or settings.sources or documents if source in documents]
    labels = _labels(settings) if isinstance(settings, Topic) else None
    told, ask = label(context, name, teacher, labels, [folder for source in sampled for folder in documents[source]])
    return {"teacher": dict(told), "documents": teacher.documents, "sampled": _names(documents, sampled)}, ask


def _labels(settings: Topic) -> dict[str, str]:
    if settings.labels is None:
        return dict(disciplines.FIELDS)
    if isinstance(settings.labels, dict):
        return settings.labels
    return {label: disciplines.FIELDS.get(label, label) for label in settings.labels}


def _seeds(documents: Documents, seeds: Seeds) -> Rows:
    """The seed documents that have a label."""
    found = []
    for source in seeds.sources:
        for text, url, metadata in _rows(documents, source):
            if mark := str(metadata.get(seeds.field) or ""):
                group = metadata.get(seeds.group) if seeds.group else _site(url)
                found.append((text, mark, str(group or source)))
    if not found:
        raise RecipeError(
            f"scores.topic.seeds.field: got no document with the field {seeds.field!r}, expected labels there",
            hint="carry the field by the source's `columns: {keep: [...]}`",
        )
    return found


def _rows(documents: Documents, source: str) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """Text, url and metadata of a source's documents, at most so many by hash."""
    folders = documents.get(source, ())
    ids = [scan(folder / "documents.parquet").select("id").collect()["id"].to_list() for folder in folders]
    chosen = sorted((identity for its in ids for identity in its), key=digest)[:_MOST_EXAMPLES]
    for folder in folders:
        table = scan(folder / "documents.parquet").select("id", "text", "url", "metadata")
        for _, text, url, metadata in table.filter(pl.col("id").is_in(chosen)).collect().iter_rows():
            yield text, url, orjson.loads(metadata)


def _site(url: str | None) -> str:
    try:
        return urlsplit(url or "").netloc
    except ValueError:
        # Such as `http://[`: no url, but what a row may hold.
        return ""


def _names(documents: Documents, sources: Sequence[str]) -> list[list[str]]:
    return [[folder.name for folder in documents.get(source, ())] for source in sources]


def _told(report: Mapping[str, Any]) -> str:
    """The figures of a report that people ask for first."""
    found = [f"{key.replace('_', ' of ')} {report[key]:.3f}" for key in _SHOWN if report.get(key) is not None]
    return f"on groups that it did not see: {', '.join(found)}" if found else "nothing could be held out to test it"


@dataclass(frozen=True, slots=True)
class OpenEducation:
    """Opens a trained head."""

    folder: Path

    def __call__(self) -> Scorer:
        model = topic.load(self.folder)
        return lambda texts, urls: {"value": education.values(model, texts)}


def _education(context: Context, _: Education, documents: Documents, label: Label | None) -> Scoring:
    told, ask = _asked(context, "education", documents, label)
    inputs = {**told, "version": [education.VERSION, topic.VERSION]}
    folder = context.cache / "models" / digest(["education", inputs])
    if not folder.is_dir():
        texts, grades, groups = (list(column) for column in zip(*ask(), strict=True))
        model = education.train(texts, grades, groups)
        model.save(folder)
        teacher = context.recipe.scores.teachers["education"].model
        context.say(
            f"education: learned from {len(texts):,} documents that `{teacher}` graded; held against its grades, "
            f"{_told(model.report)}"
        )
    return Scoring(inputs, OpenEducation(folder))


@dataclass(frozen=True, slots=True)
class OpenQuality:
    """Opens a trained classifier."""

    folder: Path

    def __call__(self) -> Scorer:
        model = quality.load(self.folder)
        return lambda texts, urls: {"value": [model.score(text) for text in texts]}


def _quality(context: Context, settings: Quality, documents: Documents, *_: Any) -> Scoring:
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
    sites = [_site(url) or f"{sources[0]}#{number}" for number, (_, url, _) in enumerate(rows)]
    return [text for text, _, _ in rows], sites


@dataclass(frozen=True, slots=True)
class OpenText:
    """Opens nothing: figures that need no model."""

    def __call__(self) -> Scorer:
        return _measured


def _measured(texts: Sequence[str], urls: Sequence[str | None]) -> dict[str, list[Any]]:
    rows = [quality.heuristics(text) for text in texts]
    names = {"value": "characters", **{key: key for key in ("words", "compression", "diversity", "symbols")}}
    return {column: [row[key] for row in rows] for column, key in names.items()}


def _text(_: Context, settings: Text, *__: Any) -> Scoring:
    return Scoring({"score": type(settings).__name__, "version": quality.VERSION}, OpenText())


_READY: dict[type, Callable[..., Scoring]] = {
    Perplexity: _perplexity,
    KenLM: kenlm.ready,
    Topic: _topic,
    Education: _education,
    Quality: _quality,
    Text: _text,
}
