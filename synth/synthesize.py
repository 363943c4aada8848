"""A synthetic source, whole: pick the pages, ask what the log doesn't hold, verify, and write candidates and documents.

Handed to `mixer.build` by the command line: `mixer` knows nothing of engines.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mixer.errors import SourceError
from mixer.prepare import Context
from mixer.recipe_sources import SynthSource
from mixer.recipe_synth import CodeQa, Model, Rephrase, Replay, ScienceQa, Task
from mixer.run import digest, link, staged
from mixer.table import scan
from synth import disciplines, embed, output, prompt
from synth.candidate import Candidate, SeedPage
from synth.code import CodeFlow
from synth.duplicates import duplicates
from synth.engine import Endpoint, serve
from synth.generate import Flow, Job, candidates, generate
from synth.log import ResponseLog
from synth.rehearse import ReplayFlow
from synth.rephrase import RephraseFlow
from synth.request import Ask
from synth.science import write_pairs
from synth.surface import templates

VERSION = 1
"""Raise it when the same answers would give other candidates or documents."""

Locate = Callable[[Model], tuple[Path | None, str]]
"""Folder of a model's weights (None for an endpoint), and its fingerprint."""
_PAGES_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "text", "source", "url", "language", "discipline")])
_BATCH = 256


@dataclass(frozen=True, slots=True)
class ScienceFlow:
    """The task `science_qa` with its settings."""

    chat: ClassVar[bool] = True
    task: ScienceQa
    seed: int

    async def __call__(self, page: SeedPage, ask: Ask) -> list[Candidate]:
        return await write_pairs(page, ask, self.task, seed=self.seed)


class Synthesizer:
    """Makes synthetic sources; keeps one server a model for as long as it is open.

    Args:
        locate: Finds a model's weights.
        regenerate: Forget the answers in the log, and ask anew.
    """

    def __init__(self, locate: Locate, *, regenerate: bool = False) -> None:
        self._locate, self._regenerate = locate, regenerate
        self._servers = ExitStack()
        self._endpoints: dict[str, Endpoint] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._servers.close()

    def __call__(self, context: Context, name: str, documents: Sequence[Path]) -> Path:
        """The folder with a synthetic source's documents, dropped rows and candidates.

        Args:
            context: The build.
            name: The synthetic source.
            documents: Units of the source that it is written from, in order.

        Raises:
            EngineError: The model cannot be asked.
            SourceError: Pages are missing from what came out.
        """
        source = context.recipe.sources[name]
        assert isinstance(source, SynthSource)
        task = task_of(context, source)
        model = context.recipe.models[task.model]
        folder, fingerprint = self._locate(model)
        inputs = _inputs(context, source, task, fingerprint, documents)
        target = context.cache / "synth" / digest(inputs)
        home = context.run / "synth" / name
        if self._regenerate:
            _forget(home / "responses")
        if target.is_dir() and not self._regenerate:
            context.say(f"skip synth {name}: nothing changed")
        else:
            self._make(context, name, task, model, (folder, fingerprint), documents, target)
        with staged(home / "result") as scratch:
            link(target / "candidates.parquet", scratch / "candidates.parquet")
        (home / "result" / "candidates.parquet").replace(home / "candidates.parquet")
        (home / "result").rmdir()
        return target

    def _make(
        self,
        context: Context,
        name: str,
        task: Task,
        model: Model,
        found: tuple[Path | None, str],
        documents: Sequence[Path],
        target: Path,
    ) -> None:
        folder, fingerprint = found
        work = context.cache / "synth-work" / name
        work.mkdir(parents=True, exist_ok=True)
        pages = work / "pages.parquet"
        write_pages(pages, documents, task, seed=context.recipe.seed, name=name)
        flow = flow_of(task, context.recipe.seed)
        log = context.run / "synth" / name / "responses"
        todo = work / "todo.parquet"
        missing = _write_missing(pages, flow, ResponseLog(log, fingerprint), todo)
        total = pq.ParquetFile(pages).metadata.num_rows
        context.say(f"make synth {name}: {missing:,} of {total:,} pages to ask about, the others are in the log")
        if missing:
            endpoint = self._endpoint(context, task.model, model, folder, fingerprint)
            generate(Job(todo, flow, log, endpoint, work), f"synth {name}")
        made_with = {"model": f"{task.model}@{fingerprint}", "parameters": str(task.sampling.model_dump())}
        with staged(target) as scratch:
            results = _verified(pages, flow, ResponseLog(log, fingerprint), task, name)
            counts = output.write(scratch, results, name=name, form=_form(task), made_with=made_with)
        if counts["pages"] != total:
            raise SourceError(
                f"synth {name}: got {counts['pages']:,} pages out, expected {total:,}", hint="run it again"
            )

    def _endpoint(self, context: Context, name: str, model: Model, folder: Path | None, fingerprint: str) -> Endpoint:
        if name not in self._endpoints:
            log = context.run / "synth" / f"engine-{name}.log"
            served = serve(model, folder=folder, fingerprint=fingerprint, log=log, say=context.say)
            self._endpoints[name] = self._servers.enter_context(served)
        return self._endpoints[name]


def task_of(context: Context, source: SynthSource) -> Task:
    """The settings of a synthetic source's task."""
    task: Task | None = getattr(context.recipe.synth, source.task)
    assert task is not None
    return task


def flow_of(task: Task, seed: int) -> Flow:
    """The coroutine that writes from one page."""
    if isinstance(task, CodeQa):
        return CodeFlow(task, seed)
    if isinstance(task, Rephrase):
        return RephraseFlow(task)
    if isinstance(task, Replay):
        return ReplayFlow(task)
    assert isinstance(task, ScienceQa)
    return ScienceFlow(task, seed)


def _form(task: Task) -> str:
    return task.form if isinstance(task, ScienceQa) else "standalone"


def _inputs(
    context: Context, source: SynthSource, task: Task, fingerprint: str, documents: Sequence[Path]
) -> dict[str, Any]:
    """All that decides the result, given the log."""
    return {
        "documents": [folder.name for folder in documents],
        "task": source.task,
        "settings": task.model_dump(mode="json"),
        "model": fingerprint,
        "seed": context.recipe.seed,
        "prompts": [prompt.version(name) for name in prompt.tasks()],
        "version": VERSION,
    }


def _forget(log: Path) -> None:
    for path in log.glob("*.jsonl"):
        path.unlink()


def write_pages(path: Path, documents: Sequence[Path], task: Task, *, seed: int, name: str) -> None:
    """Write the pages to ask about: all of them, or `max_pages` by hash, each with language and discipline."""
    chosen = _chosen(documents, task.max_pages, seed, name)
    with pq.ParquetWriter(path, _PAGES_SCHEMA, compression="zstd") as out:
        for folder in documents:
            for batch in pq.ParquetFile(folder / "documents.parquet").iter_batches(batch_size=_BATCH):
                rows = [row for row in batch.to_pylist() if chosen is None or row["id"] in chosen]
                out.write_table(pa.Table.from_pylist(_described(rows, task), schema=_PAGES_SCHEMA))


def _chosen(documents: Sequence[Path], most: int | None, seed: int, name: str) -> set[str] | None:
    if most is None:
        return None
    ids = pl.concat([scan(folder / "documents.parquet").select("id") for folder in documents]).collect()["id"].to_list()
    return set(sorted(ids, key=lambda identity: digest([seed, name, identity]))[:most])


def _described(rows: list[dict[str, Any]], task: Task) -> list[dict[str, Any]]:
    import json

    metadata = [json.loads(row["metadata"]) for row in rows]
    key = getattr(task, "discipline", None)
    if key is not None:
        fields = [str(found.get(key) or "general education") for found in metadata]
    elif isinstance(task, ScienceQa) and embed.is_available():
        fields = disciplines.nearest([row["text"] for row in rows], embed.Encoder())
    else:
        fields = ["general education"] * len(rows)
    return [
        {
            **{key: row[key] for key in ("id", "text", "source", "url")},
            "language": "zh" if found.get("language", "en").startswith("zh") else "en",
            "discipline": discipline,
        }
        for row, found, discipline in zip(rows, metadata, fields, strict=True)
    ]


def _write_missing(pages: Path, flow: Flow, log: ResponseLog, todo: Path) -> int:
    """Write the pages whose answers are not all in the log; returns how many."""
    count = 0
    with pq.ParquetWriter(todo, _PAGES_SCHEMA, compression="zstd") as out:
        for page, found in candidates(pages, flow, log):
            if found is None:
                out.write_table(pa.Table.from_pylist([asdict(page)], schema=_PAGES_SCHEMA))
                count += 1
    return count


def _verified(
    pages: Path, flow: Flow, log: ResponseLog, task: Task, name: str
) -> Iterator[tuple[SeedPage, list[Candidate]]]:
    """Each page with its final candidates: near-duplicate questions are marked, of any two the later one."""
    repeated = _repeated(pages, flow, log)
    for page, found in _complete(pages, flow, log, name):
        yield (
            page,
            [
                replace(each, reason=repeated[each.id]) if not each.reason and each.id in repeated else each
                for each in found
            ],
        )


def _complete(pages: Path, flow: Flow, log: ResponseLog, name: str) -> Iterator[tuple[SeedPage, list[Candidate]]]:
    for page, found in candidates(pages, flow, log):
        if found is None:
            raise SourceError(
                f"synth {name}: got no answer for page {page.id}, expected all in the log", hint="run it again"
            )
        yield page, found


def _repeated(pages: Path, flow: Flow, log: ResponseLog) -> Mapping[str, str]:
    """Reason for each accepted candidate whose question an earlier accepted one asks too."""
    ids, questions = [], []
    for _, found in candidates(pages, flow, log):
        for each in found or ():
            if not each.reason:
                ids.append(each.id)
                questions.append(each.pair.question if each.pair else each.text)
    witnesses = duplicates(questions, templates())
    return {ids[i]: f"duplicate: {share:.2f} of it in {ids[kept]}" for i, (kept, share) in witnesses.items()}
