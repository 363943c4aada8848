"""The recipe's models: counts as people write them, and values that look right but are not."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mixer.recipe.recipe import Recipe, TokenizerSpec
from mixer.recipe.section import parse_count


def small(**changes: Any) -> dict[str, Any]:
    """A recipe as plain values."""
    return {
        "name": "small",
        "tokenizer": "gpt2",
        "sources": {"web": {"kind": "html", "path": "*.html"}},
        "stages": [{"name": "only", "token_budget": "1M", "mixture": {"web": 1}}],
    } | changes


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("30M", 30_000_000),
        ("92.5B", 92_500_000_000),
        ("1_000_000", 1_000_000),
        (1_000_000, 1_000_000),
        (1e9, 1_000_000_000),
        (" 2 k ", 2_000),
        ("1.5K", 1_500),
        ("0.001K", 1),
        ("1T", 10**12),
        ("007", 7),
        (0, 0),
        (-3, -3),
    ],
)
def test_counts_as_people_write_them(written: Any, count: int) -> None:
    assert parse_count(written) == count


@pytest.mark.parametrize(
    "written",
    [
        *("", "lots", "1.0005K", "0.5", "-5", "1e9x", "M", "5 G", "5MM", "5\u212a", "\u0663M", "9" * 5000),
        *(True, None, 1.5, math.inf, math.nan, [1], {"a": 1}, b"5"),
    ],
)
def test_what_is_no_whole_count_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match=r"^a whole count such as 1_000_000, 30M or 92\.5B$"):
        parse_count(written)


@given(st.integers(0, 10**18), st.sampled_from(["", "K", "M", "B", "T"]))
def test_any_count_comes_back_from_any_unit(count: int, suffix: str) -> None:
    power = 3 * " KMBT".index(suffix or " ")
    digits = str(count).rjust(power + 1, "0")
    written = f"{digits[:-power]}.{digits[-power:]}{suffix}" if power else digits
    assert parse_count(written) == count


@given(st.integers(0, 10**18))
def test_underscores_do_not_change_a_count(count: int) -> None:
    assert parse_count(f"{count:_}") == count


def test_a_tokenizer_may_be_just_its_path() -> None:
    assert Recipe.model_validate(small()).tokenizer == TokenizerSpec(path="gpt2")


def test_a_tokenizer_is_a_path_or_a_mapping() -> None:
    with pytest.raises(ValidationError, match="a path or hub id, or a mapping with `path`"):
        Recipe.model_validate(small(tokenizer=5))


@pytest.mark.parametrize(
    "changes",
    [
        {"max_epochs": True},
        {"max_epochs": "4"},
        {"max_epochs": math.nan},
        {"seed": True},
        {"seed": 1.0},
        {"clean": {"repair": "no"}},
        {"clean": {"dedup": {"near": {"threshold": math.nan}}}},
        {"stages": [{"name": "only", "token_budget": 1e300, "mixture": {"web": 1}}]},
        {"stages": [{"name": "only", "token_budget": 5, "mixture": {"web": True}}]},
    ],
    ids=str,
)
def test_values_of_another_kind_are_never_converted_in_silence(changes: dict[str, Any]) -> None:
    Recipe.model_validate(small())
    with pytest.raises(ValidationError, match=r"^\d validation error"):
        Recipe.model_validate(small(**changes))


def test_a_recipe_never_changes_after_loading() -> None:
    recipe = Recipe.model_validate(small())
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]
