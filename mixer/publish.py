"""What a build lays open in its Run: documents and dropped rows, scores, and samples of what was taken out."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from mixer.assess import Prepared
from mixer.audit import audit
from mixer.context import Context
from mixer.errors import SourceError
from mixer.exclude import FILE as HITS
from mixer.exclude import open_index
from mixer.overlap import report
from mixer.run import digest, discard, link, read_json, sha256, write_json
from mixer.score import FILE as VALUES
from mixer.score import REPORT
from mixer.table import scan

_NGRAM = 5


def publish(context: Context, prepared: Mapping[str, Prepared]) -> None:
    """Write `documents/`, `dropped/`, `scores/`, `decontamination/` and `dedup/` of the Run.

    Raises:
        SourceError: Ids repeat, or recall lies below the recipe's floor.
    """
    _documents(context, prepared)
    _scores(context, prepared)
    _report(context, prepared)
    _audit(context, prepared)


def _documents(context: Context, prepared: Mapping[str, Prepared]) -> None:
    """Give each source its `documents/` and `dropped/` folder, by link: the cache holds the same files."""
    for name, source in prepared.items():
        inputs = {**source.inputs, "documents": digest([folder.name for folder in source.documents])}
        for kind in ("documents", "dropped"):
            with context.steps.folder(f"{kind} {name}", inputs, context.run / kind / name) as scratch:
                if scratch is not None:
                    for number, folder in enumerate(source.documents):
                        link(folder / f"{kind}.parquet", scratch / f"{number:06d}.parquet")
        _unique_ids(context.run / "documents" / name, name)


def _scores(context: Context, prepared: Mapping[str, Prepared]) -> None:
    """Write `scores/<score>/<source>.parquet`: a row a document, also of those that a filter kept out.

    Beside them `report.json`, where the score learned something: how it does on what was held out.
    """
    for score in context.recipe.scores.taken:
        sides = {name: source.scores[score] for name, source in prepared.items() if score in source.scores}
        told = read_json(context.cache / "reports" / f"{score}.json")
        inputs = {name: digest([folder.name for folder in folders]) for name, folders in sides.items()}
        inputs |= {"its report": digest(told)} if told else {}
        with context.steps.folder(f"scores {score}", inputs, context.run / "scores" / score) as scratch:
            if scratch is not None:
                for name, folders in sides.items():
                    table = pl.concat([scan(folder / VALUES) for folder in folders])
                    table.collect().write_parquet(scratch / f"{name}.parquet", compression="zstd", statistics=False)
                if told:
                    write_json(scratch / REPORT, told)


def _report(context: Context, prepared: Mapping[str, Prepared]) -> None:
    """Write `decontamination/`: what was found where, and the recall that this build measured of itself."""
    benchmarks = open_index(context)
    if benchmarks is None:
        discard(context.run / "decontamination")
        return
    rules = context.recipe.clean.decontaminate
    folders = [folder for source in prepared.values() for folder in (*source.documents, *source.excluded)]
    inputs = {
        "index": benchmarks.folder.name,
        "folders": digest([folder.name for folder in folders]),
        "floor": rules.floor if rules else 0.0,
        "seed": context.recipe.seed,
    }
    with context.steps.folder("decontamination", inputs, context.run / "decontamination") as scratch:
        if scratch is not None:
            write_json(scratch / "report.json", report(context, prepared, benchmarks))
            for name, source in prepared.items():
                if not source.excluded:
                    continue
                table = pl.concat([scan(folder / HITS) for folder in source.excluded])
                table.collect().write_parquet(scratch / f"{name}.parquet", compression="zstd", statistics=False)


def _audit(context: Context, prepared: Mapping[str, Prepared]) -> None:
    """Write `dedup/audit.json`: some removed documents beside the ones that they were removed for."""
    removed = context.cache / "dedup" / "removed.parquet"
    cleaned = [folder for name in context.recipe.page_sources for folder in prepared[name].cleaned]
    near = context.recipe.clean.dedup.near
    inputs = {"removed": sha256(removed), "units": digest([folder.name for folder in cleaned])}
    inputs |= {"seed": str(context.recipe.seed)}
    with context.steps.folder("dedup audit", inputs, context.run / "dedup") as scratch:
        if scratch is not None:
            ngram = near.ngram if near else _NGRAM
            write_json(scratch / "audit.json", audit(scan(removed).collect(), cleaned, ngram, context.recipe.seed))


def _unique_ids(folder: Path, name: str) -> None:
    ids = scan(folder).select("id")
    hashes = ids.select(pl.col("id").hash()).collect()["id"]
    if hashes.n_unique() == len(hashes):
        return
    repeated = ids.group_by("id").len().filter(pl.col("len") > 1).sort("id").head(5).collect()["id"].to_list()
    if repeated:
        raise SourceError(
            f"source `{name}`: got ids that repeat, expected each once: {', '.join(map(repr, repeated))}",
            hint="leave out `columns.id`, or name a field that is unique",
        )
