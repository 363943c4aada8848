"""An export that is there already: what is written again, what is kept, what is refused."""

import fcntl
import json
import os
from pathlib import Path

import polars as pl
import pytest

from mixer.errors import ExportError
from mixer.exports import export as export_module
from mixer.exports.export import DAMAGED, RECORD, export
from mixer.exports.verify import verify
from mixer.recipe.exports import Export
from mixer.run import file_hash
from tests import toy_run

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


class Cut(BaseException):
    """What stops an export here."""


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def written(run: Path, recipe, out: Path, *, say=lambda _: None, tokenizer=None, **options) -> dict:
    return dict(export(run, recipe, Export(**options), out, say=say, tokenizer=tokenizer))


def times(out: Path, ending: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.rglob(f"*{ending}")}


def test_a_kill_while_old_files_are_removed_leaves_none_that_a_trainer_would_read(run, out, monkeypatch):
    recipe = toy_run.make(run)
    written(run, recipe, out, format="olmo", file_bytes=16)
    plain, left = export_module.remove, [3]

    def dying(*arguments):
        left[0] -= 1
        if not left[0]:
            raise Cut
        plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(export_module, "remove", dying)
        with pytest.raises(Cut):
            written(run, recipe, out, format="olmo")
    record = written(run, recipe, out, format="olmo")
    assert {path.name for path in out.glob("*.npy")} == {name for name in record["files"] if name.endswith(".npy")}
    assert verify(run, recipe, out)


@pytest.mark.parametrize(
    ("name", "stray"), [("olmo", "02-old-00000.npy"), ("megatron", "old.bin"), ("jsonl", "a.jsonl")]
)
def test_a_file_that_the_record_does_not_name_is_refused_and_read_by_no_configuration(run, out, name, stray):
    recipe = toy_run.make(run)
    record = written(run, recipe, out, format=name)
    first = next(each for each in record["files"] if each.endswith(Path(stray).suffix))
    (out / stray).write_bytes((out / first).read_bytes())
    (out / "notes.md").write_text("mine")
    with pytest.raises(ExportError, match=rf"{stray}: got a file that export\.json does not name") as caught:
        verify(run, recipe, out)
    assert caught.value.hint == "remove it"
    assert not any(stray in path.read_text() or "glob" in path.read_text() for path in (out / "config").iterdir())
    (out / stray).unlink()
    assert verify(run, recipe, out)


def test_what_was_found_damaged_is_written_again(run, out):
    recipe = toy_run.make(run)
    record = written(run, recipe, out, format="olmo")
    path = out / "00-adapt-00000.npy"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ExportError, match="got a file that is gone or changed") as caught:
        verify(run, recipe, out)
    assert caught.value.hint == "export it again"
    said: list[str] = []
    written(run, recipe, out, format="olmo", say=said.append)
    assert said == ["make export olmo: it was found damaged"]
    assert file_hash(path) == record["files"][path.name]["xxh3_128"]
    assert verify(run, recipe, out)
    assert not (out / DAMAGED).exists()


def test_an_edited_configuration_is_kept_and_writes_no_data_again(run, out):
    recipe = toy_run.make(run)
    written(run, recipe, out, format="nanotron")
    config, before = out / "config" / "data_stages.yaml", times(out, ".ds")
    config.write_text(config.read_text() + "# mine\n")
    said: list[str] = []
    written(run, recipe, out, format="nanotron", say=said.append)
    written(run, recipe, out, format="nanotron", batch_sequences=5, say=said.append)
    assert said == [
        "skip export nanotron: nothing changed",
        "renew export nanotron: its configuration alone",
        f"keep {config}: it was edited; data_stages.yaml.new is what it would be",
    ]
    assert config.read_text().endswith("# mine\n")
    assert "start_training_step: 3\n" in (out / "config" / "data_stages.yaml.new").read_text()
    assert times(out, ".ds") == before
    assert verify(run, recipe, out)


def test_another_version_renews_an_untouched_configuration_and_no_data(run, out, monkeypatch):
    recipe = toy_run.make(run)
    record = written(run, recipe, out, format="olmo")
    before = times(out, ".npy")
    (out / "config" / "olmo_data.py").unlink()
    monkeypatch.setattr("mixer.exports.record.__version__", "99")
    said: list[str] = []
    again = written(run, recipe, out, format="olmo", say=said.append)
    assert said == ["renew export olmo: its configuration alone"]
    assert (again["mixer"], again["files"], times(out, ".npy")) == ("99", record["files"], before)


def test_a_configuration_that_is_no_longer_written_goes(run, out):
    recipe = toy_run.make(run)
    written(run, recipe, out, format="megatron", mode="blended")
    assert (out / "config" / "per_split.anneal.json").is_file()
    written(run, recipe, out, format="megatron")
    assert sorted(path.name for path in (out / "config").iterdir()) == ["args.sh", "per_split.json"]


def test_text_is_written_again_when_documents_changed_though_their_tokens_did_not(run, out):
    recipe = toy_run.make(run)
    written(run, recipe, out, format="jsonl")
    path = run / "documents" / "web" / "000000.parquet"
    pl.read_parquet(path).with_columns(id=pl.lit("new#") + pl.col("id")).write_parquet(path)
    with pytest.raises(ExportError, match="got an export of another build"):
        verify(run, recipe, out)
    said: list[str] = []
    written(run, recipe, out, format="jsonl", say=said.append)
    assert said == ["make export jsonl: the Run or the options changed"]
    assert json.loads((out / "00-adapt-00000.jsonl").read_text().splitlines()[0])["id"].startswith(("new#", "books#"))
    assert verify(run, recipe, out)


def test_another_runs_export_is_not_replaced(run, out, tmp_path):
    recipe, other = toy_run.make(run), toy_run.make(tmp_path / "other")
    written(run, recipe, out, format="olmo")
    with pytest.raises(ExportError, match="got an export of another Run, of recipe `toy`") as caught:
        written(tmp_path / "other", other, out, format="olmo")
    assert caught.value.hint == "export to another --out, or remove that folder"
    assert verify(run, recipe, out)


def test_a_run_that_was_moved_keeps_the_exports_inside_it(tmp_path):
    recipe = toy_run.make(tmp_path / "run")
    written(tmp_path / "run", recipe, tmp_path / "run" / "exports" / "olmo", format="olmo")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    said: list[str] = []
    written(moved, recipe, moved / "exports" / "olmo", format="olmo", say=said.append)
    assert said == ["skip export olmo: nothing changed"]


def test_a_folder_that_another_process_fills_is_refused(run, out):
    recipe = toy_run.make(run)
    written(run, recipe, out, format="olmo")
    held = os.open(out, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    for work in (lambda: written(run, recipe, out, format="olmo"), lambda: verify(run, recipe, out)):
        with pytest.raises(ExportError, match="that another process exports to or reads, expected it to be free"):
            work()
    os.close(held)
    assert verify(run, recipe, out)


@pytest.mark.parametrize("name", ["mds", "litdata", "nanotron", "torchtitan"])
def test_a_source_that_is_named_as_the_configurations_folder_is_refused(run, out, name):
    recipe = toy_run.make(run, documents={"config": toy_run.WEB})
    with pytest.raises(ExportError, match="got a source named `config`, which is where the configuration stands"):
        written(run, recipe, out, format=name, mode="blended")
    written(run, recipe, out, format=name)


def test_a_source_named_as_the_split_of_a_table_is_a_source_like_any_other(run, out):
    recipe = toy_run.make(run, documents={"train": toy_run.WEB, "books": toy_run.BOOKS})
    written(run, recipe, out, format="arrow")
    assert verify(run, recipe, out)


def test_the_tokenizer_stands_beside_and_the_configuration_names_it(run, out):
    recipe, files = toy_run.make(run), {"tokenizer.json": "{}", "tokenizer_config.json": '{"eos_token": "x"}'}
    record = written(run, recipe, out, format="megatron", tokenizer=files)
    assert (out / "config" / "tokenizer" / "tokenizer.json").read_text() == "{}"
    assert '--tokenizer-model "$HERE/config/tokenizer"' in (out / "config" / "args.sh").read_text()
    assert record["tokenizer_sha256"].startswith("44136fa355b3678a")
    said: list[str] = []
    written(run, recipe, out, format="megatron", say=said.append)
    assert said == ["skip export megatron: nothing changed"]


def test_the_record_says_where_sources_come_from_and_how_often_training_goes_through_them(run, out):
    recipe = toy_run.make(run)
    licensed = recipe.sources["web"].model_copy(update={"licence": "cc-by-4.0"})
    recipe = recipe.model_copy(update={"sources": {**recipe.sources, "web": licensed}})
    record = written(run, recipe, out, format="olmo")
    web = record["sources"]["web"]
    assert web["origin"] == {"kind": "jsonl", "path": "web.jsonl", "licence": "cc-by-4.0"}
    drawn = sum(stage["sources"].get("web", {"sequences": 0})["sequences"] for stage in record["stages"])
    assert web["epochs"] == drawn / web["sequences"] > 1
    assert len(record["recipe_digest"]) == 32
    assert record == json.loads((out / RECORD).read_text())
