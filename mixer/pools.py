"""Which pools a recipe draws from: a source whole, or by topic, without what is held out or left out by quantile."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mixer.mixture import exact
from mixer.recipe.recipe import Recipe
from mixer.recipe.stage import REST, Mixture, Order, Part, Preset, Stage
from mixer.types import Pool


@dataclass(frozen=True, slots=True)
class PackRule:
    """How a source is packed, as its stages ask for it.

    Args:
        by: The score that gives the order of documents, such as `perplexity.loss`, or None for a shuffle.
        topics: Labels packed apart, the rest together; none where topics do not matter.
        is_by_label: Every label is packed apart, whatever labels there are.
        held_out: Sequences to keep out of training, of each topic.
    """

    by: str | None = None
    topics: tuple[str, ...] = ()
    is_by_label: bool = False
    held_out: int = 0


def pack_rule(recipe: Recipe, source: str) -> PackRule:
    """How the stages of a recipe want a source packed; the first that orders it decides by which score."""
    orders = orders_of(recipe, source)
    mixed = [part.topics for part in _parts(recipe) if part.name == source and part.topics is not None]
    named = [topics for topics in mixed if not isinstance(topics, Preset)]
    validation = recipe.validation
    is_held_out = validation is not None and (validation.sources is None or source in validation.sources)
    return PackRule(
        by=orders[0].by if orders else None,
        topics=tuple(label for label in named[0] if label != REST) if named else (),
        is_by_label=bool(mixed) and not named,
        held_out=validation.sequences if validation is not None and is_held_out else 0,
    )


def orders_of(recipe: Recipe, source: str) -> list[Order]:
    """The orders that stages give a source, stage by stage."""
    return [stage.order[source] for stage in recipe.mixed_stages if source in stage.order]


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    topics: Any


def _parts(recipe: Recipe) -> Iterator[_Named]:
    for stage in recipe.mixed_stages:
        yield from _named(stage.mixture)
        if stage.replay is not None:
            yield from _named(stage.replay.mixture)


def _named(mixture: Mixture) -> Iterator[_Named]:
    for name, entry in () if isinstance(mixture, Preset) else mixture.items():
        if isinstance(entry, Part) and entry.mixture is not None:
            yield from _named(entry.mixture)
        elif isinstance(entry, Part):
            yield _Named(name, entry.topics)


def topic_sources(stage: Stage) -> list[str]:
    """The sources that a stage mixes by topic."""
    parts = [*_named(stage.mixture), *(_named(stage.replay.mixture) if stage.replay else ())]
    return [part.name for part in parts if part.topics is not None]


def pools_of(recipe: Recipe, indexes: Mapping[str, Mapping[str, Any]]) -> dict[str, Pool]:
    """The pools that packed sources hold, by name, in the recipe's order.

    Args:
        recipe: The recipe.
        indexes: Source -> what its `index.json` says.
    """
    found = [pool for name in recipe.sources for pool in source_pools(recipe, name, indexes[name])]
    return {pool.name: pool for pool in found}


def source_pools(recipe: Recipe, source: str, index: Mapping[str, Any]) -> Iterator[Pool]:
    """Yield the pools of one packed source: what is not held out, within the quantiles that its stages keep."""
    for part in index["parts"]:
        if not part["held_out"]:
            first, last = _kept(recipe, source, part["sequences"])
            yield Pool(source, part["topic"], part["first_sequence"] + first, last - first)


def _kept(recipe: Recipe, source: str, sequences: int) -> tuple[int, int]:
    """The first and the end of the sequences that lie within the quantiles."""
    orders = orders_of(recipe, source)
    low, high = orders[0].keep if orders else (0.0, 1.0)
    first, last = math.ceil(exact(low) * sequences), math.floor(exact(high) * sequences)
    return first, max(first, last)


def is_packed_by(rule: PackRule, index: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a source's shards lie as a rule wants them, as far as their pools go."""
    if (index["sequence_length"], index["packing"]) != (recipe.sequence_length, recipe.packing):
        return False
    labels = [part["topic"] for part in index["parts"] if not part["held_out"]]
    if any(part["held_out"] for part in index["parts"]) != bool(rule.held_out):
        return False
    if rule.is_by_label:
        return None not in labels
    return labels == ([*rule.topics, REST] if rule.topics else [None])


def guessed_pools(recipe: Recipe, source: str, sequences: int) -> Iterator[Pool]:
    """Yield the pools of a source that is not packed yet, all of one size where topics are not known."""
    rule = pack_rule(recipe, source)
    labels: tuple[str | None, ...] = (*rule.topics, REST) if rule.topics else (None,)
    for label in labels:
        first, last = _kept(recipe, source, sequences // len(labels))
        yield Pool(source, label, first, last - first)
