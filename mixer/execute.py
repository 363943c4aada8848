"""Running a datatrove pipeline on an executor, with its own logging kept to files and progress shown to people."""

import ctypes
import os
import signal
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
from mixer.run import scratch_owners

Watch = Callable[[], tuple[int, int]]
"""Returns (units done, documents seen so far), or other things by which work is told."""
_UNITS = ("units", "documents")
_POLL_S = 0.5
_PLAIN_EVERY_S = 60.0
_GRACE_S = 10.0
_LOST = "got a worker that was killed from outside, expected it to finish"
_LOST_HINT = "most likely memory ran out: use fewer --workers and run it again; what is done stays"


def execute(
    pipeline: Sequence[Any],
    *,
    targets: Sequence[Path],
    workers: int,
    logs: Path,
    label: str,
    watch: Watch,
    total: int | None = None,
    units: tuple[str, str] = _UNITS,
) -> None:
    """Run every task of a pipeline; returns when all are done.

    Args:
        pipeline: datatrove steps; task r writes the folder `targets[r]`.
        targets: Where the results go, a task each.
        workers: Processes; with 1 the tasks run in this one.
        logs: Folder for datatrove's own logs and statistics.
        label: What the progress bar says.
        watch: Asked twice a second how far the work is.
        total: What `watch` comes to in the end. Default: as many as there are tasks.
        units: What the two numbers of `watch` count.

    Raises:
        SourceError: A worker was killed from outside.
    """
    tasks = len(targets)
    if not tasks:
        return
    # Slow to import, and a rerun that has nothing to clean never needs it.
    from datatrove.executor import LocalPipelineExecutor

    executor = LocalPipelineExecutor(
        list(pipeline), tasks=tasks, workers=min(workers, tasks), logging_dir=str(logs), skip_completed=False
    )
    logger.disable("datatrove")
    lost = threading.Event()
    folders = {target.parent for target in targets}
    with progress(label, total or tasks, watch, units), _guarded(folders, lost, label), _leashed():
        try:
            executor.run()
        except KeyboardInterrupt:
            if not lost.is_set():
                raise
            raise SourceError(f"{label}: {_LOST}", hint=_LOST_HINT) from None


class Step(PipelineStep):  # type: ignore[misc]
    """A pipeline step of ours. Copied into a worker, it keeps datatrove's line-a-task console log quiet there."""

    type = "mixer"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        logger.disable("datatrove")


@contextmanager
def _alongside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in a thread of its own during the block, and tell it by the event when to end."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def progress(label: str, total: int, watch: Watch, units: tuple[str, str] = _UNITS) -> Iterator[None]:
    """Show progress on stderr while the block runs: a bar on a terminal, else a line a minute."""
    show = _bar if sys.stderr.isatty() else _lines
    with _alongside(lambda stop: show(label, total, watch, units, stop)):
        yield


@contextmanager
def _guarded(folders: set[Path], lost: threading.Event, label: str) -> Iterator[None]:
    """Interrupt the block when a worker that was writing into one of the folders is gone.

    A process pool waits for ever for the task of a killed worker; what the worker leaves is its scratch folder. The
    pool may even hang while it is taken down; then this process ends at once, which loses nothing: results are whole.
    """

    def guard(stop: threading.Event) -> None:
        while not stop.wait(_POLL_S):
            if any(not _is_alive(owner) for folder in folders for owner in scratch_owners(folder)):
                lost.set()
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                if not stop.wait(_GRACE_S):
                    sys.stderr.write(f"error: {label}: {_LOST}\n\nhint: {_LOST_HINT}\n")
                    sys.stderr.flush()
                    os._exit(2)
                return

    with _alongside(guard):
        yield


_forking = threading.local()
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


@contextmanager
def _leashed() -> Iterator[None]:
    """Have the kernel end what this thread forks during the block, should this process be killed outright (Linux).

    datatrove forks a manager of queues, which would wait for ever.
    """
    _forking.parent = os.getpid()
    try:
        yield
    finally:
        del _forking.parent


def _end_with_parent() -> None:
    parent = _forking.__dict__.pop("parent", None)
    if parent is not None and _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


os.register_at_fork(after_in_child=_end_with_parent)


def _is_alive(process: int) -> bool:
    """Whether a process of this machine still runs; one that ended and was not waited for does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return Path("/proc").is_dir() is False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _bar(label: str, total: int, watch: Watch, units: tuple[str, str], stop: threading.Event) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(
            f"{{task.completed}}/{{task.total}} {units[0]}, {{task.fields[seen]:,}} {units[1]}, {{task.fields[rate]}}"
        ),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=total, seen=0, rate="")
        while not stop.wait(_POLL_S):
            done, seen = watch()
            bars.update(task, completed=done, seen=seen, rate=_rate(seen, time.monotonic() - began))


def _lines(label: str, total: int, watch: Watch, units: tuple[str, str], stop: threading.Event) -> None:
    began = time.monotonic()
    while not stop.wait(_PLAIN_EVERY_S):
        done, seen = watch()
        seconds = time.monotonic() - began
        left = f", {seconds / done * (total - done):,.0f} s left" if done else ""
        text = f"{label}: {done}/{total} {units[0]}, {seen:,} {units[1]}, {_rate(seen, seconds)}{left}"
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def _rate(count: int, seconds: float) -> str:
    rate = count / seconds
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"


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
