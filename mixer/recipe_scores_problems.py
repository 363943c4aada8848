"""What only the whole recipe shows to be wrong with its scores and the filters that use them; reads the plain tree."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mixer.recipe_scores import COLUMNS
from mixer.recipe_yaml import Problem, Spot, show
from mixer.where import WhereError, parse

_KEY = "[key]"
_UNKNOWN = "unknown"
"""What `topic` calls a document of no label; no label may have that name."""
Unknown = Callable[..., str]


def find(tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """Problems between sections.

    Args:
        tree: The recipe as plain values.
        unknown: Words for a name that nobody knows; `recipe_problems.unknown`.
    """
    sources = _section(tree, "sources")
    scores = {name: score for name, score in _section(tree, "scores").items() if name in COLUMNS}
    for name, score in scores.items():
        yield from _names(("scores", name), score, list(sources), unknown)
        yield from _idle(("scores", name), score)
        if isinstance(score.get("teacher"), dict):
            yield from _teacher(("scores", name), score, tree, unknown)
    for name, source in sources.items():
        if isinstance(source.get("where"), str):
            yield from _where(("sources", name, "where"), name, source["where"], scores)


def _section(tree: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    value = tree.get(key)
    if not isinstance(value, dict):
        return {}
    return {name: part if isinstance(part, dict) else {} for name, part in value.items()}


def _names(spot: Spot, score: Mapping[str, Any], sources: Sequence[str], unknown: Unknown) -> Iterator[Problem]:
    """Sources that a score names and nobody knows."""
    lists = [((*spot, key), score.get(key)) for key in ("sources", "positive", "negative")]
    for part in ("seeds", "teacher"):
        inner = score.get(part)
        lists.append(((*spot, part, "sources"), inner.get("sources") if isinstance(inner, dict) else None))
    for where, names in lists:
        for number, name in enumerate(names) if isinstance(names, list | tuple) else ():
            if isinstance(name, str) and name not in sources:
                told = unknown("source", name, list(sources), plural="sources")
                yield Problem((*where, number), told, (*where, number))


def _idle(spot: Spot, score: Mapping[str, Any]) -> Iterator[Problem]:
    """What has no effect beside another key."""
    for key in ("teacher", "labels") if score.get("seeds") is not None else ():
        if score.get(key) is not None:
            told = "has no effect with `seeds`, whose documents carry their labels; remove one"
            yield Problem((*spot, key), told, (*spot, key, _KEY))


def _teacher(spot: Spot, score: Mapping[str, Any], tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """A model that nobody knows, nothing to draw a sample from, and labels that cannot be told apart."""
    teacher, models, labels = score["teacher"], list(_section(tree, "models")), score.get("labels")
    model, at = teacher.get("model"), (*spot, "teacher")
    if isinstance(model, str) and model not in models:
        yield Problem((*at, "model"), unknown("model", model, models, plural="models"), (*at, "model"))
    written = [name for name, source in _section(tree, "sources").items() if source.get("kind") == "synth"]
    own = teacher.get("sources")
    for number, name in enumerate(own) if isinstance(own, list | tuple) else ():
        if name in written:
            told = f"got {show(name)}, expected a source that is read, not one that is written"
            yield Problem((*at, "sources", number), told, (*at, "sources", number))
    scored = score.get("sources")
    if own is None and isinstance(scored, list | tuple) and scored and all(name in written for name in scored):
        yield Problem(at, "missing key `sources`: the score's own are all written, none can be sampled", at)
    if isinstance(labels, dict | list | tuple) and (len({*map(str, labels)}) < 2 or _UNKNOWN in labels):
        told = f"got {', '.join(map(str, labels)) or 'none'}, expected at least two labels, none of them `{_UNKNOWN}`"
        yield Problem((*spot, "labels"), told, (*spot, "labels"))


def _where(spot: Spot, source: str, text: str, scores: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    types: dict[str, type] = {}
    for name, score in scores.items():
        if score.get("sources") is None or source in score["sources"]:
            types |= columns_of(name)
    try:
        parse(text, types)
    except WhereError as error:
        missing = next((name for name in COLUMNS if name in text and name not in scores), None)
        hint = f"; add `scores: {{{missing}: ...}}` to the recipe" if missing else ""
        yield Problem(spot, f"{error.message}, at character {error.position + 1}{hint}", spot)


def columns_of(score: str) -> dict[str, type]:
    """What `where` may say of a score, and the type of each.

    Example:
        >>> columns_of("topic")
        {'topic': <class 'str'>, 'topic.probability': <class 'float'>}
    """
    return {score if column == "value" else f"{score}.{column}": kind for column, kind in COLUMNS[score].items()}
