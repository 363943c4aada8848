"""Benchmark files: every shape of row that is in use gives the same item, and what gives none is an error."""

import gzip
from itertools import islice
from pathlib import Path

import orjson
import pytest
import zstandard

from mixer.benchmark import Fields, Item, benchmark_name, parts, read_items
from mixer.errors import SourceError

DATA = Path(__file__).parents[2] / "shared" / "data" / "eval"
ASKED = "Which metal is liquid at room temperature and used in old thermometers?"
METALS = ("iron", "mercury", "copper")


def rows(tmp_path, *objects, name="toy.jsonl"):
    path = tmp_path / name
    path.write_bytes(b"".join(orjson.dumps(value) + b"\n" for value in objects))
    return path


def only(tmp_path, row, **fields):
    [item] = read_items(rows(tmp_path, row), Fields(**fields))
    return item


@pytest.mark.parametrize(
    "row",
    [
        {"question": ASKED, "choices": list(METALS), "answer": 1},
        {"question": ASKED, "options": {"A": "iron", "B": "mercury", "C": "copper"}, "answer": "B"},
        {"question": ASKED, "choices": {"text": list(METALS), "label": ["A", "B", "C"]}, "answerKey": "B"},
        {"question": {"stem": ASKED}, "choices": list(METALS), "answer": "mercury"},
        {"ctx": ASKED, "endings": list(METALS), "label": "1"},
        {"Question": ASKED, "options": ["A) iron", "B) mercury", "C) copper"], "correct": "B"},
        {"query": f"Question: {ASKED}\n", "choices": list(METALS), "gold": 1},
        {
            "query": f"Question: {ASKED}\nChoices:\nA. iron\nB. mercury\nC. copper\nAnswer:",
            "choices": ["A", "B", "C"],
            "gold": 1,
        },
        {"context": f"Question: {ASKED}\nA. iron\nB. mercury\nC. copper\nAnswer: ", "continuation": "mercury"},
        {"question": f"{ASKED}\nA. iron  B. mercury\nC．copper\n", "answer": ["B"]},
    ],
)
def test_case_1_ten_shapes_of_one_item(tmp_path, row):
    assert only(tmp_path, row) == Item("toy#1", "toy", ASKED, "mercury", METALS)


def test_case_2_a_prompt_with_a_passage_is_taken_apart(tmp_path):
    row = {
        "query": "Passage: Mercury melts at -39 degrees.\nIt is a metal.\nQuestion: is mercury a metal",
        "choices": ["no", "yes"],
        "gold": 1,
    }
    item = only(tmp_path, row)
    assert (item.passage, item.question) == ("Mercury melts at -39 degrees.\nIt is a metal.", "is mercury a metal")
    assert (item.choices, item.answer) == (("no", "yes"), "yes")


def test_case_3_without_a_question_the_text_itself_is_what_is_asked(tmp_path):
    item = only(tmp_path, {"context": "He opened the door and saw his old", "continuation": "friend"})
    assert (item.question, item.passage, item.answer) == ("He opened the door and saw his old", "", "friend")


def test_case_4_named_fields_are_dotted_and_several_questions_are_several_items(tmp_path):
    row = {"id": "p1", "story": "A long text.", "qas": [{"q": "First?"}, {"q": "Second?"}], "lang": "en"}
    path = rows(tmp_path, row)
    items = list(read_items(path, Fields(question="qas.q", passage="story")))
    assert [(i.id, i.question, i.passage, i.language) for i in items] == [
        ("p1#0", "First?", "A long text.", "en"),
        ("p1#1", "Second?", "A long text.", "en"),
    ]


def test_an_empty_name_reads_nothing_there(tmp_path):
    assert only(tmp_path, {"question": "What is it?", "context": "unused"}, passage="").passage == ""


def test_numbers_that_are_choices_are_not_taken_for_places(tmp_path):
    item = only(tmp_path, {"question": "How much is it?", "choices": ["0", "4", "2"], "answer": "2"})
    assert item.answer == "2"


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress, bytes])
def test_compression_is_told_by_the_bytes(tmp_path, pack):
    path = tmp_path / "a.b.jsonl.zst"
    path.write_bytes(pack(b'\n{"question": "What is it?"}\n'))
    assert [(item.id, item.benchmark) for item in read_items(path)] == [("a.b#2", "a.b")]


def test_the_name_of_a_benchmark_is_the_file_without_its_endings():
    assert [benchmark_name(Path(n)) for n in ("x/gsm8k-test.jsonl.zst", "v1.5.jsonl", "plain")] == [
        "gsm8k-test",
        "v1.5",
        "plain",
    ]


def test_a_short_question_is_kept_and_marked(tmp_path):
    short, long = read_items(rows(tmp_path, {"question": "Predators eat"}, {"question": ASKED}))
    assert (short.whole, long.whole) == (True, False)


def test_what_is_looked_for():
    def names(**fields):
        return sorted(parts(Item("1", "toy", **fields)))

    assert names(question=ASKED, choices=METALS) == ["question"]
    # Two words tell nothing, with the choices they do; and the choices are enough by themselves.
    listed = ("small birds and mice", "green leaves", "fallen branches")
    assert names(question="Owls eat", choices=listed) == ["item", "options"]
    assert names(question="Which of the following statements is true about this?") == []
    assert names(question="What is it?", passage=ASKED) == ["passage"]
    # An answer is never looked for.
    assert names(question="What is it?", answer=ASKED) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "a"}\n{"question": \n', r"toy.jsonl:2: got bad json .*, expected an object"),
        (b"[1]\n", r"toy.jsonl:1: got list, expected an object"),
        (b'{"question": "", "x": 1}\n', r"toy.jsonl:1: question: got no text in a row with the fields question, x"),
        (b"{}\n", r"toy.jsonl:1: question: got no text in a row with the fields \(none\)"),
        (b"\n\n", r"toy.jsonl: got no row, expected one benchmark item a line"),
        (b"\x28\xb5\x2f\xfd\x00", r"toy.jsonl: got damaged file: .*, expected a benchmark file"),
    ],
)
def test_what_gives_no_item_is_an_error(tmp_path, content, message):
    path = tmp_path / "toy.jsonl"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        list(read_items(path))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"none.jsonl: got damaged file: .*No such file"):
        list(read_items(tmp_path / "none.jsonl"))


def test_a_misspelt_field_is_an_error_and_names_the_others(tmp_path):
    path = rows(tmp_path, {"question": "What is it?", "context": "That."})
    with pytest.raises(SourceError, match=r"toy.jsonl:1: contxt: got no such field, expected one of question, context"):
        list(read_items(path, Fields(passage="contxt")))


def test_a_line_that_is_too_long_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("mixer.readers.streams.MAX_ROW_BYTES", 20)
    with pytest.raises(SourceError, match=r"toy.jsonl:1: got a line that is too long to read"):
        list(read_items(rows(tmp_path, {"question": "a" * 40})))


@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data here")
def test_real_benchmarks_are_read_as_they_are_meant():
    first = {path.name.split(".")[0]: list(islice(read_items(path), 40)) for path in sorted(DATA.glob("*.jsonl.zst"))}
    choices = {name: min(len(item.choices) for item in items) for name, items in first.items()}
    assert (
        choices["mmlu-test-a"] == choices["arc-easy-test"] == choices["commonsenseqa-valid"] == choices["gaokao-a"] == 4
    )
    assert choices["aqua-rat-dev-test"] == 5
    assert choices["boolq-valid"] == 2
    assert choices["pubmedqa-labeled"] == 3
    assert {name for name, items in first.items() if all(item.passage for item in items)} == {
        "boolq-valid",
        "pubmedqa-labeled",
    }
    assert not [
        item
        for items in first.values()
        for item in items
        if item.question.startswith(("Question", "Passage", "Context"))
    ]
    assert first["commonsenseqa-valid"][0].answer == "bank"
    assert first["mmlu-dev-validation"][5].answer in first["mmlu-dev-validation"][5].choices
