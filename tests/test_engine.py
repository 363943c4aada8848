"""The server process: started, watched, started again, ended with everything it started. A small server stands in."""

import os
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest

from mixer.errors import EngineError
from mixer.recipe.synth import Model
from synth import engine
from synth.engine import Server, serve

HEALTHY = """
import http.server, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2], "a").write(f"{child.pid}\\n")
print("up", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Makes the engine run a given script instead of vLLM; gives the file with its children's process numbers."""

    def use(script):
        children = tmp_path / "children"
        monkeypatch.setattr(
            engine, "_command", lambda model, folder, port: [sys.executable, "-c", script, str(port), str(children)]
        )
        return children

    return use


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def test_a_server_is_ready_inside_the_block_and_gone_after_it_with_its_children(stand_in, tmp_path):
    children = stand_in(HEALTHY)
    said = []
    with serve(Model(path="x"), folder=tmp_path, fingerprint="f", log=tmp_path / "e.log", say=said.append) as found:
        assert httpx.get(f"{found.url}/health").status_code == 200
        assert found.url.startswith("http://127.0.0.1:")
        child = int(children.read_text())
        assert is_alive(child)
    wait_for(lambda: not is_alive(child))
    assert (tmp_path / "e.log").read_text() == "up\n"
    assert "ready after" in said[-1]


def test_a_server_that_dies_is_started_again_on_the_same_port(stand_in, tmp_path):
    children = stand_in(HEALTHY)
    with serve(Model(path="x"), folder=tmp_path, fingerprint="f", log=tmp_path / "e.log", say=lambda _: None) as found:
        parent = int(Path(f"/proc/{int(children.read_text())}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        wait_for(lambda: len(children.read_text().split()) == 2)
        wait_for(lambda: engine.answers(found.url))
        first, second = map(int, children.read_text().split())
        assert not is_alive(first)
        assert is_alive(second)
    wait_for(lambda: not is_alive(second))


def test_a_server_that_dies_over_and_over_is_given_up_in_a_file_that_all_workers_see(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_POLL_S", 0.05)
    children = stand_in(HEALTHY)
    server = Server(Model(path="x"), tmp_path, tmp_path / "e.log", lambda _: None)
    server.start()
    stand_in("raise SystemExit('boom')")
    server._command = engine._command(None, None, server.port)
    os.kill(server.process.pid, signal.SIGKILL)
    wait_for(server.failed.is_file)
    wait_for(lambda: "died 8 times" in server.failed.read_text())
    assert "boom" in server.failed.read_text()
    server.close()
    wait_for(lambda: not is_alive(int(children.read_text())))


@pytest.mark.parametrize(
    ("script", "message", "hint"),
    [
        ("raise SystemExit('bad weights')", "ended before it was ready\n  bad weights", "see "),
        ("raise SystemExit('torch.OutOfMemoryError: out of memory')", "ended before", "memory ran out"),
        ("raise SystemExit('OSError: No space left on device')", "ended before", "the disk is full"),
    ],
)
def test_a_server_that_cannot_start_says_why(stand_in, tmp_path, script, message, hint):
    stand_in(script)
    with pytest.raises(EngineError, match=message) as caught:
        Server(Model(path="x"), tmp_path, tmp_path / "e.log", lambda _: None).start()
    assert caught.value.hint.startswith(hint)


def test_a_server_that_never_answers_is_ended(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_READY_S", 0.3)
    stand_in("import time; time.sleep(600)")
    server = Server(Model(path="x"), tmp_path, tmp_path / "e.log", lambda _: None)
    with pytest.raises(EngineError, match="was not ready after 0 s"):
        server.start()
    assert server.process.poll() is not None


def test_the_server_ends_when_the_run_is_killed_outright(tmp_path):
    leash = [sys.executable, "-c", engine._LEASH]
    code = (
        "import os, subprocess, sys, time\n"
        f"p = subprocess.Popen([*{leash!r}, str(os.getpid()), sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    import subprocess

    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    server = int(run.stdout.readline())
    wait_for(lambda: b"sleep(600)" in Path(f"/proc/{server}/cmdline").read_bytes())
    time.sleep(0.5)
    assert is_alive(server)
    run.kill()
    run.wait()
    wait_for(lambda: not is_alive(server))


def test_the_command_keeps_to_loopback_and_never_trusts_remote_code(tmp_path):
    command = engine._command(Model(path="x", tensor_parallel=2, arguments=("--quantization=awq",)), tmp_path, 1234)
    assert "--host=127.0.0.1" in command
    assert "--tensor-parallel-size=2" in command
    assert command[-1] == "--quantization=awq"
    assert not any("trust" in argument for argument in command)
