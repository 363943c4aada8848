"""Several processes train what one does: DDP and FSDP2 over gloo, with torchrun's variables, killed and resumed."""

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from curricula.checkpoint import State
from curricula.parallel import World, world
from curricula.retention.guard import open_guard
from curricula.train import train
from mixer.errors import MixerError, SourceError
from mixer.recipe.file import load
from tests import toys, training
from tests.test_train import SHORT, assert_equal, checkpoint, lines
from tests.tiny_model import tiny_model

# Children begin as copies of a process that has imported torch once, and has computed nothing.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.training"])
_PATIENCE_S = 240.0
"""Processes that wait for each other for ever are ended, and seen by their exit codes."""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return training.parted(training.build_run(tmp_path_factory.mktemp("built")))


def work(rank: int, port: int, folder: Path, overrides: tuple[str, ...], hook: Callable[..., None]) -> None:
    """What torchrun would start: a process that finds the others by its environment."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    training.run(folder, "plain", *overrides, after_step=hook)


def on(step: int, act: Callable[[], None], stage: str, state: State) -> None:
    """Act after a step."""
    if state.step == step:
        act()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def go_on(stage: str, state: State) -> None:
    """Do nothing after a step."""


def in_two(target: Callable[..., None], *arguments: object) -> list[int | None]:
    """Call with rank and port in two processes; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [_FORKS.Process(target=target, args=(rank, port, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_PATIENCE_S)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def train_in_two(folder: Path, *overrides: str, last: int = 0) -> list[int | None]:
    """Train with two processes, killed after a step where one is named; their exit codes."""
    return in_two(work, folder, overrides, partial(on, last, die) if last else go_on)


def told_by_each(rank: int, port: int, folder: Path, run: Callable[[World], None]) -> None:
    """Run as one of two processes; what it says where it fails goes to a file."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with world(device="cpu") as here:
        try:
            run(here)
        except MixerError as error:
            (folder / f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        # Both have said it before either leaves: gloo may wait for ever for one that is gone, as torchrun does not.
        torch.distributed.barrier()


def failing(rank: int, port: int, folder: Path) -> None:
    """The first process cannot prepare the second stage; what each of them says."""

    def next_stage(name: str, _: State) -> None:
        if rank == 0 and name == "anneal":
            raise SourceError("no losses")

    own = training.job(folder, "plain", "train.tokens_per_step=3200")
    told_by_each(rank, port, folder, lambda here: train(own, world=here, say=lambda _: None, next_stage=next_stage))


def test_what_fails_on_one_process_ends_the_others_with_a_message(built, tmp_path):
    folder = training.copied(built, tmp_path)
    assert in_two(failing, folder) == [0, 0]
    assert (folder / "0.txt").read_text() == "SourceError: no losses"
    assert (folder / "1.txt").read_text().startswith("MixerError: train: got a failure of another of 2 processes")


def watching(rank: int, port: int, folder: Path, overrides: tuple[str, ...]) -> None:
    """Train with the recipe's guard; what each process says where it fails."""
    own, recipe = training.job(folder, "plain", *overrides), load(folder / "run/recipe.yaml", overrides=overrides)

    def run(here: World) -> None:
        where = {"run": folder / "run", "recipe": recipe, "base": folder, "world": here, "say": lambda _: None}
        train(own, world=here, say=lambda _: None, watched=lambda bench: open_guard(own, bench, **where))

    told_by_each(rank, port, folder, run)


def guarded(folder: Path) -> tuple[str, ...]:
    """Overrides for a guard over one slice, whose text is in the folder then."""
    rows = [json.dumps({"text": toys.sentences(3000 + n, 6)}) for n in range(4)]
    (folder / "held.jsonl").write_text("\n".join(rows))
    guard = "{every: 1280, first_steps: [], on_forgetting: raise_replay, replay: [books], raise_by: 0.3}"
    told = "{slices: {held: {path: held.jsonl, min_bytes: 20}}, window: 64, replicates: 100, max_forgetting: 0.0, "
    return f"retention={told}guard: {guard}}}", "train.tokens_per_step=640"


def test_a_guard_that_fails_on_one_process_ends_the_others_with_a_message(built, tmp_path):
    folder = training.copied(built, tmp_path)
    (folder / "run/checkpoints/plain").mkdir(parents=True)
    (folder / "run/checkpoints/plain/guard.jsonl").write_text("no line of a guard\n")
    assert in_two(watching, folder, guarded(folder)) == [0, 0]
    assert "guard.jsonl:1: got 'no line of a guard'" in (folder / "0.txt").read_text()
    assert (folder / "1.txt").read_text().startswith("MixerError: train: got a failure of another of 2 processes")


def test_a_process_may_hold_nothing_of_a_small_matrix(built, tmp_path):
    """A model of width 1: every norm has one number, so the second process holds none of it and none of the next."""
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 2}
    tiny_model(built / "narrow", hidden_size=1, intermediate_size=4, **heads)
    folder = training.copied(built, tmp_path)
    settings = ("train.parallel=fsdp", "train.model=narrow", "train.tokens_per_step=3200")
    assert train_in_two(folder, *settings) == [0, 0]
    saved = load_file(folder / "run/checkpoints/plain/final/model.safetensors")
    assert saved["model.layers.0.input_layernorm.weight"].shape == (1,)


def test_two_processes_resume_to_the_last_bit(built, tmp_path):
    """Twenty steps are seven, a kill, and thirteen."""
    whole, killed = (training.copied(built, tmp_path / name) for name in ("whole", "killed"))
    settings = ["train.checkpoint_every=4480", "train.keep=9"]
    assert train_in_two(whole, *settings) == [0, 0]
    assert train_in_two(killed, *settings, last=9) == [-signal.SIGKILL] * 2
    assert train_in_two(killed, *settings) == [0, 0]
    for step in (7, 14, 20):
        assert_equal(checkpoint(killed, step), checkpoint(whole, step))
    state = json.loads((whole / "run/checkpoints/plain/step-00000020/trainer/state.json").read_text())
    assert state["machine"]["processes"] == 2


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_compute_what_one_does(built, tmp_path, parallel):
    """Nine sequences a step, in batches of four: one process has less to do, and means of means would differ."""
    one, two = (training.copied(built, tmp_path / name) for name in ("one", "two"))
    settings = [f"train.parallel={parallel}", "train.model=plain-model", "train.tokens_per_step=576"]
    training.run(one, "plain", *settings)
    assert train_in_two(two, *settings) == [0, 0]
    found, expected = ([line["loss"] for line in lines(folder)] for folder in (two, one))
    # Batches are cut otherwise, so sums are rounded otherwise, and steps carry that on.
    np.testing.assert_allclose(found[:10], expected[:10], rtol=2e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    told, wanted = (lines(folder, file="validation.jsonl") for folder in (two, one))
    assert [len(line["losses"]) for line in told] == [len(line["losses"]) for line in wanted] != [0] * 3
    for line, other in zip(told, wanted, strict=True):
        found, expected = ([group["loss"] for group in each["losses"]] for each in (line, other))
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    weights, ours = checkpoint(two, 23), checkpoint(one, 23)
    assert weights.keys() == ours.keys()
    torch.testing.assert_close(weights["lm_head.weight"], ours["lm_head.weight"], rtol=1e-2, atol=1e-3)


def test_a_sharded_training_resumes_on_one_process(built, tmp_path):
    """A checkpoint holds whole tensors: neither the number of processes nor the sharding is in it."""
    whole, folder = (training.copied(built, tmp_path / name) for name in ("whole", "killed"))
    settings = ["train.parallel=fsdp", *SHORT]
    assert train_in_two(whole, *settings) == [0, 0]
    assert train_in_two(folder, *settings, last=5) == [-signal.SIGKILL] * 2
    said: list[str] = []
    assert training.run(folder, "plain", *settings, said=said).state.step == 11
    assert said[2] == "warning: processes 2 -> 1: the resume is exact up to rounding, not to the last bit"
    found, expected = ([line["loss"] for line in lines(at)] for at in (folder, whole))
    assert found[:4] == expected[:4]
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    weights, ours = checkpoint(folder, 11), checkpoint(whole, 11)
    assert weights.keys() == ours.keys()
    torch.testing.assert_close(weights["lm_head.weight"], ours["lm_head.weight"], rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    ["{kind: osft}", "{kind: block_expansion, groups: 2}", "{kind: lora, rank: 4}"],
    ids=["osft", "blocks", "lora"],
)
def test_a_sharded_method_resumes_to_the_last_bit(built, tmp_path, method):
    whole, killed = (training.copied(built, tmp_path / name) for name in ("whole", "killed"))
    settings = ["train.parallel=fsdp", f"train.method={method}", *SHORT]
    assert train_in_two(whole, *settings) == [0, 0]
    assert train_in_two(killed, *settings, last=5) == [-signal.SIGKILL] * 2
    assert train_in_two(killed, *settings) == [0, 0]
    for step in (4, 6, 11):
        assert_equal(checkpoint(killed, step), checkpoint(whole, step))
    one, other = (load_file(at / "run/checkpoints/plain/final/model.safetensors") for at in (whole, killed))
    assert_equal(one, other)
