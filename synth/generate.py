"""Pages to answers in the response log, through datatrove's InferenceRunner; and from the log to candidates.

A task is a coroutine that asks questions and builds candidates. It runs twice, over the same pages: once against the
engine, where all that matters is that each answer reaches the log; then against the log alone, which gives the
candidates. So a rebuild from the log is not a second way of doing it, it is the way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.inference.servers import EndpointServer
from datatrove.pipeline.inference.types import InferenceError, InferenceResult, ServerError
from datatrove.pipeline.writers import JsonlWriter

from mixer.errors import EngineError
from mixer.execute import Step, execute
from synth.answer import REFUSED
from synth.candidate import Candidate, SeedPage
from synth.engine import Endpoint, answers
from synth.log import ResponseLog
from synth.request import TEXT, Ask, Request, Response

Generate = Callable[[dict[str, Any]], Coroutine[Any, Any, InferenceResult]]

_REQUESTS = 64
_PAGES = 24
_ATTEMPTS = 12
_SAME_FAULT = 3
_PAUSE_S = 5.0
_LONGEST_S = 1800.0


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
    targets = [job.work / f"{rank:05d}" for rank in range(job.tasks)]
    job.work.mkdir(parents=True, exist_ok=True)
    try:
        execute(
            [ReadSeedPages(job), _runner(job)],
            targets=targets,
            workers=job.tasks,
            logs=job.work / "logs",
            label=label,
            watch=lambda: (sum(map(_done, targets)) * job.tasks // max(1, total), sum(map(_done, targets))),
        )
    except (InferenceError, ServerError) as error:
        raise _engine_error(job.endpoint, error) from error


def _done(target: Path) -> int:
    try:
        return int(target.with_suffix(".progress").read_text())
    except (OSError, ValueError):
        return 0


def _engine_error(endpoint: Endpoint, error: Exception) -> EngineError:
    while isinstance(error, InferenceError) and isinstance(error.error, Exception):
        error = error.error
    if isinstance(error, EngineError):
        return error
    hint = "run it again: what was answered is in the log and is not asked again"
    return EngineError(f"engine at {endpoint.url}: {str(error)[:500]}", hint=hint)


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

    def _init_server(self, rank: int) -> EndpointServer:
        return _Ready(self.rollout_fn.job.endpoint, self.config, rank)

    async def _save_document(self, *_: Any, **__: Any) -> None:
        return

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        with self.rollout_fn.opened(rank):
            super().run(data, rank, world_size)


class _Ready(EndpointServer):  # type: ignore[misc]
    """An endpoint known to answer: datatrove asks `/v1/models` without the key, which endpoints with keys refuse."""

    client: Any

    def __init__(self, endpoint: Endpoint, config: InferenceConfig, rank: int) -> None:
        # The key is put in here, not into the pipeline: an executor writes that to disk.
        super().__init__(replace(config, api_key=endpoint.key), rank)
        if self.client is not None:
            self.client = self.client.with_options(base_url=f"{self.endpoint_url}/v1")

    async def is_ready(self) -> bool:
        return True


class _Rollout:
    """What InferenceRunner calls for each page."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._log: ResponseLog | None = None
        self._done = 0
        self._progress = Path()

    def opened(self, rank: int) -> ResponseLog:
        """The log, open for this process to add to."""
        self._log = ResponseLog(self.job.log, self.job.endpoint.fingerprint, f"{rank:05d}")
        self._progress, self._done = self.job.work / f"{rank:05d}.progress", 0
        return self._log

    async def __call__(self, document: Document, generate: Generate) -> None:
        assert self._log is not None
        ask = _Engine(generate, self._log, self.job.endpoint)
        await self.job.flow(document.metadata["page"], ask)
        self._done += 1
        self._progress.write_text(str(self._done))


class _Engine:
    """Asks the engine what the log doesn't hold, and writes the answer down before anyone sees it."""

    def __init__(self, generate: Generate, log: ResponseLog, endpoint: Endpoint) -> None:
        self._generate, self._log, self._endpoint = generate, log, endpoint

    async def __call__(self, request: Request) -> Response:
        found = self._log.find(request)
        if found is None:
            found = await self._asked(request)
            self._log.add(request, found)
        return found

    async def _asked(self, request: Request) -> Response:
        """One answer, with patience for an engine that died and is being started again."""
        empty = Response("", REFUSED, request.key(self._endpoint.fingerprint))
        for attempt in range(_ATTEMPTS):
            try:
                result = await self._while_alive(self._generate(_payload(request)))
            except (ServerError, InferenceError) as error:
                if isinstance(error, InferenceError) and "BadRequestError" in str(error.error):
                    return replace(empty, text=str(error.error)[:500])
                if attempt + 1 >= _SAME_FAULT and await asyncio.to_thread(answers, self._endpoint.url):
                    # The engine is well: it is this request that it cannot serve.
                    return replace(empty, text=str(error)[:500])
                if attempt + 1 == _ATTEMPTS:
                    raise
                await asyncio.sleep(_PAUSE_S)
                continue
            usage = result.usage
            return replace(
                empty,
                text=result.text,
                finish_reason=result.finish_reason,
                prompt_tokens=usage.get("prompt_tokens", 0),
                completion_tokens=usage.get("completion_tokens", 0),
            )
        raise AssertionError("unreachable")

    async def _while_alive(self, asked: Coroutine[Any, Any, InferenceResult]) -> InferenceResult:
        task = asyncio.ensure_future(asked)
        waited = 0.0
        while not task.done():
            await asyncio.wait({task}, timeout=1.0)
            waited += 1.0
            if self._endpoint.failed.is_file() or waited > _LONGEST_S:
                task.cancel()
                reason = self._endpoint.failed.read_text("utf-8") if self._endpoint.failed.is_file() else "no answer"
                raise EngineError(reason, hint="run it again: what was answered is in the log and is not asked again")
        return task.result()


def _payload(request: Request) -> dict[str, Any]:
    if request.messages[0]["role"] == TEXT:
        return {"prompt": request.messages[0]["content"], **request.parameters}
    payload: dict[str, Any] = {"messages": list(request.messages), **request.parameters}
    if request.schema is not None:
        schema = {"name": "answer", "schema": request.schema, "strict": True}
        payload["response_format"] = {"type": "json_schema", "json_schema": schema}
    return payload
