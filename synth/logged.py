"""Pages against the response log alone: which of them must still be asked about, and what the others give."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mixer.errors import SourceError
from synth.candidate import Candidate, SeedPage
from synth.generate import Flow, candidates
from synth.log import ResponseLog
from synth.pages import PAGES


def write_missing(pages: Path, flow: Flow, log: ResponseLog, todo: Path) -> int:
    """Write the pages whose answers are not all in the log; returns how many."""
    count = 0
    with pq.ParquetWriter(todo, PAGES, compression="zstd") as out:
        for page, found in candidates(pages, flow, log):
            if found is None:
                out.write_table(pa.Table.from_pylist([asdict(page)], schema=PAGES))
                count += 1
    return count


def complete(pages: Path, flow: Flow, log: ResponseLog, name: str) -> Iterator[tuple[SeedPage, list[Candidate]]]:
    """Each page with its candidates.

    Raises:
        SourceError: An answer is not in the log.
    """
    for page, found in candidates(pages, flow, log):
        if found is None:
            raise SourceError(
                f"synth {name}: got no answer for page {page.id}, expected all in the log", hint="run it again"
            )
        yield page, found
