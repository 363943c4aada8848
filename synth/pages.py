"""The pages that a task writes from: chosen by hash, each with its language and discipline."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mixer import disciplines, embed
from mixer.recipe.synth import ScienceQa, Task
from mixer.run import digest
from mixer.table import scan

PAGES = pa.schema([(name, pa.string()) for name in ("id", "text", "source", "url", "language", "discipline")])
_BATCH = 256


def write_pages(path: Path, documents: Sequence[Path], task: Task, *, seed: int, name: str) -> None:
    """Write the pages to ask about: all of them, or `max_pages` by hash, each with language and discipline."""
    chosen = _chosen(documents, task.max_pages, seed, name)
    with pq.ParquetWriter(path, PAGES, compression="zstd") as out:
        for folder in documents:
            for batch in pq.ParquetFile(folder / "documents.parquet").iter_batches(batch_size=_BATCH):
                rows = [row for row in batch.to_pylist() if chosen is None or row["id"] in chosen]
                out.write_table(pa.Table.from_pylist(_described(rows, task), schema=PAGES))


def _chosen(documents: Sequence[Path], most: int | None, seed: int, name: str) -> set[str] | None:
    if most is None:
        return None
    ids = pl.concat([scan(folder / "documents.parquet").select("id") for folder in documents]).collect()["id"].to_list()
    return set(sorted(ids, key=lambda identity: digest([seed, name, identity]))[:most])


def _described(rows: list[dict[str, Any]], task: Task) -> list[dict[str, Any]]:
    metadata = [json.loads(row["metadata"]) for row in rows]
    key = task.discipline if isinstance(task, ScienceQa) else None
    if key is not None:
        fields = [str(found.get(key) or disciplines.DEFAULT) for found in metadata]
    elif isinstance(task, ScienceQa) and embed.is_available():
        fields = disciplines.nearest([row["text"] for row in rows], embed.Encoder())
    else:
        fields = [disciplines.DEFAULT] * len(rows)
    return [
        {
            **{key: row[key] for key in ("id", "text", "source", "url")},
            "language": "zh" if found.get("language", "en").startswith("zh") else "en",
            "discipline": discipline,
        }
        for row, found, discipline in zip(rows, metadata, fields, strict=True)
    ]
