"""`mixer train`: what it prints, how it ends, and what it refuses, each with the next action."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from curricula import checkpoint as checkpoints
from curricula.parallel import shard
from mixer.cli import app
from mixer.errors import CheckpointError, PlanError, RecipeError, ShardError
from tests import training

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = training.build_run(tmp_path_factory.mktemp("built"))
    training.run(folder, "short", "train.tokens_per_step=3200")
    return folder


def mixer(folder: Path, *arguments: object):
    command = ["train", folder / "run", "--base", folder, *arguments]
    return CliRunner(env={"XDG_CACHE_HOME": str(folder / "cache")}).invoke(app, [str(word) for word in command])


def test_it_prints_the_model_and_the_next_command(built, tmp_path):
    folder = training.copied(built, tmp_path)
    done = mixer(folder, "--set", "train.tokens_per_step=3200", "--name", "mine")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"Model: {folder}/run/checkpoints/mine/final\n"
    assert done.stderr.splitlines()[-1] == f"next: mixer retention {folder}/run"


def test_methods_stand_side_by_side_in_one_run(built, tmp_path):
    folder = training.copied(built, tmp_path)
    done = mixer(folder, "--method", "lora", "--set", "train.method.rank=2", "--set", "train.tokens_per_step=3200")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (folder / "run/checkpoints").iterdir()) == ["lora", "short"]
    done = mixer(folder, "--method", "lorra")
    assert done.exit_code == 2
    assert "did you mean `lora`?" in done.stderr


def test_the_schedule_is_a_table_to_print_or_plot(built):
    done = mixer(built, "--schedule", "--set", "train.schedule=cosine")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert (rows[0][0], rows[-1]) == ("1", ["12800", "0.0002"])
    assert max(float(rate) for _, rate in rows) == 2.0e-3
    assert not (built / "run/checkpoints/plain").exists()


def test_a_signal_ends_it_with_a_checkpoint_and_says_how_to_go_on(built, tmp_path):
    folder = training.copied(built, tmp_path)
    command = [sys.executable, "-m", "mixer.cli", "train", str(folder / "run"), "--base", str(folder)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    plan = json.loads((folder / "run/plan.json").read_text())
    plan["stages"][0]["sequences"] *= 200
    (folder / "run/plan.json").write_text(json.dumps(plan))
    order = np.load(folder / "run/order/adapt.npy")
    np.save(folder / "run/order/adapt.npy", np.tile(order, (200, 1)))
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as one:
        log = folder / "run/checkpoints/plain/metrics.jsonl"
        for _ in range(600):
            if log.is_file() and log.stat().st_size:
                break
            time.sleep(0.1)
        one.send_signal(signal.SIGTERM)
        told = one.stderr.read()
    assert one.returncode == 128 + signal.SIGTERM, told
    assert "tokens, with a checkpoint\nnext: go on with: mixer train " in told
    assert checkpoints.latest(folder / "run/checkpoints/plain") is not None


def test_what_is_no_run_and_a_recipe_without_train_are_refused(built, tmp_path):
    done = mixer(tmp_path)
    assert done.exit_code == 2
    assert "got no recipe.yaml, expected a Run that was built" in done.stderr
    folder = training.copied(built, tmp_path / "run-of-old")
    path = folder / "run" / "recipe.yaml"
    path.write_text(path.read_text().split("train:\n")[0])
    done = mixer(folder)
    assert "recipe `toy`: got no `train`, expected one" in done.stderr
    assert "hint: add `train: {model: smollm2, learning_rate: 2.0e-5}`" in done.stderr


def test_a_run_of_another_plan_is_refused(built, tmp_path):
    with pytest.raises(PlanError, match="got a plan of other stages than its recipe's"):
        training.job(built, "plain", "stages.adapt.name=adopt")
    folder = training.copied(built, tmp_path)
    plan = json.loads((folder / "run/plan.json").read_text())
    empty = plan | {"stages": [stage | {"sequences": 0} for stage in plan["stages"]]}
    (folder / "run/plan.json").write_text(json.dumps(empty))
    with pytest.raises(PlanError, match=r"got stages without any sequence, expected some"):
        training.job(folder)
    (folder / "run/plan.json").unlink()
    with pytest.raises(PlanError, match=r"got no plan.json, expected a Run that was built"):
        training.job(folder)


def test_a_model_with_another_tokenizer_is_refused(built, tmp_path):
    folder = training.copied(built, tmp_path)
    path = folder / "model" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"][0]["content"] = "<start>"
    path.write_text(json.dumps(content))
    with pytest.raises(RecipeError, match=r"train.model: got a model with another tokenizer than the recipe's \(token"):
        training.job(folder)
    with pytest.raises(ShardError, match="shards: got tokens of another tokenizer than the recipe's"):
        training.job(folder, "plain", "tokenizer.eos=false")


def test_a_model_that_cannot_be_trained_is_refused(built, tmp_path):
    folder = training.copied(built, tmp_path)
    shutil.copytree(folder / "model", folder / "small")
    model = AutoModelForCausalLM.from_pretrained(folder / "small")
    model.config.pad_token_id = model.config.bos_token_id = model.config.eos_token_id = None
    model.resize_token_embeddings(200)
    model.save_pretrained(folder / "small")
    with pytest.raises(RecipeError, match=r"train.model: got 200 embeddings, expected at least 258"):
        training.run(folder, "plain", "train.model=small")
    (folder / "model/config.json").write_text('{"model_type": "no such model"}')
    with pytest.raises(RecipeError, match=r"train.model: got .*/model, expected a causal language model"):
        training.run(folder)


def test_a_model_that_lacks_weights_is_not_trained_with_random_ones(built, tmp_path):
    folder = training.copied(built, tmp_path)
    path = folder / "model" / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        RecipeError, match=r"without 1 of the weights that LlamaForCausalLM has, such as model.layers.1"
    ):
        training.run(folder)


def test_a_model_without_known_blocks_cannot_be_sharded(tmp_path):
    model = torch.nn.Linear(2, 2)
    with pytest.raises(RecipeError, match=r"train.parallel: got `fsdp` for Linear, whose blocks are not known"):
        shard(torch.nn.Sequential(model), model, dtype=torch.float32, size=2)


def broken(built: Path, target: Path) -> tuple[Path, Path]:
    folder = training.copied(built, target)
    return folder, checkpoints.latest(folder / "run/checkpoints/short") / "trainer"


def again(folder: Path):
    return training.run(folder, "short", "train.tokens_per_step=3200")


def test_a_damaged_checkpoint_is_refused(built, tmp_path):
    folder, trainer = broken(built, tmp_path / "a")
    (trainer / "state.json").write_text('{"position": 3}')
    with pytest.raises(CheckpointError, match="got a state without step, tokens, next_step, identity, machine"):
        again(folder)
    folder, trainer = broken(built, tmp_path / "b")
    content = (trainer / "weights.safetensors").read_bytes()
    (trainer / "weights.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"weights.safetensors: got .*, expected a whole file of safetensors"):
        again(folder)
    folder, trainer = broken(built, tmp_path / "c")
    shutil.copy(trainer / "optimizer.safetensors", trainer / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"got 63 trained parameters, expected 21; they differ in lm_head.weight"):
        again(folder)


def test_an_order_that_is_no_array_is_refused(built, tmp_path):
    folder = training.copied(built, tmp_path)
    (folder / "run/order/adapt.npy").write_bytes(b"nothing of the kind")
    with pytest.raises(ShardError, match=r"order/adapt.npy: got .*, expected an order"):
        training.run(folder)
