"""What only the whole recipe shows to be wrong with its guard, which would never act; reads the plain tree."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mixer.recipe.retention import MOST_REPLAY
from mixer.recipe.stage_problems import Leaf, leaves_of
from mixer.recipe.tree import Unknown, stages_of
from mixer.recipe.yaml import Problem, Spot

_KEY = "[key]"
_SPOT: Spot = ("retention", "guard")


def find(tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """Problems between `retention.guard` and the slices, sources and stages that it names or needs.

    Args:
        tree: The recipe as plain values.
        unknown: Words for a name that nobody knows; `mixer.recipe.problems.unknown`.
    """
    retention = tree.get("retention")
    guard = retention.get("guard") if isinstance(retention, dict) else None
    if not isinstance(guard, dict):
        return
    if tree.get("train") is None:
        yield Problem(_SPOT, "has no effect without `train`; add it, or remove this", (*_SPOT, _KEY))
    slices = retention.get("slices") if isinstance(retention, dict) else None
    yield from _slices(guard.get("slices"), slices if isinstance(slices, dict) else {}, unknown)
    yield from _known_replay(guard, _sources(tree), unknown)
    if guard.get("on_forgetting") == "raise_replay":
        yield from _replay(guard, tree)
        yield from _all_is_replay(guard, tree)
        yield from _no_room(guard, tree)


def _slices(names: Any, slices: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """Slices that nobody knows, or of which none tells what is forgotten."""
    spot = (*_SPOT, "slices")
    listed = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    for number, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name not in slices:
            yield Problem((*spot, number), unknown("slice", name, list(slices), plural="slices"), (*spot, number))
    own = [slices[name] for name in listed if isinstance(slices.get(name), dict)]
    if own and len(own) == len(listed) and all(one.get("kind") == "domain" for one in own):
        told = "got no slice of `kind: general`, expected one at least: nothing else can be forgotten; add one"
        yield Problem(spot, told, spot)


def _sources(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    sources = tree.get("sources")
    return sources if isinstance(sources, dict) else {}


def _named(guard: Mapping[str, Any]) -> Sequence[Any]:
    names = guard.get("replay")
    return names if isinstance(names, list) else []


def _known_replay(guard: Mapping[str, Any], sources: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """Names of sources; they may stand there for a run that is told to raise replay by `--set` alone."""
    for number, name in enumerate(_named(guard)):
        if isinstance(name, str) and name not in sources:
            where = (*_SPOT, "replay", number)
            yield Problem(where, unknown("source", name, list(sources), plural="sources"), where)


def _replay(guard: Mapping[str, Any], tree: Mapping[str, Any]) -> Iterator[Problem]:
    where = (*_SPOT, "on_forgetting")
    stages = [stage for _, stage in stages_of(tree)]
    if guard.get("replay") is None and not any(stage.get("replay") for stage in stages):
        yield Problem(where, "got no stage with `replay` and no `replay` here, expected the sources to raise", where)
    odd = {str(stage.get("name")): why for stage in stages if (why := _not_plain(stage))}
    if odd:
        got = ", ".join(f"stage `{name}` with {why}" for name, why in odd.items())
        told = (
            f"got {got}, expected stages of one mixture in random order: what is left of any other has no simple rest"
            f" to plan again; use `stop` or `warn`, or take {' and '.join(dict.fromkeys(odd.values()))} out"
        )
        yield Problem(where, told, where)


def _all_is_replay(guard: Mapping[str, Any], tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Replay that is the whole mixture of every stage: there is nothing whose place it could take."""
    stages = [(index, stage) for index, stage in stages_of(tree) if "resample" not in stage]
    leaves = [list(leaves_of(stage, index, _sources(tree))) for index, stage in stages]
    own = [_of(each, "mixture") for each in leaves]
    is_named = guard.get("replay") is not None
    names = {name for name in _named(guard) if isinstance(name, str)}
    replay = names if is_named else {name for each in leaves for name in _of(each, "replay")}
    if not own or not all(mixture and mixture <= replay for mixture in own):
        return
    if is_named:
        told = "got all sources of the stages' own `mixture`, expected some of them at most: nothing is left whose"
        told += " place raised replay could take; name those alone that must not be forgotten"
    else:
        told = "got stages of nothing but each other's replay, expected some source whose place raised replay could"
        told += " take; name in `replay` those alone that must not be forgotten, or use `stop` or `warn`"
    where = (*_SPOT, "replay" if is_named else "on_forgetting")
    yield Problem(where, told, where)


def _no_room(guard: Mapping[str, Any], tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Stages that all begin with as much replay as it is ever raised to."""
    replays = [stage.get("replay") for _, stage in stages_of(tree)]
    shares = [replay.get("share") for replay in replays if isinstance(replay, dict)]
    is_full = [isinstance(share, float) and share >= MOST_REPLAY for share in shares]
    if guard.get("replay") is None and is_full and len(is_full) == len(replays) and all(is_full):
        where = (*_SPOT, "on_forgetting")
        got = " and ".join(f"{share:g}" for share in dict.fromkeys(shares))
        told = f"got stages with {got} of `replay`, expected less than {MOST_REPLAY:g} in one: it is raised no further"
        yield Problem(
            where, f"{told} than that, so the guard could do nothing; use `stop` or `warn`, or replay less", where
        )


def _of(leaves: Sequence[Leaf], part: str) -> set[str]:
    """The sources of a stage's own `mixture`, or of its `replay`."""
    return {leaf.name for leaf in leaves if leaf.spot[2] == part}


def _not_plain(stage: Mapping[str, Any]) -> str | None:
    """What makes a stage more than one mixture in random order; None for nothing."""
    replay = stage.get("replay")
    mixtures = [stage.get("mixture"), replay.get("mixture") if isinstance(replay, dict) else None]
    keys = [key for key in ("order", "adapt", "resample") if stage.get(key)]
    return next(iter([*keys, *(ramp for mixture in mixtures for ramp in _ramps(mixture))]), None)


def _ramps(mixture: Any) -> list[str]:
    if not isinstance(mixture, dict):
        return []
    values: Sequence[Any] = list(mixture.values())
    if {"from", "to"} & set(mixture):
        return ["a ramp"]
    return next((found for value in values if (found := _ramps(value))), [])
