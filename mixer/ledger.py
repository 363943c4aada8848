"""Conservation: for every source, documents in = kept + dropped by reason + failed, or the build fails."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mixer.clean import rows_of
from mixer.errors import SourceError
from mixer.table import scan


@dataclass(frozen=True, slots=True)
class Ledger:
    """What became of one source's documents; `dropped` maps `step: reason` to a count."""

    read: int
    kept: int
    dropped: dict[str, int]
    failed: int

    def as_json(self) -> dict[str, Any]:
        """The ledger as the manifest holds it."""
        return asdict(self)


def conserve(run: Path, name: str, cleaned: Sequence[Path]) -> Ledger:
    """Count a source's documents as they lie in the Run and hold them against what was read.

    Args:
        run: The Run folder, with `documents/<name>` and `dropped/<name>`.
        name: The source.
        cleaned: Its cleaned units, which know how many rows their readers gave out.

    Raises:
        SourceError: They do not add up.
    """
    read = sum(map(rows_of, cleaned))
    kept = scan(run / "documents" / name).select(pl.len()).collect().item()
    dropped = dropped_by_reason(run / "dropped" / name)
    failed = int(dropped.filter(pl.col("step") == "failed")["len"].sum())
    if read != kept + dropped["len"].sum():
        raise SourceError(
            f"source `{name}`: got {kept:,} kept and {dropped['len'].sum():,} dropped, expected {read:,} in all",
            hint="remove the Run's .cache folder and build again; if it stays, please report it",
        )
    return Ledger(
        read=read,
        kept=kept,
        dropped={
            f"{step}: {reason}" if reason else step: count
            for step, reason, count in dropped.iter_rows()
            if step != "failed"
        },
        failed=failed,
    )


def dropped_by_reason(folder: Path) -> pl.DataFrame:
    """Counts by step and by the fixed first part of the reason; a duplicate's reason names its witness instead."""
    is_duplicate = pl.col("step").str.ends_with("_dedup")
    first_part = pl.col("reason").str.split(":").list.first()
    return (
        scan(folder)
        .with_columns(reason=pl.when(is_duplicate).then(pl.lit("")).otherwise(first_part))
        .group_by("step", "reason")
        .len()
        .sort("step", "reason")
        .collect()
    )
