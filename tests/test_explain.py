"""`mixer trace`, `mixer why`, `mixer diff`: every token leads back to its document, every document to its end."""

import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from typer.testing import CliRunner

from mixer.cli import app
from mixer.diff import diff
from mixer.errors import ShardError, SourceError
from mixer.recipe.file import load
from mixer.replan import open_run
from mixer.shard import Sequences
from mixer.tokens import Encoder
from mixer.tokens import load as load_encoder
from mixer.trace import bytes_of, trace_shard, trace_stage
from mixer.why import why
from tests import toys
from tests.test_build import run_build

SCORES = {"text": {}}


def address_of(document: str) -> str:
    return f"https://example.org/{document.rpartition('#')[2]}"


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
    names, seen, urls = list(recipe.sources), 0, 0
    for index in range(0, 150, 7):
        found = trace_stage(run, recipe, encoder, stage="adapt", index=index)
        order = np.load(run / "order/adapt.npy")[index]
        assert (found.source, found.sequence) == (names[order[0]], order[1])
        packed = Sequences(run / "shards" / found.source)[found.sequence]
        texts = dict(pl.read_parquet(run / "documents" / found.source / "*.parquet").select("id", "text").iter_rows())
        for origin in found.origins:
            piece = texts[origin.document].encode()[origin.begin : origin.end]
            assert origin.url == (address_of(origin.document) if found.source == "web" else None)
            urls += origin.url is not None
            ids = packed[origin.offset : origin.offset + origin.length].tolist()
            # The toy tokenizer's ids are bytes; 257 ends a document and stands for none.
            assert bytes(encoder.backend.decode(ids).encode()) == piece == origin.text.encode()
            seen += origin.length
    assert seen == 22 * 64
    assert urls


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
    assert {name for name in found.steps if name.split()[0] in ("documents", "shards")} == {
        "documents web",
        "shards web",
    }
    assert set(found.orders) == {"adapt", "anneal"}
    assert found.shares == {}
    back = diff(folder / "other", folder / "run", (opened(folder, "other")[1], opened(folder)[1]))
    assert back.documents["web"].added == web.removed
    assert f"(where: {rule})" in back.documents["web"].examples["added"][0]
    same = diff(folder / "run", folder / "run", (opened(folder)[1],) * 2)
    assert same.is_empty


@pytest.fixture
def copied(folder, tmp_path):
    """Makes copies of the Run, to be changed."""

    def copy(name: str) -> Path:
        return shutil.copytree(folder / "run", tmp_path / name)

    return copy


def compare(*runs: Path):
    return diff(*runs, tuple(load(run / "recipe.yaml") for run in runs))


def test_the_same_sequences_in_another_order_differ(folder, copied):
    other = copied("other")
    order = np.load(other / "order/adapt.npy")
    np.save(other / "order/adapt.npy", order[::-1])
    found = compare(folder / "run", other)
    assert set(found.orders) == {"adapt"}
    assert [value for key, value in asdict(found).items() if key != "orders" and value] == []
    assert "order adapt: " in mixer("diff", folder / "run", other).stdout


def test_the_same_stages_in_another_order_differ(folder, copied):
    other = copied("other")
    told = yaml.safe_load((other / "recipe.yaml").read_text())
    told["stages"].reverse()
    (other / "recipe.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    assert compare(folder / "run", other).recipe == {"stages in order": (["adapt", "anneal"], ["anneal", "adapt"])}


def test_another_share_is_named(folder, copied):
    other = copied("other")
    plan = json.loads((other / "plan.json").read_text())
    plan["stages"][0]["sources"]["web"]["sequences"] -= 3
    (other / "plan.json").write_text(json.dumps(plan))
    [(key, (before, after))] = compare(folder / "run", other).shares.items()
    assert (key, before - after) == ("adapt web", 3)


def put_score(run: Path, score: str, values: list) -> None:
    (run / "scores" / score).mkdir(parents=True, exist_ok=True)
    ids = pl.read_parquet(run / "documents/web/*.parquet")["id"].to_list()
    rows = {"id": ids, "value": [values[i % len(values)] for i in range(len(ids))]}
    pl.DataFrame(rows).write_parquet(run / "scores" / score / "web.parquet")


def test_labels_are_counted_and_scores_differ_though_their_quantiles_do_not(copied):
    one, other = copied("one"), copied("other")
    put_score(one, "topic", ["physics", "biology"])
    put_score(other, "topic", ["physics", "physics", "biology"])
    topic = compare(one, other).scores["topic web"]
    count = topic[0][0]
    halves = [f"biology: {count // 2}", f"physics: {count - count // 2}"]
    assert (topic[0][1:3], topic[1][2]) == (halves, f"physics: {count - count // 3}")
    put_score(other, "topic", ["physics", "biology"])
    assert compare(one, other).is_empty
    values = [float(i) for i in range(count)]
    put_score(one, "perplexity", values)
    put_score(other, "perplexity", values[::-1])
    before, after = compare(one, other).scores["perplexity web"]
    assert before[:4] == after[:4]
    assert before[0] == count
    assert before[4] != after[4]


def test_two_rows_of_one_id_are_no_difference_and_a_third_is(copied):
    one = copied("one")
    path = next((one / "documents/web").glob("*.parquet"))
    table = pl.read_parquet(path)
    table.with_columns(id=pl.when(pl.int_range(pl.len()) < 2).then(pl.lit("same")).otherwise("id")).write_parquet(path)
    assert compare(one, one).is_empty
    other = copied("other")
    pl.concat([pl.read_parquet(path), pl.read_parquet(path)[:1]]).write_parquet(
        next((other / "documents/web").glob("*.parquet"))
    )
    found = compare(one, other).documents["web"]
    assert (found.changed, found.examples["changed"]) == (1, ["same"])
    assert found.kept == (len(table), len(table) + 1)


def test_what_a_document_held_of_a_benchmark_is_told(folder, copied):
    other = copied("other")
    (other / "decontamination").mkdir()
    hits = {"id": ["web.jsonl#5", "other"], "benchmark": ["sciq"] * 2, "item": ["17"] * 2, "text": ["the tide"] * 2}
    pl.DataFrame(hits).write_parquet(other / "decontamination/web.parquet")
    [fate] = why(other, opened(folder)[1], "web.jsonl#5")
    assert fate.hits == [{"id": "web.jsonl#5", "benchmark": "sciq", "item": "17", "text": "the tide"}]
    assert "held sciq 17: 'the tide'" in mixer("why", other, "web.jsonl#5").stdout


def test_places_beyond_the_first_twenty_are_counted(folder, copied):
    other = copied("other")
    order = np.load(other / "order/adapt.npy")
    order[:] = order[0]
    np.save(other / "order/adapt.npy", order)
    _, recipe, encoder = opened(folder)
    [origin, *_] = trace_stage(other, recipe, encoder, stage="adapt", index=0).origins
    [place] = [each for each in why(other, recipe, origin.document)[0].places if "adapt" in each.stages]
    assert (place.counts["adapt"], len(place.stages["adapt"])) == (150, 20)
    assert "18, 19 and 130 more" in mixer("why", other, origin.document).stdout


def test_a_token_of_a_shard_is_named_with_its_byte(folder):
    run, _, encoder = opened(folder)
    ids, seen = np.fromfile(run / "shards/web/00000.bin", np.uint16), 0
    for offset in range(0, len(ids) // 64 * 64, 97):
        found = trace_shard(run, encoder, shard="web/00000.bin", offset=offset)
        token = found.token
        table = pl.read_parquet(run / "documents/web/*.parquet").filter(pl.col("id") == token.document)
        piece = table["text"][0].encode()[token.begin : token.end]
        assert found.place == offset % 64
        assert piece == (b"" if ids[offset] == 257 else bytes([alphabet_byte(encoder, int(ids[offset]))]))
        seen += len(piece)
    assert seen > 20
    shown = mixer("trace", run, "--shard", "web/00000.bin", "--offset", 70, "--base", folder).stdout
    assert "place 6: token " in shown


def alphabet_byte(encoder, i: int) -> int:
    [byte] = encoder.backend.decode([i]).encode()
    return byte


def byte_level(*, normalizer=None, prefix: bool = False) -> Encoder:
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(ALPHABET))}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if normalizer is not None:
        backend.normalizer = normalizer
    return Encoder(backend, None, None, frozenset(), 256, "x")


ALPHABET = pre_tokenizers.ByteLevel.alphabet()


@pytest.mark.parametrize(
    ("encoder", "text"),
    [
        # What NFC takes from each e it adds to the last letter: as many bytes, at other places.
        (byte_level(normalizer=normalizers.NFC()), "e\u0301e\u0301e\u0301 WORD \u0958"),
        (byte_level(normalizer=normalizers.NFC()), "cafe\u0301"),
        (byte_level(prefix=True), "abc"),
    ],
)
def test_a_tokenizer_that_changes_the_text_is_refused_rather_than_misplaced(encoder, text):
    [ids] = encoder.encode([text])
    with pytest.raises(ShardError, match="got tokens that spell another text, expected its own bytes"):
        bytes_of(encoder, text, ids, 0, 1)
    [ids] = encoder.encode(["plain"])
    if encoder.backend.normalizer is not None:
        assert bytes_of(encoder, "plain", ids, 1, 2) == (1, 3)


def test_a_tokenizer_of_whole_characters_is_refused():
    backend = Tokenizer(models.WordLevel(vocab={"[UNK]": 0, "a": 1, "\u2581b": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    encoder = Encoder(backend, None, None, frozenset(), 3, "x")
    with pytest.raises(ShardError, match="got tokens that spell another text"):
        bytes_of(encoder, "a b", encoder.encode(["a b"])[0], 1, 1)


def test_an_added_token_stands_for_its_own_bytes():
    encoder = byte_level()
    encoder.backend.add_tokens([AddedToken("\u6f22 ", normalized=False)])
    [ids] = encoder.encode(["a\u6f22 b"])
    assert [bytes_of(encoder, "a\u6f22 b", ids, i, 1) for i in range(3)] == [(0, 1), (1, 5), (5, 6)]


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
        (["trace", "RUN", "--stage", "adapt", "--offset", "3"], "--offset counts within a --shard or --file"),
        (["trace", "RUN", "--shard", "web/00000.bin", "--index", "3"], "--index counts within a --stage"),
        (["trace", "RUN"], "trace: got no place, or several, expected one"),
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
    with pytest.raises(ShardError, match="sequence 1: got other tokens than document"):
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
