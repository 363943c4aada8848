"""`mixer train`: what it prints, how it ends, and what it refuses, each with the next action."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file
from transformers import AutoModelForCausalLM, FalconConfig, GPT2Config, MambaConfig, MptConfig
from typer.testing import CliRunner

from curricula import checkpoint as checkpoints
from curricula.parallel import shard, world
from curricula.workbench import _calibration, too_long
from mixer.cli import app
from mixer.commands.train import _after, _again
from mixer.errors import CheckpointError, PlanError, RecipeError, ShardError
from mixer.recipe.file import load as load_recipe
from tests import training
from tests.tiny_model import tiny_model

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
    told = "next: add `retention` to the recipe (docs/retention.md) and build again, to measure what was forgotten"
    assert done.stderr.splitlines()[-1] == told


def test_what_measures_a_training_comes_next_where_the_recipe_says_by_what(built):
    run = Path("runs/my run")
    recipe = load_recipe(built / "run/recipe.yaml", overrides=["retention={slices: {general: {path: held.jsonl}}}"])
    told = partial(_after, run, recipe, "first")
    assert told(Path(), None) == "mixer retention 'runs/my run'"
    assert told(Path("recipes"), ["train.clip=1.0"]) == "mixer retention 'runs/my run' --base recipes"
    other = ["train.clip=1.0", "train.model=m/final"]
    assert told(Path(), other) == "mixer retention 'runs/my run' --name first --set train.model=m/final"


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
        for _ in range(3000):
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
    weights = load(path.read_bytes())
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        RecipeError, match=r"without 1 of the weights that LlamaForCausalLM has, such as model.layers.1"
    ):
        training.run(folder)


def test_a_model_whose_config_names_fewer_layers_is_not_cut_short(built, tmp_path):
    folder = training.copied(built, tmp_path)
    path = folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1}))
    told = r"with 9 weights that its config.json has no place for, such as model.layers.1.input_layernorm.weight"
    with pytest.raises(RecipeError, match=told):
        training.run(folder)


def test_what_old_files_hold_beside_the_weights_is_no_reason_to_refuse_them(built, tmp_path):
    folder = training.copied(built, tmp_path)
    path = folder / "model" / "model.safetensors"
    weights = load(path.read_bytes()) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(weights, path, metadata={"format": "pt"})
    assert training.run(folder, "plain", "train.tokens_per_step=12800").state.step == 2


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", ".", "..", ".partial-1", ""])
def test_a_training_stays_in_its_run(built, name):
    with pytest.raises(RecipeError, match=r"--name: got '.*', expected letters, digits"):
        training.job(built, name)


def test_a_name_that_is_none_ends_the_command(built):
    done = mixer(built, "--name", "../../x")
    assert done.exit_code == 2
    assert "hint: it is the name of a folder in RUN/checkpoints" in done.stderr


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


def test_what_a_method_kept_must_be_whole(built, tmp_path):
    folder = training.copied(built, tmp_path)
    settings = ("train.tokens_per_step=12800", "train.method={kind: osft}")
    training.run(folder, "osft", *settings)
    path = checkpoints.latest(folder / "run/checkpoints/osft") / "trainer" / "method.safetensors"
    content, kept = path.read_bytes(), load(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"method.safetensors: got .*, expected a whole file of safetensors"):
        training.run(folder, "osft", *settings)
    for lacking in ("since", "model.layers.0.mlp.up_proj.weight.left"):
        save_file({name: value for name, value in kept.items() if name != lacking}, path)
        with pytest.raises(
            CheckpointError, match=rf"method.safetensors: got no '{lacking}', expected what mixer train"
        ):
            training.run(folder, "osft", *settings)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"method.safetensors: got no "):
        training.run(folder, "osft", *settings)


@pytest.mark.parametrize("content", ['{"position": ', "[3]", "null"])
def test_a_state_that_was_cut_short_is_refused(built, tmp_path, content):
    folder, trainer = broken(built, tmp_path)
    (trainer / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"state.json: got .*, expected what mixer|got a state without position"):
        again(folder)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("weights", r"got `lm_head.weight` of shape \(3,\) for \(258, 32\)"),
        ("optimizer", r"got moments of shape \(3,\)"),
    ],
)
def test_tensors_of_another_shape_are_refused(built, tmp_path, file, told):
    folder, trainer = broken(built, tmp_path)
    path = trainer / f"{file}.safetensors"
    tensors = load(path.read_bytes())
    save_file(tensors | {next(name for name in tensors if name.startswith("lm_head.weight")): torch.ones(3)}, path)
    with pytest.raises(CheckpointError, match=told):
        again(folder)


def test_a_damaged_model_is_refused(built, tmp_path):
    folder = training.copied(built, tmp_path)
    path = folder / "model" / "model.safetensors"
    content, tensors = path.read_bytes(), load(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RecipeError, match=r"train.model: got .*/model, expected a causal language model"):
        training.run(folder)
    save_file(tensors | {"model.norm.weight": torch.ones(3)}, path, metadata={"format": "pt"})
    with pytest.raises(RecipeError, match=r"train.model: got .*/model, expected a causal language model"):
        training.run(folder)


def test_sequences_longer_than_a_models_positions_are_refused_or_told(built, tmp_path):
    folder = training.copied(built, tmp_path)
    tiny_model(folder / "short", max_position_embeddings=16)
    said: list[str] = []
    settings = ("train.tokens_per_step=12800", "train.model=short")
    assert training.run(folder, "plain", *settings, said=said).state.step == 2
    assert "got sequences of 64 tokens for LlamaForCausalLM of 16 positions; it has never seen later ones" in said[0]
    config = GPT2Config(
        vocab_size=258, n_embd=32, n_layer=2, n_head=4, n_positions=16, bos_token_id=256, eos_token_id=257
    )
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(RecipeError, match="64 tokens for GPT2LMHeadModel of 16 positions, expected at most") as caught:
        too_long(model, 64)
    assert "sequence_length: 16" in caught.value.hint
    assert too_long(model, 16) == ""


@pytest.mark.parametrize("family", ["gpt2", "falcon", "mpt", "mamba"])
def test_any_causal_model_is_trained_or_refused_with_a_reason(built, tmp_path, family):
    """Falcon, MPT and Mamba let documents see each other in one sequence, which may be allowed."""
    ends = {"vocab_size": 258, "bos_token_id": 256, "eos_token_id": 257}
    config = {
        "gpt2": lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **ends),
        "falcon": lambda: FalconConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **ends),
        "mpt": lambda: MptConfig(d_model=32, n_layers=2, n_heads=4, **ends),
        "mamba": lambda: MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **ends),
    }[family]()
    folder = training.copied(built, tmp_path)
    shutil.copytree(folder / "plain-model", folder / family)
    (folder / family / "model.safetensors").unlink()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / family)
    settings = ("train.tokens_per_step=12800", f"train.model={family}")
    if family == "gpt2":
        assert training.run(folder, "plain", *settings).state.step == 2
        return
    model = AutoModelForCausalLM.from_pretrained(folder / family)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder / family)
    with pytest.raises(RecipeError, match="in which one document changes the next") as caught:
        training.run(folder, "plain", *settings)
    assert "document_mask: false" in caught.value.hint
    assert training.run(folder, "plain", *settings, "train.document_mask=false").state.step == 2


def test_the_command_to_go_on_with_means_the_same_training(tmp_path):
    run = tmp_path / "a run"
    plain = _again(1, run, method=None, name="plain", base=Path())
    assert shlex.split(plain) == ["mixer", "train", str(run), "--name", "plain"]
    many = _again(8, run, method="lora", name="mine", base=tmp_path / "my recipes")
    assert shlex.split(many) == [
        *("torchrun", "--nproc-per-node", "8", "-m", "mixer.cli", "train", str(run)),
        *("--name", "mine", "--method", "lora", "--base", str(tmp_path / "my recipes")),
    ]


def test_a_way_to_shard_says_that_one_process_has_nothing_to_shard(built, tmp_path):
    said: list[str] = []
    folder = training.copied(built, tmp_path)
    training.run(folder, "plain", "train.tokens_per_step=12800", "train.parallel=fsdp", said=said)
    assert said == ["parallel: fsdp has no effect on one process; torchrun starts several"]


def test_calibration_reads_documents_alone_and_no_padding(built):
    job = training.job(built)
    with world(device="cpu") as here:
        pieces = list(_calibration(job, here))
    rows = [job.loader.rows.row(*map(int, pair)) for pair in job.loader.picked(job.loader.step(0), most=32)]
    assert len(pieces) > len(rows), "some rows hold several documents"
    assert all(piece.shape[0] == 1 and piece.shape[1] > 1 for piece in pieces)
    # All but the last token of a piece predict the next one.
    assert sum(piece.shape[1] - 1 for piece in pieces) == sum(int((row.weights > 0).sum()) for row in rows)


def test_an_order_that_is_no_array_is_refused(built, tmp_path):
    folder = training.copied(built, tmp_path)
    (folder / "run/order/adapt.npy").write_bytes(b"nothing of the kind")
    with pytest.raises(ShardError, match=r"order/adapt.npy: got .*, expected an order"):
        training.run(folder)
