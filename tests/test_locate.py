"""A token of an exported file leads back to the training sequence that it was written from, in every format."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mixer.cli import app
from mixer.errors import ExportError, SourceError
from mixer.exports.export import export
from mixer.exports.locate import trace_file
from mixer.exports.policy import module
from mixer.recipe.exports import Export
from mixer.recipe.file import load
from mixer.shard import Sequences
from mixer.tokens import load as load_encoder
from tests import toys
from tests.test_build import run_build

FLAT = {"megatron": ".bin", "nanotron": ".ds", "torchtitan": ".bin", "olmo": ".npy", "llmc": ".bin"}
ROWS = {"mds": ".mds", "litdata": ".bin", "parquet": ".parquet", "arrow": ".arrow", "webdataset": ".tar"}
CUT = {"olmo": 4096, "llmc": 4096, "mds": 4096, "litdata": 4096, "parquet": 8192, "arrow": 32768, "webdataset": 65536}
"""File sizes by which a set becomes several files."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A Run whose sequences have padding, exported in every format of ids, in both modes."""
    folder = toys.corpus(tmp_path_factory.mktemp("locate"))
    run_build(folder, packing="best_fit")
    recipe = load(folder / "run/recipe.yaml")
    for name in (*FLAT, *ROWS):
        for mode in ("premixed", "blended") if name not in ("llmc", "arrow") else ("premixed",):
            is_cut = name in CUT and (name, mode) != ("olmo", "blended")
            wanted = Export(format=name, mode=mode, **({"file_bytes": CUT[name]} if is_cut else {}))
            export(folder / "run", recipe, wanted, folder / wanted.folder, say=lambda _: None)
    return folder


def opened(folder: Path):
    recipe = load(folder / "run/recipe.yaml")
    return folder / "run", recipe, load_encoder(recipe.tokenizer, folder, folder / "store")


def trained(folder: Path) -> list[tuple[str, int, tuple[int, int]]]:
    """Every place of training: stage, index, (source, sequence)."""
    names = ("adapt", "anneal")
    orders = [(name, np.load(folder / "run/order" / f"{name}.npy")) for name in names]
    return [(name, i, tuple(pair)) for name, order in orders for i, pair in enumerate(order.tolist())]


def files_of(folder: Path, name: str) -> list[Path]:
    found = (folder / name).rglob(f"*{(FLAT | ROWS)[name.partition('-')[0]]}")
    return sorted(found, key=lambda path: (len(path.name), path))


@pytest.mark.parametrize("name", FLAT)
def test_case_1_the_tokens_of_a_flat_file_are_those_of_the_sequence_that_is_named(folder, name):
    run, recipe, encoder = opened(folder)
    rng = np.random.default_rng(4)
    head = 1024 if name == "llmc" else 0
    seen = set()
    for file in files_of(folder, name):
        ids = np.fromfile(file, module(name).dtype(258), offset=head)
        # One of Megatron's entries is padding; llm.c's first id stands before all rows.
        if name == "megatron":
            padding = 64 * int(module(name).place(len(trained(folder)), 1234).argmax())
            with pytest.raises(SourceError, match="a token of the entry that is padding"):
                trace_file(run, recipe, encoder, file=file, offset=padding)
            ids[padding : padding + 64] = 0
        for offset in rng.choice(np.flatnonzero(ids[1:]) + 1, 6):
            found = trace_file(run, recipe, encoder, file=file, offset=int(offset))
            packed = Sequences(run / "shards" / found.source)[found.sequence]
            assert ids[offset] == packed[found.place]
            order = np.load(run / "order" / f"{found.stage}.npy")[found.index]
            assert (list(recipe.sources)[order[0]], order[1]) == (found.source, found.sequence)
            seen.add(found.stage)
    assert seen == {"adapt", "anneal"}


@pytest.mark.parametrize("name", ["torchtitan", "olmo", "llmc", *ROWS])
def test_case_2_files_follow_one_another_as_the_training_order_does(folder, name):
    """Case 1 holds those that are laid out by a shuffle against their sequences."""
    run, recipe, encoder = opened(folder)
    places, row = trained(folder), 0
    files = files_of(folder, name)
    assert len(files) > 2 or name == "torchtitan"
    before = int(name == "llmc")
    for file in files:
        first = trace_file(run, recipe, encoder, file=file, offset=before)
        assert (first.stage, first.index, first.place) == (*places[row][:2], 0)
        row += _count(run, recipe, encoder, file, before)
        with pytest.raises(SourceError, match="--offset: got"):
            trace_file(run, recipe, encoder, file=file, offset=10**9)
    assert row == len(places)


def _count(run, recipe, encoder, file: Path, before: int) -> int:
    """Rows of a file: the last offset that is in it, told by the error for one that is not."""
    with pytest.raises(SourceError) as caught:
        trace_file(run, recipe, encoder, file=file, offset=10**9)
    last = int(str(caught.value).rpartition(" to ")[2].replace(",", ""))
    return (last + 1 - before) // 64


@pytest.mark.parametrize("name", ["megatron-blended", "olmo-blended", "torchtitan-blended", "nanotron-blended"])
def test_case_3_a_blended_file_is_a_source_in_its_own_order(folder, name):
    run, recipe, encoder = opened(folder)
    for file in files_of(folder, name):
        ids = np.fromfile(file, module(name.partition("-")[0]).dtype(258))
        for offset in {0, 1, 63, 64, 777, len(ids) // 2, len(ids) - 1}:
            found = trace_file(run, recipe, encoder, file=file, offset=offset)
            assert found.source in str(file.relative_to(folder))
            assert (found.stage, found.index) == (None, None)
            assert Sequences(run / "shards" / found.source)[found.sequence][found.place] == ids[offset]
        with pytest.raises(SourceError, match="--offset: got"):
            trace_file(run, recipe, encoder, file=file, offset=len(ids))


def test_the_command_marks_the_token_that_was_asked_about(folder):
    file = folder / "olmo/00-adapt-00000.npy"
    where = ["trace", str(folder / "run"), "--file", str(file), "--offset", "130", "--base", str(folder)]
    done = CliRunner().invoke(app, where)
    assert done.exit_code == 0, done.stderr
    assert "stage adapt, place 2: sequence" in done.stdout
    assert "\nplace 2: token " in done.stdout
    assert '"place": 2' in CliRunner().invoke(app, [*where, "--json"]).stdout


def test_what_cannot_be_traced_is_told(folder, tmp_path):
    run, recipe, encoder = opened(folder)

    def at(file: Path, offset: int = 70):
        return trace_file(run, recipe, encoder, file=file, offset=offset)

    with pytest.raises(ExportError, match=r"expected a file that an export\.json above it names"):
        at(run / "shards/web/00000.bin")
    with pytest.raises(SourceError, match=r"expected a file with ids, `\.bin`"):
        at(folder / "megatron/premixed.idx")
    copy = shutil.copytree(folder / "olmo", tmp_path / "olmo")
    ids = np.fromfile(copy / "00-adapt-00000.npy", np.uint16)
    ids[70] += 1
    ids.tofile(copy / "00-adapt-00000.npy")
    with pytest.raises(ExportError, match="got another id at 70, expected"):
        at(copy / "00-adapt-00000.npy")
    ids[:-1].tofile(copy / "00-adapt-00000.npy")
    with pytest.raises(ExportError, match="bytes, expected"):
        at(copy / "00-adapt-00000.npy")
    (copy / "00-adapt-00000.npy").unlink()
    with pytest.raises(SourceError, match="expected a file that is there"):
        at(copy / "00-adapt-00000.npy")
    export(run, recipe, Export(format="jsonl"), tmp_path / "jsonl", say=lambda _: None)
    with pytest.raises(SourceError, match="a file of texts") as caught:
        at(tmp_path / "jsonl/00-adapt-00000.jsonl")
    assert "mixer why RUN ID" in caught.value.hint


def test_an_export_of_another_build_is_refused(folder, tmp_path):
    run, recipe, encoder = opened(folder)
    copy = shutil.copytree(run, tmp_path / "run")
    order = np.load(copy / "order/adapt.npy")
    np.save(copy / "order/adapt.npy", order[::-1])
    with pytest.raises(ExportError, match="got an export of another build"):
        trace_file(copy, recipe, encoder, file=folder / "olmo/00-adapt-00000.npy", offset=0)
