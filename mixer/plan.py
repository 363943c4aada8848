"""Token budgets in whole sequences, exactly: what each source gives to each stage, or why it cannot.

Weights are relative and count tokens. A stage of budget B holds floor(B / sequence_length) sequences; they are
split by largest remainder (Hamilton), in rational arithmetic, so the sum is exact and no float is ever rounded.
"""

import math
from collections.abc import Iterable, Mapping, Set
from fractions import Fraction

from mixer.errors import PlanError
from mixer.recipe import Recipe, Stage
from mixer.types import Plan, Share, StagePlan


def allocate(weights: Mapping[str, float], *, sequences: int) -> dict[str, int]:
    """Split a number of sequences over sources by largest remainder; the parts sum to it exactly.

    Args:
        weights: Source name -> relative weight, > 0, any scale.
        sequences: How many to hand out.

    Returns:
        Source name -> sequences, in the order of `weights`. Equal remainders go by name.

    Example:
        >>> allocate({"web": 5, "code": 3, "qa": 2}, sequences=9)
        {'web': 4, 'code': 3, 'qa': 2}
    """
    exact = _exact(weights)
    whole = {name: int(share * sequences) for name, share in exact.items()}
    rest = sequences - sum(whole.values())
    for name in sorted(exact, key=lambda name: (whole[name] - exact[name] * sequences, name))[:rest]:
        whole[name] += 1
    return whole


def plan(recipe: Recipe, available: Mapping[str, int], *, estimated: Iterable[str] = ()) -> Plan:
    """The recipe's stages in whole sequences, within `max_epochs` of every source.

    Args:
        recipe: The recipe.
        available: Source name -> whole sequences that one epoch holds.
        estimated: Names whose `available` was sampled or declared, not counted.

    Raises:
        PlanError: A budget below one sequence, a source that gets or has none, or a source that would pass
            `max_epochs`; every such problem at once, with the remedy computed.
    """
    used = dict.fromkeys(available, 0)
    stages: list[StagePlan] = []
    problems: list[str] = []
    warnings: list[str] = []
    for index, stage in enumerate(recipe.stages):
        wanted = allocate(stage.mixture, sequences=stage.token_budget // recipe.sequence_length)
        where = f"stages.{index} ({stage.name})"
        # How much a model writes that is accepted is not known before; where others may fill in, it may be nothing.
        excused = set(recipe.synth_sources) if recipe.on_shortfall == "redistribute" else set()
        found = [f"{where}: {text}" for text in _empty(stage, wanted, available, recipe.sequence_length, excused)]
        room = {name: max(0, _room(available[name], recipe.max_epochs) - used[name]) for name in stage.mixture}
        short = [name for name in wanted if wanted[name] > room[name]]
        if found:
            problems += found
        elif short and recipe.on_shortfall == "fail":
            problems += [f"{where}: {_shortfall(recipe, stage, n, wanted, available, used)}" for n in short]
        elif short:
            wanted = _fit(recipe, stage, wanted, room, where, problems, warnings)
            problems += [
                f"{where}: source `{name}` is used up: 0 sequences are left within max_epochs {recipe.max_epochs:g}"
                for name, count in wanted.items()
                if count == 0 and name not in excused
            ]
            warnings += [
                f"{where}: `{n}` has no whole sequence left and gets none" for n in excused if wanted.get(n) == 0
            ]
        for name, count in wanted.items():
            used[name] += count
        stages.append(_stage_plan(stage, wanted, used, available, recipe.sequence_length))
    if problems:
        raise PlanError("\n".join(problems), hint=_HINTS[recipe.on_shortfall])
    return Plan(
        stages=tuple(stages),
        available=dict(available),
        sequence_length=recipe.sequence_length,
        estimated=frozenset(estimated),
        warnings=(*warnings, *_repeats(used, available)),
    )


_HINTS = {
    "fail": "change the numbers above, add data, or set `on_shortfall: cap` or `redistribute`",
    "cap": "add data, raise `max_epochs` or cut the token budget",
    "redistribute": "add data, raise `max_epochs` or cut the token budget",
}


def _exact(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Weights as exact fractions of one; a decimal such as 0.1 means one tenth, not its nearest float."""
    parts = {name: Fraction(str(weight)) for name, weight in weights.items()}
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


def _room(available: int, max_epochs: float) -> int:
    return int(Fraction(str(max_epochs)) * available)


def _empty(
    stage: Stage,
    wanted: Mapping[str, int],
    available: Mapping[str, int],
    sequence_length: int,
    excused: Set[str],
) -> list[str]:
    """Why a source would contribute nothing; a weight without effect is an error, never a silent zero."""
    total = sum(wanted.values())
    if total == 0:
        return [f"token_budget: got {stage.token_budget:,}, expected at least one sequence ({sequence_length:,})"]
    empty = [name for name in wanted if available[name] == 0 and name not in excused]
    missing = [f"source `{name}` has no whole sequence of {sequence_length:,} tokens" for name in empty]
    need = {name: math.ceil(1 / _exact(stage.mixture)[name]) for name, count in wanted.items() if count == 0}
    return missing + [
        f"source `{name}` gets 0 of {total:,} sequences; raise token_budget to {_short(n * sequence_length, up=True)}"
        " or its weight, or drop it"
        for name, n in need.items()
    ]


def _shortfall(
    recipe: Recipe,
    stage: Stage,
    name: str,
    wanted: Mapping[str, int],
    available: Mapping[str, int],
    used: Mapping[str, int],
) -> str:
    """One sentence on what is missing, and the three numbers that would each mend it."""
    room = max(0, _room(available[name], recipe.max_epochs) - used[name])
    need = Fraction(used[name] + wanted[name], available[name])
    remedies = [f"raise max_epochs to {math.ceil(need * 100) / 100:g}"]
    share = _exact(stage.mixture)[name]
    budget = int(room / share) * recipe.sequence_length
    if budget >= recipe.sequence_length:
        remedies.append(f"cut token_budget from {_short(stage.token_budget)} to {_short(budget)}")
    others = sum(Fraction(str(w)) for n, w in stage.mixture.items() if n != name)
    fraction = Fraction(room, sum(wanted.values()))
    if others and room:
        weight = float(fraction / (1 - fraction) * others)
        remedies.insert(0, f"lower its weight from {stage.mixture[name]:g} to {_floor(weight):g}")
    return (
        f"source `{name}` needs {float(need):.2f} epochs, max_epochs is {recipe.max_epochs:g};"
        f" {', '.join(remedies[:-1])}{' or ' if len(remedies) > 1 else ''}{remedies[-1]}"
    )


def _fit(
    recipe: Recipe,
    stage: Stage,
    wanted: Mapping[str, int],
    room: Mapping[str, int],
    where: str,
    problems: list[str],
    warnings: list[str],
) -> dict[str, int]:
    """What the sources can give under `cap` or `redistribute`; says what it changed."""
    total = sum(wanted.values())
    if recipe.on_shortfall == "cap":
        fitted = {name: min(count, room[name]) for name, count in wanted.items()}
        warnings.append(f"{where}: capped at max_epochs, {sum(fitted.values()):,} of {total:,} sequences")
        return fitted
    if sum(room.values()) < total:
        problems.append(
            f"{where}: asks for {total:,} sequences, all its sources together have {sum(room.values()):,} left"
        )
        return dict(wanted)
    fitted = _redistribute(stage.mixture, total, room)
    moved = sum(max(0, wanted[name] - fitted[name]) for name in wanted)
    warnings.append(f"{where}: {moved:,} of {total:,} sequences moved to other sources at max_epochs")
    return fitted


def _redistribute(weights: Mapping[str, float], total: int, room: Mapping[str, int]) -> dict[str, int]:
    """Fill sources up to their room, then share the rest by weight among the others, until all fit."""
    full: dict[str, int] = {}
    while True:
        open_weights = {name: weight for name, weight in weights.items() if name not in full}
        parts = allocate(open_weights, sequences=total - sum(full.values()))
        over = [name for name, count in parts.items() if count > room[name]]
        if not over:
            return {name: full.get(name, parts.get(name, 0)) for name in weights}
        full |= {name: room[name] for name in over}


def _stage_plan(
    stage: Stage,
    wanted: Mapping[str, int],
    used: Mapping[str, int],
    available: Mapping[str, int],
    sequence_length: int,
) -> StagePlan:
    fractions = _exact(stage.mixture)
    shares = {
        name: Share(
            weight=stage.mixture[name],
            fraction=float(fractions[name]),
            sequences=count,
            tokens=count * sequence_length,
            epochs=used[name] / available[name] if available[name] else 0.0,
        )
        for name, count in wanted.items()
    }
    return StagePlan(stage.name, stage.token_budget, sum(wanted.values()), shares)


def _repeats(used: Mapping[str, int], available: Mapping[str, int]) -> list[str]:
    return [
        f"source `{name}` is repeated: {used[name] / available[name]:.2f} epochs"
        for name in used
        if used[name] > available[name] > 0
    ]


def _floor(value: float) -> float:
    """Rounded down to three significant digits, so that the advice still fits."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.floor(value / scale) * scale


def _short(tokens: int, *, up: bool = False) -> str:
    """A token count as a recipe would write it, to three decimals: `46.125M`; rounded down unless `up`."""
    for suffix, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if tokens >= size:
            unit = size // 1000
            whole = -(-tokens // unit) if up else tokens // unit
            return f"{whole / 1000:.10g}{suffix}"
    return str(tokens)
