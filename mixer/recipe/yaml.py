"""Strict YAML with line numbers: what `mixer.recipe.file` reads recipes and `--set` values with.

Policy: scalars as in YAML 1.2, so `no` and `on` are text, `1e9` a number, `1:30` and dates text. Mapping keys
are always text. Duplicate keys, merge keys and tags for anything but plain values are refused, not resolved.
Anchors work, but what they expand to is bounded. Price: pure-Python parsing, about 10 ms for 50 lines.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

Spot = tuple[str | int, ...]
"""Where in a tree: `("stages", 1, "token_budget")`."""

MAX_BYTES = 5_000_000
MAX_DEPTH = 40
_NODE_BYTES = 50
_SHOWN = 60
_CORE = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a recipe.

    Args:
        what: The spot that the message names.
        text: What is wrong, without file and line.
        spot: The exact spot; a message about a key itself, or about an absent one, points below what exists.
        line: Only where the tree cannot tell.
        override: The override to blame, if it is one.
    """

    what: Spot
    text: str
    spot: Spot
    line: int | None = None
    override: str = ""


@dataclass(slots=True)
class Tree:
    """Plain values, with the lines of the key and of the value of each spot.

    Args:
        value: Mappings, lists and scalars; `None` for an empty text and for one that is not YAML.
        problems: What the YAML itself, or an override of it, has wrong.
        overrides: Spot -> the override that put its value there.
        size: Rough bytes of the tree, to bound what aliases expand to.
    """

    value: Any = None
    lines: dict[Spot, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    overrides: dict[Spot, str] = field(default_factory=dict)
    size: int = 0

    def line_of(self, spot: Spot) -> int:
        """The line of the value at a spot or, if nothing is there, of the nearest key above it."""
        if spot in self.lines:
            return self.lines[spot][1]
        above = (spot[:length] for length in range(len(spot) - 1, -1, -1))
        return next((self.lines[known][0] for known in above if known in self.lines), 1)

    def override_of(self, spot: Spot) -> str:
        """The override that put the value at a spot there; empty if the file did."""
        upwards = (spot[:length] for length in range(len(spot), 0, -1))
        return next((self.overrides[known] for known in upwards if known in self.overrides), "")


_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7]{1,99}|0x[0-9a-fA-F]{1,99}", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _TooMuch(yaml.MarkedYAMLError):
    """YAML, but more of it than any recipe needs."""


class _Loader(yaml.SafeLoader):
    """Composes nodes only; values are built by `_build`."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _TooMuch(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else, so that every reader agrees."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML writes these line ends raw between single quotes, where they are read back as spaces.
        style = '"' if any(end in data for end in "\x85\u2028\u2029") else None
        return self.represent_scalar(_CORE + "str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_CORE + _name, re.compile(rf"^(?:{_pattern})$"), _first)


def parse(text: str) -> Tree:
    """The tree of a YAML text; what is wrong with the text is in its `problems`."""
    tree = Tree()
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            tree.value = _build(node, (), tree)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        tree.problems = [Problem((), _explain(error), (), mark.line + 1 if mark else 1)]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        told = f"character U+{ord(text[error.position]):04X} cannot stand in YAML"
        tree.problems = [Problem((), told, (), line)]
    return tree


def dump(value: Any) -> str:
    """YAML text of plain values, in the order given; `parse` reads the same values back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _build(node: yaml.Node, spot: Spot, tree: Tree) -> Any:
    tree.size += _NODE_BYTES + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
    if tree.size > MAX_BYTES or len(spot) > MAX_DEPTH:
        bound = f"over {MAX_BYTES // 10**6} MB or {MAX_DEPTH} levels once its aliases are expanded"
        raise _TooMuch(problem=bound, problem_mark=node.start_mark)
    line = node.start_mark.line + 1
    tree.lines.setdefault(spot, (line, line))
    if isinstance(node, yaml.MappingNode) and node.tag == _CORE + "map":
        return _build_mapping(node, spot, tree)
    if isinstance(node, yaml.SequenceNode) and node.tag == _CORE + "seq":
        return [_build(item, (*spot, index), tree) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _build_scalar(node, spot, tree)
    return _refuse(tree, spot, f"got the tag {_tag(node)}, expected plain YAML", line)


def _build_mapping(node: yaml.MappingNode, spot: Spot, tree: Tree) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line, key = key_node.start_mark.line + 1, key_node.value
        inner = (*spot, key) if isinstance(key, str) else spot
        if not isinstance(key, str):
            _refuse(tree, spot, "got a list or mapping as a key, expected text", line)
        elif key == "<<" and key_node.style is None:
            _refuse(tree, inner, "merge keys (`<<`) are not read; write the keys out", line, what=spot)
        elif key in built:
            first = tree.lines[inner][0]
            _refuse(tree, inner, f"duplicate key {key!r}, first on line {first}", line, what=spot)
        else:
            tree.lines[inner] = (line, value_node.start_mark.line + 1)
            built[key] = _build(value_node, inner, tree)
    return built


def _build_scalar(node: yaml.ScalarNode, spot: Spot, tree: Tree) -> Any:
    kind = node.tag.removeprefix(_CORE)
    if kind == "str":
        return node.value
    line = node.start_mark.line + 1
    if kind not in _READ:
        return _refuse(tree, spot, f"got the tag {_tag(node)}, expected plain YAML", line)
    try:
        return _READ[kind](node.value)
    except (ValueError, KeyError):
        shown = show(node.value)
        return _refuse(tree, spot, f"got {shown}, which cannot be read as {kind}; put text in quotes", line)


def _tag(node: yaml.Node) -> str:
    return show(node.tag.replace(_CORE, "!!"))


def _int(text: str) -> int:
    digits = text.replace("_", "")
    return int(digits, 0) if digits[:2] in ("0o", "0x") else int(digits)


def _float(text: str) -> float:
    return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))


_READ: dict[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": _int,
    "float": _float,
}


def _refuse(tree: Tree, spot: Spot, text: str, line: int, *, what: Spot | None = None) -> None:
    tree.problems.append(Problem(spot if what is None else what, text, spot, line))


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem, opened = error.problem or "unreadable", error.context_mark
    if isinstance(error, _TooMuch):
        return problem
    if "'\\t'" in problem:
        return "got a tab, expected spaces for indentation"
    if not error.context or not opened:
        return f"not valid YAML: {problem}"
    if error.context.startswith("while"):
        return f"not valid YAML: {problem} ({error.context}, line {opened.line + 1})"
    return f"not valid YAML: {error.context}, {problem}"


def show(value: Any) -> str:
    """A value as messages print it: in one line, 60 characters at most."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def printable(text: str) -> str:
    """The same text with line ends and control characters, bidirectional ones too, spelt as escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
