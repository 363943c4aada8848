"""Benchmark text in a build: dropped or cut, told in the Run, from pages and from what was written of them."""

import json

import polars as pl
import pytest

from mixer.benchmark import Item
from mixer.context import Context
from mixer.decontaminate import Index
from mixer.errors import RecipeError, SourceError
from mixer.exclude import FindBenchmarks, SearchTask, exclude, open_index
from mixer.prepare import prepare_pages
from mixer.recipe.file import load
from mixer.run import read_json
from mixer.steps import Steps
from tests import toys
from tests.test_build import hashes, run_build

QUESTION = (
    "A farmer keeps seventeen goats behind the old stone barn and sells four of them at the spring market in Ulm."
    " How many goats are left behind the barn?"
)
OTHER = "Which of these gases makes up most of the air that surrounds the planet Earth near the surface of the oceans?"
STAGES = [{"name": "only", "token_budget": 640, "mixture": {"web": 5, "books": 3, "pages": 2}}]


@pytest.fixture
def folder(tmp_path):
    toys.corpus(tmp_path)
    (tmp_path / "evals").mkdir()
    items = [{"question": QUESTION, "answer": "thirteen"}, {"question": OTHER, "answer": "nitrogen"}]
    (tmp_path / "evals" / "toy.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    with (tmp_path / "web.jsonl").open("a") as out:
        text = f"{toys.sentences(900, 4)}\n{QUESTION.upper()}\nThirteen.\n{toys.sentences(901, 4)}"
        out.write(json.dumps({"text": text}) + "\n")
    return tmp_path


def clean(**rules):
    return {"decontaminate": {"against": ["evals/*.jsonl"], **rules}, "dedup": {"near": None}}


def test_a_document_with_a_benchmark_item_is_dropped_with_its_reason(folder):
    built, _ = run_build(folder, clean=clean(), stages=STAGES)
    assert built.ledgers["web"].dropped["decontaminate: toy"] == 1
    kept = pl.read_parquet(folder / "run/documents/web/*.parquet")["text"].str.to_lowercase()
    assert not kept.str.contains("goats").any()
    found = read_json(folder / "run/decontamination/report.json")
    assert found["hits"] == {"web": {"toy": 1}, "books": {}, "pages": {}}
    assert found["examples"]["web"][0]["text"].startswith("FARMER KEEPS SEVENTEEN GOATS")
    assert found["recall"]["verbatim"]["share"] == found["recall"]["rewrapped"]["share"] == 1.0
    assert found["items"] == 2
    row = pl.read_parquet(folder / "run/decontamination/web.parquet").to_dicts()[0]
    assert (row["benchmark"], row["part"], row["share"]) == ("toy", "question", 1.0)


def test_cutting_takes_the_answer_too_and_keeps_the_rest_as_it_is(folder):
    built, _ = run_build(folder, clean=clean(action="cut"), stages=STAGES)
    texts = pl.read_parquet(folder / "run/documents/web/*.parquet")["text"].to_list()
    rest = [text for text in texts if toys.sentences(900, 4) in text]
    assert rest == [f"{toys.sentences(900, 4)}\n{toys.sentences(901, 4)}"]
    assert "decontaminate: toy" not in built.ledgers["web"].dropped


def test_what_was_written_is_dropped_where_a_page_is_cut(folder):
    written = {"kind": "synth", "task": "science_qa", "from": "web"}
    models = {"t": {"endpoint": "http://127.0.0.1:1", "name": "x", "revision": "1"}}
    stages = [{"name": "only", "token_budget": 640, "mixture": {"web": 1, "books": 1, "pages": 1, "qa": 1}}]
    path = toys.recipe(
        folder,
        clean=clean(action="cut"),
        sources=toys.sources() | {"qa": written},
        models=models,
        synth={"science_qa": {"model": "t"}},
        stages=stages,
    )
    context = Context(load(path), folder, folder / "run", folder / "store", 1, Steps(folder / "run", print), print)
    pages = prepare_pages(context)["web"]
    found = exclude(context, {"web": pages, "qa": pages}, open_index(context))
    kept = {name: pl.read_parquet(source.documents[0] / "documents.parquet") for name, source in found.items()}
    assert len(kept["web"]) - len(kept["qa"]) == 1
    dropped = pl.read_parquet(found["qa"].documents[0] / "dropped.parquet").filter(step="decontaminate")
    assert dropped["reason"].to_list() == ["toy: question of toy#1"]


def test_each_file_may_say_where_its_rows_hold_what(folder):
    asked = "Which of the planets has the most moons around it in the solar system as we know it today?"
    row = {"prompt": "internal record key of row one", "enunciado": asked, "opciones": ["Saturn", "Mars"]}
    (folder / "evals" / "odd.jsonl").write_text(json.dumps(row) + "\n")
    odd = {"path": "evals/odd.jsonl", "fields": {"question": "enunciado", "choices": "opciones"}}
    run_build(folder, clean=clean(against=["evals/*.jsonl", odd]), stages=STAGES)
    told = read_json(folder / "run/decontamination/report.json")["benchmarks"]
    assert (told["odd"]["example"]["question"], told["odd"]["example"]["choices"]) == (asked, ["Saturn", "Mars"])
    assert told["toy"]["example"]["question"] == QUESTION
    with pytest.raises(RecipeError, match=r"clean\.decontaminate\.against\.0"):
        load(toys.recipe(folder, clean=clean(against=[5])))


def quiz(folder, *items, name="short"):
    (folder / f"evals/{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


HAMLET = {"question": "Who wrote Hamlet?", "answer": "Shakespeare"}


def test_a_short_question_with_its_answer_is_dropped(folder):
    quiz(folder, HAMLET)
    with (folder / "web.jsonl").open("a") as out:
        text = f"{toys.sentences(902, 4)}\nWho wrote Hamlet? Shakespeare\n{toys.sentences(903, 4)}"
        out.write(json.dumps({"text": text}) + "\n")
    built, said = run_build(folder, clean=clean(floor=1.0), stages=STAGES)
    assert built.ledgers["web"].dropped["decontaminate: short"] == 1
    assert not [line for line in said if "cannot be found" in line]


def test_a_benchmark_of_which_nothing_can_be_found_fails_the_build_beside_one_that_is_found(folder):
    quiz(folder, {"question": "What is it?", "answer": "that"})
    with pytest.raises(SourceError, match=r"got a recall of short: verbatim 0.000 \(0 of 1\), short: rewrapped"):
        run_build(folder, clean=clean(), stages=STAGES)
    _, said = run_build(folder, clean=clean(floor=0.0), stages=STAGES)
    assert [line for line in said if "cannot be found" in line] == [
        "decontaminate: 1 of 1 items of `short` cannot be found: too short, or nothing that other texts do not say"
    ]


def test_the_report_tells_each_benchmark_apart_and_shows_an_item_as_it_was_read(folder):
    quiz(folder, HAMLET, {"question": "What is it?", "answer": "that"})
    run_build(folder, clean=clean(), stages=STAGES)
    told = read_json(folder / "run/decontamination/report.json")["benchmarks"]
    assert told["short"]["in_all"] == {"items": 2, "unmatchable": 1}
    assert (told["short"]["recall"]["verbatim"]["tried"], told["toy"]["recall"]["verbatim"]["tried"]) == (1, 2)
    shown = {"id": "short#1", "benchmark": "short", "passage": "", "language": "", "choices": []}
    assert told["short"]["example"] == HAMLET | shown


def test_what_to_do_with_a_hit_searches_nothing_again_and_a_new_item_searches_all(folder):
    run_build(folder, clean=clean(), stages=STAGES)
    before = hashes(folder / "run")
    _, said = run_build(folder, clean=clean(action="cut"), stages=STAGES)
    assert "skip decontaminate: nothing changed" in said
    assert hashes(folder / "run") != before
    with (folder / "evals" / "toy.jsonl").open("a") as out:
        out.write(
            json.dumps({"question": "Why does a ship made of heavy iron float upon the salty northern sea?"}) + "\n"
        )
    _, said = run_build(folder, clean=clean(), stages=STAGES)
    assert "make decontaminate: 3 units" in said
    assert hashes(folder / "run", "documents") == {k: v for k, v in before.items() if k.startswith("documents")}


def test_without_the_rule_the_document_stays_and_no_report_is_left(folder):
    run_build(folder, clean=clean(), stages=STAGES)
    run_build(folder, clean={"dedup": {"near": None}}, stages=STAGES)
    assert not (folder / "run/decontamination").exists()
    kept = pl.read_parquet(folder / "run/documents/web/*.parquet")["text"]
    assert kept.str.contains("GOATS").sum() == 1


def test_recall_below_the_floor_fails_the_build(folder, monkeypatch):
    monkeypatch.setattr("mixer.decontaminate.Index.find", lambda self, text: [])
    with pytest.raises(SourceError, match=r"got a recall of toy: verbatim 0.000 \(0 of 2\)"):
        run_build(folder, clean=clean(), stages=STAGES)


def test_missing_benchmarks_are_told(folder):
    with pytest.raises(SourceError, match=r"clean\.decontaminate\.against: no file: got `none/"):
        run_build(folder, clean=clean() | {"decontaminate": {"against": ["none/*.jsonl"]}}, stages=STAGES)


def test_a_process_reads_the_index_once_however_many_units_it_searches(tmp_path, monkeypatch):
    Index.build([Item("1", "toy", QUESTION)]).save(tmp_path / "index")
    pl.DataFrame({"id": ["a"], "text": [QUESTION]}).write_parquet(tmp_path / "documents.parquet")
    tasks = [SearchTask(tmp_path / "documents.parquet", tmp_path / str(number)) for number in range(3)]
    load_index, read = Index.load, []
    monkeypatch.setattr(Index, "load", lambda folder: read.append(folder) or load_index(folder))
    step = FindBenchmarks(tasks, tmp_path / "index")
    for rank in range(3):
        step.run(rank=rank)
    assert read == [tmp_path / "index"]
    assert [len(pl.read_parquet(task.target / "hits.parquet")) for task in tasks] == [1, 1, 1]
