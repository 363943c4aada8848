"""`--set stages.anneal.token_budget=30M`: one value of a recipe's tree replaced, before it is validated."""

from typing import Any

from mixer.recipe.problems import known_keys, nearest, unknown
from mixer.recipe.yaml import Problem, Spot, Tree, parse, show


def apply(override: str, tree: Tree) -> None:
    """Puts one value into the tree and notes who did; what is wrong goes to the tree's problems instead.

    Args:
        override: `key.path=value`. A part of the path is a key, the index of a list item, or its `name`;
            the value is YAML. Sections that the file leaves out are made; misspelt ones are not.
        tree: A recipe's, changed in place.
    """
    path, equals, text = override.partition("=")
    names = path.strip().split(".")
    given = parse(text)
    if not equals or not all(names):
        wrong = "expected key.path=value, such as stages.0.token_budget=30M"
        tree.problems.append(Problem((), wrong, (), override=override))
        return
    tree.problems += [
        Problem((*names, *problem.what), problem.text, (), override=override) for problem in given.problems
    ]
    spot = _resolve(names, tree.value)
    if isinstance(spot, Problem):
        tree.problems.append(Problem(spot.what, spot.text, (), override=override))
    elif not given.problems:
        made = _put(given.value, spot, tree.value)
        tree.overrides = {at: by for at, by in tree.overrides.items() if at[: len(spot)] != spot}
        tree.overrides[made] = override


def _put(value: Any, spot: Spot, node: Any) -> Spot:
    """The topmost spot that was not there before."""
    made = spot
    for depth, key in enumerate(spot[:-1], start=1):
        if key == "tokenizer" and isinstance(node[key], str):
            node[key] = {"path": node[key]}
        if isinstance(node, dict) and key not in node:
            node[key] = {}
            made = min(made, spot[:depth], key=len)
        node = node[key]
    node[spot[-1]] = value
    return made


def _resolve(names: list[str], root: Any) -> Spot | Problem:
    spot: Spot = ()
    node = root
    while names:
        if spot == ("tokenizer",) and isinstance(node, str):
            node = {"path": node}
        step = _step_into_list(names, node) if isinstance(node, list) else _step(names, node, spot, root)
        if isinstance(step, str):
            return Problem(spot, step, spot)
        (key, names), spot = step, (*spot, step[0])
        node = node.get(key, {}) if isinstance(node, dict) else node[key]
    return spot


def _step(names: list[str], node: Any, spot: Spot, root: Any) -> tuple[str | int, list[str]] | str:
    """The next key and the names after it, or what is wrong. Names may hold dots, so the longest key wins."""
    if not isinstance(node, dict):
        return f"is {show(node)}, which has no key {show(names[0])}"
    for length in range(len(names), 0, -1):
        if (joined := ".".join(names[:length])) in node:
            return joined, names[length:]
    name, rest = names[0], names[1:]
    known = known_keys(spot, root)
    if name in known:
        if not rest or known_keys((*spot, name), root):
            return name, rest
        return f"`{name}` is not in the file, so nothing inside it can be set; set it as a whole"
    if not known and (not rest or ".".join(names) in _source_names(root)):
        return ".".join(names), []
    return unknown("key", name, known or list(node), plural="keys")


def _source_names(root: Any) -> list[str]:
    sources = root.get("sources")
    return list(sources) if isinstance(sources, dict) else []


def _step_into_list(names: list[str], items: list[Any]) -> tuple[str | int, list[str]] | str:
    index, indices = names[0], [str(index) for index in range(len(items))]
    if index in indices:
        return indices.index(index), names[1:]
    labels = [str(item.get("name")) if isinstance(item, dict) else "" for item in items]
    for length in range(len(names), 0, -1):
        if (joined := ".".join(names[:length])) in labels:
            return labels.index(joined), names[length:]
    near = nearest(index, labels)
    rest = f"did you mean `{near}`?" if near else f"it has {len(items)}, counted from 0"
    return f"unknown item {show(index)}; {rest}"
