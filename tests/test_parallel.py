"""Several processes train what one does: DDP and FSDP2 over gloo, with torchrun's variables, killed and resumed."""

import json
import multiprocessing
import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import training
from tests.test_train import assert_equal, checkpoint, lines

# Children begin as copies of a process that has imported torch once, and has computed nothing.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.training"])


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return training.parted(training.build_run(tmp_path_factory.mktemp("built")))


def work(rank: int, port: int, folder: Path, overrides: tuple[str, ...], last: int) -> None:
    """What torchrun would start: a process that finds the others by its environment."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def after_step(_, state):
        if state.step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    training.run(folder, "plain", *overrides, after_step=after_step)


def train_in_two(folder: Path, *overrides: str, last: int = 0) -> list[int]:
    """Train with two processes, killed after a step where one is named; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [_FORKS.Process(target=work, args=(rank, port, folder, overrides, last)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


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
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    told, wanted = (lines(folder, file="validation.jsonl") for folder in (two, one))
    assert [len(line["losses"]) for line in told] == [len(line["losses"]) for line in wanted] != [0] * 3
    for line, other in zip(told, wanted, strict=True):
        found, expected = ([group["loss"] for group in each["losses"]] for each in (line, other))
        np.testing.assert_allclose(found, expected, rtol=2e-4)
    weights, ours = checkpoint(two, 23), checkpoint(one, 23)
    assert weights.keys() == ours.keys()
    torch.testing.assert_close(weights["lm_head.weight"], ours["lm_head.weight"], rtol=1e-2, atol=1e-3)


def test_a_sharded_training_resumes_on_one_process(built, tmp_path):
    """A checkpoint holds whole tensors: neither the number of processes nor the sharding is in it."""
    folder = training.copied(built, tmp_path)
    settings = ["train.parallel=fsdp", "train.checkpoint_every=4480", "train.keep=9"]
    assert train_in_two(folder, *settings, last=9) == [-signal.SIGKILL] * 2
    said: list[str] = []
    assert training.run(folder, "plain", *settings, said=said).state.step == 20
    assert said[1] == "warning: processes 2 -> 1: the resume is exact up to rounding, not to the last bit"
