"""A recipe's plain values before it is known to be sound: what of them can be looked at, whatever else is wrong."""

from collections.abc import Callable, Mapping
from typing import Any

Unknown = Callable[..., str]
"""Words for a name that nobody knows; `mixer.recipe.problems.unknown`."""


def members_of(tree: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """The members of a section that are mappings, by name.

    Example:
        >>> members_of({"sources": {"web": {"kind": "html"}, "odd": 3}}, "sources")
        {'web': {'kind': 'html'}}
    """
    value = tree.get(key)
    return {name: part for name, part in value.items() if isinstance(part, dict)} if isinstance(value, dict) else {}


def stages_of(tree: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """The stages with their places; one that is no mapping is empty."""
    stages = tree.get("stages")
    listed = stages if isinstance(stages, list) else []
    return [(index, stage if isinstance(stage, dict) else {}) for index, stage in enumerate(listed)]


def stages_by_name(tree: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The stages that have a name."""
    return {stage["name"]: stage for _, stage in stages_of(tree) if isinstance(stage.get("name"), str)}
