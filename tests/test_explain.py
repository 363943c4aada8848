"""`mixer trace`, `mixer why`, `mixer diff`: every token leads back to its document, every document to its end."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from mixer.cli import app
from mixer.diff import diff
from mixer.errors import ShardError, SourceError
from mixer.recipe_file import load
from mixer.replan import open_run
from mixer.shard import Sequences
from mixer.tokens import load as load_encoder
from mixer.trace import bytes_of, trace_shard, trace_stage
from mixer.why import why
from tests import toys
from tests.test_build import run_build

SCORES = {"text": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = toys.corpus(tmp_path_factory.mktemp("explain"))
    run_build(folder, scores=SCORES)
    return folder


def opened(folder: Path, run: str = "run"):
    recipe = load(folder / run / "recipe.yaml")
    return folder / run, recipe, load_encoder(recipe.tokenizer, folder, folder / "store")


def mixer(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_case_1_every_piece_of_a_sequence_is_its_bytes_of_a_document(folder):
    run, recipe, encoder = opened(folder)
    names, seen = list(recipe.sources), 0
    for index in range(0, 150, 7):
        found = trace_stage(run, recipe, encoder, stage="adapt", index=index)
        order = np.load(run / "order/adapt.npy")[index]
        assert (found.source, found.sequence) == (names[order[0]], order[1])
        packed = Sequences(run / "shards" / found.source)[found.sequence]
        texts = dict(pl.read_parquet(run / "documents" / found.source / "*.parquet").select("id", "text").iter_rows())
        for origin in found.origins:
            piece = texts[origin.document].encode()[origin.begin : origin.end]
            ids = packed[origin.offset : origin.offset + origin.length].tolist()
            # The toy tokenizer's ids are bytes; 257 ends a document and stands for none.
            assert bytes(encoder.backend.decode(ids).encode()) == piece == origin.text.encode()
            seen += origin.length
    assert seen == 22 * 64


def test_case_2_a_token_of_a_shard_leads_to_the_same_place(folder):
    run, recipe, encoder = opened(folder)
    by_stage = trace_stage(run, recipe, encoder, stage="adapt", index=3)
    by_shard = trace_shard(run, encoder, shard=f"{by_stage.source}/00000.bin", offset=by_stage.sequence * 64 + 63)
    assert by_shard.origins == by_stage.origins
    assert by_stage.origins[0].scores["text"]["words"] > 0


def test_case_3_a_kept_document_is_found_in_its_sequences_and_stages(folder):
    run, recipe, encoder = opened(folder)
    [fate] = why(run, recipe, "web.jsonl#5")
    assert (fate.state, fate.url) == ("kept", "https://example.org/5")
    [text] = pl.read_parquet(run / "documents/web/*.parquet").filter(pl.col("id") == "web.jsonl#5")["text"]
    assert 0 < fate.tokens <= len(text) + 1
    checked = 0
    for place in fate.places:
        for stage, at in place.stages.items():
            for index in at:
                found = trace_stage(run, recipe, encoder, stage=stage, index=index)
                assert "web.jsonl#5" in {origin.document for origin in found.origins}
                checked += 1
    assert checked


def test_case_4_a_dropped_document_names_the_step_that_ended_it(folder):
    [fate] = why(folder / "run", opened(folder)[1], "web.jsonl#29")
    assert (fate.state, fate.step, fate.reason) == ("dropped", "exact_dedup", "same text as web/web.jsonl#5")


def test_case_5_two_runs_that_differ_by_one_threshold_differ_in_that_and_what_follows(folder):
    shutil.copytree(folder / "run", folder / "other")
    middle = pl.read_parquet(folder / "run/scores/text/web.parquet")["value"].median()
    rule = f"text > {middle:g}"
    sources = toys.sources(web={"where": rule})
    run_build(folder, "other", scores=SCORES, sources=sources)
    found = diff(folder / "run", folder / "other", (opened(folder)[1], opened(folder, "other")[1]))
    assert found.recipe == {"sources.web.where": (None, rule)}
    assert set(found.documents) == {"web"}
    web = found.documents["web"]
    assert (
        web.removed == sum(after - before for before, after in ((b or 0, a or 0) for b, a in web.reasons.values())) > 0
    )
    assert list(web.reasons) == [f"where: {rule}"]
    assert f"(where: {rule})" in web.examples["removed"][0]
    assert (web.added, web.changed) == (0, 0)
    assert set(found.tokens) == {"web"}
    assert found.scores == {}
    assert {name for name in found.steps if name.split()[0] in ("documents", "shards")} <= {
        "documents web",
        "shards web",
    }
    same = diff(folder / "run", folder / "run", (opened(folder)[1],) * 2)
    assert same.is_empty


def test_the_commands_print_for_people_and_for_programs(folder):
    run = folder / "run"
    shown = mixer("trace", run, "--stage", "adapt", "--index", 12, "--base", folder)
    assert shown.exit_code == 0, shown.output
    assert "stage adapt, place 12: sequence" in shown.stdout
    told = json.loads(mixer("trace", run, "--stage", "adapt", "--index", 12, "--base", folder, "--json").stdout)
    assert sum(origin["length"] for origin in told["origins"]) == 64
    assert "dropped by exact_dedup: same text as" in mixer("why", run, "web.jsonl#29").stdout
    assert json.loads(mixer("why", run, "web.jsonl#5", "--json").stdout)[0]["state"] == "kept"
    assert mixer("diff", run, run).stdout == "nothing differs\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trace", "RUN", "--stage", "adpt"], "--stage: got 'adpt', expected one of adapt, anneal"),
        (["trace", "RUN", "--stage", "adapt", "--index", "150"], "--index: got 150, expected 0 to 149"),
        (["trace", "RUN", "--shard", "web/9.bin"], "--shard: got 'web/9.bin', expected such as `web/00000.bin`"),
        (["trace", "RUN", "--shard", "web/00000.bin", "--offset", "999999"], "--offset: got 999,999, expected 0 to"),
        (["trace", "RUN"], "trace: got no place, or two, expected one"),
        (["why", "RUN", "nope"], "got no document 'nope', expected an id of documents/ or dropped/"),
    ],
)
def test_a_place_that_is_not_there_is_told_and_ends_with_2(folder, arguments, told):
    done = mixer(
        *[folder / "run" if each == "RUN" else each for each in arguments],
        *(["--base", folder] if arguments[0] == "trace" else []),
    )
    assert done.exit_code == 2
    assert told in done.stderr


def test_a_shard_of_another_tokenizer_is_refused(folder, tmp_path):
    run, _, encoder = opened(folder)
    copy = shutil.copytree(run, tmp_path / "run")
    shard = copy / "shards/web/00000.bin"
    ids = np.fromfile(shard, np.uint16)
    ids[70] += 1
    ids.tofile(shard)
    with pytest.raises(ShardError, match="got other tokens in sequence 1 than document"):
        trace_shard(copy, encoder, shard="web/00000.bin", offset=70)
    with pytest.raises(SourceError, match="expected a finished Run"):
        open_run(tmp_path / "none")


def test_a_thousand_tokens_of_many_bytes_lead_back_to_their_characters(folder):
    """A character of several bytes may be parted over tokens; bytes are counted, not characters."""
    _, _, encoder = opened(folder)
    rng = random.Random(3)
    text = "".join(rng.choice("aé漢🙂 ") for _ in range(400))
    [ids] = encoder.encode([text])
    for _ in range(1000):
        start = rng.randrange(len(ids) - 1)
        assert bytes_of(encoder, text, ids, start, 1) == (start, start + 1)
    assert bytes_of(encoder, text, ids, len(ids) - 1, 1) == (len(text.encode()),) * 2
