"""Whether model-written tests pass on model-written code, found out in a process of its own that can do little harm.

Guards against honest mistakes and casual harm: endless loops, memory, output and files without end, processes, sockets,
signals to others, writing outside an empty temporary folder, reading outside it and the standard library, and code that
ends or prints `passed` before its tests ran. Python's audit hook always; where the kernel allows, for root as well, an
empty network namespace and a seccomp filter without processes, programs and sockets. Without the filter RLIMIT_NPROC is
what stops an ordinary user's fork bomb, and their threads with it.

No guard against hostile code: an audit hook is no wall for code that looks for holes in the interpreter, it does not
see stat and what C libraries open themselves (sqlite's ATTACH), and code that walks the stack finds the token that a
verdict is signed with. For hostile code, run the toolkit in a container. Linux only.
"""

import ast
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from types import ModuleType
from typing import Any

# The child runs this same file: what only one side needs is imported in its functions, so that a run starts fast.
_MEGABYTE = 2**20
_MEMORY = 512 * _MEGABYTE
_MOST_CHARS = 200_000
_MOST_WRITES = 200
_KERNEL = True  # Off only to test the hook alone.
_REFUSED = (
    *("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.spawn", "os.kill"),
    *("socket.", "ctypes.", "gc.get_", "sys._current_", "resource.", "sqlite3.enable_load", "sqlite3.load"),
)
_REFUSED_MODULES = {"ctypes", "_ctypes", "_posixshmem", "_testcapi", "_testinternalcapi"}
_READS = {"open", "os.listdir", "os.scandir", "os.chdir", "os.getxattr", "os.listxattr"}
_WRITES = {
    *("os.mkdir", "os.link", "os.symlink", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.chmod", "os.chown"),
    *("os.utime", "os.setxattr", "os.removexattr", "sqlite3.connect"),
}
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_SYSCALLS = {
    "x86_64": (0xC000003E, (41, 42, 49, 57, 58, 59, 101, 272, 308, 322, 424, 425, 434, 438), 56),
    "aarch64": (0xC00000B7, (198, 203, 200, 221, 117, 97, 268, 281, 424, 425, 434, 438), 220),
}
"""The machine in linux/audit.h; socket, connect, bind, fork, vfork, execve, ptrace, unshare, setns, execveat, pidfd_*,
io_uring_setup; clone. Source: asm/unistd_64.h, and asm-generic/unistd.h, which has no fork and vfork."""
_ASSERTION = re.compile(r"(async )?(with )?(assert |[\w.]+\.assert\w*\()")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the tests ran and passed.

    Args:
        passed: Whether at least one assertion of the tests ran and everything in them passed.
        reason: `passed`, `assertion failed`, `error: X` with X a built-in exception, `timeout`, `memory`, `killed` (by
            a signal), `ended early` (without a verdict), `no test ran`, `syntax error`, `not allowed`, `too large`.
        detail: The last lines of output, at most 500 characters.
    """

    passed: bool
    reason: str
    detail: str = ""


def run(solution: str, tests: str, *, seconds: float = 5.0, memory_bytes: int = _MEMORY, void: bool = False) -> Verdict:
    """What became of the tests, run after the solution and in its namespace.

    Raises RuntimeError where no process can be confined, which says nothing about the code.

    Args:
        solution: Python that needs the standard library alone; the tests may also import it as `solution`.
        tests: Plain asserts, functions `test*` without parameters, or unittest classes.
        seconds: Wall-clock limit, the start of the interpreter included.
        memory_bytes: Limit on the address space.
        void: Let the functions of the solution do nothing and return None while the tests run.
    """
    import subprocess
    import tempfile

    if (size := len(solution) + len(tests)) > _MOST_CHARS:
        return Verdict(passed=False, reason="too large", detail=f"{size} characters of code")
    token = os.urandom(16).hex()
    job = {"solution": solution, "tests": tests, "void": void, "seconds": seconds, "memory": memory_bytes}
    reader, writer = os.pipe()
    with (
        os.fdopen(reader, "rb") as channel,
        os.fdopen(writer, "wb") as far_end,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        tempfile.TemporaryFile() as file,
        # The limit on the size of files bounds the output, too.
        tempfile.TemporaryFile() as output,
    ):
        file.write(json.dumps(job | {"kernel": _KERNEL, "channel": writer, "token": token}).encode())
        file.seek(0)
        settings: dict[str, Any] = {"cwd": home, "start_new_session": True, "pass_fds": [writer]}
        # One heap for all threads: each further one would reserve an eighth of the memory.
        settings |= {"env": {"MALLOC_ARENA_MAX": "1", "TMPDIR": home}, "stdin": file}
        settings |= {"stdout": output, "stderr": output}
        with subprocess.Popen([sys.executable, "-I", "-S", "-B", os.path.realpath(__file__)], **settings) as process:
            far_end.close()
            report = _watch(process, channel, seconds)
        written = output.seek(0, os.SEEK_END)
        output.seek(max(0, written - 4000))
        lines = output.read().decode(errors="replace").strip().splitlines()
    signature, _, reason = report.partition(" ")
    if signature != token:
        reason = report if report == "timeout" else "killed" if process.returncode < 0 else "ended early"
    if reason.startswith("broken"):
        raise RuntimeError(f"sandbox: cannot confine a process: {reason}")
    reason = "too large" if written >= _MEGABYTE else reason
    return Verdict(reason == "passed", reason, "\n".join(lines[-8:])[-500:])


def is_meaningful(solution: str, tests: str, *, seconds: float = 5.0, memory_bytes: int = _MEMORY) -> bool:
    """Whether tests that pass notice when the solution's functions do nothing; if not, the tests prove nothing."""
    verdict = run(solution, tests, seconds=seconds, memory_bytes=memory_bytes, void=True)
    return verdict.reason not in {"passed", "no test ran", "syntax error", "too large"}


def _watch(process: Any, channel: Any, seconds: float) -> str:
    """What the process reported, or `timeout`; nothing of its group lives on."""
    import select
    import signal

    poll = select.poll()
    poll.register(channel, select.POLLIN)
    # What can be read is the report, or the end of the process, which closes the channel.
    has_ended = poll.poll(seconds * 1000)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return channel.read1(1000).decode(errors="replace") if has_ended else "timeout"


def _child() -> None:
    """The other side: reads the job, gives up what it may not do, runs it and writes the signed reason."""
    job = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        refused = _confine(job)
    except BaseException as error:
        os.write(job["channel"], f"{job['token']} broken: {error!r}".encode())
        os._exit(1)
    reason, failure = _judge(job["solution"], job["tests"], void=job["void"])
    if refused and reason.startswith(("error", "assertion")):
        reason = "not allowed"
    with suppress(BaseException):
        sys.stdout.write(_explained(failure) if failure else "")
        sys.stdout.flush()
    os.write(job["channel"], f"{job['token']} {reason}".encode())
    # Threads that still run and functions registered for the exit have no say any more.
    os._exit(0)


def _explained(failure: BaseException) -> str:
    """Where in the two programs it came up, and what it says."""
    import traceback

    frames = traceback.extract_tb(failure.__traceback__)
    steps = [f"{at.filename}, line {at.lineno}, in {at.name}" for at in frames if os.sep not in at.filename]
    return "\n".join(["", *steps[-4:], "".join(traceback.format_exception_only(failure))[:400]])


def _confine(job: Mapping[str, Any]) -> list[str]:
    """What will have been refused, filled as it happens; from here on the limits hold."""
    import _posixsubprocess
    import resource

    home = os.path.realpath(".")
    limits = {"AS": job["memory"], "CPU": int(job["seconds"]) + 2, "FSIZE": _MEGABYTE, "NOFILE": 64, "CORE": 0}
    if not (job["kernel"] and _ask_kernel()):
        limits["NPROC"] = 0
    for name, value in limits.items():
        which = getattr(resource, f"RLIMIT_{name}")
        # No limit is -1, the largest number that there is.
        resource.setrlimit(which, (min(value, resource.getrlimit(which)[1] % 2**64),) * 2)
    # The one way to a process that raises no audit event.
    _posixsubprocess.fork_exec = lambda *_: sys.audit("os.fork")  # type: ignore[assignment]
    readable = [*map(os.path.realpath, sys.path), os.path.realpath(__file__), "/usr/share/zoneinfo", os.devnull]
    refused: list[str] = []
    sys.addaudithook(_hook(home, readable, refused))
    return refused


def _ask_kernel() -> bool:
    """Whether it now refuses processes, programs and sockets; where it lets us, the network is cut off, too."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None)
    # CLONE_NEWUSER | CLONE_NEWNET. A kernel that says no leaves things as they were.
    libc.unshare(0x10000000 | 0x40000000)
    known = _SYSCALLS.get(os.uname().machine)
    program = b"".join(struct.pack("HBBI", *step) for step in _filter(*known)) if known else b""
    steps = ctypes.create_string_buffer(program)
    where = struct.pack("@HP", len(program) // 8, ctypes.addressof(steps))
    for name in [name for name in sys.modules if name.split(".")[0] in _REFUSED_MODULES]:
        del sys.modules[name]
    # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with SECCOMP_MODE_FILTER; an empty program is refused.
    return not libc.prctl(38, 1, 0, 0, 0) and not libc.prctl(22, 2, where)


def _filter(machine: int, refused: tuple[int, ...], clone: int) -> list[tuple[int, int, int, int]]:
    """A seccomp program: (code, jump if true, if false, operand). Source: linux/seccomp.h, linux/bpf_common.h."""
    load, equal, at_least, has_bits, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    no, missing, yes = (answer, 0, 0, 0x50001), (answer, 0, 0, 0x50026), (answer, 0, 0, 0x7FFF0000)
    steps = [(load, 0, 0, 4), (equal, 1, 0, machine), no, (load, 0, 0, 0), (at_least, 0, 1, 0x40000000), no]
    for number in refused:
        steps += [(equal, 0, 1, number), no]
    # Told that clone3 (435) is missing, libc takes clone, whose flags can be read here: CLONE_THREAD may pass.
    steps += [(equal, 0, 1, 435), missing, (equal, 0, 3, clone), (load, 0, 0, 16), (has_bits, 1, 0, 0x10000), no, yes]
    return steps


def _hook(home: str, readable: list[str], refused: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook; what it refuses first is put down in `refused`."""
    me, writes, realpath, decode = os.getpid(), count(1), os.path.realpath, os.fsdecode

    def lies(path: Any, roots: list[str]) -> bool:
        return any(f"{realpath(decode(path))}/".startswith(f"{root}/") for root in roots)

    def may(event: str, args: tuple[Any, ...]) -> bool:
        if event.startswith(_REFUSED):
            # Socket pairs are how asyncio wakes itself, and a pair reaches nobody else.
            return (event == "socket.__new__" and args[1] == 1) or (event == "os.kill" and args[0] == me)
        if event not in _READS | _WRITES:
            return event != "import" or args[0] not in _REFUSED_MODULES
        paths = [path for path in args[: 1 if event == "open" else None] if isinstance(path, str | bytes | os.PathLike)]
        if event in _READS and not (event == "open" and args[2] & _WRITE_FLAGS):
            return all(lies(path, [home, *readable]) for path in paths)
        # One file is bounded by its limit, many are by their number.
        nowhere = [os.devnull] if event == "open" else []
        return all(lies(path, nowhere) or (lies(path, [home]) and next(writes) <= _MOST_WRITES) for path in paths)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if not may(event, args):
            what = f"not allowed here: {event} {args[:1]!r:.200}"
            refused[:] = refused or [what]
            raise PermissionError(what)

    return hook


def _judge(solution: str, tests: str, *, void: bool) -> tuple[str, BaseException | None]:
    """The reason of the verdict and the exception behind it."""
    module = sys.modules["solution"] = ModuleType("solution")
    space, ran, stage = vars(module), count(), "syntax error"
    try:
        tree = ast.parse(tests)
        trees = {"solution.py": _voidable(ast.parse(solution)), "tests.py": _Counted().visit(tree)}
        codes = [compile(ast.fix_missing_locations(trees[n]), n, "exec", dont_inherit=True) for n in trees]
        stage, space["@void"] = "", False
        exec(codes[0], space)
        space.update({"@void": void, "@ran": ran.__next__})
        exec(codes[1], space)
        _call_tests(tree, space)
    except BaseException as error:
        # The names of exceptions that programs define themselves could not be counted.
        name = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
        known = {"AssertionError": "assertion failed", "MemoryError": "memory"}
        return stage or known.get(name, f"error: {name}"), error
    return ("passed" if next(ran) else "no test ran"), None


def _voidable(tree: ast.Module) -> ast.Module:
    """The solution, its functions returning None at once while `@void` is true, a name that no code can spell."""
    void = ast.Name("@void", ast.Load())
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body.insert(0, ast.If(void, [ast.Return()], []))
        elif isinstance(node, ast.Lambda):
            node.body = ast.IfExp(void, ast.Constant(None), node.body)
    return tree


class _Counted(ast.NodeTransformer):
    """The tests, with a call of `@ran` after every assertion."""

    def visit(self, node: ast.AST) -> Any:
        self.generic_visit(node)
        mark = ast.Expr(ast.Call(ast.Name("@ran", ast.Load()), [], []))
        return [node, mark] if isinstance(node, ast.stmt) and _ASSERTION.match(ast.unparse(node)) else node


def _call_tests(tree: ast.Module, space: Mapping[str, Any]) -> None:
    """Calls every test function that the tests do not call themselves, and runs every unittest class."""
    unittest = sys.modules.get("unittest")
    done = {ast.unparse(node) for node in tree.body if isinstance(node, ast.Expr)}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test") and f"{node.name}()" not in done:
            space[node.name]()
        elif isinstance(node, ast.ClassDef) and unittest and issubclass(space[node.name], unittest.TestCase):
            unittest.defaultTestLoader.loadTestsFromTestCase(space[node.name]).debug()


if __name__ == "__main__":
    _child()
