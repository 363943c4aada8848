"""What only the whole recipe shows to be wrong with its search for a mixture; reads the plain tree."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mixer.recipe.section import Count
from mixer.recipe.tree import Unknown, stages_by_name
from mixer.recipe.yaml import Problem, Spot

_REPLAY = "replay"


def find(tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """Problems between the sweep and the stages, and keys that would have no effect.

    Args:
        tree: The recipe as plain values.
        unknown: Words for a name that nobody knows; `mixer.recipe.problems.unknown`.
    """
    sweep = tree.get("sweep")
    if not isinstance(sweep, dict):
        return
    stages = stages_by_name(tree)
    name, vary = sweep.get("stage"), sweep.get("vary")
    spot: Spot = ("sweep", "stage")
    if isinstance(name, str) and name not in stages:
        yield Problem(spot, unknown("stage", name, list(stages), plural="stages"), spot)
    stage = stages.get(name, {}) if isinstance(name, str) else {}
    replay = stage.get("replay")
    if isinstance(replay, dict) and _is_of_replay(vary, replay):
        if not _is_plain(stage, presets=True) or not _is_plain(replay, presets=True):
            yield Problem(spot, "got a stage with more than numbers or presets in its mixtures, expected no more", spot)
    elif replay:
        told = "got a stage with `replay`, expected `vary: {kind: share, sources: replay}` with it"
        yield Problem(spot, told, spot)
    elif stage and not _is_plain(stage, presets=False):
        told = "got a stage with more than numbers in its mixture, expected source -> weight, without rounds"
        yield Problem(spot, told, spot)
    elif isinstance(vary, dict) and vary.get("sources") == _REPLAY and stage:
        yield Problem(
            ("sweep", "vary", "sources"), f"got 'replay', stage `{name}` has none", ("sweep", "vary", "sources")
        )
    elif stage:
        yield from _mixture(list(stage["mixture"]), vary, unknown)
    yield from _question(sweep, vary)
    yield from _budget(sweep)


def _is_of_replay(vary: Any, replay: Mapping[str, Any]) -> bool:
    """Whether the share that varies is that of a stage's replay, by the word or by all of its sources."""
    if not isinstance(vary, dict) or vary.get("kind") != "share":
        return False
    named, mixture = vary.get("sources"), replay.get("mixture")
    if named == _REPLAY:
        return True
    own = mixture.get("sources") if _is_preset(mixture) and isinstance(mixture, dict) else mixture
    return isinstance(named, list) and isinstance(own, dict | list) and set(map(str, named)) == set(map(str, own))


def _is_preset(mixture: Any) -> bool:
    return isinstance(mixture, str) or (isinstance(mixture, dict) and bool({"temperature", "unimax"} & set(mixture)))


def _is_plain(stage: Mapping[str, Any], *, presets: bool) -> bool:
    """Whether a mixture is source -> weight (or a preset) and nothing more, which is what a sweep varies."""
    mixture = stage.get("mixture")
    if _is_preset(mixture):
        return presets and not stage.get("adapt")
    numbers = mixture.values() if isinstance(mixture, dict) else [None]
    return all(isinstance(value, int | float) for value in numbers) and not stage.get("adapt")


def _budget(sweep: Mapping[str, Any]) -> Iterator[Problem]:
    """A budget that is spent before the first run ends."""
    most, each = (_tokens(sweep.get(key)) for key in ("max_tokens", "tokens_per_run"))
    if most is not None and each is not None and most < each:
        told = f"got {sweep['max_tokens']}, expected at least the {sweep['tokens_per_run']} of one run"
        yield Problem(("sweep", "max_tokens"), told, ("sweep", "max_tokens"))


def _tokens(value: Any) -> int | None:
    try:
        return TypeAdapter(Count).validate_python(value)
    except ValidationError:
        return None


def _mixture(names: list[str], vary: Any, unknown: Unknown) -> Iterator[Problem]:
    if len(names) == 1:
        told = f"got a stage with one source, `{names[0]}`, expected several to choose weights for"
        yield Problem(("sweep", "stage"), told, ("sweep", "stage"))
        return
    kind = vary.get("kind") if isinstance(vary, dict) else None
    tried = vary.get("mixtures") if kind == "weights" else None
    if isinstance(tried, int) and tried < len(names) + 3:
        told = f"got {tried}, expected at least {len(names) + 3}: three more than the stage has sources"
        yield Problem(("sweep", "vary", "mixtures"), told, ("sweep", "vary", "mixtures"))
    varied = vary.get("sources") if kind == "share" else None
    spot: Spot = ("sweep", "vary", "sources")
    if not isinstance(varied, list):
        return
    for number, name in enumerate(varied):
        if isinstance(name, str) and name not in names:
            told = unknown("source", name, names, plural="sources of the stage")
            yield Problem((*spot, number), told, (*spot, number))
    if set(names) <= {name for name in varied if isinstance(name, str)}:
        yield Problem(spot, "got all sources of the stage, expected some, whose share against the rest varies", spot)


def _question(sweep: Mapping[str, Any], vary: Any) -> Iterator[Problem]:
    kind = vary.get("kind") if isinstance(vary, dict) else None
    if not sweep.get("targets") and (not sweep.get("keep") or kind == "weights"):
        what = "`targets`, the slices whose loss should fall" + (", or `keep`" if kind == "share" else "")
        yield Problem(("sweep",), f"missing key {what}", ("sweep", "targets"))
    grid = vary.get("grid") if isinstance(vary, dict) else None
    if isinstance(grid, list) and len(set(map(str, grid))) < len(grid):
        spot: Spot = ("sweep", "vary", "grid")
        yield Problem(spot, "got a share twice, expected each once; `seeds` repeats runs", spot)
