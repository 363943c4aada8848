"""Hostile and damaged real input: named and counted, never a traceback, never a hang."""

import io
import tarfile
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
import zstandard

from curricula.scheduler import Scheduler
from curricula.scores.score import open_score
from mixer.build import build
from mixer.errors import PlanError, SourceError
from mixer.recipe.file import load
from tests import toys

BOUND_S = 60
SOURCES = {
    "pages": {"kind": "html", "path": ["encodings/**/*", "jsoup-html/**/*", "html5lib-tests/**/*"]},
    "json": {"kind": "jsonl", "path": ["json-parsing/**/*.json", "*.json"]},
    "parquet": {"kind": "parquet", "path": ["parquet-bad/**/*.parquet", "parquet-odd-but-valid/**/*.parquet"]},
    "text": {"kind": "text", "path": ["gzip-multimember/**/*", "zstd-golden/**/*"]},
    "warc": {"kind": "warc", "path": ["warc/*.*arc*", "warc/bad/*"]},
    "good": {"kind": "text", "path": "good.txt"},
}


READ = ("encodings", "jsoup-html", "html5lib-tests", "json-parsing", "gzip-multimember", "zstd-golden", "warc")
DAMAGED = ("bad.arc", "example-trunc.warc", "n_structure_100000_opening_arrays", "PARQUET-1481", "off0.bin.zst")


def unpack(shared: Path, folder: Path) -> None:
    """The hostile archives as folders, the other hostile files and the web archives as they are."""
    for archive in (shared / "hostile").glob("*.tar.zst"):
        plain = zstandard.ZstdDecompressor().stream_reader(archive.open("rb")).read()
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            tar.extractall(folder / archive.name.removesuffix(".tar.zst"), filter="data")
    for path in (shared / "hostile").glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    for path in (shared / "warc").rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(shared)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (folder / "good.txt").write_text(toys.sentences(1, 200))


@pytest.fixture
def folder(shared, tmp_path):
    unpack(shared, tmp_path)
    toys.byte_tokenizer(tmp_path / "bytes")
    return tmp_path


def run_build(folder: Path, on_error: str):
    recipe = {
        "name": "hostile",
        "tokenizer": "bytes",
        "sequence_length": 64,
        "on_error": on_error,
        "sources": SOURCES,
        "stages": [{"name": "s", "token_budget": 64_000, "mixture": dict.fromkeys(SOURCES, 1)}],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return build(
        load(folder / "recipe.yaml"),
        base=folder,
        run=folder / "run",
        store=folder,
        workers=1,
        scheduler=Scheduler(),
        synthesize=toys.no_synthesis,
        open_score=open_score,
        say=lambda _: None,
    )


def test_all_of_it_is_named_and_counted_within_the_bound(folder):
    began = time.monotonic()
    # Nothing of the damaged Parquet can be trained on: the build gets as far as the plan, which says so.
    with pytest.raises(PlanError, match="source `parquet` has no whole sequence of 64 tokens"):
        run_build(folder, "skip")
    assert time.monotonic() - began < BOUND_S
    dropped = pl.read_parquet(folder / "run" / "dropped" / "*" / "*.parquet")
    kept = pl.read_parquet(folder / "run" / "documents" / "*" / "*.parquet")
    named = pl.concat([dropped["id"], kept["id"]]).str.replace("#.*", "").unique().to_list()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        # One archive holds requests alone, which are no pages.
        if name.split("/")[0] in READ and path.is_file() and path.name != "example-digest.warc":
            assert any(found.startswith(name) for found in named), f"nothing came of {name}"
    failed = dropped.filter(pl.col("step") == "failed")["id"].to_list()
    for name in DAMAGED:
        assert any(name in found for found in failed), f"{name} was read as if it were whole"


def test_without_skip_the_build_stops_and_names_each(folder):
    with pytest.raises(SourceError) as caught:
        run_build(folder, "stop")
    text = str(caught.value)
    for part in ("source `json`", "source `parquet`", "source `warc`"):
        assert part in text
