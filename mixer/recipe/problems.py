"""Everything wrong with a recipe's values, in words: what the models refuse, and what only the whole shows.

The checks across sections read the plain tree, so they answer even where a section is refused.
"""

import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mixer.recipe import (
    retention_problems,
    scores_problems,
    stage_problems,
    sweep_problems,
    synth_problems,
    tokens_problems,
    train_problems,
)
from mixer.recipe.recipe import Recipe, TokenizerSpec
from mixer.recipe.section import PACKAGED
from mixer.recipe.yaml import Problem, Spot, show

_KEY = "[key]"
"""Ends the spot of a problem with a key itself; pydantic's own mark for it."""
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "int_type": "a whole number",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "{le:g} or less",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text",
    "string_unicode": "text without lone surrogates",
    "too_short": "at least {min_length} entry",
    "tuple_type": "a list",
    "value_error": "{error}",
}
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$": "up to 64 letters, digits, `_`, `.`, `-`, with no mark first",
    r"^[a-z]{2,3}([-_][A-Za-z]+)*$": "a language code such as `en` or `zh-Hans`",
}


def find(value: Any) -> list[Problem]:
    """All problems of a recipe given as plain values, each spot once; none means `Recipe` takes it.

    Args:
        value: What the YAML held: mappings, lists and scalars.
    """
    if not isinstance(value, dict):
        return [Problem((), f"got {show(value)}, expected a mapping with `name`, `sources`, `stages`", ())]
    try:
        Recipe.model_validate(value)
        refused = []
    except ValidationError as error:
        refused = _refused(error.errors(include_url=False), value)
    unique: dict[Spot, Problem] = {}
    for problem in (*refused, *_across(value)):
        unique.setdefault(problem.spot, problem)
    return list(unique.values())


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, in any case, or None when none is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def unknown(noun: str, name: str, known: Sequence[str], *, plural: str) -> str:
    """The sentence for a name that nobody knows: with the nearest known one, else with all of them."""
    near = nearest(name, known)
    rest = f"did you mean `{near}`?" if near else f"known {plural}: {', '.join(known) or 'none'}"
    return f"unknown {noun} {show(name)}; {rest}"


def known_keys(spot: Spot, tree: Any) -> list[str]:
    """The keys that the recipe's model knows at a spot; empty where keys are free names, or no keys stand."""
    fields = [item for model in _models(spot, tree) for item in model.model_fields.items()]
    return list(dict.fromkeys(field.alias or name for name, field in fields))


def _models(spot: Spot, tree: Any) -> list[type[BaseModel]]:
    annotations: list[Any] = [Recipe]
    for key in spot:
        annotations = [inner for each in annotations for inner in _inside(each, key)]
        tree = _child(tree, key)
        annotations = [each for each in annotations if _fits_kind(each, tree)]
        annotations = _fitting_keys(annotations, tree)
    return [each for each in annotations if _is_model(each)]


def _inside(annotation: Any, key: str | int) -> list[Any]:
    if _is_model(annotation):
        field = annotation.model_fields.get(key)
        return _plain(field.annotation) if field else []
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict:
        return _plain(parts[1])
    return _plain(parts[0]) if origin is tuple else []


def _plain(annotation: Any) -> list[Any]:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _plain(parts[0])
    if origin in (typing.Union, UnionType):
        return [plain for part in parts for plain in _plain(part)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _fits_kind(annotation: Any, tree: Any) -> bool:
    if not _is_model(annotation) or not isinstance(tree, dict) or "kind" not in tree:
        return True
    return "kind" not in annotation.model_fields or tree["kind"] in _kinds(annotation)


def _fitting_keys(annotations: Sequence[Any], tree: Any) -> list[Any]:
    """Of several things that may stand here, those of whose keys one stands here."""
    if not isinstance(tree, dict) or any(_is_model(each) and "kind" in each.model_fields for each in annotations):
        return list(annotations)
    fitting = [
        each
        for each in annotations
        if not _is_model(each) or {field.alias or name for name, field in each.model_fields.items()} & set(tree)
    ]
    whole = [each for each in fitting if _is_model(each) and _required(each) <= set(tree)]
    if len(fitting) > 1 and whole:
        return whole
    return fitting if any(_is_model(each) or typing.get_origin(each) is dict for each in fitting) else list(annotations)


def _required(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items() if field.is_required()}


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    return typing.get_args(model.model_fields["kind"].annotation)


def _child(tree: Any, key: str | int) -> Any:
    if isinstance(tree, dict):
        return tree.get(key)
    return tree[key] if isinstance(tree, list) and isinstance(key, int) and key < len(tree) else None


def _refused(errors: Sequence[ErrorDetails], tree: Mapping[str, Any]) -> list[Problem]:
    groups: dict[Spot, list[ErrorDetails]] = {}
    for error in errors:
        groups.setdefault(_spot(error, tree), []).append(error)
    # pydantic adds "at least 1 item" to a list whose items are bad, and one error for each branch of a union.
    inner = {spot[:length] for spot in groups for length in range(len(spot))}
    misspelt = {
        (*spot[:-2], nearest(str(spot[-2]), known_keys(spot[:-2], tree)) or "")
        for spot, group in groups.items()
        if group[0]["type"] == "extra_forbidden"
    }
    return [
        _in_words(spot, group, tree)
        for spot, group in groups.items()
        if spot not in inner and not (group[0]["type"] == "missing" and spot in misspelt)
    ]


def _spot(error: ErrorDetails, tree: Any) -> Spot:
    """Pydantic's location without the tags of unions, which are not in the file."""
    spot: list[str | int] = []
    tagged = False
    for key in error["loc"]:
        if isinstance(tree, dict) and tree.get("kind") == key and not tagged:
            tagged = True
        elif key in tree if isinstance(tree, dict) else isinstance(tree, list) and isinstance(key, int):
            tree, tagged = _child(tree, key), False
            spot.append(key)
    last = error["loc"][-1]
    if error["type"] == "missing":
        return (*spot, last)
    if error["type"].startswith("union_tag"):
        return (*spot, "kind")
    return (*spot, _KEY) if error["type"] == "extra_forbidden" or last == _KEY else tuple(spot)


def _in_words(spot: Spot, group: Sequence[ErrorDetails], tree: Any) -> Problem:
    choices = _choices(group[0])
    if group[0]["type"] == "extra_forbidden":
        known = known_keys(spot[:-2], tree)
        return Problem(spot[:-2], unknown("key", str(spot[-2]), known, plural="keys"), spot)
    if group[0]["type"] == "missing":
        return Problem(spot[:-1], f"missing key `{spot[-1]}`", spot)
    if group[0]["type"] == "union_tag_not_found":
        kinds = [kind for model in _models(spot[:-1], tree) for kind in _kinds(model)]
        return Problem(spot[:-1], f"missing key `kind`, one of {', '.join(kinds)}", spot)
    what, got = (spot[:-1], spot[-2]) if spot[-1] == _KEY else (spot, _at(spot, tree))
    near = nearest(got, choices) if isinstance(got, str) else None
    hint = f"; did you mean `{near}`?" if near else ""
    expected = " or ".join(dict.fromkeys(_expected(error) for error in group))
    quotes = " in quotes" if expected == "text" and isinstance(got, int | float) else ""
    return Problem(what, f"got {show(got)}, expected {expected}{quotes}{hint}", spot)


def _choices(error: ErrorDetails) -> list[str]:
    context = error.get("ctx", {})
    return re.findall(r"'([^']*)'", str(context.get("expected_tags", context.get("expected", ""))))


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if choices := _choices(error):
        return f"one of {', '.join(choices)}"
    if pattern := context.get("pattern"):
        return _PATTERNS.get(pattern, f"text like {pattern}")
    return _EXPECTED[error["type"]].format(**context) if error["type"] in _EXPECTED else error["msg"]


def _at(spot: Spot, tree: Any) -> Any:
    for key in spot:
        tree = _child(tree, key)
    return tree


def _across(tree: Mapping[str, Any]) -> Iterator[Problem]:
    # First: what they find would be told again in other words.
    yield from tokens_problems.find(tree)
    yield from stage_problems.find(tree, unknown, nearest)
    yield from _idle_tokens(tree)
    yield from synth_problems.find(tree, unknown)
    yield from scores_problems.find(tree, unknown)
    yield from sweep_problems.find(tree, unknown)
    yield from train_problems.find(tree)
    yield from retention_problems.find(tree, unknown)
    yield from _repeated_exports(tree)


def _repeated_exports(tree: Mapping[str, Any]) -> Iterator[Problem]:
    exports = tree.get("exports")
    first: dict[str, int] = {}
    for index, export in enumerate(exports if isinstance(exports, list) else []):
        if isinstance(export, dict):
            # As text, since before they are known to be sound they may be lists.
            same = str([export.get("format"), export.get("mode", "premixed"), export.get("content", "tokens")])
            if first.setdefault(same, index) != index:
                told = f"got the same format, mode and content as exports.{first[same]}, expected each once"
                yield Problem(("exports", index), told, ("exports", index))


def _idle_tokens(tree: Mapping[str, Any]) -> Iterator[Problem]:
    tokenizer = tree.get("tokenizer")
    if not isinstance(tokenizer, dict):
        return
    if tokenizer.get("path") == PACKAGED and tokenizer.get("revision") is not None:
        told = f"has no effect on the packaged `{PACKAGED}`; remove it"
        yield Problem(("tokenizer", "revision"), told, ("tokenizer", "revision", _KEY))
    for switch in ("bos", "eos"):
        key = f"{switch}_token"
        is_on = tokenizer.get(switch, TokenizerSpec.model_fields[switch].default)
        if is_on is False and tokenizer.get(key) is not None:
            told = f"has no effect while `{switch}` is false; set `{switch}: true` or remove it"
            yield Problem(("tokenizer", key), told, ("tokenizer", key, _KEY))
