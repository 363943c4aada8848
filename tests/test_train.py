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

from curricula.checkpoint import State, latest
from curricula.train import _not_finite
from mixer.errors import CheckpointError, RecipeError, ShardError, SourceError
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


def test_a_checkpoint_of_another_plan_of_a_stage_to_come_is_refused(trained, tmp_path):
    """In the first stage already: neither its order nor what it reads next has changed."""
    folder = training.copied(trained, tmp_path)
    for newer in ("step-00000014", "step-00000015", "step-00000020"):
        shutil.rmtree(folder / "run/checkpoints/plain" / newer)
    later = folder / "run/order/anneal.npy"
    order = np.load(later)
    np.save(later, order[::-1])
    with pytest.raises(CheckpointError, match=r"got a checkpoint of another training \(order anneal "):
        training.run(folder)
    later.unlink()
    plan = json.loads((folder / "run/plan.json").read_text())
    share = plan["stages"][1]["sources"]["web"]
    share["sequences"] += 1
    (folder / "run/plan.json").write_text(json.dumps(plan))
    with pytest.raises(CheckpointError, match=r"\(order anneal \S+, shares of anneal changed\)"):
        training.run(folder)


@pytest.mark.parametrize("fact", [{"round": 2}, {"resample": "adapt"}])
def test_a_stage_that_training_decides_may_change_until_it_begins(trained, tmp_path, fact):
    folder = training.copied(trained, tmp_path)
    for newer in ("step-00000014", "step-00000015", "step-00000020"):
        shutil.rmtree(folder / "run/checkpoints/plain" / newer)
    plan = json.loads((folder / "run/plan.json").read_text())
    assert training.job(folder).loader.digest(150) != ""
    plan["stages"][1] |= fact
    (folder / "run/plan.json").write_text(json.dumps(plan))
    state = folder / "run/checkpoints/plain/step-00000007/trainer/state.json"
    value = json.loads(state.read_text())
    for key in ("order anneal", "shares of anneal"):
        del value["identity"][key]
    state.write_text(json.dumps(value))
    np.save(folder / "run/order/anneal.npy", np.load(folder / "run/order/anneal.npy")[::-1])

    loader = training.job(folder).loader
    assert loader.digest(150) == "", "its order may be made anew before its first step"
    assert loader.digest(151) != ""

    class Enough(Exception):
        pass

    def stop(_, __):
        raise Enough

    with pytest.raises(Enough):
        training.run(folder, "plain", after_step=stop)


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


SHORT = ("train.tokens_per_step=1280", "train.checkpoint_every=2560", "train.keep=9", "train.model=plain-model")
"""Eight steps and three, with a checkpoint every two."""


@pytest.fixture(scope="module")
def short(built, tmp_path_factory) -> Path:
    """The Run, trained without interruption and without dropout in large steps."""
    folder = training.copied(built, tmp_path_factory.mktemp("short"))
    training.run(folder, "plain", *SHORT)
    return folder


def cut_back(source: Path, target: Path, *, step: int, name: str = "plain") -> Path:
    """A copy as a kill after a step leaves it: newer checkpoints are not there yet, newer lines are."""
    folder = training.copied(source, target)
    for path in (folder / "run/checkpoints" / name).glob("step-*"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    return folder


def test_what_changes_no_result_may_change_at_a_resume(short, tmp_path):
    folder = cut_back(short, tmp_path, step=4)
    said: list[str] = []
    training.run(folder, "plain", *SHORT, "train.keep=1", "train.micro_batch=5", said=said)
    assert said[1] == "warning: micro_batch 4 -> 5: the resume is exact up to rounding, not to the last bit"
    losses, expected = ([line["loss"] for line in lines(at)] for at in (folder, short))
    assert losses[:4] == expected[:4]
    assert losses[4:] != expected[4:], "it did go on from step 4"
    np.testing.assert_allclose(losses, expected, rtol=2e-4)
    found, ours = checkpoint(folder, 11), checkpoint(short, 11)
    torch.testing.assert_close(found["lm_head.weight"], ours["lm_head.weight"], rtol=1e-2, atol=1e-3)


def test_with_dropout_another_micro_batch_is_another_training(trained, tmp_path):
    folder = training.copied(trained, tmp_path)
    with pytest.raises(CheckpointError, match=r"got a checkpoint of another training \(micro_batch 4 -> 5\)"):
        training.run(folder, "plain", "train.micro_batch=5")
    state = folder / "run/checkpoints/plain/step-00000020/trainer/state.json"
    state.write_text(state.read_text().replace('"processes": 1', '"processes": 2'))
    said: list[str] = []
    training.run(folder, said=said)
    assert said[1] == "warning: processes 2 -> 1: dropout draws otherwise"


def test_lines_over_several_steps_do_not_depend_on_where_a_training_stopped(built, tmp_path):
    """Checkpoints after steps 2, 4, ...; lines after 3, 6, 8 (a stage's end), 9 and 11: one begins before a resume."""
    whole = training.copied(built, tmp_path / "whole")
    settings = (*SHORT, "train.log_every=3")
    training.run(whole, "plain", *settings)
    folder = cut_back(whole, tmp_path / "cut", step=4)
    training.run(folder, "plain", *settings)
    kept = ("step", "tokens", "stage", "loss", "learning_rate", "gradient_norm", "sources", "topics")
    found, expected = ([[line[key] for key in kept] for line in lines(at)] for at in (folder, whole))
    assert found == expected
    assert [line[0] for line in found] == [3, 6, 8, 9, 11]


@pytest.mark.parametrize("key", ["activation_checkpointing", pytest.param("compile", marks=pytest.mark.slow)])
def test_other_ways_to_compute_give_the_same_losses(built, short, tmp_path, key):
    folder = training.copied(built, tmp_path)
    training.run(folder, "plain", *SHORT, f"train.{key}=true")
    found, expected = ([line["loss"] for line in lines(at)] for at in (folder, short))
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_only_a_second_ctrl_c_ends_a_training_without_a_checkpoint(built, tmp_path):
    def sends(first, second):
        def after_step(_, state):
            if state.step == 1:
                os.kill(os.getpid(), first)
                os.kill(os.getpid(), second)

        return after_step

    folder = training.copied(built, tmp_path)
    done = training.run(folder, "a", *SHORT, after_step=sends(signal.SIGTERM, signal.SIGTERM))
    assert (done.folder, latest(folder / "run/checkpoints/a").name) == (None, "step-00000002")
    done = training.run(folder, "b", *SHORT, after_step=sends(signal.SIGTERM, signal.SIGINT))
    assert (done.folder, latest(folder / "run/checkpoints/b").name) == (None, "step-00000002")
    with pytest.raises(KeyboardInterrupt):
        training.run(folder, "c", *SHORT, after_step=sends(signal.SIGINT, signal.SIGINT))
    assert latest(folder / "run/checkpoints/c") is None


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


def test_a_stage_that_cannot_be_prepared_costs_nothing_that_was_trained(built, trained, tmp_path):
    """What the losses of a stage decide may fail; the stage is saved by then, and the next run asks again."""
    folder = training.copied(built, tmp_path)

    def fails(name, _):
        if name == "anneal":
            raise SourceError("no losses")

    with pytest.raises(SourceError, match="no losses"):
        training.run(folder, next_stage=fails)
    assert latest(folder / "run/checkpoints/plain").name == "step-00000015"
    asked = []
    training.run(folder, next_stage=lambda name, state: asked.append((name, state.step)))
    assert asked == [("anneal", 15)]
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


@pytest.mark.parametrize(
    ("saved", "told"),
    [(None, "no checkpoint was saved before it"), (Path("a/step-00000007"), "step-00000007 was saved before it")],
)
def test_what_was_saved_before_a_loss_that_is_no_number_is_named(saved, told):
    assert told in _not_finite("adapt", State(8, 8, 8), 1.0, saved).hint


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
