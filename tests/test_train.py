"""The loop on a small Run: it learns, resumes to the last bit, stops when told, and refuses what is not its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from curricula.checkpoint import latest
from mixer.errors import CheckpointError, RecipeError, ShardError
from tests import training

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return training.build_run(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def trained(built, tmp_path_factory) -> Path:
    """The Run, trained without interruption, with a checkpoint every 7 steps."""
    folder = training.copied(built, tmp_path_factory.mktemp("trained"))
    training.run(folder, "plain", "train.checkpoint_every=4480", "train.keep=9")
    return folder


def checkpoint(folder: Path, step: int, name: str = "plain") -> dict[str, torch.Tensor]:
    """All tensors that a checkpoint's trainer keeps, and where it stands."""
    trainer = folder / "run" / "checkpoints" / name / f"step-{step:08d}" / "trainer"
    tensors = load_file(trainer / "weights.safetensors") | load_file(trainer / "optimizer.safetensors")
    state = json.loads((trainer / "state.json").read_text())
    return tensors | {key: state[key] for key in ("position", "tokens", "next_step")}


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key], key


def lines(folder: Path, name: str = "plain", file: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "checkpoints" / name / file).read_text().splitlines()]


def test_it_learns_and_what_it_saves_is_a_model_that_transformers_loads(trained):
    found = lines(trained)
    assert [line["step"] for line in found] == list(range(1, 21))
    assert [line["stage"] for line in found] == ["adapt"] * 15 + ["anneal"] * 5
    assert found[-1]["loss"] < 0.8 * found[0]["loss"]
    final = trained / "run" / "checkpoints" / "plain" / "final"
    model = AutoModelForCausalLM.from_pretrained(final, dtype="auto")
    assert model.dtype == torch.float32
    weights = load_file(trained / "run/checkpoints/plain/step-00000020/trainer/weights.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())
    assert (final / "tokenizer.json").read_bytes() == (trained / "model" / "tokenizer.json").read_bytes()
    assert not (final / "trainer").exists()


def test_the_mean_of_a_steps_sources_is_its_loss(trained):
    """Each source's mean counts by its tokens; with the sequences' own losses they tell one story."""
    first = lines(trained)[0]
    assert first["sources"].keys() == {"web", "books", "pages"}
    assert min(first["sources"].values()) <= first["loss"] <= max(first["sources"].values())
    losses = np.load(trained / "run/checkpoints/plain/losses/adapt.npy")
    assert losses.shape == (150,)
    assert losses.dtype == np.float32
    assert losses[:10].mean() == pytest.approx(first["loss"], rel=0.02)
    assert np.isfinite(np.load(trained / "run/checkpoints/plain/losses/anneal.npy")).all()


def test_twenty_steps_are_seven_a_kill_and_thirteen_to_the_last_bit(built, trained, tmp_path):
    """Weights, moments, generators (the model has dropout) and the next batch: nothing may depend on having stopped."""
    folder = training.copied(built, tmp_path)
    code = (
        "import os, signal, sys; from pathlib import Path; from tests import training\n"
        "die = lambda stage, state: state.step == 9 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "training.run(Path(sys.argv[1]), 'plain', 'train.checkpoint_every=4480', 'train.keep=9', after_step=die)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert latest(folder / "run/checkpoints/plain").name == "step-00000007"
    said: list[str] = []
    training.run(folder, "plain", "train.checkpoint_every=4480", "train.keep=9", said=said)
    assert said[0].startswith("resume at 4,480 tokens from ")
    for step in (7, 14, 15, 20):
        assert_equal(checkpoint(folder, step), checkpoint(trained, step))
    kept = ("step", "tokens", "stage", "loss", "learning_rate", "gradient_norm", "sources")
    assert [[a[key] for key in kept] for a in lines(folder)] == [[b[key] for key in kept] for b in lines(trained)]
    for stage in ("adapt", "anneal"):
        files = [at / f"run/checkpoints/plain/losses/{stage}.npy" for at in (folder, trained)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_signal_to_stop_saves_and_the_next_run_goes_on(built, trained, tmp_path):
    folder = training.copied(built, tmp_path)
    done = training.run(folder, after_step=lambda _, state: state.step == 3 and os.kill(os.getpid(), signal.SIGTERM))
    assert (done.folder, done.signal, done.state.step) == (None, signal.SIGTERM, 4)
    assert training.run(folder).state.step == 20
    assert_equal(checkpoint(folder, 20), checkpoint(trained, 20))


def test_how_a_step_is_cut_into_micro_batches_does_not_change_what_it_computes(built, tmp_path):
    """A step's loss is over its tokens, not a mean of means: documents differ, so do the targets of a micro-batch."""
    found = []
    for size in (1, 3, 10):
        folder = training.copied(built, tmp_path / str(size))
        training.run(folder, "plain", f"train.micro_batch={size}", "train.model=plain-model")
        found.append([line["loss"] for line in lines(folder)])
    np.testing.assert_allclose(found[0], found[2], rtol=2e-4)
    np.testing.assert_allclose(found[1], found[2], rtol=2e-4)


def test_a_resume_with_another_number_of_threads_says_that_it_is_exact_no_more(trained, tmp_path):
    folder = training.copied(trained, tmp_path)
    state = folder / "run/checkpoints/plain/step-00000020/trainer/state.json"
    state.write_text(state.read_text().replace('"threads": 1', '"threads": 2'))
    said: list[str] = []
    training.run(folder, said=said)
    assert said[1] == "warning: threads 2 -> 1: the resume is exact up to rounding, not to the last bit"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.learning_rate=1.0e-3", "learning_rate 0.002 -> 0.001"),
        ("train.model=plain-model", "model changed"),
        ("train.document_mask=false", "document_mask True -> False"),
        ("train.schedule=cosine", "schedule wsd -> cosine"),
        ("seed=4", "seed 3 -> 4"),
        ("stages.anneal.learning_rate={peak: 1.0e-3}", "learning rates changed"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_with_what_differs(trained, tmp_path, override, told):
    folder = training.copied(trained, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        training.run(folder, "plain", override)
    assert "got a checkpoint of another training (" in str(caught.value)
    assert told in str(caught.value)
    assert "--name" in caught.value.hint


def test_a_checkpoint_of_another_order_or_other_shards_is_refused(trained, tmp_path):
    """The plan is the same: only the hash of the order, and of what is read next, can tell."""
    folder = training.copied(trained, tmp_path / "order")
    order = np.load(folder / "run/order/adapt.npy")
    np.save(folder / "run/order/adapt.npy", order[::-1])
    with pytest.raises(CheckpointError, match=r"got a checkpoint of another training \(order adapt "):
        training.run(folder)
    folder = training.copied(trained, tmp_path / "shards")
    for newer in ("step-00000015", "step-00000020"):
        shutil.rmtree(folder / "run/checkpoints/plain" / newer)
    ids = np.fromfile(folder / "run/shards/web/00000.bin", np.uint16)
    (folder / "run/shards/web/00000.bin").write_bytes(((ids + 1) % 256).astype(np.uint16).tobytes())
    with pytest.raises(CheckpointError, match="got other tokens at position 140 than when it was saved"):
        training.run(folder)


def test_what_changes_no_result_may_change_at_a_resume(trained, tmp_path):
    folder = training.copied(trained, tmp_path)
    assert training.run(folder, "plain", "train.keep=1", "train.micro_batch=5", "train.log_every=3").state.step == 20


def test_a_later_stage_may_get_its_order_when_its_turn_comes(built, trained, tmp_path):
    """An adaptive curriculum makes the next round's order from what the rounds before have told."""
    folder = training.copied(built, tmp_path)
    later = folder / "run/order/anneal.npy"
    order = later.read_bytes()
    later.unlink()
    asked = []

    def next_stage(name, state):
        losses = list((folder / "run/checkpoints/plain/losses").glob("*.npy"))
        asked.append((name, state.tokens, len(losses)))
        if name == "anneal":
            later.write_bytes(order)

    training.run(folder, next_stage=next_stage)
    assert asked == [("adapt", 0, 0), ("anneal", 9600, 1)]
    assert_equal(checkpoint(folder, 20), checkpoint(trained, 20))


def test_a_stage_without_an_order_stops_after_the_stage_before_and_goes_on_later(built, trained, tmp_path):
    folder = training.copied(built, tmp_path)
    later = folder / "run/order/anneal.npy"
    order = later.read_bytes()
    later.unlink()
    with pytest.raises(ShardError, match=r"order/anneal.npy: no such file, expected the order of stage `anneal`"):
        training.run(folder)
    later.write_bytes(order)
    training.run(folder)
    assert_equal(checkpoint(folder, 20), checkpoint(trained, 20))


def test_old_checkpoints_go_and_the_newest_stay(built, tmp_path):
    folder = training.copied(built, tmp_path)
    training.run(folder, "plain", "train.checkpoint_every=1280", "train.keep=2")
    kept = sorted(path.name for path in (folder / "run/checkpoints/plain").glob("step-*"))
    assert kept == ["step-00000018", "step-00000020"]


def test_a_loss_that_is_no_number_stops_and_names_the_step(built, tmp_path):
    folder = training.copied(built, tmp_path)
    with pytest.raises(RecipeError, match=r"got a loss that is no number, or a gradient of norm \S+, in step \d+ of"):
        training.run(folder, "plain", "train.learning_rate=1.0e+30", "train.clip=null")
    assert latest(folder / "run/checkpoints/plain") is None


def test_two_trainings_of_one_name_are_refused(built, tmp_path):
    folder = training.copied(built, tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from mixer.run import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    target = folder / "run/checkpoints/plain"
    with subprocess.Popen([sys.executable, "-c", code, str(target)], cwd=ROOT, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(CheckpointError, match="got a training that another process runs"):
                training.run(folder)
        finally:
            other.kill()


@pytest.mark.parametrize(
    "method",
    [
        "{kind: freeze, train: ['model.layers.1.*']}",
        "{kind: block_expansion, groups: 2, placement: least_critical}",
        "{kind: osft, rank: importance}",
        "{kind: lora, rank: 4, dropout: 0.1}",
    ],
)
def test_every_method_resumes_to_the_last_bit_and_saves_a_plain_model(built, tmp_path, method):
    """What a method keeps beside the weights, what it measured, and what it draws must come back as well."""

    class Enough(Exception):
        pass

    def stop(_, state):
        if state.step == 9:
            raise Enough

    settings = [f"train.method={method}", "train.checkpoint_every=4480", "train.keep=9"]
    whole, stopped = (training.copied(built, tmp_path / name) for name in ("whole", "stopped"))
    training.run(whole, "m", *settings)
    with pytest.raises(Enough):
        training.run(stopped, "m", *settings, after_step=stop)
    training.run(stopped, "m", *settings)
    assert_equal(checkpoint(stopped, 20, "m"), checkpoint(whole, 20, "m"))
    found = lines(whole, "m")
    assert found[-1]["loss"] < found[0]["loss"]
    assert [line["method"] for line in found] == [line["method"] for line in lines(stopped, "m")]
    model, info = AutoModelForCausalLM.from_pretrained(whole / "run/checkpoints/m/final", output_loading_info=True)
    assert not any(info.values())
    assert type(model).__name__ == "LlamaForCausalLM"
