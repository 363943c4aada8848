"""From pages to Documents: a datatrove pipeline in which a page carries its own verdict to the end.

A page that fails a step is marked with the step and the reason, later steps pass it by, and the last step writes it
to `dropped.parquet`. So what goes in comes out, kept or dropped, by construction. The steps are picklable and hold
no state between pages; the same list runs on any of datatrove's executors.
"""

import contextlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document

from mixer import dedup, language
from mixer.execute import Step
from mixer.extract import Rejected, extract
from mixer.read import read
from mixer.recipe.recipe import Clean
from mixer.recipe.sources import PageSource
from mixer.run import read_json, staged, write_json
from mixer.table import DOCUMENTS, DROPPED, TableWriter
from mixer.types import Failure, Page, Skipped, Unit

VERSION = 2
"""Raise it when the same input would give other documents; it is part of every cache key."""

_PROGRESS_EVERY = 64
_CHINESE: Mapping[str, dict[str, Any]] = {
    "gopher_repetition": {
        "dup_line_frac": 0.287,
        "top_n_grams": ((2, 0.256), (3, 0.201), (4, 0.171)),
        "dup_n_grams": ((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.14), (10, 0.127)),
    },
    "gopher_quality": {"min_avg_word_length": 1, "max_avg_word_length": 5, "max_non_alpha_words_ratio": 0.735},
    "c4": {"filter_no_terminal_punct": False, "min_words_per_line": -1},
    "fineweb": {"short_line_length": 10, "line_punct_thr": 0.106, "new_line_ratio": 0.178},
}
"""Thresholds that FineWeb-2 measured for Chinese (its configs/cmn_Hani.yml), and no lines dropped by words or marks."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\u200b\u2060\ufffe\uffff]")


@dataclass(slots=True)
class Draft:
    """A page on its way through the steps; `step` and `reason` say where it ended, if it did."""

    id: str
    text: str = ""
    page: Page | None = None
    url: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    step: str = ""
    reason: str = ""

    def drop(self, step: str, reason: str) -> None:
        """Mark the page as ended here."""
        self.step, self.reason, self.text, self.page = step, reason, "", None


@dataclass(frozen=True, slots=True)
class Task:
    """One unit to clean, where its result goes, and by which rules."""

    unit: Unit
    source: PageSource
    target: Path
    filters: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """Rows that the reader gave out: shared with the writer, which holds what arrives against it."""

    read: int = 0


class ReadPages(Step):
    """Yields a Draft for every row of the task's unit, failures included."""

    name = "read pages"

    def __init__(self, tasks: Sequence[Task], tally: Tally) -> None:
        super().__init__()
        self.tasks, self.tally = tasks, tally

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Draft]:
        task = self.tasks[rank]
        self.tally.read = 0
        for item in read(task.unit, task.source):
            self.tally.read += 1
            draft = Draft(item.id)
            if isinstance(item, Failure):
                draft.drop("failed", item.reason)
            elif isinstance(item, Skipped):
                draft.drop("read", item.reason)
            else:
                draft.page, draft.url, draft.metadata = item, item.url, dict(item.metadata)
            yield draft


class CleanPages(Step):
    """Extracts, repairs, identifies, filters and masks; marks what does not pass."""

    name = "clean pages"

    def __init__(self, tasks: Sequence[Task], clean: Clean) -> None:
        super().__init__()
        self.tasks, self.clean = tasks, clean

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Draft]:
        steps = steps_of(self.clean, self.tasks[rank].filters)
        for draft in data:
            for step in steps:
                if draft.step:
                    break
                step(draft)
            yield draft


class WriteUnit(Step):
    """Writes kept and dropped documents, dedup signatures and the ledger of one unit, whole or not at all."""

    name = "write unit"

    def __init__(self, tasks: Sequence[Task], clean: Clean, tally: Tally) -> None:
        super().__init__()
        self.tasks, self.clean, self.tally = tasks, clean, tally

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        task = self.tasks[rank]
        progress = task.target.parent / f"{task.target.name}.progress"
        with staged(task.target) as scratch:
            signer = dedup.Signer(self.clean.dedup)
            written = 0
            with (
                TableWriter(scratch / "documents.parquet", DOCUMENTS) as kept,
                TableWriter(scratch / "dropped.parquet", DROPPED) as dropped,
            ):
                for written, draft in enumerate(data, start=1):
                    _write(draft, task.unit.source, kept, dropped, signer)
                    if written % _PROGRESS_EVERY == 0:
                        progress.write_text(str(written))
            if written != self.tally.read:
                raise RuntimeError(f"{task.unit.names}: read {self.tally.read} rows, {written} reached the end")
            np.save(scratch / "exact.npy", signer.exact())
            np.save(scratch / "bands.npy", signer.bands())
            write_json(scratch / "ledger.json", {"read": self.tally.read})
        progress.unlink(missing_ok=True)


def _write(draft: Draft, source: str, kept: TableWriter, dropped: TableWriter, signer: dedup.Signer) -> None:
    if draft.step:
        dropped.write(id=draft.id, step=draft.step, reason=draft.reason, url=draft.url)
        return
    metadata = json.dumps(draft.metadata, ensure_ascii=False, sort_keys=True)
    kept.write(id=draft.id, text=draft.text, url=draft.url, source=source, metadata=metadata)
    signer.add(draft.text)


def steps_of(clean: Clean, filters: Sequence[str]) -> list[Callable[[Draft], None]]:
    """The steps that these rules ask for, in order; each takes a Draft and changes or drops it."""
    steps: list[Callable[[Draft], None]] = [lambda draft: _extract(draft, clean)]
    if clean.repair:
        steps.append(_repair)
    steps.append(lambda draft: _identify(draft, clean))
    steps += [lambda draft, name=name: _filter(draft, name) for name in filters]  # type: ignore[misc]
    if clean.pii == "mask":
        steps.append(_mask)
    steps.append(_not_empty)
    return steps


def _extract(draft: Draft, clean: Clean) -> None:
    assert draft.page is not None
    try:
        draft.text = extract(
            draft.page,
            engine=clean.extract,
            max_bytes=clean.max_page_bytes,
            max_elements=clean.max_page_elements,
        )
        draft.page = None
    except Rejected as rejected:
        draft.drop("extract", str(rejected))


def _repair(draft: Draft) -> None:
    import ftfy

    draft.text = _CONTROL.sub("", unicodedata.normalize("NFC", ftfy.fix_encoding(draft.text)))


def _identify(draft: Draft, clean: Clean) -> None:
    rule = clean.language
    code, probability = draft.metadata.get("language"), 1.0
    if not code or not language.is_code(code):
        code, probability = language.identify(draft.text)
    draft.metadata["language"] = code = language.short(code)
    if rule and code not in map(language.short, rule.keep):
        draft.drop("language", f"not kept: {code}")
    elif rule and probability < rule.threshold:
        draft.drop("language", f"unsure: {code} at {probability:.2f}")


def _filter(draft: Draft, name: str) -> None:
    document = Document(text=draft.text, id=draft.id)
    verdict = _datatrove_filter(name, draft.metadata["language"]).filter(document)
    draft.text = document.text
    # A verdict may be a non-empty tuple (False, reason), which is truthy.
    passed, reason = verdict if isinstance(verdict, tuple) else (verdict, "")
    if not passed:
        draft.drop(name, reason or "did not pass")


@cache
def _datatrove_filter(name: str, code: str) -> Any:
    """The named filter, with the thresholds that make sense in that language.

    datatrove's defaults are English. Chinese words are one or two characters long, so that more of them are marks, and
    its lines end in full-width ones; the stop words are English, so only English text is held to them.
    """
    from datatrove.pipeline.filters.c4_filters import C4QualityFilter
    from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
    from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
    from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

    words = language.word_tokenizer(code)
    options = dict(_CHINESE.get(name, {})) if code == "zh" else {}
    if name == "gopher_quality" and code != "en":
        options["min_stop_words"] = 0
    kinds = {
        "gopher_repetition": GopherRepetitionFilter,
        "gopher_quality": GopherQualityFilter,
        "c4": C4QualityFilter,
        "fineweb": FineWebQualityFilter,
    }
    return kinds[name](language=words, **options)


def _mask(draft: Draft) -> None:
    draft.text = _masker().format(draft.text)


@cache
def _masker() -> Any:
    """Datatrove's PII formatter with one replacement a kind: several are used in turn, across documents."""
    from datatrove.pipeline.formatters.pii import PIIFormatter

    return PIIFormatter(email_replacement=("email@example.com",), ip_replacement=("192.0.2.1",))


def _not_empty(draft: Draft) -> None:
    draft.text = draft.text.strip()
    if not draft.text:
        draft.drop("clean", "empty")


def is_done(target: Path) -> bool:
    """Whether a unit's result is there."""
    return (target / "ledger.json").is_file()


def rows_of(target: Path) -> int:
    """How many rows a finished unit's reader gave out."""
    return int(read_json(target / "ledger.json")["read"])


def progress_of(targets: Sequence[Path]) -> tuple[int, int]:
    """Units done, and rows seen so far in these and the running ones."""
    done = [target for target in targets if is_done(target)]
    rows = sum(map(rows_of, done))
    for target in set(targets) - set(done):
        with contextlib.suppress(OSError, ValueError):
            rows += int((target.parent / f"{target.name}.progress").read_text())
    return len(done), rows
