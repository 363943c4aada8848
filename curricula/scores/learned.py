"""The scores that learn: from documents of the recipe, or from what a teacher says of them.

Each learns once and is kept in the Run's cache under a hash of what it learned from; workers open the folder. How it
did on what was held out is said and stored at every build, and what that was: sites or books where they are known,
else single documents.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from curricula.scores import education, quality, topic
from mixer import disciplines, embed
from mixer.context import Context
from mixer.errors import RecipeError
from mixer.recipe.scores import Education, Quality, Seeds, Teacher, Topic
from mixer.run import digest
from mixer.score import Scorer, Scoring
from mixer.site import site
from mixer.table import scan

Documents = Mapping[str, Sequence[Path]]
"""Source -> folders of its documents, one a unit."""

Rows = list[tuple[str, str, str]]
"""Text, label, and site or book of documents to learn from; an empty one is unknown."""

Label = Callable[
    [Context, str, Teacher, Mapping[str, str] | None, Sequence[Path]],
    tuple[Mapping[str, Any], Callable[[], Rows]],
]
"""Score, teacher, labels with descriptions (None for grades 0 to 5), units to sample -> what decides the labels, and
a way to have them; `synth.synthesize.Synthesizer.labels`, handed in."""

_MOST_EXAMPLES = 50_000
"""Documents of a source that are learned from."""
_SHOWN = ("accuracy", "accuracy_known", "auc", "error", "error_average")


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
            sites = [site(url) or f"#{number}" for number, url in enumerate(urls)]
            found = model.predict(texts, sites=sites if self.is_by_site else None)
            return {"value": [each.label for each in found], "probability": [each.probability for each in found]}

        return score


def ready_topic(context: Context, settings: Topic, documents: Documents, label: Label | None) -> Scoring:
    """The score, ready to be taken: from a teacher's labels, from seeds, or by descriptions.

    Raises:
        RecipeError: No seed has a label, or the encoder is not installed.
        SourceError: The teacher gave nothing to learn from.
    """
    own: dict[str, Any] = {"threshold": settings.threshold, "by_site": settings.by_site, "version": topic.VERSION}
    own["encoder"] = embed.identity()
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
    begin = "topic: learned" if not folder.is_dir() else "skip learning topic: nothing changed since it learned"
    if not folder.is_dir():
        texts, marks, groups = (list(column) for column in zip(*ask(), strict=True))
        # Few sites a label teach a site's style; descriptions pull the head towards the subject.
        known = _labels(settings)
        descriptions = known if set(marks) <= set(known) else None
        options: dict[str, Any] = {"descriptions": descriptions, "threshold": settings.threshold}
        model = topic.train(texts, marks, _grouped(groups), **options)
        replace(model, report=_held_out(model.report, groups)).save(folder)
    report = topic.load(folder).report
    context.say(f"{begin} from {report['documents']:,} {learned} {_told(report)}")
    return Scoring(inputs, OpenTopic(folder, (), settings.threshold, settings.by_site), report)


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
                found.append((text, mark, _group(url, metadata, seeds.group)))
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


def _names(documents: Documents, sources: Sequence[str]) -> list[list[str]]:
    return [[folder.name for folder in documents.get(source, ())] for source in sources]


def _grouped(groups: Sequence[str]) -> list[str]:
    """The groups, each document of an unknown one in a group of its own."""
    return [group or f"#{number}" for number, group in enumerate(groups)]


def _held_out(report: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    """The report, with how many documents are of no known site or book."""
    return {**report, "alone": sum(not group for group in groups)}


def _told(report: Mapping[str, Any]) -> str:
    """What was held out, and the figures of a report that people ask for first."""
    found = [f"{key.replace('_', ' of ')} {report[key]:.3f}" for key in _SHOWN if report.get(key) is not None]
    if not found:
        return "nothing could be held out to test it"
    count, alone = report.get("documents", report.get("texts")), report["alone"]
    where = "on sites or books that it did not see"
    if alone == count:
        where = "on documents that it did not see, of which no site or book is known"
    elif alone:
        where += f" ({alone:,} of {count:,} documents are of none that is known, and held out singly)"
    return f"{where}: {', '.join(found)}"


@dataclass(frozen=True, slots=True)
class OpenEducation:
    """Opens a trained head."""

    folder: Path

    def __call__(self) -> Scorer:
        model = topic.load(self.folder)
        return lambda texts, urls: {"value": education.values(model, texts)}


def ready_education(context: Context, _: Education, documents: Documents, label: Label | None) -> Scoring:
    """The score, ready to be taken: learned from a teacher's grades.

    Raises:
        SourceError: The teacher gave nothing to learn from.
    """
    told, ask = _asked(context, "education", documents, label)
    inputs = {**told, "encoder": embed.identity(), "version": [education.VERSION, topic.VERSION]}
    folder = context.cache / "models" / digest(["education", inputs])
    begin = "education: learned" if not folder.is_dir() else "skip learning education: nothing changed since it learned"
    if not folder.is_dir():
        texts, grades, groups = (list(column) for column in zip(*ask(), strict=True))
        model = education.train(texts, grades, _grouped(groups))
        replace(model, report=_held_out(model.report, groups)).save(folder)
    report, teacher = topic.load(folder).report, context.recipe.scores.teachers["education"].model
    learned = f"{report['documents']:,} documents that `{teacher}` graded; held against its grades,"
    context.say(f"{begin} from {learned} {_told(report)}")
    return Scoring(inputs, OpenEducation(folder), report)


@dataclass(frozen=True, slots=True)
class OpenQuality:
    """Opens a trained classifier."""

    folder: Path

    def __call__(self) -> Scorer:
        model = quality.load(self.folder)
        return lambda texts, urls: {"value": [model.score(text) for text in texts]}


def ready_quality(context: Context, settings: Quality, documents: Documents, *_: Any) -> Scoring:
    """The score, ready to be taken: learned from good and poor sources.

    Raises:
        RecipeError: One of both kinds has no document.
    """
    inputs = {
        "positive": _names(documents, settings.positive),
        "negative": _names(documents, settings.negative),
        "group": settings.group,
        "version": quality.VERSION,
    }
    folder = context.cache / "models" / digest(["quality", inputs])
    begin = "quality: learned" if not folder.is_dir() else "skip learning quality: nothing changed since it learned"
    if not folder.is_dir():
        good, their_groups = _examples(documents, settings.positive, settings.group)
        poor, other_groups = _examples(documents, settings.negative, settings.group)
        # One list of groups: a site may have documents of both kinds.
        owners = _grouped([*their_groups, *other_groups])
        model = quality.train(good, poor, groups=(owners[: len(good)], owners[len(good) :]))
        report = _held_out(model.report, [*their_groups, *other_groups]) | {"good": len(good), "poor": len(poor)}
        replace(model, report=report).save(folder)
    report = dict(quality.load(folder).report)
    context.say(f"{begin} from {report['good']:,} good and {report['poor']:,} poor; {_told(report)}")
    return Scoring(inputs, OpenQuality(folder), report)


def _examples(documents: Documents, sources: Sequence[str], group: str | None) -> tuple[list[str], list[str]]:
    """Texts, and the site or book of each, empty where it is unknown."""
    rows = [row for source in sources for row in _rows(documents, source)]
    return [text for text, _, _ in rows], [_group(url, metadata, group) for _, url, metadata in rows]


def _group(url: str | None, metadata: Mapping[str, Any], field: str | None) -> str:
    return str(metadata.get(field) or "") if field else site(url)
