"""Every token of synthetic text leads back to the prompt, the model, the raw answers and the verdicts behind it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from curricula.scheduler import Scheduler
from curricula.scores.score import open_score
from mixer.build import build
from mixer.cli import app
from mixer.exports.export import export
from mixer.exports.locate import trace_file
from mixer.recipe.exports import Export
from mixer.replan import open_run
from mixer.shard import Sequences, index_of
from mixer.tokens import load
from mixer.trace import Origin, trace_shard, trace_stage
from mixer.why import why
from synth.synthesize import Synthesizer, Weights
from tests.endpoint import endpoint
from tests.test_synth import PAGES, recipe_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A Run over three pages and the pairs that an endpoint wrote from them."""
    folder = tmp_path_factory.mktemp("synthetic")
    with endpoint() as (url, _), Synthesizer(lambda model: Weights(None, "rule@1")) as synthesizer:
        recipe = recipe_of(folder, url)
        stage = recipe.stages[0].model_copy(update={"token_budget": 640})
        build(
            recipe.model_copy(update={"stages": (stage,)}),
            base=folder,
            run=folder / "run",
            store=folder / "store",
            workers=1,
            scheduler=Scheduler(),
            synthesize=synthesizer,
            open_score=open_score,
            say=lambda _: None,
        )
    return folder


def opened(folder: Path):
    recipe = open_run(folder / "run")
    return folder / "run", recipe, load(recipe.tokenizer, folder, folder / "store")


def check(origin: Origin, run: Path) -> None:
    """What is said of a piece of synthetic text is what the model was asked, what it answered, and how it was judged."""
    [text] = pl.read_parquet(run / "documents/qa/*.parquet").filter(pl.col("id") == origin.document)["text"]
    candidates, responses = origin.synthesis["candidates"], origin.synthesis["responses"]
    page = PAGES[int(origin.metadata["page"][1])]
    for candidate in candidates:
        assert (candidate["page_source"], candidate["model"]) == ("pages", "teacher@rule@1")
        assert candidate["prompt"].startswith("science_qa.en@")
        assert candidate["question"] in text
        assert candidate["answer"] in text
        assert all(quote in page for quote in candidate["evidence"])
        assert {check["name"]: check["passed"] for check in candidate["checks"]}["votes"] is True
        assert set(candidate["keys"]) <= {response["key"] for response in responses}
    assert candidates
    assert sorted(response["key"] for response in responses) == sorted(set(origin.metadata["log_keys"].split(",")))
    asked = [response for response in responses if "question" in (response["schema"] or {}).get("properties", {})]
    written = [json.loads(response["text"]) for response in asked]
    assert {each["question"] for each in written} >= {candidate["question"] for candidate in candidates}
    assert all(page.split(". ")[0] in response["messages"][-1]["content"] for response in asked)
    assert {response["model"] for response in responses} == {"rule@1"}


def test_case_1_every_synthetic_token_has_prompt_model_raw_answers_and_verdicts(folder):
    run, recipe, encoder = opened(folder)
    order = np.load(run / "order/only.npy")
    written = np.flatnonzero(order[:, 0] == list(recipe.sources).index("qa"))
    assert len(written) == 20
    tokens = 0
    for index in written.tolist():
        found = trace_stage(run, recipe, encoder, stage="only", index=index)
        packed = Sequences(run / "shards/qa")[found.sequence]
        for origin in found.origins:
            check(origin, run)
            ids = packed[origin.offset : origin.offset + origin.length]
            assert encoder.backend.decode(ids.tolist()) == origin.text
            tokens += origin.length
    assert tokens == 20 * 16


def test_case_2_a_page_has_no_synthesis(folder):
    run, recipe, encoder = opened(folder)
    order = np.load(run / "order/only.npy")
    found = trace_stage(run, recipe, encoder, stage="only", index=int(np.flatnonzero(order[:, 0] == 0)[0]))
    assert [origin.synthesis for origin in found.origins] == [{} for _ in found.origins]


def test_case_3_from_a_shard_and_from_an_exported_file_it_is_the_same(folder):
    run, recipe, encoder = opened(folder)
    export(run, recipe, Export(format="torchtitan"), folder / "torchtitan", say=lambda _: None)
    order = np.load(run / "order/only.npy")
    index = int(np.flatnonzero(order[:, 0] == 1)[0])
    file = folder / "torchtitan/premixed/tokens.bin"
    by_file = trace_file(run, recipe, encoder, file=file, offset=index * 16 + 5)
    by_shard = trace_shard(run, encoder, shard="qa/00000.bin", offset=by_file.sequence * 16 + 5)
    assert by_file.origins == by_shard.origins
    assert (by_file.stage, by_file.index, by_file.place, by_shard.place) == ("only", index, 5, 5)
    check(by_file.origins[0], run)


def test_case_4_why_a_synthetic_document_is_there_or_not(folder):
    run, recipe, _ = opened(folder)
    kept = pl.read_parquet(run / "documents/qa/*.parquet")["id"].to_list()
    [fate] = why(run, recipe, kept[0])
    assert (fate.source, fate.state) == ("qa", "kept")
    assert fate.tokens > 0
    assert any(place.stages for place in fate.places)
    # A page that is too short to ask about: kept as a page, and dropped where it was to be written from.
    fates = {fate.source: fate for fate in why(run, recipe, "p2")}
    assert fates["pages"].state == "kept"
    assert (fates["qa"].step, fates["qa"].reason) == ("synth", "pages: no passage to ask about")
    assert index_of(run / "shards/qa")["documents"] == len(kept)


def test_the_command_shows_how_a_document_was_written(folder):
    run, *_ = opened(folder)
    order = np.load(run / "order/only.npy")
    index = int(np.flatnonzero(order[:, 0] == 1)[0])
    where = ["trace", str(run), "--stage", "only", "--index", str(index), "--base", str(folder)]
    shown = CliRunner().invoke(app, where)
    assert shown.exit_code == 0, shown.stderr
    assert "written by teacher@rule@1 from pages/p" in shown.stdout
    assert "prompt science_qa.en@" in shown.stdout
    assert "verdicts: " in shown.stdout
    told = json.loads(CliRunner().invoke(app, [*where, "--json"]).stdout)
    raw = told["origins"][0]["synthesis"]["responses"]
    assert raw[0]["messages"]
    assert raw[0]["text"]
