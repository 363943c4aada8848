"""Exports asked for by a recipe, and by `mixer export`."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from curricula.scheduler import Scheduler
from curricula.scores.score import open_score
from mixer.build import build
from mixer.errors import ShardError
from mixer.exports import theirs
from mixer.exports.export import export
from mixer.exports.rows import Facts
from mixer.exports.target import checked, small_dtype
from mixer.recipe import problems as recipe_problems
from mixer.recipe.exports import Export
from mixer.recipe.file import load
from mixer.replan import open_run
from tests import toy_run, toys
from tests.command import mixer


def built(folder: Path, run: str = "run", **changes) -> list[str]:
    """Build the toy recipe; what it said about exports."""
    said: list[str] = []
    build(
        load(toys.recipe(folder, **changes)),
        base=folder,
        run=folder / run,
        store=folder / "store",
        workers=1,
        scheduler=Scheduler(),
        synthesize=toys.no_synthesis,
        open_score=open_score,
        say=said.append,
    )
    return [line for line in said if " export " in line]


def test_a_build_writes_the_recipes_exports_once_and_drops_those_it_no_longer_asks_for(tmp_path):
    folder = toys.corpus(tmp_path)
    two = [{"format": "megatron"}, {"format": "jsonl", "mode": "blended"}]
    assert built(folder, exports=two) == [
        "make export megatron: not done yet",
        "make export jsonl-blended: not done yet",
    ]
    assert built(folder, exports=two) == [
        "skip export megatron: nothing changed",
        "skip export jsonl-blended: nothing changed",
    ]
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    exported = {name: file for name, file in manifest["files"].items() if name.startswith("exports/")}
    assert "exports/megatron/premixed.bin" in exported
    assert manifest["timings"]["export megatron"] > 0
    stages = [
        {"name": "adapt", "token_budget": 6400, "mixture": {"web": 5, "books": 3, "pages": 2}},
    ]
    assert built(folder, exports=two[:1], stages=stages) == [
        "make export megatron: the Run or the options changed",
    ]
    assert [path.name for path in (folder / "run" / "exports").iterdir()] == ["megatron"]
    built(folder, stages=stages)
    assert not list((folder / "run" / "exports").iterdir())


def test_two_builds_export_the_same_bytes(tmp_path):
    folder = toys.corpus(tmp_path)
    formats = [{"format": name} for name in ("megatron", "mds", "nanotron", "webdataset", "olmo", "parquet", "arrow")]
    for run in ("one", "two"):
        built(folder, run=run, exports=formats)
    files = [json.loads((folder / run / "manifest.json").read_text())["files"] for run in ("one", "two")]
    assert files[0] == files[1]
    assert sum(name.startswith("exports/") for name in files[0]) > 20


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"format": "megatrn"}, "did you mean `megatron`?"),
        ({"format": "mds", "content": "text"}, "`content` for parquet or arrow alone; mds knows one content"),
        ({"format": "mds", "shuffle_seed": 3}, "`shuffle_seed` for premixed megatron or nanotron alone"),
        ({"format": "megatron", "mode": "blended", "shuffle_seed": 3}, "`shuffle_seed` for premixed megatron"),
        ({"format": "torchtitan", "file_bytes": 9}, "no `file_bytes`: a set of torchtitan is one file"),
        (
            {"format": "mds", "batch_sequences": 9},
            "no `batch_sequences`: the configuration for mds does not count steps",
        ),
        ({"format": "llmc", "mode": "blended"}, "`mode: premixed`: llmc has no weights, it reads one stream"),
        ({"format": "arrow", "mode": "blended"}, "`mode: premixed`: who reads arrow puts sets one after the other"),
        ({"format": "olmo", "batch_sequences": 9}, "no `batch_sequences`: the configuration for olmo does not count"),
        ({"format": "mds", "file_bytes": 2**32}, "`file_bytes` of at most 4294967295: mds counts them in 32 bits"),
        ({"format": "litdata", "file_bytes": 2**33}, "litdata counts them in 32 bits"),
        ({"format": "megatron", "shuffle_seed": -1}, "0"),
        ({"format": "nanotron", "shuffle_seed": 2**32}, "4294967296"),
    ],
)
def test_an_option_without_effect_is_an_error(given, told):
    found = [each for each in recipe_problems.find({"exports": [given]}) if each.spot[:1] == ("exports",)]
    assert len(found) == 1
    assert told in found[0].text


def test_the_same_export_twice_is_an_error_and_another_mode_is_not():
    twice = [{"format": "olmo"}, {"format": "olmo", "mode": "blended"}, {"format": "olmo", "file_bytes": 9}]
    found = [each for each in recipe_problems.find({"exports": twice}) if each.spot[:1] == ("exports",)]
    assert [each.text for each in found] == ["got the same format, mode and content as exports.0, expected each once"]


def test_a_run_with_exports_can_be_opened_again(tmp_path):
    """Its recipe has every default written out, of options too that a format does not have."""
    folder = toys.corpus(tmp_path)
    wanted = [{"format": "megatron"}, {"format": "megatron", "mode": "blended"}, {"format": "mds"}]
    built(folder, exports=wanted)
    assert open_run(folder / "run").exports == load(folder / "toy.yaml").exports


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = toys.corpus(tmp_path_factory.mktemp("corpus"))
    built(folder)
    return folder / "run"


def test_the_command_exports_verifies_and_names_the_switches(run, tmp_path):
    arguments = ("export", run, "--format", "mds", "--format", "parquet", "--out", tmp_path / "out", "--verify")
    done = mixer(*arguments)
    assert done.exit_code == 0, done.stderr
    assert "to keep the order: shuffle: false; num_canonical_nodes: 1" in done.stderr
    assert done.stdout.count("ours") == 3
    assert done.stdout.count(f"datasets {version('datasets')}") == 2
    assert "note: mosaicml-streaming was NOT asked" in done.stderr
    assert (tmp_path / "out" / "parquet" / "config" / "trl.py").is_file()
    again = mixer(*arguments, "--json")
    assert "skip export mds: nothing changed" in again.stderr
    told = json.loads(again.stdout)
    assert set(told["exports"]) == set(told["verified"]) == {"mds", "parquet"}
    assert told["verified"]["parquet"][0]["tokens"] == 150 * 64


def test_a_blend_shows_what_becomes_of_it_and_warns(run, tmp_path):
    done = mixer("export", run, "--format", "litdata", "--mode", "blended", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "litdata-blended: independent draws, seed 42" in done.stdout
    assert "warning: litdata-blended: stage `adapt`: `web` becomes" in done.stderr


def test_a_seed_and_a_size_of_files_are_options_of_the_command_too(run, tmp_path):
    done = mixer(
        "export", run, "--format", "megatron", "--shuffle-seed", "null", "--out", tmp_path, "--base", run.parent
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "megatron" / "export.json").read_text())["shuffle_seed"] is None
    assert (tmp_path / "megatron" / "config" / "tokenizer" / "tokenizer_config.json").is_file()
    done = mixer("export", run, "--format", "olmo", "--file-bytes", "4K", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert len(list((tmp_path / "olmo").glob("*.npy"))) > 4
    assert "note: no files of the tokenizer bytes are exported" in done.stderr


def test_wrong_options_end_with_2_and_a_hint(run, tmp_path):
    done = mixer("export", run, "--format", "llmc", "--mode", "blended", "--out", tmp_path)
    assert done.exit_code == 2
    assert "error: --format llmc: expected `mode: premixed`: llmc has no weights" in done.stderr
    assert "hint: `mixer export --help`" in done.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    done = mixer("export", tmp_path, "--format", "mds", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "got no manifest.json, expected a finished Run" in done.stderr


def test_an_interpreter_without_the_library_is_an_error_where_one_was_named(run, tmp_path, monkeypatch):
    monkeypatch.setitem(theirs.LIBRARIES, "webdataset", ("a-library-that-nobody-has",))
    # An interpreter that was named is asked, and no other in its place.
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    done = mixer("export", run, "--format", "parquet", "--out", tmp_path, "--verify-with", bare)
    assert done.exit_code == 2
    assert "got no interpreter with datasets, expected one of" in done.stderr
    done = mixer("export", run, "--format", "webdataset", "--out", tmp_path, "--verify-with", sys.executable)
    assert done.exit_code == 2
    assert "got no interpreter with a-library-that-nobody-has" in done.stderr
    done = mixer("export", run, "--format", "webdataset", "--out", tmp_path, "--verify")
    assert done.exit_code == 0
    assert "note: a-library-that-nobody-has was NOT asked" in done.stderr


def test_a_run_without_a_plan_and_an_order_that_is_not_the_plans_are_refused(tmp_path):
    recipe = toy_run.make(tmp_path / "run")
    (tmp_path / "run" / "order" / "anneal.npy").unlink()
    with pytest.raises(ShardError, match=r"got 0 sequences, expected 5 as in plan\.json"):
        export(tmp_path / "run", recipe, Export(format="mds"), tmp_path / "out", say=print)
    (tmp_path / "run" / "plan.json").unlink()
    with pytest.raises(ShardError, match=r"got no plan\.json"):
        export(tmp_path / "run", recipe, Export(format="mds"), tmp_path / "out", say=print)


def test_sources_of_different_tokenizers_are_refused(tmp_path):
    recipe = toy_run.make(tmp_path / "run")
    path = tmp_path / "run" / "shards" / "books" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer": "another"}))
    with pytest.raises(ShardError, match="shards/books: tokenizer: got another, expected toy as in shards/web"):
        export(tmp_path / "run", recipe, Export(format="mds"), tmp_path / "out", say=print)


def test_an_id_outside_the_vocabulary_is_never_written(tmp_path):
    recipe = toy_run.make(tmp_path / "run")
    for name in ("web", "books"):
        path = tmp_path / "run" / "shards" / name / "index.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 60}))
    with pytest.raises(ShardError, match="got id 87, expected less than 60"):
        export(tmp_path / "run", recipe, Export(format="mds"), tmp_path / "out", say=print)


def test_a_dtype_too_small_for_the_vocabulary_is_refused():
    facts = Facts(8, small_dtype(70_000), 70_000, None, 0, 0, "best_fit", "toy")
    with pytest.raises(ShardError, match="got a vocabulary of 70,000, expected at most 65,536 for uint16"):
        checked(small_dtype(100), facts)
