"""`mixer retention`: slices, readings and the command, on a real small Run; what it measures, keeps and refuses."""

import json
import math
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from curricula.difficulty import load_model
from curricula.retention.measure import Reading, Subject, read_slices
from curricula.retention.report import compare_slices, gate_of
from curricula.retention.slices import Texts, texts_of
from curricula.retention.stages import continual
from mixer.cli import app
from mixer.errors import CheckpointError, RecipeError, SourceError
from mixer.recipe.retention import Retention, Slice
from tests import toys, training
from tests.tiny_model import tiny_model

SLICES = {
    "prose": {"path": "prose.jsonl", "min_bytes": 20, "max_bytes": 150},
    "numbers": {"path": "numbers.txt", "split": "line", "min_bytes": 20},
    "books": {"source": "books", "kind": "domain", "min_bytes": 20, "max_bytes": 150},
}
RETENTION = {"slices": SLICES, "window": 64, "replicates": 200, "max_forgetting": 5.0}


def write_slices(folder: Path) -> None:
    rows = [{"text": toys.sentences(900 + n, 3)} for n in range(12)]
    (folder / "prose.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "numbers.txt").write_text("\n".join(" ".join(str(n * k) for k in range(9, 20)) for n in range(1, 13)))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    write_slices(folder)
    sources = toys.sources() | {"more": {"kind": "jsonl", "path": "more.jsonl"}}
    rows = [{"text": toys.sentences(5000 + n, 6)} for n in range(200)]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    slices = SLICES | {"books": SLICES["books"] | {"source": "more"}}
    stages = [
        {"name": "adapt", "token_budget": 9600, "mixture": {"web": 3, "books": 3, "pages": 2, "more": 2}},
        {"name": "anneal", "token_budget": 3200, "mixture": {"web": 1, "pages": 1}},
    ]
    held_out = {"sequences": 8, "sources": ["more"]}
    changes = {"sources": sources, "stages": stages, "validation": held_out}
    training.build_run(folder, train=training.TRAIN, retention=RETENTION | {"slices": slices}, **changes)
    training.run(folder, "short", "train.tokens_per_step=3200")
    return folder


def mixer(folder: Path, *arguments: object):
    command = ["retention", folder / "run", "--base", folder, *arguments]
    return CliRunner(env={"XDG_CACHE_HOME": str(folder / "cache")}).invoke(app, [str(word) for word in command])


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
    assert caught.value.hint.startswith("build again if `validation` is new; at most a twentieth is held out, in whole")


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


def test_the_command_reports_every_slice_and_passes(built, tmp_path):
    folder = training.copied(built, tmp_path)
    done = mixer(folder, "--mix", "0.5", "--mix", "0.504", "--mix", "0.5")
    assert done.exit_code == 0, done.output
    report = json.loads((folder / "run/retention/report.json").read_text())
    rows = {row["name"]: row for row in report["trainings"]["short"]["slices"]}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "prose": "general", "numbers": "general", "books": "domain",
    }  # fmt: skip
    assert rows["books"]["difference"]["value"] < 0
    mixed = report["trainings"]["short"]["interpolated"]
    assert {share: found["gate"]["passes"] for share, found in mixed.items()} == {"0.50": True, "0.504": True}
    assert set(report["trainings"]["short"]["probes"]["divergence"]) == {"prose", "numbers"}
    documents = pl.read_parquet(folder / "run/retention/documents.parquet")
    assert documents.columns == ["slice", "id", "bytes", "bits_before", "bits_after", "training"]
    assert (folder / "run/retention/frontier.svg").read_text().startswith("<?xml")
    assert "gate: passes" in done.stdout
    assert done.stderr.splitlines()[-1] == f"next: look at {folder}/run/retention/frontier.svg"


def test_the_next_command_measures_weights_in_between(built, tmp_path):
    folder = training.copied(built, tmp_path)
    done = mixer(folder, "--name", "short", "--no-tasks", "--set", "retention.probes=false")
    told = (
        f"mixer retention {folder}/run --name short --base {folder} --no-tasks --mix 0.3 --set retention.probes=false"
    )
    assert done.stderr.splitlines()[-1] == f"next: {told}"
    again = CliRunner(env={"XDG_CACHE_HOME": str(folder / "cache")}).invoke(app, shlex.split(told)[1:])
    assert again.exit_code == 0, again.output
    report = json.loads((folder / "run/retention/report.json").read_text())
    assert list(report["trainings"]["short"]["interpolated"]) == ["0.30"]


def test_a_failed_gate_ends_with_exit_code_3(built, tmp_path):
    folder = training.copied(built, tmp_path)
    done = mixer(folder, "--set", "retention.max_forgetting=0.0", "--set", "retention.least_gain=9.0", "--json")
    assert done.exit_code == 3, done.output
    gate = json.loads(done.stdout)["trainings"]["short"]["gate"]
    assert not gate["passes"]
    assert any(reason.startswith("books gained") for reason in gate["reasons"])
    assert "gate failed: short" in done.stderr


def test_a_base_against_itself_loses_nothing(built, tmp_path):
    folder = training.copied(built, tmp_path)
    training.copied(folder / "model", folder / "run/checkpoints/nothing/final")
    done = mixer(folder, "--name", "nothing", "--json", "--set", "retention.max_forgetting=0.0")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["trainings"]["nothing"]
    assert {row["difference"]["value"] for row in found["slices"]} == {0.0}
    assert set(found["probes"]["weight_change"].values()) == {0.0}
    assert found["probes"]["token_shift"]["unshifted"] > 0.99
    assert found["probes"]["divergence"]["prose"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--name", "other"], "got no finished training `other`, expected one of short"),
        (["--mix", "1.5"], "--mix: got 1.5, expected a share between 0 and 1"),
        (["--set", "retention=null"], "got no `retention`, expected one"),
    ],
)
def test_what_cannot_be_measured_is_refused(built, arguments, told):
    done = mixer(built, *arguments)
    assert done.exit_code == 2, done.output
    assert told in done.stderr


def test_a_run_without_trainings_or_recipe_is_refused(built, tmp_path):
    done = CliRunner().invoke(app, ["retention", str(tmp_path)])
    assert (done.exit_code, "got no recipe.yaml" in done.stderr) == (2, True)
    from curricula.retention.survey import trainings_of

    with pytest.raises(CheckpointError, match="got no finished training, expected one"):
        trainings_of(tmp_path)


def test_tasks_without_lm_eval_are_refused_unless_left_out(built, tmp_path, monkeypatch):
    folder = training.copied(built, tmp_path)
    monkeypatch.setattr("curricula.retention.tasks.is_installed", lambda: False)
    task = "retention.tasks=[{template: arc, path: items.jsonl}]"
    done = mixer(folder, "--set", task)
    assert (done.exit_code, "got 1 tasks and no lm-eval" in done.stderr) == (2, True)
    assert mixer(folder, "--set", task, "--no-tasks").exit_code == 0


def test_a_recipe_without_retention_is_refused(built):
    from curricula.retention.survey import retention_of
    from mixer.recipe.file import load

    with pytest.raises(RecipeError, match="got no `retention`"):
        retention_of(load(built / "run/recipe.yaml", overrides=["retention=null"]))
