"""The Run folder: whole or nothing, and a reason for every step."""

import os
import signal
import subprocess
import sys

import pytest

from mixer.run import changed, digest, locked, read_json, staged, sweep, write_json, write_text
from mixer.steps import Steps


def test_a_result_appears_whole(tmp_path):
    with staged(tmp_path / "out") as scratch:
        (scratch / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "1"


def test_a_failure_leaves_the_old_result(tmp_path):
    with staged(tmp_path / "out") as scratch:
        (scratch / "a").write_text("old")

    def fail() -> None:
        with staged(tmp_path / "out") as scratch:
            (scratch / "a").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_result_that_its_content_names_stays_where_another_process_reads_it(tmp_path):
    with staged(tmp_path / "out", keep=True) as scratch:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a").write_text("theirs")
        (scratch / "a").write_text("ours")
    assert (tmp_path / "out" / "a").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_kill_left_behind_is_swept(tmp_path):
    for name in (".partial-1-x", "shards/.partial-2-web", ".cache/clean/.partial-3-abc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "shards" / "web").mkdir()
    sweep(tmp_path)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == [".cache", ".cache/clean", "shards", "shards/web"]


def test_equal_values_have_equal_digests_and_others_do_not():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_a_second_build_of_the_same_run_is_refused(tmp_path):
    code = f"from pathlib import Path; from mixer.run import locked\nwith locked(Path({str(tmp_path)!r})): pass"
    with locked(tmp_path):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another process is building" in second.stderr
    with locked(tmp_path):
        pass


def test_a_helper_that_outlives_a_killed_build_does_not_keep_the_run_locked(tmp_path):
    code = (
        "import os, time; from pathlib import Path; from mixer.run import locked\n"
        f"with locked(Path({str(tmp_path)!r})):\n"
        "    child = os.fork()\n"
        "    if child: print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    build = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert build.stdout is not None
    helper = int(build.stdout.readline())
    build.kill()
    build.wait()
    try:
        with locked(tmp_path):
            pass
    finally:
        os.kill(helper, signal.SIGKILL)


def test_json_is_written_whole_and_sorted(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n "a": "ü",\n "b": 1\n}\n'
    assert read_json(tmp_path / "a.json") == {"a": "ü", "b": 1}
    assert read_json(tmp_path / "none.json") is None
    write_text(tmp_path / "b", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b"]


def test_the_reason_names_what_changed():
    assert changed(None, {}) == "not done yet"
    assert changed({"a": 1}, {"a": 1}) == ""
    assert changed({"a": 1, "b": [1]}, {"a": 2, "b": [2]}) == "a 1 -> 2, b changed"


def test_a_step_runs_once_and_says_why_it_runs_again(tmp_path):
    said: list[str] = []
    runs = []
    for inputs in ({"n": 1}, {"n": 1}, {"n": 2}):
        with Steps(tmp_path, said.append).folder("pack web", inputs, tmp_path / "web") as scratch:
            if scratch is not None:
                (scratch / "x").write_text(str(inputs))
                runs.append(inputs)
    assert said == [
        "make pack web: not done yet",
        "skip pack web: nothing changed",
        "redo pack web: n 1 -> 2",
    ]
    assert runs == [{"n": 1}, {"n": 2}]


def test_a_step_whose_files_were_touched_runs_again(tmp_path):
    said: list[str] = []
    for _ in range(2):
        with Steps(tmp_path, said.append).folder("pack web", {}, tmp_path / "web") as scratch:
            if scratch is not None:
                (scratch / "x").write_text("1")
        (tmp_path / "web" / "x").write_text("22")
    assert said[1] == "redo pack web: its files are gone or changed"


def test_a_step_that_fails_is_not_remembered(tmp_path):
    steps = Steps(tmp_path, lambda _: None)
    with pytest.raises(ZeroDivisionError), steps.folder("pack web", {}, tmp_path / "web"):
        raise ZeroDivisionError
    assert Steps(tmp_path, lambda _: None).recorded("pack web") is None
