"""Sources of token ids: an export comes back as the documents it was made of, and damage is named, counted, never lost."""

import gzip
import json
import random
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mixer.cli import app
from mixer.diff import diff
from mixer.errors import ExportError, SourceError
from mixer.exports.export import export
from mixer.exports.verify import verify
from mixer.imported import Framed, frame, read_documents
from mixer.read import units
from mixer.readers import tokens as reader
from mixer.readers.tokens import Encoded, Ids, documents
from mixer.recipe import file as recipe_file
from mixer.recipe import problems as recipe_problems
from mixer.recipe.exports import Export
from mixer.recipe.sources import TokensSource
from mixer.replan import open_run
from mixer.shard import Sequences, index_of
from mixer.tokens import load
from mixer.trace import trace_stage
from mixer.types import Failure
from mixer.why import why
from tests import toy_run, toys
from tests.test_build import run_build

EOS = 257
BLENDED = {
    "megatron": ("{}.bin", "index"),
    "nanotron": ("{}/*.ds", "index"),
    "olmo": ("{}-*.npy", "index"),
    "torchtitan": ("{}/tokens.bin", "index"),
    "parquet": ("{}-*.parquet", "eos"),
}
FORMATS = [{"format": name, "mode": "blended"} for name in BLENDED]
PREMIXED = {
    "llmc": "0?-*.bin",
    "parquet": "0?-*.parquet",
    "arrow": "train/*.arrow",
    "torchtitan": "premixed/tokens.bin",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The corpus, and `run`, a Run with every export that can be read back."""
    folder = toys.corpus(tmp_path_factory.mktemp("imported"))
    run_build(folder, exports=[*FORMATS, *({"format": name} for name in PREMIXED)])
    return folder


def encoder_of(folder: Path):
    recipe = recipe_file.load(folder / "run/recipe.yaml")
    return load(recipe.tokenizer, folder, folder / "store")


def source_of(format: str, path: str, **keys) -> TokensSource:
    return TokensSource(kind="tokens", format=format, path=path, **keys)


def taken(folder: Path, source: TokensSource, encoder=None) -> list[list[int] | Failure]:
    """All documents of a source, framed."""
    encoder = encoder or encoder_of(folder)
    found = []
    for unit in units("old", source, folder):
        for each in read_documents(unit, source, encoder):
            framed = each if isinstance(each, Failure) else frame(each, encoder)
            found.append(framed if isinstance(framed, Failure) else framed.ids.tolist())
    return found


def packed_documents(run: Path, name: str) -> list[list[int]]:
    """The documents of a source as they lie in its sequences; the last one may be cut, and then gets its end."""
    sequences, index = Sequences(run / "shards" / name), index_of(run / "shards" / name)
    spans = pl.concat([pl.read_parquet(run / "shards" / name / shard["spans"]) for shard in index["shards"]])
    whole: dict[int, list[int]] = {}
    for span in spans.sort("sequence", "offset").iter_rows(named=True):
        ids = sequences[span["sequence"]][span["offset"] : span["offset"] + span["length"]]
        whole.setdefault(span["document"], []).extend(ids.tolist())
    return [ids if ids[-1] == EOS else [*ids, EOS] for ids in whole.values()]


# What comes back


def test_case_1_three_documents_of_a_flat_file_end_at_their_end_of_text(folder, tmp_path):
    np.array([104, 105, EOS, EOS, 97, EOS, 98], np.uint16).tofile(tmp_path / "x.bin")
    # The second holds nothing, and the last gets the end that it lacks.
    found = taken(tmp_path, source_of("flat", "x.bin"), encoder_of(folder))
    assert found == [[104, 105, EOS], [], [97, EOS], [98, EOS]]


@pytest.mark.parametrize("name", BLENDED)
def test_case_2_a_blended_export_gives_back_its_documents(folder, name):
    pattern, boundaries = BLENDED[name]
    for source in ("web", "books", "pages"):
        path = f"run/exports/{name}-blended/{pattern.format(source)}"
        found = taken(folder, source_of(name, path, boundaries=boundaries))
        assert found == packed_documents(folder / "run", source)
        assert len(found) == index_of(folder / "run/shards" / source)["documents"]


@pytest.mark.parametrize("name", PREMIXED)
def test_case_3_a_premixed_export_gives_back_what_is_trained_on_piece_by_piece(folder, name):
    rows = toy_run.rows(folder / "run", recipe_file.load(folder / "run/recipe.yaml"))
    cut_at_rows = name == "torchtitan"
    found = taken(
        folder, source_of(name, f"run/exports/{name}/{PREMIXED[name]}", boundaries=None if cut_at_rows else "eos")
    )
    stages = [rows] if name in ("arrow", "torchtitan") else [rows[:150], rows[150:]]
    expected = []
    for stage in stages:
        for stream in stage if cut_at_rows else [[i for row in stage for i in row]]:
            pieces = np.split(np.array(stream), np.flatnonzero(np.array(stream) == EOS) + 1)
            expected += [[*piece.tolist(), *([] if piece[-1] == EOS else [EOS])] for piece in pieces if len(piece)]
    # Nothing but an end of text is no document: llm.c's files open with one.
    assert [ids for ids in found if ids] == [ids for ids in expected if ids != [EOS]]


def test_case_4_a_table_of_lists_is_a_document_a_row(folder, tmp_path):
    rows = [[104, 105], [], None, [97, EOS], [1, None, 2], [9]]
    table = pa.table({"ids": pa.array(rows, pa.large_list(pa.uint16()))})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    for name in ("parquet", "arrow"):
        found = taken(tmp_path, source_of(name, f"x.{name}", column="ids"), encoder_of(folder))
        told = "not in the vocabulary: id -1 at token 5 of the file, expected below 258"
        assert found == [[104, 105, EOS], [], [], [97, EOS], Failure(f"x.{name}#4", told), [9, EOS]]


def test_max_documents_is_counted_from_the_first_file_on(folder):
    source = source_of("olmo", "run/exports/olmo-blended/*.npy", max_documents=7)
    assert len(taken(folder, source)) == 7


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=5), max_size=20), st.lists(st.integers(1, 7), min_size=1, max_size=50)
)
def test_a_stream_may_part_anywhere(texts, steps):
    stream = np.array([i for text in texts for i in [*text, 0]], np.int32)
    cuts = np.cumsum(steps)
    parts = np.split(stream, cuts[cuts < len(stream)])
    found = list(reader._rejoined(iter(parts), 0))
    assert [ids.tolist() for _, ids in found] == [[*text, 0] for text in texts]
    assert [place for place, _ in found] == np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1].tolist()


# A build over them

TOKENS = {
    name: {"kind": "tokens", "format": "megatron", "path": f"run/exports/megatron-blended/{name}.bin"}
    for name in ("web", "books")
}
MIXED = {
    "sources": {**TOKENS, "pages": toys.sources()["pages"]},
    "stages": [{"name": "adapt", "token_budget": 9600, "mixture": {"web": 5, "books": 3, "pages": 2}}],
}


@pytest.fixture(scope="module")
def again(folder) -> Path:
    """A Run over two sources of ids and one of pages, exported."""
    built, said = run_build(folder, "again", **MIXED, exports=[{"format": "megatron"}])
    assert "make import web: 1 of 1 units" in said
    read = {name: ledger.read for name, ledger in built.ledgers.items()}
    assert (read["web"], read["books"]) == (28, 6)
    return folder / "again"


def test_ids_are_mixed_ordered_and_exported_like_encoded_text(folder, again):
    recipe = open_run(again)
    plan = json.loads((again / "plan.json").read_text())
    assert {name: share["sequences"] for name, share in plan["stages"][0]["sources"].items()} == {
        "web": 75,
        "books": 45,
        "pages": 30,
    }
    for name in TOKENS:
        before, now = ({tuple(ids) for ids in packed_documents(run, name)} for run in (folder / "run", again))
        # But the one that the end of the last whole sequence cuts.
        assert len(now - before) <= 1
        assert len(now & before) >= len(before) - 1
    [found] = verify(again, recipe, again / "exports/megatron")
    assert found.tokens == 150 * 64
    _, said = run_build(folder, "again", **MIXED, exports=[{"format": "megatron"}])
    assert "skip import web: nothing changed" in said
    assert "skip shards web: nothing changed" in said


def test_a_document_of_ids_is_traced_to_its_file_and_what_became_of_it_is_told(folder, again):
    recipe = open_run(again)
    encoder = load(recipe.tokenizer, folder, folder / "store")
    order = np.load(again / "order/adapt.npy")
    index = int(np.flatnonzero(order[:, 0] == 0)[3])
    found = trace_stage(again, recipe, encoder, stage="adapt", index=index)
    # The last document was cut, and got the end that it lacked.
    ids = np.r_[np.fromfile(folder / "run/exports/megatron-blended/web.bin", np.uint16), EOS]
    packed = Sequences(again / "shards/web")[found.sequence]
    for origin in found.origins:
        first = int(origin.metadata["first_token"]) + origin.start
        assert (ids[first : first + origin.length] == packed[origin.offset : origin.offset + origin.length]).all()
        assert (origin.begin, origin.end) == (None, None)
        assert origin.text == encoder.backend.decode(ids[first : first + origin.length].tolist())
    [fate] = why(again, recipe, found.origins[0].document)
    assert index in next(place for place in fate.places if place.sequence == found.sequence).stages["adapt"]
    shown = CliRunner().invoke(
        app, ["trace", str(again), "--stage", "adapt", "--index", str(index), "--base", str(folder)]
    )
    assert f"of its file {int(found.origins[0].metadata['first_token']) + found.origins[0].start:,}: '" in shown.stdout


def test_a_plan_before_the_build_counts_what_the_files_say(folder):
    path = toys.recipe(folder, **MIXED)
    done = CliRunner().invoke(app, ["plan", str(path), "--run", str(folder / "none")])
    assert done.exit_code == 0, done.stderr
    size = (folder / "run/exports/megatron-blended/web.bin").stat().st_size // 2
    assert f"web: ~{size:,} tokens, as its files say" in done.stderr


def test_a_diff_sees_that_ids_changed(folder, again):
    shutil.copytree(folder / "run/exports/megatron-blended", folder / "changed")
    ids = np.fromfile(folder / "changed/web.bin", np.uint16)
    ids[0] += 1
    ids.tofile(folder / "changed/web.bin")
    sources = {**MIXED["sources"], "web": TOKENS["web"] | {"path": "changed/web.bin"}}
    run_build(folder, "third", **MIXED | {"sources": sources})
    found = diff(again, folder / "third", (open_run(again), open_run(folder / "third")))
    # Files of another name have other ids; a name is relative to the recipe.
    assert (found.documents["web"].added, found.documents["web"].removed) == (28, 28)
    shutil.copytree(folder / "run/exports/megatron-blended", folder / "changed", dirs_exist_ok=True)
    run_build(folder, "fourth", **MIXED | {"sources": sources})
    found = diff(folder / "third", folder / "fourth", (open_run(folder / "third"), open_run(folder / "fourth")))
    assert list(found.documents) == ["web"]
    assert found.documents["web"].examples["changed"] == ["changed/web.bin#0"]


def test_ids_alone_make_a_run(folder):
    stages = [{"name": "adapt", "token_budget": 3200, "mixture": {"web": 1, "books": 1}}]
    run_build(folder, "alone", sources=TOKENS, stages=stages)
    assert sum(each["sequences"] for each in json.loads((folder / "alone/plan.json").read_text())["stages"]) == 50
    recipe = open_run(folder / "alone")
    with pytest.raises(ExportError, match="got `web`, a source of token ids, expected text"):
        export(folder / "alone", recipe, Export(format="jsonl"), folder / "text", say=print)


def test_control_tokens_that_frame_nothing_may_stand_in_a_document(folder):
    """The recipe frames by the end of text alone: 256, its BOS, is a token like another in ids that others encoded."""
    np.array([97, 256, 98, EOS] * 40, np.uint16).tofile(folder / "control.bin")
    sources = {"old": {"kind": "tokens", "format": "flat", "path": "control.bin"}}
    stages = [{"name": "adapt", "token_budget": 128, "mixture": {"old": 1}}]
    built, _ = run_build(folder, "control", sources=sources, stages=stages)
    assert built.ledgers["old"].kept == 40
    framed = {"sources": sources, "stages": stages, "tokenizer": {"path": "bytes", "bos": True}}
    with pytest.raises(SourceError, match="bos inside: id 256 at token 1 of the file"):
        run_build(folder, "framed", **framed)


# Damage


def folder_of(tmp_path: Path, folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder / f"run/exports/{name}-blended", tmp_path / name))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def edit(path: Path, at: int, new: bytes) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:at] + new + content[at + len(new) :])


def test_a_cut_file_keeps_what_lies_before_the_cut(folder, tmp_path):
    copy = folder_of(tmp_path, folder, "megatron")
    whole = taken(tmp_path, source_of("megatron", "megatron/web.bin"), encoder_of(folder))
    cut(copy / "web.bin", 2 * (len(whole[0]) + len(whole[1]) + 5))
    found = taken(tmp_path, source_of("megatron", "megatron/web.bin"), encoder_of(folder))
    assert found[:2] == whole[:2]
    [damage] = found[2:]
    assert damage.id == "megatron/web.bin"
    assert "damaged file: its index says" in damage.reason
    assert f"the file holds {len(whole[0]) + len(whole[1]) + 5:,}" in damage.reason


def _idx(path: Path) -> None:
    edit(path / "web.idx", 0, b"MMIDIDY")


def _idx_cut(path: Path) -> None:
    cut(path / "web.idx", 60)


def _odd(path: Path) -> None:
    cut(path / "web.bin", 101)


def _gap(path: Path) -> None:
    # The second sequence's byte offset, behind the header and the lengths.
    edit(path / "web.idx", 34 + 4 * 28 + 8, (2).to_bytes(8, "little"))


def _more(path: Path) -> None:
    (path / "web.bin").write_bytes((path / "web.bin").read_bytes() + b"\1\0\2\0")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_idx, "web.idx does not begin with MMIDIDX"),
        (_idx_cut, "web.idx has 60 bytes, expected"),
        (_odd, "101 bytes are no whole number of uint16 ids"),
        (_gap, "the index's sequences do not follow one another"),
        (_more, "2 of "),
    ],
)
def test_a_damaged_index_is_one_failure_of_its_file(folder, tmp_path, damage, told):
    damage(folder_of(tmp_path, folder, "megatron"))
    *kept, last = taken(tmp_path, source_of("megatron", "megatron/web.bin"), encoder_of(folder))
    assert last.id == "megatron/web.bin"
    assert told in last.reason
    assert len(kept) == (28 if damage is _more else 0)


def _csv(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode()))


@pytest.mark.parametrize(
    ("text", "kept", "told"),
    [
        ("0,2\n2,x\n", 0, "x.csv.gz: "),
        ("0,2\n3,5\n", 0, "a document from token 3 to 5 follows one that ends at 2"),
        ("0,2\n2,4\n", 2, "1 of 5 tokens are in no document of its index"),
        ("0,2\n2,9\n", 1, "its index says 9 tokens and more, the file holds 5"),
    ],
)
def test_an_index_and_its_file_are_held_against_one_another(folder, tmp_path, text, kept, told):
    np.array([97, EOS, 98, EOS, 99], np.uint16).tofile(tmp_path / "x.npy")
    _csv(tmp_path / "x.csv.gz", text)
    *before, last = taken(tmp_path, source_of("olmo", "x.npy"), encoder_of(folder))
    assert len(before) == kept
    assert told in last.reason


def test_a_cut_gzip_index_is_damage(folder, tmp_path):
    np.array([97, EOS], np.uint16).tofile(tmp_path / "x.npy")
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"0,2\n")[:-6])
    [found] = taken(tmp_path, source_of("olmo", "x.npy"), encoder_of(folder))
    assert "damaged file: ends too early" in found.reason


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ([97, 300, 98, EOS], "not in the vocabulary: id 300 at token 3 of the file, expected below 258"),
        ([97, EOS, 98, EOS], "eos inside: id 257 at token 3 of the file; `boundaries: eos` would end a document there"),
    ],
)
def test_a_bad_document_is_named_with_its_file_and_place_and_the_others_stay(folder, tmp_path, ids, told):
    np.array([96, EOS, *ids, 99, EOS], np.uint16).tofile(tmp_path / "x.npy")
    _csv(tmp_path / "x.csv.gz", "0,2\n2,6\n6,8\n")
    found = taken(tmp_path, source_of("olmo", "x.npy"), encoder_of(folder))
    assert found == [[96, EOS], Failure("x.npy#1", told), [99, EOS]]


def test_a_build_stops_at_damage_or_counts_it(folder):
    copy = folder / "damaged"
    shutil.copytree(folder / "run/exports/megatron-blended", copy)
    ids = np.fromfile(copy / "web.bin", np.uint16)
    ids[3] = 999
    np.r_[ids, ids[:3]].tofile(copy / "web.bin")
    source = {"kind": "tokens", "format": "megatron", "path": "damaged/web.bin"}
    stages = [{"name": "adapt", "token_budget": 640, "mixture": {"web": 1}}]
    told = r"source `web`: got 2 unreadable(.|\n)*damaged/web.bin#0: not in the vocabulary: id 999 at token 3"
    with pytest.raises(SourceError, match=told):
        run_build(folder, "stopped", sources={"web": source}, stages=stages)
    built, said = run_build(folder, "stopped", sources={"web": source | {"on_error": "skip"}}, stages=stages)
    ledger = built.ledgers["web"]
    assert (ledger.read, ledger.kept, ledger.failed, sum(ledger.dropped.values())) == (29, 27, 2, 0)
    assert any("damaged/web.bin: damaged file: 3 of " in line for line in said)
    [fate] = why(folder / "stopped", open_run(folder / "stopped"), "damaged/web.bin#0")
    assert (fate.step, fate.reason[:21]) == ("failed", "not in the vocabulary")


def _text(path: Path) -> None:
    pq.write_table(pa.table({"input_ids": ["a"]}), path)


def _other(path: Path) -> None:
    pq.write_table(pa.table({"ids": [[1]]}), path)


def _broken(path: Path) -> None:
    pq.write_table(pa.table({"input_ids": [list(range(200))] * 50}), path)
    edit(path, 30, b"\xff" * 60)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (_text, "column `input_ids` holds string, expected lists of whole numbers"),
        (_other, "got no column `input_ids`, only ids"),
        (_broken, "damaged file: "),
        (lambda path: path.write_bytes(b""), "damaged file: "),
    ],
)
def test_a_table_that_is_none_of_ids_is_damage(folder, tmp_path, write, told):
    write(tmp_path / "x.parquet")
    *_, last = taken(tmp_path, source_of("parquet", "x.parquet"), encoder_of(folder))
    assert last.id == "x.parquet"
    assert told in last.reason


def test_headers_are_read_and_not_taken_for_ids(folder, tmp_path):
    np.save(tmp_path / "x.npy", np.array([97, EOS], np.uint16))
    np.save(tmp_path / "y.npy", np.array([97, EOS], np.int32))
    (tmp_path / "z.bin").write_bytes(b"\0" * 2000)
    encoder = encoder_of(folder)
    assert taken(tmp_path, source_of("flat", "x.npy"), encoder) == [[97, EOS]]
    [other] = taken(tmp_path, source_of("flat", "y.npy"), encoder)
    assert "numpy's header says int32 of 1 dimensions, expected uint16 of 1" in other.reason
    assert taken(tmp_path, source_of("flat", "y.npy", dtype="int32"), encoder) == [[97, EOS]]
    [bad] = taken(tmp_path, source_of("llmc", "z.bin"), encoder)
    assert "does not begin with llm.c's header" in bad.reason


def test_a_document_that_does_not_fit_in_memory_is_a_failure_and_the_next_one_stays(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_ROW_BYTES", 8)
    np.array([97] * 9 + [EOS, 98, EOS], np.uint16).tofile(tmp_path / "x.bin")
    pq.write_table(pa.table({"input_ids": [[97] * 9, [EOS, 98, EOS]]}), tmp_path / "x.parquet")
    for name, file in (("flat", "x.bin"), ("parquet", "x.parquet")):
        path = str(tmp_path / file)
        found = list(documents(path, file, source_of(name, file, boundaries="eos"), Ids(258, EOS)))
        assert isinstance(found[0], Failure)
        assert found[0].reason.startswith("too long")
        if name == "flat":
            assert found[1].ids.tolist() == [98, EOS]


@pytest.mark.parametrize("name", BLENDED)
def test_whatever_bytes_are_damaged_a_file_ends_in_documents_and_failures(folder, tmp_path, name):
    """The index or the ids: no crash, documents numbered without a gap, damage once and last."""
    rng = random.Random(name)
    pattern, boundaries = BLENDED[name]
    place = pattern.format("web")
    [file] = folder_of(tmp_path, folder, name).glob(place)
    source = source_of(name, place, boundaries=boundaries)
    sound = {path: path.read_bytes() for path in (file, *reader.beside(str(file), source))}
    failed = 0
    for _ in range(40):
        path = rng.choice(sorted(sound))
        content = bytearray(sound[path])
        for _ in range(rng.randrange(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
        found = list(documents(str(file), "f", source, Ids(258, EOS)))
        whole = [each.id for each in found if isinstance(each, Encoded)]
        assert whole == [f"f#{number}" for number in range(len(whole))]
        assert len(found) - len(whole) <= 1
        failed += len(found) > len(whole)
        path.write_bytes(sound[path])
    assert failed > 4


# The tokenizer


def test_files_of_another_tokenizer_are_refused(folder, tmp_path):
    copy = folder / "named"
    shutil.copytree(folder / "run/exports/nanotron-blended/web", copy)
    metadata = next(copy.glob("*.metadata"))
    metadata.write_text(metadata.read_text().replace("bytes|", "gpt2|"))
    source = {"kind": "tokens", "format": "nanotron", "path": "named/*.ds"}
    stages = [{"name": "adapt", "token_budget": 640, "mixture": {"web": 1}}]
    with pytest.raises(SourceError, match="tokenizer: got `gpt2`, expected `bytes`") as caught:
        run_build(folder, "named-run", sources={"web": source}, stages=stages)
    assert "tokenizer: gpt2" in caught.value.hint
    run_build(folder, "named-run", sources={"web": source | {"tokenizer": "gpt2"}}, stages=stages)


def test_an_export_of_ours_is_known_by_its_tokenizers_digest(folder):
    source = {"kind": "tokens", "format": "nanotron", "path": "run/exports/nanotron-blended/web/*.ds"}
    stages = [{"name": "adapt", "token_budget": 640, "mixture": {"web": 1}}]
    toys.byte_tokenizer(folder / "same")
    run_build(folder, "digest", sources={"web": source}, stages=stages, tokenizer="same")
    changes = {"stages": stages, "tokenizer": {"path": "bytes", "bos": True}}
    with pytest.raises(SourceError, match=r"tokenizer: got `[0-9a-f]{32}`, expected `[0-9a-f]{32}`"):
        run_build(folder, "digest", sources={"web": source}, **changes)


def test_a_frame_is_completed_and_never_doubled(folder):
    encoder = encoder_of(folder)
    for given_ids, ids, added in (
        ([97], [97, EOS], ("eos",)),
        ([97, EOS], [97, EOS], ()),
        ([EOS], [], ()),
        ([], [], ()),
    ):
        found = frame(Encoded("x", np.array(given_ids, np.int32), 0), encoder)
        assert isinstance(found, Framed)
        assert (found.ids.tolist(), found.added) == (ids, added)
        assert found.ids.dtype == np.uint16 or not ids


# The recipe


def test_a_file_without_its_index_is_told_with_what_to_do(folder, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"\0\0")
    with pytest.raises(SourceError, match=r"x\.bin: got no x\.idx beside it") as caught:
        taken(tmp_path, source_of("megatron", "x.bin"), encoder_of(folder))
    assert "its index must be there" in caught.value.hint
    (tmp_path / "x.npy").write_bytes(b"\0\0")
    with pytest.raises(SourceError, match=r"got no x\.csv\.gz beside it") as caught:
        taken(tmp_path, source_of("olmo", "x.npy"), encoder_of(folder))
    assert "`boundaries: eos`" in caught.value.hint
    assert taken(tmp_path, source_of("olmo", "x.npy", boundaries="eos"), encoder_of(folder)) == [[0, EOS]]


BASE = {
    "name": "x",
    "tokenizer": "smollm2",
    "sources": {
        "old": {"kind": "tokens", "format": "megatron", "path": "*.bin"},
        "web": {"kind": "jsonl", "path": "*.jsonl"},
    },
    "stages": [{"name": "a", "token_budget": 4096, "mixture": {"old": 1, "web": 1}}],
}


def problems(**changes) -> list[str]:
    return [f"{'.'.join(map(str, each.spot))}: {each.text}" for each in recipe_problems.find(BASE | changes)]


def old(**keys) -> dict:
    return {**BASE["sources"], "old": BASE["sources"]["old"] | keys}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sources": old(format="flat", boundaries="index")}, "`boundaries: eos`: flat has no index"),
        ({"sources": old(dtype="uint16")}, "no `dtype`: the files of megatron say it"),
        ({"sources": old(column="x")}, "no `column`: megatron has none"),
        ({"sources": old(where="text > 3")}, "unknown key 'where'"),
        ({"sources": old(format="megatrn")}, "sources.old.format: got 'megatrn'"),
        (
            {"sources": old(boundaries="eos"), "tokenizer": {"path": "smollm2", "eos": False}},
            "sources.old: ends documents at the end-of-text token, but `tokenizer.eos` is false",
        ),
        (
            {"scores": {"text": {"sources": ["web", "old"]}}},
            "scores.text.sources.1: got 'old', which holds token ids, no text to score",
        ),
        (
            {"scores": {"text": {}}, "stages": [BASE["stages"][0] | {"order": {"old": {"by": "text"}}}]},
            "stages.0.order.old.by: got 'text', but `old` holds token ids, no text to score; its order is random",
        ),
        (
            {
                "scores": {"topic": {}},
                "stages": [BASE["stages"][0] | {"mixture": {"old": {"weight": 1, "topics": "natural"}, "web": 1}}],
            },
            "stages.0.mixture.old.topics: `old` holds token ids, no text to tell topics by; give it a plain weight",
        ),
        (
            {"clean": {"decontaminate": {"against": ["x.jsonl"]}}},
            "sources.old: token ids cannot be searched for benchmarks, as `clean.decontaminate` asks",
        ),
        ({"exports": [{"format": "jsonl"}]}, "exports.0: got an export of text, but `old` holds token ids, no text"),
        (
            {"sources": BASE["sources"] | {"qa": {"kind": "synth", "task": "science_qa", "from": "old"}}},
            "sources.qa.from: got 'old', which holds token ids, no text to write from",
        ),
    ],
)
def test_what_needs_text_or_has_no_effect_is_a_problem_of_the_recipe(changes, told):
    assert any(told in each for each in problems(**changes)), problems(**changes)


def test_text_beside_ids_is_searched_for_benchmarks(folder):
    (folder / "evals").mkdir()
    item = {"question": "Which gas do green plants take from the air by day to build their sugar?", "answer": "carbon"}
    (folder / "evals" / "toy.jsonl").write_text(json.dumps(item) + "\n")
    sources = {name: source | {"decontaminated": True} for name, source in TOKENS.items()}
    changes = MIXED | {"sources": {**sources, "pages": toys.sources()["pages"]}}
    run_build(folder, "searched", **changes, clean={"decontaminate": {"against": ["evals/*.jsonl"]}})
    report = json.loads((folder / "searched/decontamination/report.json").read_text())
    assert set(report["hits"]) == {"pages"}
    assert report["benchmarks"]["toy"]["recall"]["verbatim"]["share"] == 1.0


def test_the_recipe_of_the_documentation_loads(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "exports.md").read_text("utf-8")
    block = next(block for block in text.split("```yaml\n")[1:] if "kind: tokens" in block)
    (tmp_path / "x.yaml").write_text(block.partition("```")[0])
    assert len(recipe_file.load(tmp_path / "x.yaml").token_sources) == 5


def test_a_score_of_all_sources_is_of_those_with_text():
    assert problems(scores={"text": {}}) == []
