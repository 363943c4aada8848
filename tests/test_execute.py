"""Processes that are killed: a worker ends the work with an error, and the work's own end leaves no process behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
from mixer.errors import SourceError
from mixer.execute import execute
from tests.toys import KillItself, Sleep
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    targets = [folder / "out" / name for name in "01"]
    step = {"killed": KillItself(targets[0]), "asleep": Sleep(folder / "begun")}[sys.argv[2]]
    try:
        execute([step], targets=targets, workers=int(sys.argv[3]), logs=folder, label="toy", watch=lambda: (0, 0))
    except SourceError as error:
        sys.stderr.write(f"error: {error}")
        sys.exit(2)
"""


def begin(folder: Path, *words: object) -> subprocess.Popen:
    """The work, in a session of its own: what it leaves behind can be told by that."""
    (folder / "work.py").write_text(CODE)
    command = [sys.executable, folder / "work.py", folder, *map(str, words)]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, cwd=folder, start_new_session=True)


def of_session(leader: int) -> list[int]:
    """Processes of a session that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                found.append(int(path.parent.name))
    return found


def test_a_worker_that_is_killed_ends_the_build_instead_of_hanging_it(tmp_path):
    work = begin(tmp_path, "killed", 2)
    _, written = work.communicate(timeout=240)
    assert work.returncode == 2, written
    assert "error: toy: got a worker that was killed from outside" in written


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the children")
@pytest.mark.parametrize("workers", [1, 2])
def test_work_that_is_killed_outright_leaves_no_process_behind(tmp_path, workers):
    work = begin(tmp_path, "asleep", workers)
    while len(list(tmp_path.glob("begun-*"))) < workers:
        assert work.poll() is None
        time.sleep(0.05)
    assert len(of_session(work.pid)) > 1
    work.send_signal(signal.SIGKILL)
    work.wait()
    # A worker that is asleep sees only afterwards that nobody waits for it; datatrove's manager never would.
    until = time.monotonic() + 60
    while (left := of_session(work.pid)) and time.monotonic() < until:
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(work.pid, signal.SIGKILL)
    assert not left
