"""Mixtures that need token counts alone, and what repeated tokens are worth: exact arithmetic, no data read.

Any searched mixture stands beside these: several papers find that learned mixtures do not reliably beat them.
"""

import math
from collections.abc import Mapping
from fractions import Fraction

from mixer.errors import PlanError

_DECAY_EPOCHS = 15.387756
"""R_D* of Muennighoff et al. 2023, arXiv 2305.16264: how many repetitions until little is left to learn."""


def natural(available: Mapping[str, int]) -> dict[str, Fraction]:
    """Fractions in proportion to the tokens that each source holds; they sum to one.

    Args:
        available: Source name -> tokens of one epoch.

    Raises:
        PlanError: No source holds a token.

    Example:
        >>> natural({"web": 3, "qa": 1})
        {'web': Fraction(3, 4), 'qa': Fraction(1, 4)}
    """
    total = sum(available.values())
    if total <= 0:
        raise PlanError(
            f"natural: got {len(available)} sources that hold {total} tokens, expected at least one token",
            hint="add data",
        )
    return {name: Fraction(tokens, total) for name, tokens in available.items()}


def temperature(available: Mapping[str, int], *, t: float) -> dict[str, Fraction]:
    """Fractions in proportion to tokens ** (1 / t); they sum to one.

    `t` of 1 is natural, infinity is uniform; between 2 and 3.3 is common for languages of unequal size.

    Args:
        available: Source name -> tokens of one epoch.
        t: Temperature, above 0; `math.inf` counts every source alike.

    Raises:
        PlanError: `t` is not above 0, or no source holds a token.
    """
    if not t > 0:
        raise PlanError(f"temperature: got {t}, expected more than 0", hint="1 is natural, 2 a usual choice")
    shares = natural(available)
    if t == 1:
        return shares
    largest = max(shares.values())
    parts = {name: Fraction(float(share / largest) ** (1 / t)) for name, share in shares.items()}
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


def unimax(available: Mapping[str, int], *, budget: int | Fraction, max_epochs: float) -> dict[str, Fraction]:
    """Tokens of each source, as even as its epochs allow; they sum to the budget exactly.

    From the smallest source on: each gets an even part of what is left, or all its epochs if these are fewer.

    Args:
        available: Source name -> tokens of one epoch.
        budget: Tokens to hand out.
        max_epochs: Most passes over one source.

    Returns:
        Source name -> tokens, in the order of `available`.

    Raises:
        PlanError: All sources together hold fewer than `budget` tokens in `max_epochs`.

    Example:
        >>> {name: int(tokens) for name, tokens in unimax({"a": 1, "b": 10, "c": 100}, budget=60, max_epochs=4).items()}
        {'a': 4, 'b': 28, 'c': 28}

    Source: Chung et al. 2023, arXiv 2304.09151.
    """
    epochs, pool = Fraction(str(max_epochs)), sum(available.values())
    if epochs * pool < budget:
        raise PlanError(
            f"unimax: got a budget of {math.ceil(budget):,} tokens, expected at most {int(epochs * pool):,}:"
            f" {max_epochs:g} epochs of the {pool:,} tokens of {len(available)} sources",
            hint=f"cut the budget, {_needed(budget, pool)}or add data",
        )
    left, given = Fraction(budget), dict[str, Fraction]()
    for number, name in enumerate(sorted(available, key=available.__getitem__)):
        given[name] = min(left / (len(available) - number), epochs * available[name])
        left -= given[name]
    return {name: given[name] for name in available}


def _needed(budget: int | Fraction, pool: int) -> str:
    return f"allow it {math.ceil(Fraction(budget) / pool * 100) / 100:g} epochs, " if pool else ""


def fresh_equivalent(epochs: float) -> float:
    """How many epochs of new tokens would teach as much as `epochs` passes over the same ones.

    Nearly all of it up to 4, little more beyond 16; never above 16.4. Measured in pre-training; for a base model that
    is trained on, how much repetition it bears is not known.

    Example:
        >>> round(fresh_equivalent(4), 3)
        3.726

    Source: Muennighoff et al. 2023, arXiv 2305.16264.
    """
    return epochs if epochs <= 1 else 1 + _DECAY_EPOCHS * -math.expm1((1 - epochs) / _DECAY_EPOCHS)


def worth_of_next(epochs: float) -> float:
    """What the next token is worth after so many passes, in new tokens: the slope of `fresh_equivalent`.

    Example:
        >>> worth_of_next(0.5), round(worth_of_next(4), 2), round(worth_of_next(16), 2)
        (1.0, 0.82, 0.38)
    """
    return 1.0 if epochs < 1 else math.exp((1 - epochs) / _DECAY_EPOCHS)


def effective_tokens(unique: int, epochs: float) -> float:
    """How many new tokens would teach as much as `epochs` passes over `unique` ones; see `fresh_equivalent`."""
    return unique * fresh_equivalent(epochs)
