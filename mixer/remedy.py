"""What is wrong with a plan, and the numbers that would each mend it: every one is planned before it is told."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from mixer.errors import PlanError
from mixer.mixture import exact
from mixer.recipe.recipe import Recipe
from mixer.recipe.stage import Preset, ResampleStage, Stage

_TRIES = 6
"""Rounding to whole sequences may take a few more than the shares say."""


@dataclass(frozen=True, slots=True)
class Short:
    """How much is missing.

    Args:
        index: The stage's place in the recipe.
        room: Sequences that there are for it.
        epochs: Passes that would be enough.
        share: Part of the whole stage's sequences (of the earlier one's, where it comes again) that is asked for.
        pool: What there is too little of; empty for all pools together.
    """

    index: int
    room: int
    epochs: Fraction
    share: Fraction
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a stage cannot be filled as it stands.

    Args:
        where: What messages call the stage.
        about: A pool or key; with `where` it says which problem this is, whatever the numbers.
        text: In words.
        short: How much is missing, where a number would mend it.
    """

    where: str
    about: str
    text: str
    short: Short | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Which problem it is."""
        return self.where, self.about


def told(recipe: Recipe, problem: Problem, known: Iterable[Problem], replan: Callable[[Recipe], list[Problem]]) -> str:
    """A problem in a sentence, with each remedy that ends it and makes no other one.

    Args:
        recipe: Whose plan it is.
        problem: The problem.
        known: All problems of that plan.
        replan: Gives the problems of another recipe.
    """
    keys = {each.key for each in known}

    def mends(changed: Recipe) -> bool:
        try:
            left = {each.key for each in replan(changed)}
        except PlanError:
            return False
        return problem.key not in left and left <= keys

    offers = _offers(recipe, problem.short) if problem.short else ()
    found = [next((text for text, changed in each if mends(changed)), "") for each in offers]
    remedies = [text for text in found if text]
    listed = f"{', '.join(remedies[:-1])}{' or ' if len(remedies) > 1 else ''}{remedies[-1]}" if remedies else ""
    return f"{problem.where}: {problem.text}{'; ' if listed else ''}{listed}"


def _offers(recipe: Recipe, short: Short) -> Iterator[Iterator[tuple[str, Recipe]]]:
    """Yield remedies, each as words and the recipe that they make, a few in turn as one may not be enough."""
    stage = recipe.stages[short.index]
    if isinstance(stage, Stage):
        yield _weights(recipe, stage, short)
    yield _epochs(recipe, short)
    yield _budgets(recipe, stage, short) if isinstance(stage, Stage) else _fractions(recipe, stage, short)


def _changed(recipe: Recipe, index: int, **changes: object) -> Recipe:
    stages = list(recipe.stages)
    stages[index] = stages[index].model_copy(update=changes)
    return recipe.model_copy(update={"stages": tuple(stages)})


def _epochs(recipe: Recipe, short: Short) -> Iterator[tuple[str, Recipe]]:
    first = math.ceil(short.epochs * 100)
    for hundredths in (first, *(first + 2**power for power in range(_TRIES))):
        yield f"raise max_epochs to {hundredths / 100:g}", recipe.model_copy(update={"max_epochs": hundredths / 100})


def _budgets(recipe: Recipe, stage: Stage, short: Short) -> Iterator[tuple[str, Recipe]]:
    length = recipe.sequence_length
    most = int(Fraction(short.room) / short.share) if short.share else 0
    for sequences in range(most, max(0, most - _TRIES), -1):
        tokens = _as_written(sequences * length)
        text = f"cut token_budget from {short_of(stage.token_budget)} to {short_of(tokens)}"
        if tokens >= length:
            yield text, _changed(recipe, short.index, token_budget=tokens)


def _fractions(recipe: Recipe, stage: ResampleStage, short: Short) -> Iterator[tuple[str, Recipe]]:
    most = math.floor(Fraction(short.room) / short.share * 1000)
    for thousandths in range(min(999, most), max(0, most - _TRIES), -1):
        rule = stage.resample.model_copy(update={"fraction": thousandths / 1000})
        text = f"lower the fraction from {stage.resample.fraction:g} to {thousandths / 1000:g}"
        yield text, _changed(recipe, short.index, resample=rule)


def _weights(recipe: Recipe, stage: Stage, short: Short) -> Iterator[tuple[str, Recipe]]:
    """Of a plain mixture, the weight at which the pool's share is small enough."""
    numbers = _numbers(stage)
    others = sum(exact(value) for name, value in numbers.items() if name != short.pool)
    fraction = Fraction(short.room, stage.token_budget // recipe.sequence_length)
    if short.pool in numbers and others and 0 < fraction < 1:
        weight = float(f"{_floor(float(fraction / (1 - fraction) * others)):g}")
        text = f"lower its weight from {numbers[short.pool]:g} to {weight:g}"
        yield text, _changed(recipe, short.index, mixture={**numbers, short.pool: weight})


def _numbers(stage: Stage) -> dict[str, float]:
    """The weights of a mixture of plain numbers; none where it is anything more."""
    if stage.replay is not None or isinstance(stage.mixture, Preset):
        return {}
    numbers = {name: value for name, value in stage.mixture.items() if isinstance(value, float)}
    return numbers if len(numbers) == len(stage.mixture) else {}


def _floor(value: float) -> float:
    """Rounded down to three significant digits, so that the advice still fits."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.floor(value / scale) * scale


def short_of(tokens: int, *, up: bool = False) -> str:
    """A token count as a recipe would write it, to three decimals: `46.125M`; rounded down unless `up`."""
    for suffix, size in _SUFFIXES:
        if tokens >= size:
            unit = size // 1000
            whole = -(-tokens // unit) if up else tokens // unit
            return f"{whole / 1000:.10g}{suffix}"
    return str(tokens)


def _as_written(tokens: int) -> int:
    """What `short_of` leaves of a count."""
    unit = next((size // 1000 for _, size in _SUFFIXES if tokens >= size), 1)
    return tokens // unit * unit


_SUFFIXES = (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3))
