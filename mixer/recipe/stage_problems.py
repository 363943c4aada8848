"""What only the whole recipe shows to be wrong with its stages; reads the plain tree."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mixer.recipe.scores import COLUMNS
from mixer.recipe.scores_problems import not_scored
from mixer.recipe.stage import REST
from mixer.recipe.tree import Unknown, stages_of
from mixer.recipe.yaml import Problem, Spot, show

_KEY = "[key]"
_PRESET_WORDS = ("temperature", "unimax")
_ALL = [0.0, 1.0]
Nearest = Callable[[str, Iterable[str]], str | None]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A source where a mixture names it; `topics` is what it is mixed by, if it is."""

    name: str
    mixture: Spot
    spot: Spot
    topics: Any = None


def find(tree: Mapping[str, Any], unknown: Unknown, nearest: Nearest) -> Iterator[Problem]:
    """Problems between stages, sources and scores.

    Args:
        tree: The recipe as plain values.
        unknown: Words for a name that nobody knows; `mixer.recipe.problems.unknown`.
        nearest: The known name most like another; `mixer.recipe.problems.nearest`.
    """
    sources, stages = tree.get("sources"), stages_of(tree)
    yield from _repeated_names(stages)
    yield from _resampled(stages, unknown)
    if not isinstance(sources, dict):
        return
    yield from _preset_words(sources)
    leaves = {index: list(leaves_of(stage, index, sources)) for index, stage in stages if "resample" not in stage}
    for index, own in leaves.items():
        yield from _unknown_and_repeated(own, sources, unknown)
        yield from _ordered(stages[index][1], index, own, tree, unknown)
        yield from _adapted(stages[index][1], index, own, unknown)
    yield from _unused(stages, leaves, sources, nearest, _raised(tree))
    yield from _topics(leaves, tree, unknown)
    yield from _kept(stages)
    yield from _validated(tree, sources, unknown)


def leaves_of(stage: Mapping[str, Any], index: int, sources: Mapping[str, Any]) -> Iterator[Leaf]:
    """Yield the sources that a stage names, at any depth; a preset without `sources` names all."""
    yield from _inside(stage.get("mixture"), ("stages", index, "mixture"), sources)
    replay = stage.get("replay")
    if isinstance(replay, dict):
        yield from _inside(replay.get("mixture"), ("stages", index, "replay", "mixture"), sources)


def _inside(mixture: Any, spot: Spot, sources: Mapping[str, Any]) -> Iterator[Leaf]:
    if mixture == "natural" or (isinstance(mixture, dict) and {*_PRESET_WORDS} & set(mixture)):
        named = mixture.get("sources") if isinstance(mixture, dict) else None
        for number, name in enumerate(named if isinstance(named, list) else []):
            if isinstance(name, str):
                yield Leaf(name, spot, (*spot, "sources", number))
        if named is None:
            yield from (Leaf(name, spot, spot) for name in sources)
        return
    for name, entry in mixture.items() if isinstance(mixture, dict) else ():
        if isinstance(entry, dict) and entry.get("mixture") is not None:
            yield from _inside(entry["mixture"], (*spot, name, "mixture"), sources)
        else:
            yield Leaf(name, spot, (*spot, name, _KEY), entry.get("topics") if isinstance(entry, dict) else None)


def _repeated_names(stages: list[tuple[int, Mapping[str, Any]]]) -> Iterator[Problem]:
    """Two stages of one name, a round's name among them."""
    first: dict[str, int] = {}
    for index, stage in stages:
        adapt, name = stage.get("adapt"), stage.get("name")
        rounds = adapt.get("rounds") if isinstance(adapt, dict) else None
        named = [f"{name}-{number}" for number in range(1, min(rounds, 1000) + 1)] if isinstance(rounds, int) else []
        for each in (name, *named):
            if isinstance(each, str) and first.setdefault(each, index) != index:
                spot, whose = ("stages", index, "name"), "it" if each == name else f"`{each}`"
                yield Problem(spot, f"got {show(name)}, expected another name: stages.{first[each]} has {whose}", spot)
                break


def _resampled(stages: list[tuple[int, Mapping[str, Any]]], unknown: Unknown) -> Iterator[Problem]:
    earlier: list[str] = []
    for index, stage in stages:
        resample, name = stage.get("resample"), stage.get("name")
        if isinstance(resample, dict) and isinstance(resample.get("stage"), str) and resample["stage"] not in earlier:
            spot = ("stages", index, "resample", "stage")
            told = unknown("earlier stage", resample["stage"], earlier, plural="earlier stages with a mixture")
            yield Problem(spot, told, spot)
        elif "resample" not in stage and isinstance(name, str):
            earlier.append(name)


def _preset_words(sources: Mapping[str, Any]) -> Iterator[Problem]:
    for name in sources:
        if name in _PRESET_WORDS:
            told = f"got {show(name)}, expected another name: a mixture reads it as a preset"
            yield Problem(("sources",), told, ("sources", name, _KEY))


def _unknown_and_repeated(leaves: list[Leaf], sources: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    first: dict[str, Leaf] = {}
    for leaf in leaves:
        if leaf.name not in sources:
            told = unknown("source", leaf.name, list(sources), plural="sources")
            yield Problem(leaf.mixture, told, leaf.spot)
        elif first.setdefault(leaf.name, leaf) is not leaf:
            yield Problem(leaf.mixture, f"got source `{leaf.name}` twice in one stage, expected it once", leaf.spot)


def _unused(
    stages: list[tuple[int, Mapping[str, Any]]],
    leaves: Mapping[int, list[Leaf]],
    sources: Mapping[str, Any],
    nearest: Nearest,
    raised: set[str],
) -> Iterator[Problem]:
    mixed = [stage for _, stage in stages if "resample" not in stage]
    if not mixed or not all(isinstance(stage.get("mixture"), dict | str) for stage in mixed):
        return
    used = _meant({leaf.name for own in leaves.values() for leaf in own} | raised, sources, nearest)
    # Pages that text is written from are read, though nothing trains on them.
    origins = [source.get("from") for name, source in sources.items() if name in used and isinstance(source, dict)]
    used |= _meant((origin for origin in origins if isinstance(origin, str)), sources, nearest)
    for name in sources:
        if name not in used:
            told = f"source `{name}` is in no stage's mixture"
            yield Problem(("sources", name), told, ("sources", name, _KEY))


def _meant(names: Iterable[str], sources: Mapping[str, Any], nearest: Nearest) -> set[str]:
    """The sources of these names; of a misspelt one the nearest, which has no problem of its own."""
    found = {name if name in sources else nearest(name, sources) for name in names}
    return {name for name in found if name is not None}


def _raised(tree: Mapping[str, Any]) -> set[str]:
    """Sources that a guard may draw replay from, though no stage does."""
    retention = tree.get("retention")
    guard = retention.get("guard") if isinstance(retention, dict) else None
    names = guard.get("replay") if isinstance(guard, dict) else None
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _ordered(
    stage: Mapping[str, Any], index: int, leaves: list[Leaf], tree: Mapping[str, Any], unknown: Unknown
) -> Iterator[Problem]:
    """Orders of sources that the stage does not draw from, or by a score that is not taken or is no number."""
    order, names = stage.get("order"), [leaf.name for leaf in leaves]
    for name, rule in order.items() if isinstance(order, dict) else ():
        spot = ("stages", index, "order", name)
        if names and name not in names:
            told = unknown("source", name, names, plural="sources of this stage")
            yield Problem(spot[:-1], told, (*spot, _KEY))
        elif isinstance(rule, dict) and (told := _not_a_score(rule.get("by"), name, tree)):
            yield Problem((*spot, "by"), told, (*spot, "by"))


def _not_a_score(by: Any, source: str, tree: Mapping[str, Any]) -> str:
    if not isinstance(by, str):
        return ""
    taken = tree.get("scores")
    taken = taken if isinstance(taken, dict) else {}
    numbers = {
        score if column == "value" else f"{score}.{column}": score
        for score in taken
        for column, kind in COLUMNS.get(score, {}).items()
        if kind is float
    }
    if by not in numbers:
        known = ", ".join(numbers) or "none; take one under `scores`"
        return f"got {show(by)}, expected a number of a score that is taken: {known}"
    scored = taken[numbers[by]]
    only = scored.get("sources") if isinstance(scored, dict) else None
    if isinstance(only, list) and source not in only:
        return f"got {show(by)}, expected a score of this source: {not_scored(numbers[by], source)}"
    return ""


def _adapted(stage: Mapping[str, Any], index: int, leaves: list[Leaf], unknown: Unknown) -> Iterator[Problem]:
    adapt, spot = stage.get("adapt"), ("stages", index, "adapt")
    if not isinstance(adapt, dict):
        return
    mixed = {leaf.name: leaf.topics for leaf in leaves if leaf.topics is not None}
    if not mixed:
        yield Problem(spot, "has no effect: no source of this stage is mixed by `topics`", spot)
    named = adapt.get("sources")
    yield from _moving_topics(leaves, named)
    for number, name in enumerate(named if isinstance(named, list) else []):
        if mixed and isinstance(name, str) and name not in mixed:
            told = unknown("source", name, list(mixed), plural="sources that this stage mixes by topic")
            yield Problem((*spot, "sources", number), told, (*spot, "sources", number))
    labels = {label for topics in mixed.values() if isinstance(topics, dict) for label in topics}
    weights = adapt.get("weights")
    for label in weights if isinstance(weights, dict) else ():
        if labels and label not in labels:
            told = unknown("topic", label, sorted(labels), plural="topics of this stage")
            yield Problem((*spot, "weights"), told, (*spot, "weights", label, _KEY))


def _moving_topics(leaves: list[Leaf], named: Any) -> Iterator[Problem]:
    """Ramps among topics that rounds set: after the first round nothing would be left of them."""
    for leaf in leaves:
        is_adapted = not isinstance(named, list) or leaf.name in named
        for label, weight in leaf.topics.items() if is_adapted and isinstance(leaf.topics, dict) else ():
            if isinstance(weight, dict):
                spot = (*leaf.mixture, leaf.name, "topics", label)
                yield Problem(
                    spot, f"got {show(weight)}, expected a number: `adapt` sets it after the first round", spot
                )


def _topics(leaves: Mapping[int, list[Leaf]], tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """Topics without the score, labels that it does not know, and stages that name other ones."""
    scores = tree.get("scores")
    topic = scores.get("topic") if isinstance(scores, dict) else None
    first: dict[str, tuple[int, set[str]]] = {}
    for index, own in leaves.items():
        for leaf in own:
            if leaf.topics is None:
                continue
            spot = (*leaf.mixture, leaf.name, "topics")
            if not isinstance(topic, dict):
                yield Problem(spot, "has no effect without the score `topic`; add `scores: {topic: {}}`", spot)
            elif isinstance(topic.get("sources"), list) and leaf.name not in topic["sources"]:
                yield Problem(spot, f"has no effect: scores.topic.sources does not name `{leaf.name}`", spot)
            if not isinstance(leaf.topics, dict) or {*_PRESET_WORDS} & set(leaf.topics):
                continue
            known = _labels(topic)
            strange = [label for label in leaf.topics if known and label not in {*known, REST}]
            for label in strange:
                told = unknown("topic", label, [*known, REST], plural="topics")
                yield Problem(spot, told, (*spot, label, _KEY))
            before, names = first.setdefault(leaf.name, (index, set(leaf.topics)))
            if names != set(leaf.topics) and not strange:
                told = f"got other topics of `{leaf.name}` than stages.{before}, expected {', '.join(sorted(names))}"
                yield Problem(spot, told, spot)


def _labels(topic: Any) -> list[str]:
    """The labels that the score will give; none where only its seeds know."""
    if not isinstance(topic, dict) or topic.get("seeds") is not None:
        return []
    labels = topic.get("labels")
    if labels is None:
        from mixer.disciplines import FIELDS

        return list(FIELDS)
    return [label for label in labels if isinstance(label, str)] if isinstance(labels, dict | list) else []


def _kept(stages: list[tuple[int, Mapping[str, Any]]]) -> Iterator[Problem]:
    """Stages that keep other quantiles of one source: what is left out must be the same, or it would come later."""
    first: dict[str, tuple[int, Any]] = {}
    for index, stage in stages:
        order = stage.get("order")
        for name, rule in order.items() if isinstance(order, dict) else ():
            if isinstance(rule, dict) and _is_range(rule.get("keep", _ALL)):
                own = [rule["keep"], rule.get("by")] if "keep" in rule else [_ALL, None]
                before, kept = first.setdefault(name, (index, own))
                if own != kept:
                    spot = ("stages", index, "order", name, "keep")
                    told = f"got {show(own[0])}, expected {show(kept[0])} by the same score, as in stages.{before}"
                    yield Problem(spot, told, spot)


def _is_range(keep: Any) -> bool:
    numbers = keep if isinstance(keep, list) and len(keep) == 2 else [1, 0]
    return all(isinstance(number, int | float) for number in numbers) and numbers[0] < numbers[1]


def _validated(tree: Mapping[str, Any], sources: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    validation = tree.get("validation")
    named = validation.get("sources") if isinstance(validation, dict) else None
    for number, name in enumerate(named if isinstance(named, list) else []):
        if isinstance(name, str) and name not in sources:
            spot = ("validation", "sources", number)
            yield Problem(spot, unknown("source", name, list(sources), plural="sources"), spot)
