"""What only the whole recipe shows to be wrong with its retention; reads the plain tree."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from mixer.recipe.retention import Slice
from mixer.recipe.section import Section
from mixer.recipe.tree import Unknown, stages_by_name, stages_of
from mixer.recipe.yaml import Problem, Spot

_KEY = "[key]"
_WRAPPERS = {".gz", ".zst"}
KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".txt": "text", ".md": "text"}
"""Ending of a slice's file -> kind of source that reads it."""
_OF_FILES = ("field", "format", "split")


def kind_of(path: str) -> str | None:
    """The kind of source that reads a slice's file; None for an ending that is not known.

    Example:
        >>> kind_of("evals/wikitext.txt.zst")
        'text'
    """
    name = PurePosixPath(path)
    if name.suffix in _WRAPPERS:
        name = name.with_suffix("")
    return KINDS.get(name.suffix)


def find(tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """Problems between `retention` and the rest of the recipe, and keys that would have no effect.

    Args:
        tree: The recipe as plain values.
        unknown: Words for a name that nobody knows; `mixer.recipe.problems.unknown`.
    """
    retention = tree.get("retention")
    if not isinstance(retention, dict):
        return
    slices = retention.get("slices")
    slices = slices if isinstance(slices, dict) else {}
    for name, own in slices.items():
        if isinstance(own, dict):
            yield from _slice(("retention", "slices", name), own, tree, unknown)
    kinds = [own.get("kind", "general") for own in slices.values() if isinstance(own, dict)]
    if slices and "general" not in kinds:
        told = "got no slice of `kind: general`, expected one at least: what must be kept"
        yield Problem(("retention", "slices"), told, ("retention", "slices"))
    if retention.get("least_gain") is not None and "domain" not in kinds:
        spot: Spot = ("retention", "least_gain")
        yield Problem(spot, "has no effect without a slice of `kind: domain`; remove it, or add one", (*spot, _KEY))
    yield from _names(retention.get("tasks"))
    if isinstance(retention.get("guard"), dict):
        yield from _guard(retention["guard"], slices, tree, unknown)


def _slice(spot: Spot, own: Mapping[str, Any], tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    path, source = own.get("path"), own.get("source")
    if (path is None) == (source is None):
        yield Problem(spot, "expected either `path` (files) or `source` (what is held out of it)", spot)
        return
    if source is not None:
        yield from _held_out(spot, own, tree, unknown)
    else:
        yield from _files(spot, own)
    stages = stages_by_name(tree)
    if isinstance(own.get("stage"), str) and own["stage"] not in stages:
        where = (*spot, "stage")
        yield Problem(where, unknown("stage", own["stage"], list(stages), plural="stages"), where)


def _held_out(spot: Spot, own: Mapping[str, Any], tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    sources = tree.get("sources")
    known = list(sources) if isinstance(sources, dict) else []
    if own["source"] not in known:
        where = (*spot, "source")
        yield Problem(where, unknown("source", str(own["source"]), known, plural="sources"), where)
    elif tree.get("validation") is None:
        told = "got no `validation` in the recipe, expected one: it holds documents out; add `validation: {}`"
        yield Problem((*spot, "source"), told, (*spot, "source"))
    for key in _OF_FILES:
        if _is_said(own, key, Slice):
            yield Problem((*spot, key), "has no effect with `source`, but with `path`; remove it", (*spot, key, _KEY))


def _files(spot: Spot, own: Mapping[str, Any]) -> Iterator[Problem]:
    paths = own["path"] if isinstance(own["path"], list) else [own["path"]]
    kinds = {path: kind_of(path) for path in paths if isinstance(path, str)}
    odd = [path for path, kind in kinds.items() if kind is None]
    if odd:
        told = f"got {odd[0]!r}, expected files that end in {', '.join(KINDS)}, also .gz or .zst"
        yield Problem((*spot, "path"), told, (*spot, "path"))
    elif len(set(kinds.values())) > 1:
        told = "got files of several kinds, expected one kind; name another slice for the others"
        yield Problem((*spot, "path"), told, (*spot, "path"))
    is_text = set(kinds.values()) == {"text"}
    without = {"field": is_text, "split": bool(kinds) and not is_text and None not in kinds.values(), "topic": True}
    for key, has_none in without.items():
        if has_none and _is_said(own, key, Slice):
            yield Problem((*spot, key), f"has no effect on {_what(key)}; remove it", (*spot, key, _KEY))


def _is_said(own: Mapping[str, Any], key: str, section: type[Section]) -> bool:
    """Whether a key says anything; a Run's recipe has every default written out."""
    return key in own and own[key] != section.model_fields[key].default


def _what(key: str) -> str:
    return {"field": "plain text files", "split": "files with rows", "topic": "files, but with `source`"}[key]


def _names(tasks: Any) -> Iterator[Problem]:
    seen: set[str] = set()
    for number, task in enumerate(tasks if isinstance(tasks, list) else ()):
        if not isinstance(task, dict):
            continue
        name = task.get("name") or task.get("template")
        if isinstance(name, str) and name in seen:
            told = f"got two tasks `{name}`, expected a name for each; add `name`"
            yield Problem(("retention", "tasks", number), told, ("retention", "tasks", number, "name"))
        seen.add(str(name))


def _guard(
    guard: Mapping[str, Any], slices: Mapping[str, Any], tree: Mapping[str, Any], unknown: Unknown
) -> Iterator[Problem]:
    spot: Spot = ("retention", "guard")
    if tree.get("train") is None:
        yield Problem(spot, "has no effect without `train`; add it, or remove this", (*spot, _KEY))
    names = guard.get("slices")
    for number, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name not in slices:
            where = (*spot, "slices", number)
            yield Problem(where, unknown("slice", name, list(slices), plural="slices"), where)
    yield from _known_replay(spot, guard, tree, unknown)
    if guard.get("on_forgetting") == "raise_replay":
        yield from _replay(spot, guard, tree)


def _known_replay(spot: Spot, guard: Mapping[str, Any], tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """Names of sources; they may stand there for a run that is told to raise replay by `--set` alone."""
    names, sources = guard.get("replay"), tree.get("sources")
    known = list(sources) if isinstance(sources, dict) else []
    for number, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name not in known:
            where = (*spot, "replay", number)
            yield Problem(where, unknown("source", name, known, plural="sources"), where)


def _replay(spot: Spot, guard: Mapping[str, Any], tree: Mapping[str, Any]) -> Iterator[Problem]:
    where = (*spot, "on_forgetting")
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
