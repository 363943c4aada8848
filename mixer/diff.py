"""What differs between two Runs: keys of the recipe, documents, scores, shares, and which steps were made otherwise."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from mixer.ledger import dropped_by_reason
from mixer.recipe.recipe import Recipe
from mixer.recipe.scores import COLUMNS
from mixer.run import changed, file_hash, read_json
from mixer.table import scan

_MOST = 10
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of one source in two Runs, by id, and reasons whose counts differ.

    Args:
        added, removed, changed: How many; `changed` have the same id and another text.
        examples: `added`, `removed`, `changed` -> some ids, with the step that ended one in the Run that lacks it.
        reasons: `step: reason` -> documents that it ended in the first and in the second.
    """

    kept: tuple[int, int]
    added: int
    removed: int
    changed: int
    examples: Mapping[str, list[str]]
    reasons: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs; what is equal is left out.

    Args:
        recipe: Key -> its value in the first and in the second.
        documents: Source -> its documents.
        scores: `score source` -> in the first and in the second, documents, quantiles .05, .5 and .95 or how many have
            each label, and a hash of all.
        orders: Stage -> a hash of its sequences in their order, in the first and in the second.
        shares: `stage pool` -> sequences in the first and in the second.
        tokens: Source -> tokens in the first and in the second.
        steps: Step -> why the second would not take the first's result.
    """

    recipe: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    documents: Mapping[str, Documents] = field(default_factory=dict)
    scores: Mapping[str, tuple[list[Any], list[Any]]] = field(default_factory=dict)
    orders: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    shares: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tokens: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    steps: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        found = (self.recipe, self.documents, self.scores, self.orders, self.shares, self.tokens, self.steps)
        return not any(found)


def diff(one: Path, other: Path, recipes: tuple[Recipe, Recipe]) -> Difference:
    """What differs between two finished Runs.

    Args:
        one: The first Run.
        other: The second.
        recipes: Their recipes.
    """
    sources = list(dict.fromkeys([*recipes[0].sources, *recipes[1].sources]))
    documents = {name: _documents(one, other, name) for name in sources}
    return Difference(
        recipe=_unequal(*(dict(_flat(recipe.model_dump(mode="json", by_alias=True))) for recipe in recipes)),
        documents={name: found for name, found in documents.items() if _differs(found)},
        scores=_unequal(*(dict(_scores(run)) for run in (one, other))),
        orders=_unequal(*(_orders(run) for run in (one, other))),
        shares=_unequal(*(dict(_shares(run)) for run in (one, other))),
        tokens=_unequal(*(_tokens(run) for run in (one, other))),
        steps=dict(_steps(one, other)),
    )


def _differs(found: Documents) -> bool:
    return bool(found.added or found.removed or found.changed or found.reasons)


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = dict.fromkeys([*one, *other])
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values; a stage goes by its name, and the names in their order are one value more."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            name = item.get("name", number) if isinstance(item, dict) else number
            yield from _flat(item, f"{key}.{name}")
        if names := [item["name"] for item in value if isinstance(item, dict) and "name" in item]:
            yield f"{key} in order", names
    else:
        yield key, value


def _documents(one: Path, other: Path, source: str) -> Documents:
    first, second = (_hashes(run / "documents" / source) for run in (one, other))
    both = first.join(second, on="id", suffix="_now")
    lost, new = (a.join(b, on="id", how="anti")["id"].sort().to_list() for a, b in ((first, second), (second, first)))
    is_other = (pl.col("text") != pl.col("text_now")) | (pl.col("rows") != pl.col("rows_now"))
    changed_ids = both.filter(is_other)["id"].sort().to_list()
    return Documents(
        kept=(int(first["rows"].sum()), int(second["rows"].sum())),
        added=len(new),
        removed=len(lost),
        changed=len(changed_ids),
        examples={
            "added": _ended(one / "dropped" / source, new[:_MOST]),
            "removed": _ended(other / "dropped" / source, lost[:_MOST]),
            "changed": changed_ids[:_MOST],
        },
        reasons=_unequal(*(_reasons(run / "dropped" / source) for run in (one, other))),
    )


def _hashes(folder: Path) -> pl.DataFrame:
    if not folder.is_dir():
        return pl.DataFrame(schema={"id": pl.String, "text": pl.UInt64, "rows": pl.UInt32})
    # Token ids have no text: their metadata holds their hash.
    content = pl.when(pl.col("text") == "").then(pl.col("metadata")).otherwise(pl.col("text"))
    # An id may have several rows, whose order says nothing.
    texts = scan(folder).select("id", content.hash().alias("text"))
    return texts.group_by("id").agg(pl.col("text").sum(), rows=pl.len()).collect(engine="streaming")


def _ended(folder: Path, names: list[str]) -> list[str]:
    """Ids, each with the step that ended it."""
    ends = dict(_ends(folder, names))
    return [f"{name} ({ends.get(name, 'not read')})" for name in names]


def _ends(folder: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    if folder.is_dir():
        rows = scan(folder).filter(pl.col("id").is_in(names)).select("id", "step", "reason").collect()
        yield from ((name, f"{step}: {reason}" if reason else step) for name, step, reason in rows.iter_rows())


def _reasons(folder: Path) -> dict[str, int]:
    if not folder.is_dir():
        return {}
    rows = dropped_by_reason(folder).iter_rows()
    return {f"{step}: {reason}" if reason else step: count for step, reason, count in rows}


def _scores(run: Path) -> Iterator[tuple[str, list[Any]]]:
    for path in sorted((run / "scores").glob("*/*.parquet")):
        table = scan(path).collect(engine="streaming")
        values, content = table["value"].drop_nulls(), f"{table.hash_rows().sum():016x}"
        if COLUMNS[path.parent.name]["value"] is float:
            found = [values.quantile(q) for q in _QUANTILES] if len(values) else []
            shown: list[Any] = [round(float(each or 0), 4) for each in found]
        else:
            counts = values.value_counts(name="documents").sort("value")
            shown = [f"{label}: {count}" for label, count in counts.iter_rows()]
        yield f"{path.parent.name} {path.stem}", [len(values), *shown, content]


def _orders(run: Path) -> dict[str, str]:
    return {path.stem: file_hash(path)[:16] for path in sorted((run / "order").glob("*.npy"))}


def _shares(run: Path) -> Iterator[tuple[str, int]]:
    plan = read_json(run / "plan.json") or {"stages": []}
    for stage in plan["stages"]:
        yield from ((f"{stage['name']} {pool}", share["sequences"]) for pool, share in stage["sources"].items())


def _tokens(run: Path) -> dict[str, int]:
    manifest = read_json(run / "manifest.json") or {"sources": {}}
    return {name: its["document_tokens"] for name, its in manifest["sources"].items()}


def _steps(one: Path, other: Path) -> Iterator[tuple[str, str]]:
    """Yield the steps that both recorded with other inputs, and those that one of them did not do."""
    first, second = (read_json(run / ".cache" / "steps.json") or {} for run in (one, other))
    for name in dict.fromkeys([*first, *second]):
        if name not in first or name not in second:
            yield name, f"only in the {'second' if name in second else 'first'}"
        elif why := changed(first[name]["inputs"], second[name]["inputs"]):
            yield name, why
