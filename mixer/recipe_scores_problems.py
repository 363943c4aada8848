"""What only the whole recipe shows to be wrong with its scores and the filters that use them; reads the plain tree."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mixer.recipe_scores import COLUMNS
from mixer.recipe_yaml import Problem, Spot
from mixer.where import WhereError, parse

_KEY = "[key]"
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
    seeds = score.get("seeds")
    lists = [((*spot, key), score.get(key)) for key in ("sources", "positive", "negative")]
    lists.append(((*spot, "seeds", "sources"), seeds.get("sources") if isinstance(seeds, dict) else None))
    for where, names in lists:
        for number, name in enumerate(names) if isinstance(names, list | tuple) else ():
            if isinstance(name, str) and name not in sources:
                told = unknown("source", name, list(sources), plural="sources")
                yield Problem((*where, number), told, (*where, number))
    if seeds is not None and score.get("labels") is not None:
        told = "has no effect with `seeds`, whose documents carry their labels; remove one"
        yield Problem((*spot, "labels"), told, (*spot, "labels", _KEY))


def _where(spot: Spot, source: str, text: str, scores: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    types = {}
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
