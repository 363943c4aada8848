"""What only the whole recipe shows to be wrong with its scores and the filters that use them; reads the plain tree."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mixer.recipe.scores import COLUMNS
from mixer.recipe.tree import Unknown
from mixer.recipe.yaml import Problem, Spot, show
from mixer.where import parse
from mixer.where_tokens import WhereError

_KEY = "[key]"
_EXAMPLES = ("positive", "negative")
_COLUMN = re.compile(r"\w+(?:\.\w+)?")
_UNKNOWN = "unknown"
"""What `topic` calls a document of no label; no label may have that name."""


def find(tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """Problems between sections.

    Args:
        tree: The recipe as plain values.
        unknown: Words for a name that nobody knows; `mixer.recipe.problems.unknown`.
    """
    sources = _section(tree, "sources")
    written = [name for name, source in sources.items() if source.get("kind") == "synth"]
    scores = {name: score for name, score in _section(tree, "scores").items() if name in COLUMNS}
    for name, score in scores.items():
        yield from _names(("scores", name), score, list(sources), unknown)
        yield from _read_only(("scores", name), score, written)
        yield from _idle(("scores", name), score)
        if isinstance(score.get("teacher"), dict):
            yield from _teacher(("scores", name), score, tree, written, unknown)
    yield from _labels(("scores", "topic", "labels"), scores.get("topic", {}).get("labels"))
    yield from _both(("scores", "quality"), scores.get("quality", {}))
    for name, source in sources.items():
        if isinstance(source.get("where"), str):
            yield from _where(("sources", name, "where"), name, source["where"], scores)


def _section(tree: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    value = tree.get(key)
    if not isinstance(value, dict):
        return {}
    return {name: part if isinstance(part, dict) else {} for name, part in value.items()}


def _lists(spot: Spot, score: Mapping[str, Any]) -> Iterator[tuple[Spot, list[str]]]:
    """The lists of sources that a score has, and where."""
    found = [((*spot, key), score.get(key)) for key in ("sources", *_EXAMPLES)]
    for part in ("seeds", "teacher"):
        inner = score.get(part)
        found.append(((*spot, part, "sources"), inner.get("sources") if isinstance(inner, dict) else None))
    for where, names in found:
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            yield where, list(names)


def _names(spot: Spot, score: Mapping[str, Any], sources: Sequence[str], unknown: Unknown) -> Iterator[Problem]:
    """Sources that a score names and nobody knows, or names twice."""
    for where, names in _lists(spot, score):
        for number, name in enumerate(names):
            if name not in sources:
                told = unknown("source", name, list(sources), plural="sources")
                yield Problem((*where, number), told, (*where, number))
            elif name in names[:number]:
                yield Problem((*where, number), f"got {show(name)} twice, expected each once", (*where, number))


def _read_only(spot: Spot, score: Mapping[str, Any], written: Sequence[str]) -> Iterator[Problem]:
    """Sources to learn from that are not there yet when it is learned."""
    for where, names in _lists(spot, score):
        for number, name in enumerate(names if where != (*spot, "sources") else []):
            if name in written:
                told = f"got {show(name)}, expected a source that is read, not one that is written"
                yield Problem((*where, number), told, (*where, number))


def _both(spot: Spot, score: Mapping[str, Any]) -> Iterator[Problem]:
    """Sources that are called good and poor."""
    found = {where[-1]: names for where, names in _lists(spot, score)}
    for number, name in enumerate(found.get("negative", [])):
        if name in found.get("positive", []):
            where = (*spot, "negative", number)
            yield Problem(where, f"got {show(name)}, which `positive` names too, expected another source", where)


def _labels(spot: Spot, labels: Any) -> Iterator[Problem]:
    """Labels that cannot be told apart."""
    if not isinstance(labels, dict | list | tuple):
        return
    names = list(map(str, labels))
    if len(set(names)) < 2 or _UNKNOWN in names:
        told = f"got {', '.join(names) or 'none'}, expected at least two labels, none of them `{_UNKNOWN}`"
        yield Problem(spot, told, spot)
    elif repeated := next((name for number, name in enumerate(names) if name in names[:number]), None):
        yield Problem(spot, f"got {show(repeated)} twice, expected each label once", spot)


def _idle(spot: Spot, score: Mapping[str, Any]) -> Iterator[Problem]:
    """What has no effect beside another key."""
    for key in ("teacher", "labels") if score.get("seeds") is not None else ():
        if score.get(key) is not None:
            told = "has no effect with `seeds`, whose documents carry their labels; remove one"
            yield Problem((*spot, key), told, (*spot, key, _KEY))


def _teacher(
    spot: Spot, score: Mapping[str, Any], tree: Mapping[str, Any], written: Sequence[str], unknown: Unknown
) -> Iterator[Problem]:
    """A model that nobody knows, and nothing to draw a sample from."""
    teacher, models = score["teacher"], list(_section(tree, "models"))
    model, at = teacher.get("model"), (*spot, "teacher")
    if isinstance(model, str) and model not in models:
        yield Problem((*at, "model"), unknown("model", model, models, plural="models"), (*at, "model"))
    scored = score.get("sources")
    if (
        teacher.get("sources") is None
        and isinstance(scored, list | tuple)
        and scored
        and all(name in written for name in scored)
    ):
        yield Problem(at, "missing key `sources`: the score's own are all written, none can be sampled", at)


def _where(spot: Spot, source: str, text: str, scores: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    lists = {name: score.get("sources") for name, score in scores.items()}
    here = [name for name, only in lists.items() if not isinstance(only, list | tuple) or source in only]
    types = {column: kind for name in here for column, kind in columns_of(name).items()}
    try:
        parse(text, types, {"topic": known} if (known := _known(scores.get("topic", {}))) else None)
    except WhereError as error:
        refused = _COLUMN.match(text, error.position)
        score = refused[0].partition(".")[0] if refused else ""
        told = f"{error.message}, at character {error.position + 1}"
        if score in scores and score not in here:
            told = f"got {show(score)}, expected a score of this source: {not_scored(score, source)}"
        elif score in COLUMNS and score not in scores:
            told += f"; add `scores: {{{score}: ...}}` to the recipe"
        yield Problem(spot, told, spot)


def _known(topic: Mapping[str, Any]) -> list[str]:
    """The labels that documents can have; none where the documents of the recipe name them."""
    from mixer.disciplines import FIELDS

    labels = topic.get("labels")
    if topic.get("seeds") is not None or not isinstance(labels, dict | list | tuple | None):
        return []
    return [*(FIELDS if labels is None else map(str, labels)), _UNKNOWN]


def not_scored(score: str, source: str) -> str:
    """Why a source has no values of a score that is taken."""
    return f"scores.{score}.sources does not name `{source}`"


def columns_of(score: str) -> dict[str, type]:
    """What `where` may say of a score, and the type of each.

    Example:
        >>> columns_of("topic")
        {'topic': <class 'str'>, 'topic.probability': <class 'float'>}
    """
    return {score if column == "value" else f"{score}.{column}": kind for column, kind in COLUMNS[score].items()}
