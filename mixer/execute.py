"""Running a datatrove pipeline on an executor, with its own logging kept to files and progress shown to people."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep
from loguru import logger
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mixer.errors import SourceError

Watch = Callable[[], tuple[int, int]]
"""Returns (units done, documents seen so far)."""
_POLL_S = 0.5
_PLAIN_EVERY_S = 60.0


def execute(pipeline: Sequence[Any], *, tasks: int, workers: int, logs: Path, label: str, watch: Watch) -> None:
    """Run every task of a pipeline; returns when all are done.

    Args:
        pipeline: datatrove steps; task r handles unit r.
        tasks: How many units there are.
        workers: Processes; with 1 the tasks run in this one.
        logs: Folder for datatrove's own logs and statistics.
        label: What the progress bar says.
        watch: Asked twice a second how far the work is.
    """
    if not tasks:
        return
    # Slow to import, and a rerun that has nothing to clean never needs it.
    from datatrove.executor import LocalPipelineExecutor

    executor = LocalPipelineExecutor(
        list(pipeline), tasks=tasks, workers=min(workers, tasks), logging_dir=str(logs), skip_completed=False
    )
    logger.disable("datatrove")
    with progress(label, tasks, watch):
        executor.run()


class Step(PipelineStep):  # type: ignore[misc]
    """A pipeline step of ours. Copied into a worker, it keeps datatrove's line-a-task console log quiet there."""

    type = "mixer"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        logger.disable("datatrove")


@contextmanager
def progress(label: str, total: int, watch: Watch) -> Iterator[None]:
    """Show progress on stderr while the block runs: a bar on a terminal, else a line a minute."""
    stop = threading.Event()
    show = _bar if sys.stderr.isatty() else _lines
    thread = threading.Thread(target=show, args=(label, total, watch, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _bar(label: str, total: int, watch: Watch, stop: threading.Event) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} units, {task.fields[documents]:,} documents, {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=total, documents=0, rate="")
        while not stop.wait(_POLL_S):
            done, documents = watch()
            rate = f"{documents / (time.monotonic() - began):,.0f}/s"
            bars.update(task, completed=done, documents=documents, rate=rate)


def _lines(label: str, total: int, watch: Watch, stop: threading.Event) -> None:
    began = time.monotonic()
    while not stop.wait(_PLAIN_EVERY_S):
        done, documents = watch()
        seconds = time.monotonic() - began
        left = f", {seconds / done * (total - done):,.0f} s left" if done else ""
        text = f"{label}: {done}/{total} units, {documents:,} documents, {documents / seconds:,.0f}/s{left}"
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def default_workers() -> int:
    """As many processes as this machine has cores to give."""
    return max(1, len(os.sched_getaffinity(0)))


def check_workers(workers: int) -> int:
    """The number of workers, refused below one."""
    if workers < 1:
        raise SourceError(f"--workers: got {workers}, expected at least 1", hint="leave it out to use every core")
    return workers


def check_executor(executor: str) -> None:
    """Refuse an executor that is not there."""
    if executor != "local":
        raise SourceError(f"--executor: got {executor!r}, expected `local`", hint="leave it out")
