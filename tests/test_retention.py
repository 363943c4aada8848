"""Slices, readings and what is told of them; a base and a model of a real small Run."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from curricula.difficulty import load_model
from curricula.retention.measure import Reading, Subject, read_slices
from curricula.retention.report import compare_slices, gate_of
from curricula.retention.slices import Texts, texts_of
from curricula.retention.stages import continual
from mixer.errors import SourceError
from mixer.recipe.retention import Retention, Slice
from tests import retained, toys
from tests.tiny_model import tiny_model


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return retained.build(tmp_path_factory.mktemp("built"))


def subject(folder: Path, name: str = "model") -> Subject:
    return Subject(folder / name, store=folder / "store", device="cpu")


def texts(*found: str, name: str = "prose", kind: str = "general", stage: str | None = None) -> Texts:
    return Texts(name, kind, tuple(f"#{n}" for n in range(len(found))), found, stage)


def reading(own: Texts, bits_per_byte: np.ndarray) -> Reading:
    return Reading(own, bits_per_byte * own.sizes, own.sizes)


RULES = Retention(slices={"prose": Slice(path="prose.jsonl")}, max_forgetting=0.01, replicates=500)
DOCUMENTS = tuple("x" * (200 + 7 * n) for n in range(100))


def test_a_documents_bits_by_hand(tmp_path):
    """A model whose weights are all zero finds every one of 258 tokens as likely: log2(258) bits a byte of a byte."""
    tiny_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    model.save_pretrained(tmp_path / "model")
    own = texts("abc", "0123456789" * 30)
    found = read_slices(subject(tmp_path), [own], window=64, cache=tmp_path / "cache")["prose"]
    assert found.tokens.tolist() == [3, 300]
    assert found.bits == pytest.approx(np.array([3, 300]) * math.log2(258), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(math.log2(258), rel=1e-5)


def test_windows_share_one_token_and_the_last_reaches_back_as_far_as_it_has_room(tmp_path):
    """Against the plain arithmetic: 64 tokens at once, each window beginning with the last token of the one before."""
    tiny_model(tmp_path / "model")
    own, asked = texts(toys.sentences(1, 4)), subject(tmp_path)
    asked.__dict__["model"] = load_model(tmp_path / "model", dtype="float32", device="cpu")
    found = read_slices(asked, [own], window=64, cache=tmp_path / "cache")["prose"]
    tokenizer = Tokenizer.from_file(str(tmp_path / "model/tokenizer.json"))
    ids = [256, *tokenizer.encode(own.texts[0], add_special_tokens=False).ids]
    assert (len(ids) - 1) % 64 > 1
    nats = 0.0
    for done in range(1, len(ids), 64):
        end = min(done + 64, len(ids))
        start = max(0, end - 65)
        logits = asked.model(input_ids=torch.tensor([ids[start : end - 1]])).logits[0].log_softmax(-1)
        targets = torch.tensor(ids[done:end])
        nats -= logits[done - start - 1 :].gather(1, targets[:, None]).sum().item()
    assert found.bits[0] == pytest.approx(nats / math.log(2), rel=1e-5)


def test_a_base_is_read_once(tmp_path, monkeypatch):
    tiny_model(tmp_path / "model")
    own = texts("some text", "and more of it")
    first = read_slices(subject(tmp_path), [own], window=64, cache=tmp_path / "cache")["prose"]
    again = subject(tmp_path)
    monkeypatch.setattr("curricula.retention.measure.load_model", lambda *_, **__: pytest.fail("read again"))
    assert np.array_equal(read_slices(again, [own], window=64, cache=tmp_path / "cache")["prose"].bits, first.bits)
    with pytest.raises(pytest.fail.Exception, match="read again"):
        read_slices(again, [own], window=32, cache=tmp_path / "cache")


def test_documents_are_chosen_by_hash_and_shortened_between_characters(tmp_path):
    (tmp_path / "zh.jsonl").write_text("".join(json.dumps({"text": f"{n} 河水很清" * 40}) + "\n" for n in range(50)))
    own = Slice(path="zh.jsonl", max_documents=7, max_bytes=100)
    found = texts_of("zh", own.model_copy(update={"min_bytes": 50}), run=tmp_path, base=tmp_path)
    assert len(found.texts) == len(set(found.texts)) == 7
    assert all(98 <= size <= 100 for size in found.sizes)
    assert {int(text.split()[0]) for text in found.texts} != set(range(7))
    assert found == texts_of("zh", own.model_copy(update={"min_bytes": 50}), run=tmp_path, base=tmp_path)


def test_several_fields_make_one_document(tmp_path):
    rows = [{"question": f"How {how}?", "answer": "Four metres."} for how in ("deep", "wide")]
    (tmp_path / "qa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = Slice(path="qa.jsonl", field=("question", "answer"), min_bytes=5)
    found = texts_of("qa", own, run=tmp_path, base=tmp_path).texts
    assert set(found) == {"How deep?\n\nFour metres.", "How wide?\n\nFour metres."}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.jsonl", None, "retention.slices.s.path: no file"),
        ("short.jsonl", '{"text": "short"}', "got no document of 200 bytes or more"),
        ("bad.jsonl", '{"text": "cut', "retention.slices.s: got"),
    ],
)
def test_a_slice_without_text_is_refused(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=told):
        texts_of("s", Slice(path=name), run=tmp_path, base=tmp_path)


@pytest.mark.parametrize(
    ("own", "hint"),
    [
        (
            Slice(path="one.txt"),
            "`split: blank_line` makes each paragraph a document; or lower `min_bytes`, or name more",
        ),
        (Slice(path="one.txt", split="line"), "lower `min_bytes`, or name more files"),
        (Slice(path="one.jsonl"), "lower `min_bytes`, or name more files"),
        (Slice(source="more", min_bytes=300), "lower `min_bytes`, or hold more out (`validation: {sequences: 64}`"),
    ],
)
def test_one_document_tells_nothing_of_how_sure_a_loss_is(built, tmp_path, monkeypatch, own, hint):
    text = toys.sentences(1, 9)
    (tmp_path / "one.txt").write_text(text)
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": text}))
    monkeypatch.setattr("curricula.retention.slices._held_out", lambda *_: iter([("a", text), ("b", "short")]))
    told = f"retention.slices.s: got 1 document of {own.min_bytes} bytes or more, expected two at least: intervals are"
    with pytest.raises(SourceError, match=told) as caught:
        texts_of("s", own, run=built / "run", base=tmp_path)
    assert caught.value.hint.startswith(hint)


def test_a_file_that_is_not_found_may_lie_at_another_base(tmp_path):
    with pytest.raises(SourceError) as caught:
        texts_of("s", Slice(path="none.jsonl"), run=tmp_path, base=tmp_path)
    assert caught.value.hint.endswith("; `--base` names the recipe's folder")


def test_a_source_with_nothing_held_out_is_refused(built):
    with pytest.raises(SourceError, match="got nothing held out of `web`") as caught:
        texts_of("s", Slice(source="web"), run=built / "run", base=built)
    assert caught.value.hint.startswith(
        "if `validation` is new, build and train again; at most a twentieth is held out"
    )


def test_held_out_documents_are_in_no_order(built):
    own = Slice(source="more", min_bytes=1, max_bytes=10_000)
    found = texts_of("s", own, run=built / "run", base=built)
    index = json.loads((built / "run/shards/more/index.json").read_text())
    spans = pl.concat(pl.read_parquet(built / "run/shards/more" / shard["spans"]) for shard in index["shards"])
    names = ["web", "books", "pages", "more"]
    order = np.concatenate([np.load(path) for path in sorted((built / "run/order").glob("*.npy"))])
    trained = set(order[order[:, 0] == names.index("more"), 1].tolist())
    documents = pl.read_parquet(built / "run/documents/more/*.parquet").with_row_index("row")
    rows = documents.filter(pl.col("id").is_in(found.ids))["row"]
    assert len(rows) >= 2
    assert not trained & set(spans.filter(pl.col("document").is_in(rows.implode()))["sequence"].to_list())


def test_a_planted_loss_of_two_hundredths_is_found():
    rng = np.random.default_rng(5)
    own = texts(*DOCUMENTS)
    before = 0.8 + 0.4 * rng.random(100)
    after = before + 0.02 + 0.03 * rng.standard_normal(100)
    [found] = compare_slices({"prose": reading(own, before)}, {"prose": reading(own, after)}, RULES, seed=1)
    assert found.verdict == "lost"
    assert found.corrected < 0.01
    gate = gate_of([found], RULES)
    assert not gate.passes
    assert gate.reasons[0].startswith("prose lost 0.02")


def test_models_that_only_differ_by_chance_pass_94_of_100_times():
    """Which of two readings of a document comes first is a coin: no difference but chance, at any size of it."""
    rng = np.random.default_rng(11)
    own = texts(*DOCUMENTS)
    pair = 0.8 + 0.4 * rng.random((2, 100))
    quiet = 0
    for seed in range(1000):
        flip = np.random.default_rng(seed).integers(0, 2, 100)
        before, after = np.where(flip, pair, pair[::-1])
        [found] = compare_slices({"prose": reading(own, before)}, {"prose": reading(own, after)}, RULES, seed=seed)
        quiet += found.difference.p > 0.05
    assert quiet >= 940


def test_too_few_documents_are_unclear_and_the_recipe_says_what_that_means():
    own = texts(*DOCUMENTS[:4])
    before, after = np.full(4, 1.0), np.array([1.06, 0.96, 1.05, 0.94])
    [found] = compare_slices({"prose": reading(own, before)}, {"prose": reading(own, after)}, RULES, seed=1)
    assert found.verdict == "unclear"
    assert gate_of([found], RULES).reasons[0].endswith("more documents or items would tell")
    assert gate_of([found], RULES.model_copy(update={"unclear": "pass"})).passes


def test_a_domain_must_gain_what_the_recipe_asks_for():
    own = texts(*DOCUMENTS, kind="domain")
    rules = RULES.model_copy(update={"least_gain": 0.1})
    for gain, passes in ((0.15, True), (0.05, False)):
        pair = {"prose": reading(own, np.full(100, 1.0))}, {"prose": reading(own, np.full(100, 1 - gain))}
        assert gate_of(compare_slices(*pair, rules, seed=1), rules).passes is passes
        assert gate_of(compare_slices(*pair, RULES, seed=1), RULES).passes


def test_stages_tell_what_later_ones_took_away():
    """Bits per byte: stage two teaches `two` and takes 0.2 of `one` back."""
    own = [texts("x" * 100, name=name, kind="domain", stage=f"{name}-stage") for name in ("one", "two")]
    rows = {"base": (1.0, 1.0), "one-stage": (0.5, 1.0), "two-stage": (0.7, 0.6)}
    found = {
        stage: {each.name: reading(each, np.array([value])) for each, value in zip(own, values, strict=True)}
        for stage, values in rows.items()
    }
    told = continual(found.pop("base"), found)
    assert told["backward_transfer"] == {"two-stage": pytest.approx(-0.2)}
    assert told["overall"]["two-stage"] == pytest.approx(-0.65)
    assert told["forgetting"]["two-stage"] == {"one": pytest.approx(0.2), "two": pytest.approx(0.0)}
    assert told["delta_domain"]["two-stage"] == pytest.approx(0.35)
