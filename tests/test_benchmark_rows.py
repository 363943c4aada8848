"""Benchmark files that are tables, and archives of them: what is in them is read, and what cannot be is an error."""

import gzip
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mixer.benchmark import Fields, Item, read_items
from mixer.benchmark_rows import bare_name, read_rows
from mixer.errors import SourceError
from tests import toys
from tests.test_build import run_build

CMMLU = Path(__file__).parents[2] / "shared" / "data" / "eval" / "nc" / "cmmlu-a.tar.zst"
ASKED = "Which metal is liquid at room temperature and used in old thermometers?"
CSV = f',Question,A,B,C,Answer\n0,{ASKED},iron,mercury,copper,B\n1,"Which one, of these, rusts?",iron,gold,lead,A\n'
COLUMNS = ("iron", "mercury", "copper")


def file(folder, content, name="toy.csv"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tar(folder, members, name="toy.tar", pack=bytes):
    """An archive of names and contents, in order; a name may come twice."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
            content = content.encode() if isinstance(content, str) else content
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file(folder, pack(buffer.getvalue()), name)


def test_case_1_a_table_with_a_column_a_choice(tmp_path):
    first, second = read_items(file(tmp_path, CSV))
    assert first == Item("toy#2", "toy", ASKED, "mercury", COLUMNS)
    assert (second.id, second.question, second.answer) == ("toy#3", "Which one, of these, rusts?", "iron")


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("toy.tar", bytes),
        ("toy.tar.gz", gzip.compress),
        ("toy.tgz", gzip.compress),
        ("toy.tar.zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_case_2_an_archive_of_tables_is_one_benchmark_and_each_file_has_its_own_ids(tmp_path, name, pack):
    line = json.dumps({"id": "7", "question": ASKED, "choices": COLUMNS, "answer": 1}) + "\n"
    members = [("dev/physics.csv", CSV), ("test/physics.csv", CSV), ("extra.jsonl", line), ("plain.json", line)]
    items = list(read_items(tar(tmp_path, members, name, pack)))
    assert [item.id for item in items] == [
        *("dev/physics#2", "dev/physics#3", "test/physics#2", "test/physics#3"),
        *("extra#7", "plain#7"),
    ]
    assert {item.benchmark for item in items} == {"toy"}
    assert items[0].choices == items[2].choices == items[4].choices == COLUMNS


def test_choices_in_columns_are_found_in_json_lines_too(tmp_path):
    row = {"question": ASKED, "A": "iron", "B": "mercury", "C": "copper", "answer": "B"}
    assert next(read_items(file(tmp_path, json.dumps(row), "toy.jsonl"))).choices == COLUMNS
    [bare] = read_items(file(tmp_path, json.dumps(row), "toy.jsonl"), Fields(choices=""))
    assert bare.choices == ()


def test_named_fields_are_columns_too(tmp_path):
    [item] = read_items(
        file(tmp_path, "stem,right\nWhy is it so?,no reason\n"), Fields(question="stem", answer="right")
    )
    assert (item.question, item.answer) == ("Why is it so?", "no reason")


def test_a_mark_at_the_beginning_windows_lines_and_cells_of_several_lines(tmp_path):
    content = b'\xef\xbb\xbfquestion,answer\r\n"What is\r\nthis?",that\r\n\r\n"A ""quoted"" word?",yes\r\n'
    found = [(row.line, row.values["question"]) for row in read_rows(file(tmp_path, content))]
    assert found == [(3, "What is\r\nthis?"), (5, 'A "quoted" word?')]


def test_members_may_be_compressed_and_one_name_may_come_twice(tmp_path):
    packed = gzip.compress(CSV.encode())
    items = list(read_items(tar(tmp_path, [("a.csv.gz", packed), ("a.csv.gz", packed)])))
    assert [item.id for item in items] == ["a#2", "a#3", "a@1#2", "a@1#3"]


def test_what_is_plainly_no_data_is_passed_over(tmp_path):
    members = [("LICENSE", "x"), ("README.md", "x"), ("._dev.csv", "\x00\x05"), ("a/.git/config", "x"), ("b.csv", CSV)]
    assert len(list(read_rows(tar(tmp_path, members)))) == 2


def test_names_and_links_of_an_archive_reach_no_file(tmp_path):
    (tmp_path / "inner").mkdir()
    link = tarfile.TarInfo("link.csv")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("hard.csv")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../secret.csv"
    pipe = tarfile.TarInfo("pipe.csv")
    pipe.type = tarfile.FIFOTYPE
    file(tmp_path, "question\nSecret?\n", "secret.csv")
    members = [("../evil.csv", CSV), ("/tmp/abs.csv", CSV), (link, ""), (hard, ""), (pipe, ""), ("a\nb\x1b.csv", CSV)]
    path = tar(tmp_path / "inner", members)
    before = sorted(tmp_path.rglob("*"))
    items = list(read_items(path))
    assert sorted(tmp_path.rglob("*")) == before
    assert [item.id for item in items[::2]] == ["_/evil#2", "tmp/abs#2", "a_b_#2"]
    assert not any("Secret" in item.question for item in items)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,answer\nWhy?\n", r"toy.csv:2: got 1 cells, expected 2 as in its first line"),
        ("question,answer\nWhy, oh why?,so\n", r"toy.csv:2: got 3 cells, expected 2"),
        ('question,answer\n"Why?,so\n', r"toy.csv:2: got bad csv \(unexpected end of data\)"),
        ('question,answer\n"Why?" not,so\n', r"toy.csv:2: got bad csv "),
        (b"question\n\xff\xfe\n", r"toy.csv:2: got invalid utf-8 at byte 0, expected text"),
        ("question,answer\n", r"toy.csv: got no row, expected one benchmark item a line"),
        ("", r"toy.csv: got no row"),
        ("Why?,1,2,1,A\nHow?,3,4,5,B\n", r"toy.csv:1: got the column `1` twice, expected names of columns"),
        ("Why is it?,so,not,A\nHow?,yes,no,B\n", r"toy.csv:2: question: got no text in a row with the fields Why is"),
    ],
)
def test_what_is_no_table_is_an_error_with_its_place(tmp_path, content, message):
    with pytest.raises(SourceError, match=message) as caught:
        list(read_items(file(tmp_path, content)))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.csv", CSV), ("b.parquet", "PAR1")], r"toy.tar/b.parquet: got a .parquet file in an archive, expected"),
        ([("a.csv", CSV), ("b.tar", "")], r"toy.tar/b.tar: got a .tar file in an archive"),
        ([("a.csv", CSV), ("b.csv", "question\n")], r"toy.tar/b.csv: got no row"),
        ([("a.csv", CSV), ("b.jsonl", "{")], r"toy.tar/b.jsonl:1: got bad json"),
        ([("a.jsonl.gz", b"\x1f\x8b\x08")], r"toy.tar/a.jsonl.gz: got damaged file: .*, expected a benchmark file"),
        ([("README", "x")], r"toy.tar: got an archive without a .jsonl or .csv file, expected one"),
        ([], r"toy.tar: got an archive without"),
    ],
)
def test_what_cannot_be_read_of_an_archive_is_an_error(tmp_path, members, message):
    with pytest.raises(SourceError, match=message) as caught:
        list(read_rows(tar(tmp_path, members)))
    assert caught.value.hint


def test_a_cut_archive_is_an_error_and_not_a_shorter_one(tmp_path):
    whole = tar(tmp_path, [("a.csv", CSV), ("b.csv", CSV)]).read_bytes()
    for size in (500, 700, 1100, 1600, 2048):
        with pytest.raises(SourceError, match="damaged file"):
            list(read_rows(file(tmp_path, whole[:size], "cut.tar")))


def test_what_is_too_long_is_an_error(tmp_path, monkeypatch):
    path = tar(tmp_path, [("a.csv", CSV)])
    monkeypatch.setattr("mixer.benchmark_rows.MAX_ROW_BYTES", 20)
    with pytest.raises(SourceError, match=r"toy.tar/a.csv: got 1\d\d bytes, expected at most 20"):
        list(read_rows(path))
    monkeypatch.setattr("mixer.readers.streams.MAX_ROW_BYTES", 20)
    with pytest.raises(SourceError, match=r"toy.csv:1: got a line that is too long to read"):
        list(read_rows(file(tmp_path, CSV)))


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=20)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
def test_every_cell_that_is_written_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    pl.DataFrame(rows, schema=["question", "answer"], orient="row").write_csv(path, quote_style="always")
    assert [(row.values["question"], row.values["answer"]) for row in read_rows(path)] == rows


@given(st.text("abc.", min_size=1, max_size=8).filter(lambda name: name.strip(".") == name))
def test_only_endings_of_tables_are_taken_off_a_name(name):
    assert bare_name(f"dev/{name}.x.csv.gz") == f"dev/{name}.x"


def test_a_build_is_held_against_the_tables_of_an_archive(tmp_path):
    toys.corpus(tmp_path)
    tar(tmp_path, [("dev/a.csv", CSV)], "evals.tar.gz", gzip.compress)
    with (tmp_path / "web.jsonl").open("a") as out:
        out.write(json.dumps({"text": f"{toys.sentences(900, 4)}\n{ASKED}\n{toys.sentences(901, 4)}"}) + "\n")
    rules = {"decontaminate": {"against": ["evals.tar.gz"]}, "dedup": {"near": None}}
    stages = [{"name": "only", "token_budget": 640, "mixture": {"web": 5, "books": 3, "pages": 2}}]
    built, _ = run_build(tmp_path, clean=rules, stages=stages)
    assert built.ledgers["web"].dropped["decontaminate: evals"] == 1
    [dropped] = pl.read_parquet(tmp_path / "run/dropped/web/*.parquet").filter(step="decontaminate")["reason"]
    assert dropped == "evals: question of dev/a#2"


@pytest.mark.skipif(not CMMLU.is_file(), reason="no shared data here: the real archive of tables is NOT read")
def test_a_real_archive_of_tables_is_read_whole():
    items = list(read_items(CMMLU))
    parts = Counter(item.id.split("/")[0] for item in items)
    assert (len(items), parts["dev"], len({item.id for item in items})) == (5834, 170, 5834)
    assert {len(item.choices) for item in items} == {4}
    assert all(item.answer in item.choices for item in items)
    assert (items[0].id, items[0].question, items[0].answer) == (
        "dev/agronomy#2",
        "肉牛屠宰后，胴体的哪个部位肉质较好",
        "大腿",
    )
