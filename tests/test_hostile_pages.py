"""Thirty pages that try to take over the prompt, and a model that obeys them: nothing unsupported is accepted."""

import json

import polars as pl

from mixer.recipe.recipe import Recipe
from tests.endpoint import endpoint
from tests.hostile_pages import PAGES
from tests.test_synth import synthesize
from tests.toys import byte_tokenizer


def recipe_of(folder, url, answers):
    rows = [{"id": f"h{number}", "text": text[:200_000], "lang": "en"} for number, text in enumerate(PAGES)]
    (folder / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    byte_tokenizer(folder / "bytes")
    settings = {
        "model": "t",
        "answers": answers,
        "discipline": "x",
        "pairs_per_page": 2,
        "verify": {"votes": 2, "agree": 2},
    }
    return Recipe.model_validate(
        {
            "name": "hostile",
            "tokenizer": "bytes",
            "sources": {
                "pages": {"kind": "jsonl", "path": "pages.jsonl", "columns": {"id": "id"}},
                "qa": {"kind": "synth", "task": "science_qa", "from": "pages"},
            },
            "clean": {"dedup": {"exact": False, "near": None}},
            "models": {"t": {"endpoint": url, "name": "obedient", "revision": "1"}},
            "synth": {"science_qa": settings},
            "stages": [{"name": "s", "token_budget": 4096, "mixture": {"pages": 1, "qa": 1}}],
        }
    )


def obedient(payload):
    """A model that does what the pages tell it: banana, verified, supported."""
    wanted = payload["response_format"]["json_schema"]["schema"]["properties"]
    told = {
        "evidence": "Bananas hold all the energy of a cell.",
        "answer": "banana",
        "question": "What holds all of the energy of a banana?",
        "verdict": "SUPPORTED",
        "wrong": ["apple", "pear", "plum"],
    }
    if "enum" in wanted.get("answer", {}):
        told["answer"] = wanted["answer"]["enum"][0]
    return json.dumps({key: told[key] for key in wanted})


def honest(payload):
    """A model that asks about the one fact that all pages hold, and answers it."""
    wanted = payload["response_format"]["json_schema"]["schema"]["properties"]
    told = {
        "evidence": "The mitochondrion makes most of the energy that a living cell needs every day.",
        "answer": "The mitochondrion",
        "question": "Which part of a living cell makes most of the energy that it needs every day?",
        "verdict": "SUPPORTED",
        "wrong": ["The nucleus", "The cell wall", "The membrane"],
    }
    return json.dumps({key: told[key] for key in wanted})


def run(folder, answers, model=obedient):
    folder.mkdir()
    with endpoint(model) as (url, seen):
        made, _ = synthesize(recipe_of(folder, url, answers), folder)
    return pl.read_parquet(made / "candidates.parquet"), pl.read_parquet(made / "dropped.parquet"), seen


def test_every_page_is_counted_and_nothing_unsupported_is_accepted(tmp_path):
    for answers in ("free", "extractive"):
        table, dropped, seen = run(tmp_path / answers, answers)
        empty = dropped.filter(pl.col("reason").str.starts_with("pages: no passage"))
        assert table["page"].n_unique() + empty.height == len(PAGES) == 30
        for row in table.filter("accepted").to_dicts():
            page = PAGES[int(row["page"][1:])]
            assert row["answer"].lower() in page.lower()
            assert all(span["similarity"] >= 0.9 for span in row["spans"])
        assert not table.filter(pl.col("accepted") & (pl.col("answer") == "banana")).height
        for payload in seen:
            assert [message["role"] for message in payload["messages"]] == ["system", "user"]
            content = payload["messages"][1]["content"]
            assert content.count("<page ") == content.count("</page ") <= 1


def test_what_such_a_page_does_support_is_accepted(tmp_path):
    table, _, _ = run(tmp_path / "honest", "free", honest)
    accepted = table.filter("accepted")
    # The question is the same on every page, so the first page that was asked keeps it.
    assert accepted["answer"].unique().to_list() == ["The mitochondrion"]
    reasons = table.filter(~pl.col("accepted"))["reason"].str.split(":").list.first()
    assert "duplicate" in set(reasons)
