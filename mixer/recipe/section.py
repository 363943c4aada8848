"""What every section of a recipe is made of: strictness, and the types that several sections share."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, StringConstraints, WithJsonSchema

PACKAGED = "smollm2"
"""Name of the tokenizer of the packaged model."""

_SUFFIX = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_COUNT = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([KMBT]?)", re.IGNORECASE | re.ASCII)


def parse_count(value: Any) -> int:
    """A whole number from `1_000`, `1e9`, `"30M"` or `"92.5B"` (K, M, B, T are powers of 1000).

    Raises:
        ValueError: Not a count, or not a whole number (`"1.0005K"`).

    Example:
        >>> parse_count("92.5B")
        92500000000
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (match := _COUNT.fullmatch(value.strip().replace("_", ""))):
        digits, _, decimals = match[1].partition(".")
        scaled = int(digits + decimals) * _SUFFIX[match[2].upper()]
        unit: int = 10 ** len(decimals)
        number, rest = divmod(scaled, unit)
        if rest == 0:
            return number
    raise ValueError("a whole count such as 1_000_000, 30M or 92.5B")


def _count_schema(least: int) -> WithJsonSchema:
    """A number, or a text of digits; what a text comes to, a pattern cannot say."""
    numbers = {"type": "integer", "minimum": least, "maximum": 10**18}
    return WithJsonSchema({"anyOf": [numbers, {"type": "string", "pattern": r"^\d[\d_]*(\.\d+)?\s*[KMBTkmbt]?$"}]})


Count = Annotated[int, BeforeValidator(parse_count), Field(gt=0, le=10**18), _count_schema(1)]
Several = Annotated[int, BeforeValidator(parse_count), Field(ge=2, le=10**18), _count_schema(2)]
"""A count of what is drawn from or compared: one alone says nothing."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}([-_][A-Za-z]+)*$")]
Share = Annotated[float, Strict(), Field(gt=0.0, le=1.0, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=False)
