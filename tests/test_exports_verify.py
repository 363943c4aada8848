"""What reading an export back refuses: hashes that agree prove nothing if what was written was wrong."""

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixer.errors import ExportError
from mixer.exports import asked
from mixer.exports.expected import Verified
from mixer.exports.export import export
from mixer.exports.target import agree
from mixer.exports.verify import verify
from mixer.recipe.exports import Export
from tests import toy_run


@pytest.fixture(autouse=True)
def whatever_the_hashes(monkeypatch):
    """As if the files had been written as they are."""
    monkeypatch.setattr("mixer.exports.verify._check_files", lambda *_: None)
    monkeypatch.setattr("os.fsync", lambda _: None)


def made(tmp_path: Path, *, packing: str = "best_fit", **options):
    """A Run of one stage, how to verify its export, and where that is."""
    documents = {"web": [*toy_run.WEB, [90, 91, 92, 93, 94, 0]], "books": toy_run.BOOKS}
    order = {"a": [(0, 0), (1, 1), (0, 2), (1, 0), (0, 3), (0, 4), (0, 5)]}
    recipe = toy_run.make(tmp_path / "run", packing=packing, documents=documents, orders=order)
    export(tmp_path / "run", recipe, Export(**options), tmp_path / "out", say=lambda _: None)
    out = tmp_path / "out"
    return out, lambda **how: verify(tmp_path / "run", recipe, out, **how)


def put(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    column = table.column(name)
    new = pa.FixedSizeListArray.from_arrays(pa.array(values), 8) if pa.types.is_fixed_size_list(column.type) else values
    return table.set_column(table.schema.get_field_index(name), name, new)


@pytest.mark.parametrize("name", ["labels", "attention_mask"])
def test_labels_and_masks_of_arrow_are_compared(tmp_path, name):
    out, check = made(tmp_path, format="arrow")
    assert check()
    path = out / "train" / "data-00000.arrow"
    table = pa.ipc.open_stream(io.BytesIO(path.read_bytes())).read_all()
    kind = np.int32 if name == "labels" else np.int8
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(put(table, name, np.zeros(8 * len(table), kind)))
    with pytest.raises(ExportError, match=f"set `train`: {name} 0: got 0, expected"):
        check()


def test_the_source_of_a_row_of_parquet_is_compared(tmp_path):
    out, check = made(tmp_path, format="parquet")
    assert check()
    path = out / "00-a-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(put(table, "source", pa.array(["web"] * len(table))), path)
    with pytest.raises(ExportError, match="set `00-a`: source 1: got web, expected books"):
        check()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": "web"}, "source 1: got web, expected books"),
        ({"sequence": 7}, "sequence 0: got 7, expected 0"),
        ({"padding": []}, "padding [0-9]+: got False, expected True"),
    ],
)
def test_what_webdatasets_json_says_of_a_row_is_compared(tmp_path, change, told):
    out, check = made(tmp_path, format="webdataset")
    assert check()
    path = out / "00-a-000000.tar"
    members = []
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member).read()
            if member.name.endswith(".json"):
                content = json.dumps(json.loads(content) | change).encode()
            members.append((member.name, content))
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    with pytest.raises(ExportError, match=told):
        check()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: [rows[0] | {"text": "another"}, *rows[1:]], "document 0: got another, expected 'web#0'"),
        (lambda rows: [rows[0] | {"source": "books"}, *rows[1:]], "document 0: got another, expected 'web#0'"),
        (lambda rows: rows[:-1], "document [0-9]+: got another"),
        (lambda rows: [*rows, rows[0]], "got more than [0-9]+ documents, expected no more"),
    ],
)
def test_other_lines_than_the_runs_are_found(tmp_path, change, told):
    out, check = made(tmp_path, format="jsonl", packing="concat_and_chunk")
    assert check()
    path = out / "00-a-00000.jsonl"
    rows = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ExportError, match=told):
        check()


def test_other_rows_of_a_table_of_text_are_found(tmp_path):
    out, check = made(tmp_path, format="parquet", content="text")
    assert check()
    path = out / "00-a-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array([1, 0, *range(2, len(table))])), path)
    with pytest.raises(ExportError, match="set `00-a`: document 0: got another"):
        check()


@pytest.mark.parametrize(("name", "content"), [("parquet", "tokens"), ("parquet", "text"), ("jsonl", None)])
def test_what_the_trainers_library_reads_is_held_against_the_run(tmp_path, monkeypatch, name, content):
    """Not against our reader: that one is set aside here."""
    options = {"content": content} if content else {}
    out, check = made(tmp_path, format=name, **options)
    monkeypatch.setattr("mixer.exports.verify._with_ours", lambda *_: Verified("", "ours", 0, None))
    assert [each.reader.split()[0] for each in check(python=sys.executable)] == ["ours", "datasets"]
    if name == "jsonl":
        path = out / "00-a-00000.jsonl"
        path.write_text(path.read_text().replace('"text":"', '"text":"x', 1))
    else:
        path = out / "00-a-00000.parquet"
        table = pq.read_table(path)
        pq.write_table(table.take(pa.array([1, 0, *range(2, len(table))])), path)
    with pytest.raises(
        ExportError, match=r"set `00-a`: datasets [0-9.]+: tokens: got [0-9,]+ others, expected the Run"
    ):
        check(python=sys.executable)
    path.write_bytes(b"no table and no line")
    with pytest.raises(ExportError, match="datasets fails on"):
        check(python=sys.executable)


def test_a_blend_that_is_not_the_predicted_one_is_told(tmp_path):
    record = {"format": "megatron", "blend": {"stages": {"a": {"web": {"predicted": 3}, "books": {"predicted": 2}}}}}
    asked._check_blends(tmp_path, record, [{"stage": "a", "blend": [3, 2]}, {"set": "web"}])
    with pytest.raises(ExportError, match=r"stage `a`: megatron-core blends \[4, 1\], expected \[3, 2\]"):
        asked._check_blends(tmp_path, record, [{"stage": "a", "blend": [4, 1]}])


def test_a_file_that_contradicts_itself_is_the_users_to_mend_and_no_bug(tmp_path):
    agree(tmp_path, "bytes", 3, 3)
    with pytest.raises(ExportError, match="bytes: got 3, expected 4"):
        agree(tmp_path, "bytes", 3, 4)


@pytest.mark.parametrize(
    ("name", "file", "told"),
    [
        ("mds", "premixed/shard.00000.mds", "bytes: got"),
        ("litdata", "premixed/chunk-0-0.bin", "bytes: got"),
        ("llmc", "00-a_000000.bin", "ids: got"),
        ("megatron", "premixed.bin", "ids: got"),
    ],
)
def test_a_file_that_was_cut_is_told_by_our_reader(tmp_path, name, file, told):
    out, check = made(tmp_path, format=name, packing="concat_and_chunk")
    content = (out / file).read_bytes()
    (out / file).write_bytes(content[:-16])
    with pytest.raises(ExportError, match=told):
        check()
