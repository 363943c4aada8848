"""Benchmark text in a build: dropped or cut, told in the Run, from pages and from what was written of them."""

import json

import polars as pl
import pytest

from mixer.errors import SourceError
from mixer.run import read_json
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


def test_cutting_keeps_the_rest_of_the_document(folder):
    built, _ = run_build(folder, clean=clean(action="cut"), stages=STAGES)
    texts = pl.read_parquet(folder / "run/documents/web/*.parquet")["text"].to_list()
    rest = [text for text in texts if "Thirteen." in text]
    assert len(rest) == 1
    assert "GOATS" not in rest[0]
    assert toys.sentences(900, 4) in rest[0]
    assert "decontaminate: toy" not in built.ledgers["web"].dropped


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
    with pytest.raises(SourceError, match=r"got a recall of verbatim 0.000 \(0 of 2\)"):
        run_build(folder, clean=clean(), stages=STAGES)


def test_missing_benchmarks_are_told(folder):
    with pytest.raises(SourceError, match=r"clean\.decontaminate\.against: no file: got `none/"):
        run_build(folder, clean=clean() | {"decontaminate": {"against": ["none/*.jsonl"]}}, stages=STAGES)
