"""An export that is cut short goes on where it was, and ends in the same bytes."""

import hashlib
import json
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import xxhash

from mixer.exports import folder as folder_module
from mixer.exports import rows as rows_module
from mixer.exports.export import export
from mixer.exports.folder import JOURNAL, Folder
from mixer.exports.rows import Shards
from mixer.recipe.exports import Export
from tests import toy_run


class Cut(Exception):
    """What stops an export here."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A Run that is read in blocks of two sequences, and synced after every block."""
    monkeypatch.setattr(rows_module, "BLOCK_TOKENS", 2 * toy_run.LENGTH)
    monkeypatch.setattr(folder_module, "_SYNC_BYTES", 1)
    monkeypatch.setattr("os.fsync", lambda _: None)  # a kill loses nothing that the system was handed
    return tmp_path / "run"


def hashes(target: Path) -> dict[str, str]:
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return {path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def cut_after(monkeypatch, calls: int) -> list[int]:
    """Let `calls` blocks be read, then stop; returns the sizes of all that is read from now on."""
    read: list[int] = []
    plain = Shards.ids

    def ids(self, pairs):
        if len(read) == calls:
            raise Cut
        read.append(len(pairs))
        return plain(self, pairs)

    monkeypatch.setattr(Shards, "ids", ids)
    return read


FORMATS = ("megatron", "mds", "litdata", "olmo", "nanotron", "parquet", "arrow", "webdataset", "torchtitan", "llmc")


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_was_cut_short_ends_in_the_same_bytes(run, tmp_path, monkeypatch, name):
    recipe, wanted = toy_run.make(run), Export(format=name)
    export(run, recipe, wanted, tmp_path / "whole", say=print)
    for calls in (0, 1, 4, 7):
        target = tmp_path / f"cut{calls}"
        with monkeypatch.context() as patch:
            cut_after(patch, calls)
            with pytest.raises(Cut):
                export(run, recipe, wanted, target, say=print)
        assert not (target / "export.json").exists()
        said: list[str] = []
        export(run, recipe, wanted, target, say=said.append)
        assert said == [f"make export {name}: not finished yet"]
        assert hashes(target) == hashes(tmp_path / "whole")


def test_a_flat_file_goes_on_at_the_block_that_was_last_synced(run, tmp_path, monkeypatch):
    recipe, wanted = toy_run.make(run), Export(format="torchtitan")
    with monkeypatch.context() as patch:
        cut_after(patch, 5)
        with pytest.raises(Cut):
            export(run, recipe, wanted, tmp_path / "out", say=print)
    with monkeypatch.context() as patch:
        read = cut_after(patch, 100)
        export(run, recipe, wanted, tmp_path / "out", say=print)
    assert sum(read) == 15 - 2 * 5


def test_files_that_were_finished_are_not_written_again(run, tmp_path, monkeypatch):
    recipe, wanted = toy_run.make(run), Export(format="olmo", file_bytes=2 * toy_run.LENGTH)
    with monkeypatch.context() as patch:
        cut_after(patch, 4)
        with pytest.raises(Cut):
            export(run, recipe, wanted, tmp_path / "out", say=print)
    before = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("0*.npy")}
    export(run, recipe, wanted, tmp_path / "out", say=print)
    after = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.npy")}
    assert len(before) == 4
    assert {name: after[name] for name in before} == before


def test_a_file_whose_bytes_were_lost_after_the_kill_is_written_again(run, tmp_path, monkeypatch):
    recipe, wanted = toy_run.make(run), Export(format="olmo", file_bytes=2 * toy_run.LENGTH)
    export(run, recipe, wanted, tmp_path / "whole", say=print)
    with monkeypatch.context() as patch:
        cut_after(patch, 4)
        with pytest.raises(Cut):
            export(run, recipe, wanted, tmp_path / "out", say=print)
    (tmp_path / "out" / "00-adapt-00001.npy").write_bytes(b"")
    with (tmp_path / "out" / JOURNAL).open("a") as journal:
        journal.write('{"name": "00-adapt-0')
    export(run, recipe, wanted, tmp_path / "out", say=print)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_a_finished_export_is_left_alone_and_a_changed_one_replaced(run, tmp_path):
    recipe = toy_run.make(run)
    said: list[str] = []
    target = tmp_path / "out"
    export(run, recipe, Export(format="olmo"), target, say=said.append)
    export(run, recipe, Export(format="olmo"), target, say=said.append)
    export(run, recipe, Export(format="olmo", file_bytes=16), target, say=said.append)
    (target / "00-adapt-00000.npy").unlink()
    export(run, recipe, Export(format="olmo", file_bytes=16), target, say=said.append)
    assert said == [
        "make export olmo: not done yet",
        "skip export olmo: nothing changed",
        "make export olmo: the Run or the options changed",
        "make export olmo: its files are gone or changed",
    ]
    whole = tmp_path / "whole"
    export(run, recipe, Export(format="olmo", file_bytes=16), whole, say=print)
    assert hashes(target) == hashes(whole)


def test_an_attempt_with_other_options_leaves_nothing_of_the_one_before(run, tmp_path, monkeypatch):
    recipe = toy_run.make(run)
    with monkeypatch.context() as patch:
        cut_after(patch, 4)
        with pytest.raises(Cut):
            export(run, recipe, Export(format="olmo", file_bytes=16), tmp_path / "out", say=print)
    export(run, recipe, Export(format="olmo"), tmp_path / "out", say=print)
    export(run, recipe, Export(format="olmo"), tmp_path / "whole", say=print)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


KILLED = """
import os, signal, sys
from pathlib import Path
from mixer.exports import rows
from mixer.exports.export import export
from mixer.recipe.recipe import Recipe
from mixer.recipe.exports import Export

rows.BLOCK_TOKENS = 16
plain, left = rows.Shards.ids, [int(sys.argv[4])]


def ids(self, pairs):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, pairs)


rows.Shards.ids = ids
recipe = Recipe.model_validate_json(Path(sys.argv[3]).read_text())
export(Path(sys.argv[1]), recipe, Export(format="megatron"), Path(sys.argv[2]), say=print)
"""


def test_a_killed_process_leaves_what_the_next_one_completes(run, tmp_path):
    recipe = toy_run.make(run)
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    export(run, recipe, Export(format="megatron"), tmp_path / "whole", say=print)
    arguments = [str(run), str(tmp_path / "out"), str(tmp_path / "recipe.json")]
    for blocks in (2, 5):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), *arguments, str(blocks)]
        assert subprocess.run(command, check=False, cwd=Path(__file__).parents[1]).returncode == -signal.SIGKILL
    export(run, recipe, Export(format="megatron"), tmp_path / "out", say=print)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_a_flat_file_has_its_head_and_tail_once_and_its_hash_is_that_of_the_disk(tmp_path):
    folder = Folder(tmp_path, "print")
    folder.flat("a", lambda first: iter([np.arange(first, 4, dtype="<u2")]), 2, head=b"HEAD", tail=b"TAIL")
    content = (tmp_path / "a").read_bytes()
    assert content == b"HEAD" + bytes([0, 0, 1, 0, 2, 0, 3, 0]) + b"TAIL"
    assert folder.files["a"] == {"bytes": 16, "xxh3_128": xxhash.xxh3_128_hexdigest(content)}


def _fill(folder):
    with folder.file("a") as out:
        for _ in range(100):
            out.write(bytes(1000))


def test_a_full_disk_is_told_to_whoever_writes_and_ends_the_thread(tmp_path):
    folder = Folder(tmp_path, "print")
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    (tmp_path / ".writing-a").symlink_to(full)
    before = threading.active_count()
    with pytest.raises(OSError, match="No space left"):
        _fill(folder)
    assert "a" not in folder
    assert threading.active_count() == before


def test_a_flat_file_cut_within_its_head_begins_again(tmp_path):
    folder = Folder(tmp_path, "print")
    (tmp_path / ".writing-a").write_bytes(b"HE")
    folder.flat("a", lambda first: iter([np.arange(first, 2, dtype="<u2")]), 2, head=b"HEAD")
    assert (tmp_path / "a").read_bytes() == b"HEAD" + bytes([0, 0, 1, 0])
    assert not list(tmp_path.glob(".writing*"))


def test_a_record_from_elsewhere_cannot_have_files_removed_outside_its_folder(run, tmp_path):
    recipe = toy_run.make(run)
    (tmp_path / "precious").write_text("keep")
    export(run, recipe, Export(format="olmo"), tmp_path / "out", say=print)
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    record["files"]["../precious"] = {"bytes": 0, "sha256": ""}
    (tmp_path / "out" / "export.json").write_text(json.dumps(record))
    export(run, recipe, Export(format="olmo"), tmp_path / "out", say=print)
    assert (tmp_path / "precious").read_text() == "keep"


def test_more_shards_than_a_process_may_open_files_are_read(run):
    code = """
        import resource, sys
        from pathlib import Path
        from mixer.exports.rows import Shards
        import numpy as np
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
        shards = Shards(Path(sys.argv[1]), ["web"], Path(sys.argv[1]), "toy")
        print(shards.ids(np.array([[0, 299]], np.int32)).tolist())
    """
    documents = {"web": [[number % 50 + 5, 6, 7, 0] for number in range(300)]}
    toy_run.make(run, documents=documents, length=4, shard_tokens=4)
    command = [sys.executable, "-c", textwrap.dedent(code), str(run)]
    done = subprocess.run(command, check=True, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout == f"[[{299 % 50 + 5}, 6, 7, 0]]\n"
