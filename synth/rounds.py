"""Self-improvement: reliable pairs of a first part of the pages become demonstrations for the others.

After self-improving named-entity recognition (Xie et al., NAACL 2024, arXiv 2311.08921): what the model's own votes
agree on is shown to it again, nearest first. Two rounds and no more: there a second iteration did not help reliably.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mixer.embed import Encoder
from mixer.run import digest
from synth.candidate import Candidate, Pair, SeedPage
from synth.demonstrations import Demonstration, choose
from synth.generate import seed_pages
from synth.pages import PAGES

_FIRST_SHARE = 4
"""One page in so many is asked about in the first round."""
_LEAST_AGREEMENT = 0.99


def is_first(page: SeedPage, seed: int) -> bool:
    """Whether a page belongs to the first round, by hash."""
    return int(digest([seed, "round", page.source, page.id])[:8], 16) % _FIRST_SHARE == 0


def write_first(pages: Path, target: Path, seed: int) -> None:
    """Write the pages of the first round to a file of their own."""
    with pq.ParquetWriter(target, PAGES, compression="zstd") as out:
        for page in seed_pages(pages):
            if is_first(page, seed):
                row = {name: getattr(page, name) for name in PAGES.names}
                out.write_table(pa.Table.from_pylist([row], schema=PAGES))


def reliable(found: Iterable[Candidate]) -> list[Demonstration]:
    """The accepted pairs on which all votes agreed; with no votes asked for, none is reliable."""
    pool = []
    for each in found:
        votes = next((check.score for check in each.checks if check.name == "votes"), 0.0)
        if not each.reason and each.pair is not None and votes >= _LEAST_AGREEMENT:
            passage = each.pair.evidence[0] if each.pair.evidence else each.page.text[each.start : each.end]
            pool.append(Demonstration(each.pair, passage, each.page.id, votes))
    return pool


def chosen(
    pages: Path, pool: list[Demonstration], encoder: Encoder, *, count: int, seed: int
) -> Mapping[str, tuple[Pair, ...]]:
    """Page id -> the demonstrations that it is shown; the pages of the first round are shown none."""
    found = {}
    for page in seed_pages(pages):
        same = [item for item in pool if item.pair.language == page.language]
        if same and not is_first(page, seed):
            found[page.id] = tuple(item.pair for item in choose(page.text, same, encoder.embed, count=count))
    return found
