"""Candidates as tables: all of them with their evidence, the accepted ones as Documents, and the funnel between."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from mixer.run import digest, write_json
from mixer.table import DOCUMENTS, DROPPED, TableWriter, scan
from synth.candidate import Candidate, SeedPage
from synth.surface import appended, training_text

_NO_PASSAGE = "pages: no passage to ask about"
_TEXTS = pa.list_(pa.string())
CANDIDATES = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "page", "page_source", "page_url", "page_hash", "discipline")),
        *((name, pa.string()) for name in ("language", "kind", "question", "answer", "explanation", "text")),
        ("choices", _TEXTS),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("evidence", _TEXTS),
        ("spans", pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64()), ("similarity", pa.float64())]))),
        (
            "checks",
            pa.list_(
                pa.struct(
                    [("name", pa.string()), ("passed", pa.bool_()), ("score", pa.float64()), ("detail", pa.string())]
                )
            ),
        ),
        ("votes", _TEXTS),
        ("closed", _TEXTS),
        ("prompt", pa.string()),
        ("model", pa.string()),
        ("parameters", pa.string()),
        ("keys", _TEXTS),
        ("accepted", pa.bool_()),
        ("reason", pa.string()),
    ]
)


def row_of(candidate: Candidate, made_with: Mapping[str, str]) -> dict[str, Any]:
    """One row of `candidates.parquet`; `made_with` holds the model and the sampling parameters."""
    pair, page = candidate.pair, candidate.page
    return {
        "id": candidate.id,
        "page": page.id,
        "page_source": page.source,
        "page_url": page.url,
        "page_hash": digest(page.text),
        "discipline": page.discipline,
        "language": pair.language if pair else page.language,
        "kind": pair.kind if pair else None,
        "question": pair.question if pair else None,
        "answer": pair.answer if pair else None,
        "explanation": pair.explanation if pair else None,
        "text": _text(candidate),
        "choices": list(pair.choices) if pair else [],
        "start": candidate.start,
        "end": candidate.end,
        "evidence": list(pair.evidence) if pair else [],
        "spans": [dict(zip(("start", "end", "similarity"), span, strict=True)) for span in candidate.spans],
        "checks": [asdict(check) for check in candidate.checks],
        "votes": list(candidate.votes),
        "closed": list(candidate.closed),
        "prompt": candidate.prompt,
        "keys": list(candidate.keys),
        "accepted": not candidate.reason,
        "reason": candidate.reason,
        **made_with,
    }


def write(
    folder: Path,
    pages: Iterable[tuple[SeedPage, list[Candidate]]],
    *,
    name: str,
    form: str,
    made_with: Mapping[str, str],
) -> None:
    """Write candidates, documents and dropped rows of one source.

    Args:
        folder: To write into.
        pages: Each page with its candidates.
        name: The synthetic source.
        form: `standalone` or `append`.
        made_with: Model and parameters, for provenance.
    """
    rows = 0
    with (
        TableWriter(folder / "candidates.parquet", CANDIDATES) as table,
        TableWriter(folder / "documents.parquet", DOCUMENTS) as kept,
        TableWriter(folder / "dropped.parquet", DROPPED) as dropped,
    ):
        for page, found in pages:
            for candidate in found:
                table.write(**row_of(candidate, made_with))
            documents, gone = _append(page, found) if form == "append" else _standalone(page, found)
            for identity, text, its in documents:
                kept.write(id=identity, text=text, url=page.url, source=name, metadata=_metadata(page, its, made_with))
            for identity, reason in gone:
                dropped.write(id=identity, step="synth", reason=reason, url=page.url)
            rows += len(documents) + len(gone)
    write_json(folder / "ledger.json", {"read": rows})


def pages_in(folder: Path) -> set[str]:
    """Ids of the pages that a written result tells of: those with candidates, and those without by reason."""
    told = scan(folder / "candidates.parquet").select("page").unique().collect()["page"]
    without = scan(folder / "dropped.parquet").filter(pl.col("reason") == _NO_PASSAGE).select("id").collect()["id"]
    return {*told, *without}


_Rows = tuple[list[tuple[str, str, list[Candidate]]], list[tuple[str, str]]]


def _standalone(page: SeedPage, found: list[Candidate]) -> _Rows:
    kept = [(each.id, _text(each), [each]) for each in found if not each.reason]
    gone = [(each.id, each.reason) for each in found if each.reason]
    return kept, gone if found else [(page.id, _NO_PASSAGE)]


def _append(page: SeedPage, found: list[Candidate]) -> _Rows:
    accepted = [each for each in found if not each.reason]
    pairs = [each.pair for each in accepted if each.pair]
    if pairs:
        return [(page.id, appended(page.text, pairs), accepted)], []
    return [], [(page.id, "pages: no pair accepted" if found else _NO_PASSAGE)]


def _text(candidate: Candidate) -> str:
    return training_text(candidate.pair) if candidate.pair else candidate.text


def _metadata(page: SeedPage, its: list[Candidate], made_with: Mapping[str, str]) -> str:
    """Provenance of one synthetic document: its page, prompt, model, answers and verdicts."""
    told = {
        "page": page.id,
        "page_source": page.source,
        "page_hash": digest(page.text),
        "discipline": page.discipline,
        "language": page.language,
        "prompt": its[0].prompt,
        "log_keys": ",".join(key for candidate in its for key in candidate.keys),
        "verdicts": "; ".join(f"{check.name} {check.score:.2f}" for candidate in its for check in candidate.checks),
        **made_with,
    }
    return json.dumps(told, ensure_ascii=False, sort_keys=True)


def funnel(candidates: Path, count: Callable[[list[str]], int]) -> pl.DataFrame:
    """Rows of (discipline, step, count): pages with candidates, candidates, each rejection, accepted, their tokens.

    Args:
        candidates: `candidates.parquet`.
        count: Tokens of some texts.
    """
    table = scan(candidates).select(
        "discipline", "page", "accepted", "text", reason=pl.col("reason").str.split(": ").list.first()
    )
    found = table.collect()
    rows: list[tuple[str, str, int]] = []
    for discipline, part in sorted(found.group_by("discipline"), key=lambda item: str(item[0])):
        label = str(discipline[0])
        rows += [(label, "pages", part["page"].n_unique()), (label, "candidates", len(part))]
        reasons = (
            part.filter(~pl.col("accepted")).group_by("reason").len().sort("len", "reason", descending=[True, False])
        )
        rows += [(label, f"rejected: {reason}", count) for reason, count in reasons.iter_rows()]
        accepted = part.filter("accepted")
        rows += [(label, "accepted", len(accepted)), (label, "tokens", count(accepted["text"].to_list()))]
    return pl.DataFrame(rows, schema=["discipline", "step", "count"], orient="row")
