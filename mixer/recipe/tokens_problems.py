"""What only the whole recipe shows to be wrong with sources of token ids: what would need text, or an end to cut at."""

from collections.abc import Iterator, Mapping
from typing import Any

from mixer.recipe.recipe import TokenizerSpec
from mixer.recipe.stage_problems import leaves_of
from mixer.recipe.tree import members_of, stages_of
from mixer.recipe.yaml import Problem, Spot, show

_NO_TEXT = "holds token ids, no text"
_BARE = ("llmc", "flat")


def find(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems between sources of token ids and other sections.

    Args:
        tree: The recipe as plain values.
    """
    sources = members_of(tree, "sources")
    tokens = {name: source for name, source in sources.items() if source.get("kind") == "tokens"}
    if not tokens:
        return
    yield from _ends(tokens, tree)
    yield from _written(sources, tokens)
    yield from _scored(members_of(tree, "scores"), tokens)
    for index, stage in stages_of(tree):
        yield from _ordered(stage, ("stages", index), tokens)
        for leaf in leaves_of(stage, index, sources) if "resample" not in stage else ():
            if leaf.topics is not None and leaf.name in tokens:
                spot = (*leaf.mixture, leaf.name, "topics")
                yield Problem(spot, f"`{leaf.name}` {_NO_TEXT} to tell topics by; give it a plain weight", spot)
    yield from _checked(tree, tokens)
    yield from _exported(tree, tokens)


def _ends(tokens: Mapping[str, Mapping[str, Any]], tree: Mapping[str, Any]) -> Iterator[Problem]:
    tokenizer = tree.get("tokenizer")
    default = TokenizerSpec.model_fields["eos"].default
    if not isinstance(tokenizer, dict) or tokenizer.get("eos", default) is not False:
        return
    for name, source in tokens.items():
        if source.get("boundaries") == "eos" or source.get("format") in _BARE:
            spot = ("sources", name)
            yield Problem(spot, "ends documents at the end-of-text token, but `tokenizer.eos` is false", spot)


def _written(sources: Mapping[str, Mapping[str, Any]], tokens: Mapping[str, Any]) -> Iterator[Problem]:
    for name, source in sources.items():
        # A list can be asked for anything, a mapping only for what is hashable.
        if source.get("kind") == "synth" and source.get("from") in list(tokens):
            spot = ("sources", name, "from")
            yield Problem(spot, f"got {show(source['from'])}, which {_NO_TEXT} to write from", spot)


def _scored(scores: Mapping[str, Mapping[str, Any]], tokens: Mapping[str, Any]) -> Iterator[Problem]:
    for score, settings in scores.items():
        spot: Spot = ("scores", score)
        lists = {(*spot, key): settings.get(key) for key in ("sources", "positive", "negative")}
        inner = {part: settings.get(part) for part in ("seeds", "teacher")}
        lists |= {(*spot, part, "sources"): its.get("sources") for part, its in inner.items() if isinstance(its, dict)}
        for where, names in lists.items():
            for number, name in enumerate(names) if isinstance(names, list | tuple) else ():
                if name in list(tokens):
                    at = (*where, number)
                    yield Problem(at, f"got {show(name)}, which {_NO_TEXT} to score", at)


def _ordered(stage: Mapping[str, Any], spot: Spot, tokens: Mapping[str, Any]) -> Iterator[Problem]:
    order = stage.get("order")
    for name, rule in order.items() if isinstance(order, dict) else ():
        if name in tokens and isinstance(rule, dict) and rule.get("by") is not None:
            at = (*spot, "order", name, "by")
            told = f"got {show(rule['by'])}, but `{name}` {_NO_TEXT} to score; its order is random"
            yield Problem(at, told, at)


def _checked(tree: Mapping[str, Any], tokens: Mapping[str, Any]) -> Iterator[Problem]:
    clean = tree.get("clean")
    if not isinstance(clean, dict) or clean.get("decontaminate") is None:
        return
    for name, source in tokens.items():
        if source.get("decontaminated") is not True:
            spot: Spot = ("sources", name)
            told = "token ids cannot be searched for benchmarks, as `clean.decontaminate` asks; "
            yield Problem(spot, told + "say `decontaminated: true` if their text was, before", spot)


def _exported(tree: Mapping[str, Any], tokens: Mapping[str, Any]) -> Iterator[Problem]:
    exports = tree.get("exports")
    for index, export in enumerate(exports if isinstance(exports, list | tuple) else ()):
        if isinstance(export, dict) and (export.get("format") == "jsonl" or export.get("content") == "text"):
            spot = ("exports", index)
            names = ", ".join(f"`{name}`" for name in tokens)
            yield Problem(spot, f"got an export of text, but {names} {_NO_TEXT}", spot)
