"""What only the whole recipe shows to be wrong with its retention; reads the plain tree."""

import math
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from mixer.recipe import guard_problems
from mixer.recipe.retention import TASK_FILES, Retention, Slice
from mixer.recipe.section import Section, parse_count
from mixer.recipe.stage import REST
from mixer.recipe.stage_problems import leaves_of
from mixer.recipe.tree import Unknown, members_of, stages_by_name, stages_of
from mixer.recipe.yaml import Problem, Spot, show
from mixer.shipped import templates

_KEY = "[key]"
_WRAPPERS = {".gz", ".zst"}
KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".txt": "text", ".md": "text"}
"""Ending of a slice's file -> kind of source that reads it."""
_OF_FILES = ("field", "format", "split")
_BEYOND = 5


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
    yield from _draws(retention)
    yield from _tasks(retention.get("tasks"), unknown)
    yield from guard_problems.find(tree, unknown)


def _draws(retention: Mapping[str, Any]) -> Iterator[Problem]:
    """An interval that would end at one of its last few draws, which is no bound of that confidence."""
    fields = Retention.model_fields
    sure, draws = (retention.get(key, fields[key].default) for key in ("confidence", "replicates"))
    if not isinstance(sure, float) or not isinstance(draws, int) or not 0.5 <= sure < 1.0:
        return
    least = math.ceil(round(_BEYOND / (1.0 - sure), 6))
    if draws < least:
        spot: Spot = ("retention", "replicates" if "replicates" in retention else "confidence")
        told = f"got {draws:,} draws at a confidence of {sure:g}, expected {least:,} at least"
        yield Problem(spot, f"{told}: {_BEYOND} of them must lie beyond the bound", spot)


def _slice(spot: Spot, own: Mapping[str, Any], tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    path, source = own.get("path"), own.get("source")
    if (path is None) == (source is None):
        yield Problem(spot, "expected either `path` (files) or `source` (what is held out of it)", spot)
        return
    if source is not None:
        yield from _held_out(spot, own, tree, unknown)
    else:
        yield from _files(spot, own)
        yield from _trained(spot, own, tree)
    yield from _sizes(spot, own)
    stages = stages_by_name(tree)
    if isinstance(own.get("stage"), str) and own["stage"] not in stages:
        where = (*spot, "stage")
        yield Problem(where, unknown("stage", own["stage"], list(stages), plural="stages"), where)


def _held_out(spot: Spot, own: Mapping[str, Any], tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    sources, where = tree.get("sources"), (*spot, "source")
    known = list(sources) if isinstance(sources, dict) else []
    if own["source"] not in known:
        yield Problem(where, unknown("source", str(own["source"]), known, plural="sources"), where)
    elif members_of(tree, "sources").get(own["source"], {}).get("kind") == "tokens":
        yield Problem(where, f"got {show(own['source'])}, which holds token ids, no text to measure", where)
    elif tree.get("validation") is None:
        told = "got no `validation` in the recipe, expected one: it holds documents out; add `validation: {}`"
        yield Problem(where, told, where)
    else:
        yield from _kept_out(spot, own, tree)
        yield from _topic(spot, own, tree, unknown)
    for key in _OF_FILES:
        if _is_said(own, key, Slice):
            yield Problem((*spot, key), "has no effect with `source`, but with `path`; remove it", (*spot, key, _KEY))


def _kept_out(spot: Spot, own: Mapping[str, Any], tree: Mapping[str, Any]) -> Iterator[Problem]:
    """A source of which `validation` holds nothing out."""
    validation = tree["validation"]
    named = validation.get("sources") if isinstance(validation, dict) else None
    if isinstance(named, list) and own["source"] not in named:
        told = f"got {show(own['source'])}, expected one that `validation.sources` names: nothing is held out of others"
        yield Problem((*spot, "source"), f"{told}; add it there", (*spot, "source"))


def _topic(spot: Spot, own: Mapping[str, Any], tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """A topic of a source that no stage mixes by topic, or of one that is mixed by others."""
    if own.get("topic") is None:
        return
    where, sources = (*spot, "topic"), members_of(tree, "sources")
    stages = [(index, stage) for index, stage in stages_of(tree) if "resample" not in stage]
    leaves = [leaf for index, stage in stages for leaf in leaves_of(stage, index, sources)]
    mixed = [leaf.topics for leaf in leaves if leaf.name == own["source"] and leaf.topics is not None]
    if not mixed:
        told = f"has no effect: no stage mixes `{own['source']}` by `topics`; remove it, or mix it by topic"
        yield Problem(where, told, (*where, _KEY))
    elif all(isinstance(topics, dict) and not {"temperature", "unimax"} & set(topics) for topics in mixed):
        known = list(dict.fromkeys([*(label for topics in mixed for label in topics), REST]))
        if isinstance(own["topic"], str) and own["topic"] not in known:
            yield Problem(where, unknown("topic", own["topic"], known, plural="topics"), where)


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


def _trained(spot: Spot, own: Mapping[str, Any], tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Files that a source names in the same words; `mixer.held_out` finds those that other words name."""
    read = {path: name for name, source in members_of(tree, "sources").items() for path in _paths(source)}
    for path in _paths(own):
        if path in read:
            told = f"got {show(path)}, which source `{read[path]}` reads too, expected text that is not trained on;"
            told += f" name other files, or what `validation` holds out of it: `source: {read[path]}`"
            yield Problem((*spot, "path"), told, (*spot, "path"))
            return


def _paths(own: Mapping[str, Any]) -> list[str]:
    path = own.get("path")
    return [each for each in (path if isinstance(path, list) else [path]) if isinstance(each, str)]


def _sizes(spot: Spot, own: Mapping[str, Any]) -> Iterator[Problem]:
    """Documents that would have to be longer than they may be."""
    least, most = (own.get(key, Slice.model_fields[key].default) for key in ("min_bytes", "max_bytes"))
    try:
        counts = parse_count(least), parse_count(most)
    except ValueError:
        return
    if counts[0] > counts[1] > 0:
        key, other = ("min_bytes", "at most the {1:,} of `max_bytes`")
        if "min_bytes" not in own:
            key, other = ("max_bytes", "at least the {0:,} of `min_bytes`")
        told = f"got {show(own[key])}, expected {other.format(*counts)}: no document would be long enough"
        yield Problem((*spot, key), told, (*spot, key))


def _is_said(own: Mapping[str, Any], key: str, section: type[Section]) -> bool:
    """Whether a key says anything; a Run's recipe has every default written out."""
    return key in own and own[key] != section.model_fields[key].default


def _what(key: str) -> str:
    return {"field": "plain text files", "split": "files with rows", "topic": "files, but with `source`"}[key]


def _tasks(tasks: Any, unknown: Unknown) -> Iterator[Problem]:
    seen: set[str] = set()
    for number, task in enumerate(tasks if isinstance(tasks, list) else ()):
        template = task.get("template") if isinstance(task, dict) else None
        if not isinstance(template, str):
            continue
        spot: Spot = ("retention", "tasks", number)
        if not template.endswith(TASK_FILES) and template not in templates():
            told = unknown("template", template, templates(), plural="templates")
            or_file = "" if told.endswith("?") else "; or a task file, which ends in .yaml"
            yield Problem((*spot, "template"), told + or_file, (*spot, "template"))
        name = task["name"] if isinstance(task.get("name"), str) else PurePosixPath(template).stem
        if name in seen:
            yield Problem(spot, f"got two tasks `{name}`, expected a name for each; add `name`", (*spot, "name"))
        seen.add(name)
