"""Exports: what each format writes from a Run of a few sequences, and what reading it back finds."""

import json
import struct
from itertools import pairwise
from pathlib import Path

import humanize
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import ExportError
from mixer.exports import llmc, mds, megatron, nanotron
from mixer.exports.export import export
from mixer.exports.policy import POLICIES, module
from mixer.exports.verify import verify
from mixer.recipe.exports import Export
from tests import toy_run

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")

FORMATS = tuple(POLICIES)
TOKENS = tuple(name for name in FORMATS if name != "jsonl")
MODES = [
    (name, mode)
    for name in FORMATS
    for mode in ("premixed", "blended")
    if name not in ("llmc", "arrow") or mode == "premixed"
]


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


def written(run: Path, recipe, name: str, **options) -> tuple[Path, dict]:
    """An export below the Run's folder, and its record."""
    wanted = Export(format=name, **options)
    target = run.parent / "out" / wanted.folder
    return target, dict(export(run, recipe, wanted, target, say=lambda _: None))


def read(target: Path, record) -> list[list[int]]:
    """The rows of all sets, with our reader."""
    form = module(record["format"])
    blocks = [ids.reshape(-1) for name in record["sets"] for ids in form.read(target, name, record)]
    return np.concatenate(blocks).reshape(-1, record["sequence_length"]).tolist()


@pytest.mark.parametrize("name", TOKENS)
def test_case_1_premixed_is_the_training_order_of_all_stages(run, name):
    recipe = toy_run.make(run)
    target, record = written(run, recipe, name)
    assert read(target, record) == toy_run.rows(run, recipe)
    assert [(s["name"], s["first_sequence"], s["first_token"]) for s in record["stages"]] == [
        ("adapt", 0, 0),
        ("anneal", 10, 80),
    ]


def test_case_2_a_blend_holds_each_source_once_with_whole_documents(run):
    recipe = toy_run.make(run, documents={"web": [[5, 6, 7, 0], [8, 9, 10, 11, 12, 0], [13, 0]]}, length=4)
    target, record = written(run, recipe, "megatron", mode="blended")
    ids, lengths, offsets, starts = megatron.read_index(target / "web.idx")
    assert record["sets"] == {"web": 3}
    assert np.fromfile(target / "web.bin", ids).tolist() == [5, 6, 7, 0, 8, 9, 10, 11, 12, 0, 13, 0]
    assert (lengths.tolist(), offsets.tolist(), starts.tolist()) == ([4, 6, 2], [0, 8, 20], [0, 1, 2, 3])


def test_case_3_a_document_that_a_sequence_cuts_is_two_pieces_when_order_separates_them(run):
    order = {"adapt": [(0, 2), (0, 0), (0, 1)]}
    recipe = toy_run.make(
        run, documents={"web": [[5, 6, 7, 0], [8, 9, 10, 11, 12, 0], [13, 0]]}, orders=order, length=4
    )
    target, _ = written(run, recipe, "torchtitan")
    assert np.fromfile(target / "premixed" / "tokens.bin", "<u4").tolist() == [12, 0, 13, 0, 5, 6, 7, 0, 8, 9, 10, 11]
    assert np.load(target / "premixed" / "document_offsets.npy").tolist() == [0, 2, 4, 8, 12]


@pytest.mark.parametrize("packing", ["concat_and_chunk", "best_fit"])
@pytest.mark.parametrize(("name", "mode"), MODES)
def test_every_format_reads_back_token_by_token(run, name, mode, packing):
    recipe = toy_run.make(run, packing=packing)
    target, record = written(run, recipe, name, mode=mode)
    found = verify(run, recipe, target)
    assert [each.set for each in found] == list(record["sets"])
    assert all(each.tokens or each.documents for each in found)


@pytest.mark.parametrize(("name", "mode"), [("parquet", "premixed"), ("parquet", "blended"), ("arrow", "premixed")])
def test_tables_of_text_hold_whole_documents(run, name, mode):
    recipe = toy_run.make(run)
    target, _ = written(run, recipe, name, mode=mode, content="text")
    assert sum(each.documents or 0 for each in verify(run, recipe, target)) >= 11


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_one_changed_byte_is_found(run, name, mode):
    recipe = toy_run.make(run)
    target, record = written(run, recipe, name, mode=mode)
    largest = max(
        (n for n in record["files"] if not n.startswith("config/")), key=lambda n: record["files"][n]["bytes"]
    )
    content = bytearray((target / largest).read_bytes())
    content[len(content) // 2] ^= 1
    (target / largest).write_bytes(content)
    with pytest.raises(ExportError, match=r"got a file that is gone or changed, expected [0-9a-f]{12}"):
        verify(run, recipe, target)


def test_other_tokens_than_the_runs_are_found_though_the_hashes_agree(run, monkeypatch):
    recipe = toy_run.make(run)
    target, record = written(run, recipe, "olmo")
    monkeypatch.setattr("mixer.exports.verify._check_files", lambda *_: None)
    ids = np.fromfile(target / "01-anneal-00000.npy", record["dtype"])
    ids[13] += 1
    ids.tofile(target / "01-anneal-00000.npy")
    with pytest.raises(ExportError, match=rf"set `01-anneal`: token 13: got {ids[13]}, expected {ids[13] - 1}"):
        verify(run, recipe, target)


def test_a_missing_end_and_a_moved_boundary_are_found(run, monkeypatch):
    recipe = toy_run.make(run)
    target, _ = written(run, recipe, "torchtitan")
    monkeypatch.setattr("mixer.exports.verify._check_files", lambda *_: None)
    ids = np.fromfile(target / "premixed" / "tokens.bin", "<u4")
    ids[:-8].tofile(target / "premixed" / "tokens.bin")
    with pytest.raises(ExportError, match=f"token {len(ids) - 8}: got an end, expected otherwise"):
        verify(run, recipe, target)
    ids.tofile(target / "premixed" / "tokens.bin")
    offsets = np.load(target / "premixed" / "document_offsets.npy")
    offsets[1] += 1
    np.save(target / "premixed" / "document_offsets.npy", offsets)
    with pytest.raises(ExportError, match="document 0: got"):
        verify(run, recipe, target)


def test_an_export_of_another_build_and_a_folder_without_one_are_refused(run, tmp_path):
    recipe = toy_run.make(run)
    target, _ = written(run, recipe, "olmo")
    other = toy_run.make(tmp_path / "other", orders={"adapt": [(0, 0)], "anneal": [(1, 0)]})
    with pytest.raises(ExportError, match="got an export of another build"):
        verify(tmp_path / "other", other, target)
    with pytest.raises(ExportError, match=r"got no export.json, expected a finished export"):
        verify(run, recipe, tmp_path / "nothing")


# Bytes of the reference writers: megatron-core 0.16.1, mosaicml-streaming 0.13.0, datatrove 0.10.1.
IDX = (
    b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 3, 4) + struct.pack("<3i", 4, 6, 2) + struct.pack("<3q", 0, 8, 20)
) + struct.pack("<4q", 0, 1, 2, 3)
MDS_CONFIG = (
    b'{"column_encodings": ["ndarray:uint16:4"], "column_names": ["tokens"], "column_sizes": [8], "compression": null,'
    b' "format": "mds", "hashes": [], "size_limit": 67108864, "version": 2}'
)


def test_megatrons_index_is_the_reference_writers_byte_for_byte(run):
    recipe = toy_run.make(run, documents={"web": [[5, 6, 7, 0], [8, 9, 10, 11, 12, 0], [13, 0]]}, length=4)
    target, _ = written(run, recipe, "megatron", mode="blended")
    assert (target / "web.idx").read_bytes() == IDX


def test_an_mds_shard_is_the_reference_writers_byte_for_byte(run):
    recipe = toy_run.make(
        run, documents={"web": [[5, 6, 7, 0], [8, 9, 10, 0]]}, orders={"a": [(0, 1), (0, 0)]}, length=4
    )
    target, _ = written(run, recipe, "mds")
    first = 4 + 3 * 4 + len(MDS_CONFIG)
    expected = struct.pack("<4I", 2, first, first + 8, first + 16) + MDS_CONFIG
    assert (target / "premixed" / "shard.00000.mds").read_bytes() == expected + struct.pack(
        "<8H", 8, 9, 10, 0, 5, 6, 7, 0
    )
    index = json.loads((target / "premixed" / "index.json").read_text())
    raw = {"basename": "shard.00000.mds", "bytes": first + 16, "hashes": {}}
    shard = json.loads(MDS_CONFIG) | {"raw_data": raw, "samples": 2, "zip_data": None}
    assert index == {"shards": [shard], "version": 2}


def test_ds_files_are_the_reference_writers_byte_for_byte(run):
    recipe = toy_run.make(run, documents={"web": [[5, 6, 7, 0], [8, 9, 10, 11, 12, 0], [13, 0]]}, length=4)
    target, _ = written(run, recipe, "nanotron", mode="blended")
    found = [
        (target / "web" / f"00000_00000_shuffled.ds{ending}").read_bytes() for ending in ("", ".index", ".metadata")
    ]
    assert found == [
        struct.pack("<12H", 5, 6, 7, 0, 8, 9, 10, 11, 12, 0, 13, 0),
        struct.pack("<3Q", 4, 10, 12),
        b"toy|2\n12\n12.0 T",
    ]


@given(st.one_of(st.integers(0, 10**18), st.integers(0, 17).map(lambda power: 10**power - 1)))
def test_a_token_count_in_ds_metadata_is_spelled_as_the_reference_writer_spells_it(count):
    assert nanotron.metric(count) == humanize.metric(count, unit="T")


EDGES = {
    65_499: {"megatron": "uint16", "mds": "uint16", "litdata": "uint16", "olmo": "uint16", "llmc": "uint16"},
    65_500: {"megatron": "int32", "mds": "uint16", "litdata": "uint16", "olmo": "uint16", "llmc": "uint16"},
    65_536: {"megatron": "int32", "mds": "uint16", "litdata": "uint16", "olmo": "uint16", "llmc": "uint16"},
    65_537: {"megatron": "int32", "mds": "uint32", "litdata": "int32", "olmo": "uint32", "llmc": "uint32"},
}


@pytest.mark.parametrize("vocab_size", EDGES)
@pytest.mark.parametrize("name", TOKENS)
def test_ids_at_the_edge_of_the_vocabulary_survive_in_the_targets_own_dtype(run, name, vocab_size):
    documents = {"web": [[vocab_size - 1, 5, vocab_size - 1, 0], [6, vocab_size - 2, 7, 0]]}
    recipe = toy_run.make(run, documents=documents, tokens=toy_run.encoder(vocab_size), length=4)
    target, record = written(run, recipe, name)
    assert record["dtype"] == EDGES[vocab_size].get(name, record["dtype"])
    assert verify(run, recipe, target)[0].tokens


def test_a_tiny_vocabulary_is_one_byte_for_olmo_alone(run):
    recipe = toy_run.make(run, tokens=toy_run.encoder(100))
    assert {name: written(run, recipe, name)[1]["dtype"] for name in ("olmo", "nanotron", "webdataset")} == {
        "olmo": "uint8",
        "nanotron": "uint16",
        "webdataset": "uint16",
    }


@pytest.mark.parametrize(("spare", "expected"), [(0, [3, 3, 3, 3, 3]), (-1, [2, 2, 2, 2, 2, 2, 2, 1])])
def test_a_shard_rolls_over_at_the_exact_limit(run, spare, expected):
    recipe = toy_run.make(run)
    about = mds.config(np.dtype("<u2"), 8, 0)
    size_of = lambda limit: 8 + len(json.dumps(about | {"size_limit": limit}, sort_keys=True)) + 3 * (16 + 4)  # noqa: E731
    limit = size_of(999) + spare
    target, _ = written(run, recipe, "mds", file_bytes=limit)
    shards = json.loads((target / "premixed" / "index.json").read_text())["shards"]
    assert [shard["samples"] for shard in shards] == expected
    assert verify(run, recipe, target)


@pytest.mark.parametrize(("name", "row_bytes"), [("olmo", 8), ("parquet", 32), ("litdata", 20)])
def test_files_are_cut_between_rows_whatever_the_limit(run, name, row_bytes):
    recipe = toy_run.make(run)
    head = 8 if name == "litdata" else 0
    for limit, files in ((head + row_bytes * 4, 4), (head + row_bytes * 4 - 1, 5), (1, 15)):
        target, record = written(run, recipe, name, file_bytes=limit)
        ending = {"olmo": ".npy", "parquet": ".parquet", "litdata": ".bin"}[name]
        parts = sum(name.endswith(ending) for name in record["files"])
        # Stages end files too where a set is a stage: ten rows and five.
        assert parts == (
            files
            if name == "litdata"
            else -(-10 * files // 15) + -(-5 * files // 15)
            if files == 15
            else {4: 5, 5: 6}[files]
        )
        assert verify(run, recipe, target)


@pytest.mark.parametrize(("bos", "eos"), [(None, 0), (1, 0), (1, None)])
@pytest.mark.parametrize("name", TOKENS)
def test_no_format_adds_or_doubles_a_token_that_frames_documents(run, name, bos, eos):
    framed = [[*([1] if bos else []), *range(first, first + 4), *([0] if eos == 0 else [])] for first in (5, 15, 25)]
    length = len(framed[0])
    recipe = toy_run.make(run, documents={"web": framed}, tokens=toy_run.encoder(bos=bos, eos=eos), length=length)
    target, record = written(run, recipe, name)
    ids = [i for row in read(target, record) for i in row]
    assert len(ids) == 4 * length
    assert ids.count(1) == (4 if bos else 0)
    assert ids.count(0) == (4 if eos == 0 else 0)
    assert not any(a == b for a, b in pairwise(ids))


def test_llmc_opens_each_file_with_the_end_of_text_so_that_targets_are_our_sequences(run):
    recipe = toy_run.make(
        run, documents={"web": [[5, 6, 7, 0], [8, 9, 10, 0]]}, orders={"a": [(0, 1), (0, 0)]}, length=4
    )
    target, _ = written(run, recipe, "llmc")
    content = (target / "00-a_000000.bin").read_bytes()
    assert np.frombuffer(content[:1024], "<i4")[:4].tolist() == [20240520, 1, 9, 0]
    ids = np.frombuffer(content[1024:], "<u2").tolist()
    assert ids == [0, 8, 9, 10, 0, 5, 6, 7, 0]
    assert [ids[k * 4 + 1 : k * 4 + 5] for k in range(2)] == [[8, 9, 10, 0], [5, 6, 7, 0]]


def test_llmc_closes_each_file_instead_where_documents_open_with_bos(run):
    documents = {"web": [[1, 6, 7, 5], [1, 9, 10, 4]]}
    recipe = toy_run.make(run, documents=documents, tokens=toy_run.encoder(bos=1, eos=None), length=4)
    target, record = written(run, recipe, "llmc")
    ids = np.fromfile(target / "00-adapt_000000.bin", "<u2")[512:].tolist()
    assert (ids[-1], record["frame"]) == (1, "after")
    assert llmc.frame(toy_facts(bos=1, eos=None)) == ([], [1])


def toy_facts(bos, eos):
    from mixer.exports.rows import Facts

    return Facts(4, np.dtype("<u2"), 100, bos, eos, eos or 0, "concat_and_chunk", "toy")


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_rows_are_placed_so_that_megatrons_and_nanotrons_shuffles_restore_their_order(rows, seed):
    entries, windows = np.arange(rows + 1, dtype=np.int32), np.arange(rows, dtype=np.uint32)
    random = np.random.RandomState(seed)
    random.shuffle(entries)
    random.shuffle(windows)
    placed = megatron.place(rows, seed)
    assert sorted(placed.tolist()) == list(range(rows + 1))
    stream = placed[entries]
    assert stream[windows].tolist() == list(range(rows))
    assert stream[-1] == rows
    epoch = np.arange(rows)
    np.random.RandomState(seed).shuffle(epoch)
    assert nanotron.place(rows, seed)[epoch].tolist() == list(range(rows))


def test_without_a_seed_rows_lie_in_training_order(run):
    recipe = toy_run.make(run)
    target, _ = written(run, recipe, "megatron", shuffle_seed=None)
    ids = np.fromfile(target / "premixed.bin", "<u2").reshape(-1, 8)
    assert ids[:-1].tolist() == toy_run.rows(run, recipe)
    assert ids[-1].tolist() == [0] * 8
    assert verify(run, recipe, target)


def test_padding_carries_no_label_in_arrow_and_is_left_out_of_a_megatron_blend(run):
    recipe = toy_run.make(run, documents={"web": [[5, 6, 7, 0], [8, 9, 0], [10, 0]]}, packing="best_fit", length=8)
    target, _ = written(run, recipe, "arrow")
    with pa.memory_map(str(target / "train" / "data-00000.arrow")) as source, pa.ipc.open_stream(source) as stream:
        row = stream.read_all().to_pylist()[-1]
    last = toy_run.rows(run, recipe)[-1]
    real = [1] * sum(row["attention_mask"]) + [0] * (8 - sum(row["attention_mask"]))
    assert row["attention_mask"] == real
    assert row["labels"] == [i if is_real else -100 for i, is_real in zip(last, real, strict=True)]
    blend, _ = written(run, recipe, "megatron", mode="blended")
    assert np.fromfile(blend / "web.bin", "<u2").tolist() == [5, 6, 7, 0, 8, 9, 0, 10, 0]
    assert megatron.read_index(blend / "web.idx")[1].tolist() == [4, 3, 2]


def test_padding_is_told_to_whoever_may_learn_it(run):
    recipe = toy_run.make(run, packing="best_fit")
    assert "tokens are padding, which this trainer may learn as text" in written(run, recipe, "mds")[1]["warnings"][0]
    assert not written(run, recipe, "arrow")[1]["warnings"]


@pytest.mark.parametrize("name", ["megatron", "olmo", "parquet", "jsonl"])
def test_held_out_sequences_are_in_no_blend(run, name):
    recipe = toy_run.make(run)
    toy_run.hold_out(run, "web", 2, 2)
    target, record = written(run, recipe, name, mode="blended")
    assert record["sets"] == {"web": 3, "books": 5}
    assert verify(run, recipe, target)


def test_a_document_before_and_one_after_what_is_held_out_do_not_become_one(run):
    documents = {"web": [[*range(5, 16), 0]]}
    recipe = toy_run.make(run, documents=documents, orders={"a": [(0, 0)]}, length=4)
    toy_run.hold_out(run, "web", 1, 1)
    target, _ = written(run, recipe, "megatron", mode="blended")
    assert megatron.read_index(target / "web.idx")[1].tolist() == [4, 4]


def test_text_stands_where_its_first_token_is_trained_on_once_for_every_time(run):
    documents = {"web": [[5, 6, 7, 0], [8, 9, 10, 11, 12, 0], [13, 0]]}
    order = {"a": [(0, 2), (0, 1), (0, 0)], "b": [(0, 0), (0, 0)]}
    recipe = toy_run.make(run, documents=documents, orders=order, length=4)
    target, record = written(run, recipe, "jsonl")
    ids = {
        name: [json.loads(line)["id"] for line in (target / f"{name}-00000.jsonl").read_text().splitlines()]
        for name in record["sets"]
    }
    assert ids == {"00-a": ["web#2", "web#1", "web#0"], "01-b": ["web#0", "web#0"]}
    assert record["text"] == {"00-a": {"web": 12}, "01-b": {"web": 8}}


def test_jsonl_files_end_after_the_line_that_fills_them(run):
    recipe = toy_run.make(run)
    target, record = written(run, recipe, "jsonl", file_bytes=100)
    files = [name for name in record["files"] if name.endswith(".jsonl")]
    assert len(files) > 4
    assert all((target / name).read_bytes().endswith(b"\n") for name in files)
    assert all(record["files"][name]["bytes"] >= 100 for name in files if not name.endswith(max(files)[-11:]))
    assert verify(run, recipe, target)


def test_tables_of_text_end_a_file_with_the_document_that_fills_it(run):
    recipe = toy_run.make(run)
    for name, ending in (("arrow", ".arrow"), ("parquet", ".parquet")):
        target, record = written(run, recipe, name, content="text", file_bytes=100)
        files = [file for file in record["files"] if file.endswith(ending)]
        assert len(files) > 4
        assert sum(each.documents or 0 for each in verify(run, recipe, target)) >= 11


def test_a_file_of_ids_is_no_larger_than_asked_where_that_is_promised(run):
    recipe = toy_run.make(run)
    for name in ("mds", "litdata", "olmo", "llmc"):
        for limit in (1100, 1300, 2000):
            _, record = written(run, recipe, name, file_bytes=limit)
            data = [n for n in record["files"] if n.endswith((".mds", "-0.bin", ".npy", "_000000.bin"))]
            assert data
            assert max(record["files"][n]["bytes"] for n in data) <= limit
    webdataset = written(run, recipe, "webdataset", file_bytes=8000)[1]["files"]
    assert max(file["bytes"] for name, file in webdataset.items() if name.endswith(".tar")) <= 8000


def test_the_documentation_has_a_line_for_every_format():
    page = (Path(__file__).parents[1] / "docs" / "exports.md").read_text("utf-8")
    assert all(f"| `{name}` | " in page for name in FORMATS)
