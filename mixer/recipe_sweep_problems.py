"""What only the whole recipe shows to be wrong with its search for a mixture; reads the plain tree."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mixer.recipe_yaml import Problem, Spot

_KEY = "[key]"
Unknown = Callable[..., str]


def find(tree: Mapping[str, Any], unknown: Unknown) -> Iterator[Problem]:
    """Problems between the sweep and the stages, and keys that would have no effect.

    Args:
        tree: The recipe as plain values.
        unknown: Words for a name that nobody knows; `recipe_problems.unknown`.
    """
    sweep = tree.get("sweep")
    if not isinstance(sweep, dict):
        return
    listed = tree.get("stages")
    stages = {
        stage["name"]: stage.get("mixture")
        for stage in (listed if isinstance(listed, list) else [])
        if isinstance(stage, dict) and isinstance(stage.get("name"), str)
    }
    stage, vary = sweep.get("stage"), sweep.get("vary")
    if isinstance(stage, str) and stage not in stages:
        spot: Spot = ("sweep", "stage")
        yield Problem(spot, unknown("stage", stage, list(stages), plural="stages"), spot)
    mixture = stages.get(stage) if isinstance(stage, str) else None
    own = next(
        (
            each
            for each in (listed if isinstance(listed, list) else [])
            if isinstance(each, dict) and each.get("name") == stage
        ),
        {},
    )
    if own and not _is_plain(own):
        told = "got a stage with more than numbers in its mixture, expected source -> weight, without replay or rounds"
        yield Problem(("sweep", "stage"), told, ("sweep", "stage"))
    elif isinstance(mixture, dict):
        yield from _mixture(list(mixture), vary, unknown)
    yield from _question(sweep, vary)


def _is_plain(stage: Mapping[str, Any]) -> bool:
    """Whether a stage's mixture is source -> weight and nothing more, which is what a sweep varies."""
    mixture = stage.get("mixture")
    numbers = mixture.values() if isinstance(mixture, dict) else [None]
    return (
        all(isinstance(value, int | float) for value in numbers) and not stage.get("replay") and not stage.get("adapt")
    )


def _mixture(names: list[str], vary: Any, unknown: Unknown) -> Iterator[Problem]:
    if len(names) == 1:
        told = f"got a stage with one source, `{names[0]}`, expected several to choose weights for"
        yield Problem(("sweep", "stage"), told, ("sweep", "stage"))
        return
    varied = vary.get("sources") if isinstance(vary, dict) and vary.get("kind") == "share" else None
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
