"""Model-written code in the sandbox: right verdicts, and nothing that it does outlives or escapes it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synth import sandbox
from synth.sandbox import is_meaningful, run

ADD = "def add(a, b):\n    return a + b\n"
TRUE = "assert True"
ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["kernel and hook", "hook alone"])
def guard(request, monkeypatch):
    """Both layers, then the audit hook by itself, as on a kernel that refuses namespaces and filters."""
    monkeypatch.setattr(sandbox, "_KERNEL", request.param == "kernel and hook")
    return request.param


@pytest.fixture
def hook_alone(monkeypatch):
    """The weaker guard, for what the hook sees first in any case; what the kernel refuses is tested without a hook."""
    monkeypatch.setattr(sandbox, "_KERNEL", False)


@pytest.fixture
def outside(tmp_path):
    """A file that no sandbox may touch."""
    path = tmp_path / "outside.txt"
    path.write_text("precious")
    return path


def in_child(code: str) -> subprocess.CompletedProcess:
    """What a process says after it has asked the kernel for its guards, without any audit hook."""
    code = f"import ctypes, os, socket, subprocess, threading\nfrom synth import sandbox\nheld = sandbox._ask_kernel()\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False, timeout=20
    )


@pytest.fixture(scope="module")
def kernel_guards():
    if os.uname().machine not in sandbox._SYSCALLS or not Path("/proc/sys/kernel/seccomp").exists():
        pytest.skip("this kernel has no seccomp filters, or this machine is neither x86_64 nor aarch64")
    assert in_child("print(held)").stdout == "True\n"


def alive(marker: str) -> list[str]:
    """Processes that carry the marker in their command line, zombies aside."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes() and path.parent.name != str(os.getpid()):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


# Verdicts


@pytest.mark.parametrize(
    "tests",
    [
        "assert add(1, 2) == 3",
        "def test_add():\n    assert add(1, 2) == 3",
        "def check(x, y):\n    assert x == y\n\ndef test_add():\n    check(add(1, 2), 3)\n\ntest_add()",
        "from solution import add as plus\nassert plus(1, 2) == 3",
        "import unittest\n\nclass T(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), 3)",
        "import unittest\n\nclass T(unittest.TestCase):\n    def test_add(self):\n        with self.assertRaises(TypeError):\n            add(1, '2')\n\nif __name__ == '__main__':\n    unittest.main()",
    ],
    ids=["plain", "function", "helper", "import", "unittest", "raises"],
)
def test_a_right_answer_passes(tests):
    assert run(ADD, tests) == sandbox.Verdict(passed=True, reason="passed")
    assert is_meaningful(ADD, tests)


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("assert add(1, 2) == 4", "assertion failed"),
        ("def test_add():\n    assert add(1, 2) == 4", "assertion failed"),
        ("import unittest\nclass T(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), 4)", "assertion failed"),
        ("assert add(1, 2) == 3\nassert add(1, 2) / 0", "error: ZeroDivisionError"),
        ("class Odd(KeyError): pass\nraise Odd", "error: KeyError"),
        ("assert add(1, 2) == input()", "error: EOFError"),
        ("raise SystemExit", "error: SystemExit"),
        ("import sys\nsys.exit(0)\nassert False", "error: SystemExit"),
        ("import os\nos._exit(0)\nassert False", "ended early"),
        ("assert add(1, 2) ==", "syntax error"),
        ("assert '\ud800'", "syntax error"),
        ("assert " + "-" * 50_000 + "1", "syntax error"),
        ("", "no test ran"),
        ("add(1, 2)", "no test ran"),
        ("def test_add():\n    add(1, 2)", "no test ran"),
        ("for x in []:\n    assert add(1, x)", "no test ran"),
        ("def test_add(x):\n    assert add(1, x)", "error: TypeError"),
        ("async def test_add():\n    assert add(1, 2) == 4", "no test ran"),
    ],
)  # fmt: skip
def test_anything_else_does_not_and_says_why(tests, reason):
    verdict = run(ADD, tests)
    assert (verdict.passed, verdict.reason) == (False, reason)


@pytest.mark.parametrize(
    ("solution", "reason"),
    [
        ("import sys\nsys.exit(0)", "error: SystemExit"),
        ("import os\nos._exit(0)", "ended early"),
        ("import os\nos.kill(os.getpid(), 9)", "killed"),
        ("print('passed')\nraise SystemExit(0)", "error: SystemExit"),
        ("import os\nfor fd in range(3, 20):\n    try:\n        os.write(fd, b'passed')\n    except OSError:\n        pass\nos._exit(0)", "ended early or killed"),
        ("import os\nos.closerange(3, 64)", "ended early or killed"),
    ],
)  # fmt: skip
def test_a_solution_cannot_end_or_print_its_way_to_a_pass(guard, solution, reason):
    # What meddles with the channel ends the wait for a report: it is killed where it has not ended by itself.
    verdict = run(solution, TRUE)
    assert not verdict.passed
    assert verdict.reason in reason.split(" or ")


def test_the_token_is_in_no_global_and_not_in_the_environment():
    tests = """
import os, sys
def strings(value, depth=3):
    if isinstance(value, (str, bytes)):
        yield value
    elif depth and isinstance(value, dict):
        for item in list(value.values()):
            yield from strings(item, depth - 1)
    elif depth and hasattr(value, "__dict__"):
        yield from strings(vars(value), depth - 1)
import re
harness = sys.modules["__main__"]
seen = [s for space in (globals(), vars(harness), dict(os.environ)) for s in strings(space)]
assert len(seen) > 20
assert not [s for s in seen if isinstance(s, str) and re.fullmatch("[0-9a-f]{32}", s)]
assert "SECRET" not in os.environ, os.environ
"""
    os.environ["SECRET"] = "1"
    try:
        assert run("", tests).reason == "passed"
    finally:
        del os.environ["SECRET"]


def test_the_detail_says_where_and_what_and_stays_short():
    verdict = run("def f(x):\n    print('here')\n    raise ValueError('no ' + x)", "assert f('luck')")
    assert verdict.detail.splitlines() == [
        "here",
        "",
        "tests.py, line 1, in <module>",
        "solution.py, line 3, in f",
        "ValueError: no luck",
    ]
    assert len(run("print('x' * 9000)", "assert False, 'y' * 9000").detail) == 500


def test_code_of_200_000_characters_is_refused_unread():
    assert run("#" * 200_000, TRUE).reason == "too large"


# Limits


def test_an_endless_loop_is_killed_near_the_limit(guard):
    began = time.monotonic()
    assert run("while True: pass", TRUE, seconds=1.0).reason == "timeout"
    assert 1.0 <= time.monotonic() - began < 4


@pytest.mark.parametrize("solution", ["x = [0] * 10**9", "x = []\nwhile True: x.append(bytearray(10**6))"])
def test_a_memory_hog_is_stopped(guard, solution):
    assert run(solution, TRUE).reason == "memory"


def test_a_limit_that_cannot_be_set_is_an_error_and_no_verdict():
    with pytest.raises(RuntimeError, match="sandbox: cannot confine a process: broken: "):
        run(ADD, TRUE, memory_bytes=2**70)


@pytest.mark.parametrize("line", ["print('x' * 10**8)", "import os\nfor _ in range(100): os.write(1, b'x' * 10**6)"])
def test_output_without_end_is_cut(guard, line):
    verdict = run(line, TRUE)
    assert verdict.reason == "too large"
    assert len(verdict.detail) <= 500


def test_files_are_bounded_in_size_and_number(guard):
    assert run("open('big', 'wb').write(b'x' * 2**21)", TRUE).reason == "error: OSError"
    many = run("for i in range(10**4):\n    open(str(i), 'w').close()", TRUE)
    assert many.reason == "not allowed"
    assert "open ('200',)" in many.detail


# Harm


@pytest.mark.parametrize(
    "solution",
    [
        "import os\nwhile True: os.fork()",
        "import os\nwhile True:\n    try: os.fork()\n    except Exception: break\nraise ValueError",
        "import os\nos.system('sleep 100')",
        "import os\nos.execv('/bin/true', ['true'])",
        "import subprocess\nsubprocess.Popen(['sleep', '100'])",
        "import _posixsubprocess\n_posixsubprocess.fork_exec([b'sleep'])",
        "import multiprocessing\nmultiprocessing.get_context('spawn').Process(target=print).start()",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import socket\nsocket.socket()",
        "import socket\nsocket.getaddrinfo('localhost', 80)",
        "import socket\nsocket.socketpair()[0].connect('/run/x')",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/')",
        "import ctypes",
        "import os\nos.kill(os.getppid(), 9)",
        "import os\nos.killpg(0, 9)",
        "import gc\ngc.get_objects()",
        "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
        "open('/etc/passwd').read()",
        "import pathlib\npathlib.Path('/etc/passwd').read_text()",
        "import os\nos.symlink('/etc/passwd', 'x')\nopen('x').read()",
        "import os\nos.listdir('/')",
        "import sqlite3\nsqlite3.connect('/x.db')",
        "exec(\"exec('import socket; socket.socket()')\")",
        "eval(compile('__import__(\"os\").system(\"true\")', '', 'eval'))",
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_refused(hook_alone, solution):
    verdict = run(solution, TRUE)
    assert verdict.reason == "not allowed", verdict
    assert "not allowed here" in verdict.detail or "Error" in verdict.detail


@pytest.mark.parametrize(
    "line",
    [
        "open({!r}, 'w').write('x')",
        "open({!r}, 'a')",
        "import os; os.open({!r}, os.O_RDWR)",
        "import os; os.remove({!r})",
        "import os; os.truncate({!r}, 0)",
        "import os; os.rename({!r}, 'mine')",
        "import os; os.chmod({!r}, 0)",
        "import os; os.link({!r}, 'mine')",
        "import os, shutil; shutil.rmtree(os.path.dirname({!r}))",
        "import os; os.chdir(os.path.dirname({!r}))",
    ],
)
def test_files_outside_stay_as_they_are(hook_alone, outside, line):
    before = outside.stat()
    assert run(line.format(str(outside)), TRUE).reason == "not allowed"
    assert outside.read_text() == "precious"
    assert (outside.stat().st_mode, outside.stat().st_nlink) == (before.st_mode, before.st_nlink)


def test_devices_are_not_files_to_change(hook_alone):
    assert run(f"import os\nos.utime({os.devnull!r})", TRUE).reason == "not allowed"


def test_the_working_directory_is_empty_may_be_deleted_and_is_gone_after(guard, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("import os\nassert os.listdir() == []\nopen('left', 'w').write('x')", TRUE).passed
    verdict = run(f"import os, shutil\nshutil.rmtree(os.getcwd())\n{ADD}", "assert add(1, 2) == 3\nimport decimal")
    assert verdict.passed, verdict
    assert list(tmp_path.iterdir()) == []


def test_no_process_is_left_behind(guard):
    marker = f"20.{time.time_ns()}"
    run(f"import subprocess\ntry: subprocess.Popen(['sleep', '{marker}'])\nexcept OSError: pass", TRUE)
    assert alive(marker) == []


def until(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_what_a_process_left_in_its_group_is_killed():
    """The last line of defence, seen on a process without any guard."""
    marker = f"20.{time.time_ns()}"
    code = f"import subprocess; subprocess.Popen(['sleep', '{marker}']).wait()"
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, pass_fds=[writer])
    os.close(writer)
    with os.fdopen(reader, "rb") as channel:
        both_ran = until(lambda: len(alive(marker)) == 2)
        assert sandbox._watch(process, channel, 0.1) == "timeout"
    assert both_ran
    assert until(lambda: alive(marker) == [])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("os.fork()", "PermissionError"),
        ("subprocess.run(['true'])", "PermissionError"),
        ("os.execv('/bin/true', ['true'])", "PermissionError"),
        ("socket.socket()", "PermissionError"),
        ("os.pidfd_open(os.getppid())", "PermissionError"),
    ],
)
def test_the_kernel_refuses_by_itself(kernel_guards, code, error):
    done = in_child(code)
    assert done.returncode == 1
    assert error in done.stderr


def test_the_network_is_cut_off_where_the_kernel_allows():
    own = str(Path("/proc/self/ns/net").readlink())
    unshared = "import ctypes; print(ctypes.CDLL(None).unshare(0x50000000))"
    if subprocess.run([sys.executable, "-c", unshared], capture_output=True, text=True, check=True).stdout != "0\n":
        pytest.skip("this kernel refuses user namespaces")
    assert in_child("print(os.readlink('/proc/self/ns/net'))").stdout.strip() not in {"", own}


def test_the_kernel_lets_threads_through(kernel_guards):
    assert in_child("t = threading.Thread(target=print, args=['ran'])\nt.start(); t.join()").stdout == "ran\n"


# What honest code needs


@pytest.mark.parametrize(
    "solution",
    [
        "import asyncio\nasync def g():\n    await asyncio.sleep(0)\n    return 3\ndef f(): return asyncio.run(g())",
        "import sqlite3\ndef f(): return sqlite3.connect(':memory:').execute('select 3').fetchone()[0]",
        "import tempfile\ndef f():\n    with tempfile.TemporaryFile() as file:\n        return file.write(b'123')",
        "import os\ndef f():\n    print('quiet', file=open(os.devnull, 'w'))\n    return 3",
        "from collections import namedtuple\ndef f(): return len(namedtuple('P', 'x y z')(1, 2, 3))",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 3\ndef f(): return P().x",
        "from __future__ import annotations\ndef f(x: Missing = 3) -> Missing: return x",
        "import pickle\nclass P:\n    x = 3\ndef f(): return pickle.loads(pickle.dumps(P())).x",
    ],
)
def test_honest_use_of_the_standard_library_works(guard, solution):
    verdict = run(solution, "assert f() == 3")
    assert verdict.passed, verdict


def test_twenty_threads_fit_into_the_memory(kernel_guards):
    pool = "from concurrent.futures import ThreadPoolExecutor\ndef f():\n    with ThreadPoolExecutor(20) as pool:\n        return sum(pool.map(abs, range(-9, 0)))"
    assert run(pool, "assert f() == 45").passed


# Tests that prove nothing


@pytest.mark.parametrize(
    ("solution", "tests", "meaningful"),
    [
        (ADD, "assert add(1, 2) == 3", True),
        (ADD, "add(1, 2)\nassert True", False),
        (ADD, "assert callable(add)", False),
        ("def f(x):\n    'Says nothing.'\n    print(x)", "assert f(1) is None", False),
        ("f = lambda x: x", "assert f(1) == 1", True),
        ("f = lambda x: x", "f(1)\nassert True", False),
        ("class P:\n    def __init__(self): self.x = 1", "assert P().x == 1", True),
        ("class P:\n    def __init__(self): self.x = 1", "assert P()", False),
        ("def f(n):\n    yield from range(n)", "for x in f(3):\n    assert x < 3", False),
        ("def f(n):\n    yield from range(n)", "assert list(f(2)) == [0, 1]", True),
        # What is computed while the solution loads is computed by its true functions.
        ("def f(n): return n + 1\nTABLE = f(1) + 1", "assert True", False),
        ("def f(n):\n    return n or 1", "while not f(0): pass\nassert True", True),
    ],
)
def test_tests_mean_something_if_they_miss_the_solution(solution, tests, meaningful):
    assert run(solution, tests).passed
    assert is_meaningful(solution, tests, seconds=1.0) is meaningful


@pytest.mark.parametrize("tests", ["assert (", "", "#" * 200_000])
def test_tests_that_cannot_run_notice_nothing(tests):
    assert not is_meaningful(ADD, tests)
