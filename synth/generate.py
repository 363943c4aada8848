"""Pages to answers in the response log, through datatrove's InferenceRunner; and from the log to candidates.

A task is a coroutine that asks questions and builds candidates. It runs twice, over the same pages: once against the
engine, where all that matters is that each answer reaches the log; then against the log alone, which gives the
candidates. So a rebuild from the log is not a second way of doing it, it is the way.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.inference.types import InferenceError, ServerError
from datatrove.pipeline.writers import JsonlWriter

from mixer.errors import EngineError
from mixer.execute import Step, execute
from synth.candidate import Candidate, SeedPage
from synth.client import AGAIN, Asker, Client, Generate, Refusals, cause_of
from synth.engine import Endpoint
from synth.log import ResponseLog
from synth.request import Ask, Request, Response

_REQUESTS = 64
_PAGES = 24


class MissingError(Exception):
    """The log holds no answer to a request."""


class Flow(Protocol):
    """A task with its settings: writes from one page. Picklable; its requests depend on its arguments alone."""

    @property
    def chat(self) -> bool:
        """Whether it asks chat messages, or has text continued."""

    def __call__(self, page: SeedPage, ask: Ask) -> Awaitable[list[Candidate]]: ...


@dataclass(frozen=True, slots=True)
class Job:
    """Pages to write from, by which flow, into which log.

    Args:
        pages: Parquet file of SeedPages.
        flow: The task.
        log: Folder of the response log.
        endpoint: The engine.
        work: Folder for progress and datatrove's own files.
        tasks: Processes that drive the engine, each with a log file of its own.
    """

    pages: Path
    flow: Flow
    log: Path
    endpoint: Endpoint
    work: Path
    tasks: int = 1


def seed_pages(path: Path) -> Iterator[SeedPage]:
    """The pages of a file, in order, a few at a time."""
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=64):
            yield from (SeedPage(**row) for row in batch.to_pylist())


def candidates(pages: Path, flow: Flow, log: ResponseLog) -> Iterator[tuple[SeedPage, list[Candidate] | None]]:
    """Each page with its candidates from the log alone, or None where an answer is missing there."""

    async def look(request: Request) -> Response:
        found = log.find(request)
        if found is None:
            raise MissingError
        return found

    with asyncio.Runner() as runner:
        for page in seed_pages(pages):
            try:
                yield page, runner.run(_result(flow, page, look))
            except MissingError:
                yield page, None


async def _result(flow: Flow, page: SeedPage, ask: Ask) -> list[Candidate]:
    return await flow(page, ask)


def generate(job: Job, label: str) -> None:
    """Ask the engine everything that the flow asks about these pages and that the log doesn't hold yet.

    Raises:
        EngineError: The engine is given up, or does not answer.
    """
    total = pq.ParquetFile(job.pages).metadata.num_rows
    job.work.mkdir(parents=True, exist_ok=True)
    files = [_progress_file(job, rank) for rank in range(job.tasks)]
    for file in files:
        file.unlink(missing_ok=True)
    try:
        execute(
            [ReadSeedPages(job), _runner(job)],
            targets=[file.with_suffix("") for file in files],
            workers=job.tasks,
            logs=job.work / "logs",
            label=label,
            watch=lambda: _progress(files),
            total=total,
            units=("pages", "answers"),
        )
    except (InferenceError, ServerError) as error:
        raise _engine_error(job.endpoint, error) from error


def _progress_file(job: Job, rank: int) -> Path:
    return job.work / f"{rank:05d}.progress"


def _progress(files: Sequence[Path]) -> tuple[int, int]:
    """Pages done and answers written, of all tasks."""
    pages = answered = 0
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            done, found = map(int, file.read_text().split())
            pages, answered = pages + done, answered + found
    return pages, answered


def _engine_error(endpoint: Endpoint, error: Exception) -> Exception:
    """What to tell of an error: a mistake of ours stays what it is."""
    cause = cause_of(error)
    if not isinstance(cause, InferenceError | ServerError | OSError):
        return cause
    return EngineError(f"engine at {endpoint.url}: {str(cause)[:500]}", hint=AGAIN)


class ReadSeedPages(Step):
    """Yields every `world_size`-th page as a datatrove Document; the page itself travels in its metadata."""

    name = "read seed pages"

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for number, page in enumerate(seed_pages(self.job.pages)):
            if number % world_size == rank:
                yield Document(text=page.text, id=page.id, metadata={"page": page})


def _runner(job: Job) -> InferenceRunner:
    endpoint = job.endpoint
    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path=endpoint.name,
        endpoint_url=endpoint.url,
        use_chat=job.flow.chat,
        max_concurrent_generations=_REQUESTS,
        max_concurrent_documents=_PAGES,
        metric_interval=3600,
    )
    return _Runner(_Rollout(job), config, JsonlWriter(str(job.work / "unused")))


class _Runner(InferenceRunner):  # type: ignore[misc]
    """InferenceRunner whose only output is the response log.

    Its own writer counts a document as done although the write failed; here nothing is written, and what the log holds
    is read back afterwards.
    """

    type = "synth"

    def _init_server(self, rank: int) -> Client:
        return Client(self.rollout_fn.job.endpoint, self.config, rank)

    async def _save_document(self, *_: Any, **__: Any) -> None:
        return

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        with self.rollout_fn.opened(rank):
            super().run(data, rank, world_size)
            self.rollout_fn.finish()


class _Rollout:
    """What InferenceRunner calls for each page."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._log: ResponseLog | None = None
        self._held = self._done = 0
        self._progress = Path()
        self._refusals = Refusals()
        self._running: dict[str, asyncio.Task[Response]] = {}

    def opened(self, rank: int) -> ResponseLog:
        """The log, open for this process to add to."""
        self._log = ResponseLog(
            self.job.log, self.job.endpoint.fingerprint, f"{rank:05d}", served=self.job.endpoint.served
        )
        self._held, self._done, self._progress = len(self._log), 0, _progress_file(self.job, rank)
        self._progress.write_text("0 0")
        self._refusals, self._running = Refusals(), {}
        return self._log

    def finish(self) -> None:
        """Write down what was refused where nothing was answered."""
        assert self._log is not None
        self._refusals.flush(self._log)

    async def __call__(self, document: Document, generate: Generate) -> None:
        assert self._log is not None
        ask = Asker(generate, self._log, self.job.endpoint, self._refusals, self._running)
        await self.job.flow(document.metadata["page"], ask)
        self._done += 1
        self._progress.write_text(f"{self._done} {len(self._log) - self._held}")
