"""What later rounds found: losses before and after each, and the topic shares that follow: `adapt/history.json`.

A build reads it, so that building again keeps the rounds that were trained. It holds for one plan: with other stages,
or other documents, it is set aside, never applied.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from mixer.plan import Revisions
from mixer.recipe.recipe import Recipe
from mixer.run import digest, read_json, write_json
from mixer.steps import Say
from mixer.types import Pool

_UNIT = 10**9
"""Shares are kept as whole numbers of this part, so that they are the same numbers whenever they are read."""


@dataclass(frozen=True, slots=True)
class Revision:
    """What one round became.

    Args:
        round: Its name in the plan, such as `adapt-2`.
        shares: Source -> pool -> share, in billionths.
        before: Pool -> validation loss when the round before it began.
        after: The same when that ended.
        factors: Pool -> what its share was multiplied by, before floor and cap.
        method: Whose losses they are: a folder of `checkpoints/`, or the files that were named.
    """

    round: str
    shares: Mapping[str, Mapping[str, int]]
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    method: str = ""


def in_parts(shares: Mapping[str, float]) -> dict[str, int]:
    """Shares as billionths."""
    return {pool: round(share * _UNIT) for pool, share in shares.items()}


def as_shares(parts: Mapping[str, int]) -> dict[str, Fraction]:
    """Billionths as exact shares that sum to one."""
    total = sum(parts.values())
    return {pool: Fraction(part, total) for pool, part in parts.items()}


def revisions_of(history: list[Revision]) -> Revisions:
    """Round -> source -> exact shares, as `plan` takes them."""
    return {one.round: {source: as_shares(parts) for source, parts in one.shares.items()} for one in history}


def read_history(run: Path, recipe: Recipe, pools: Mapping[str, Pool], say: Say) -> list[Revision]:
    """The rounds so far; none where they were found for another plan, whose history is then set aside."""
    path = run / "adapt" / "history.json"
    stored: dict[str, Any] | None = read_json(path)
    if stored is None:
        return []
    if stored["plan"] != _plan_of(recipe, pools):
        aside = path.with_name(f"history-{stored['plan'][:8]}.json")
        path.replace(aside)
        say(f"warning: the rounds in {path} were found for another plan; set aside as {aside.name}")
        return []
    return [Revision(**row) for row in stored["rounds"]]


def write_history(run: Path, recipe: Recipe, pools: Mapping[str, Pool], history: list[Revision]) -> None:
    """Write `adapt/history.json`."""
    value = {"plan": _plan_of(recipe, pools), "rounds": [asdict(one) for one in history]}
    write_json(run / "adapt" / "history.json", value)


def _plan_of(recipe: Recipe, pools: Mapping[str, Pool]) -> str:
    """A hash of all that decides the plan, and which sequences its numbers mean."""
    # Not `max_epochs` and `on_shortfall`: raising the one is what an error advises, and takes nothing from the rounds.
    keys = {"seed", "stages", "sequence_length", "validation"}
    told = recipe.model_dump(mode="json", include=keys)
    return digest([told, {name: asdict(pool) for name, pool in pools.items()}])
