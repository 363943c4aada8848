"""What a training tells: FLOPs by hand, lines that are taken back, figures by topic, validation on held-out sequences."""

import builtins
import sys
import types

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MixtralConfig,
)

from curricula.metrics import PEAKS, Bar, Log, Tally, append, flops_per_token, peak_of, truncate
from mixer.errors import CheckpointError, RecipeError
from tests import training
from tests.test_train import lines

SIZES = {"vocab_size": 10, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def frozen(model, *names):
    for name in names:
        model.get_submodule(name).requires_grad_(requires_grad=False)
    return model


def test_flops_by_hand():
    """A block of width 8 multiplies by 4 matrices of 64 and 3 of 128; two of them, and an output layer of 80.

    Attention over 100 tokens: 4 forward and 8 backward, times 8, times 100, a block.
    """
    config = LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=False)
    block, attention = 4 * 64 + 3 * 128, 8 * 100
    every = 6 * (2 * block + 80) + 12 * 2 * attention
    assert flops_per_token(LlamaForCausalLM(config), sequence_length=100) == every
    model = frozen(LlamaForCausalLM(config), "model.layers.0")
    assert flops_per_token(model, sequence_length=100) == every - 2 * block, "embeddings train, so gradients pass it"
    model = frozen(model, "model.embed_tokens")
    assert flops_per_token(model, sequence_length=100) == every - 4 * block - 8 * attention
    model = frozen(LlamaForCausalLM(config), "model.layers.1", "model.embed_tokens")
    assert flops_per_token(model, sequence_length=100) == every - 2 * block, "gradients pass the second block"
    model = frozen(LlamaForCausalLM(config), "model")
    assert flops_per_token(model, sequence_length=100) == 2 * 2 * block + 4 * 80 + 4 * 2 * attention
    model = frozen(LlamaForCausalLM(config), "model", "lm_head")
    assert flops_per_token(model, sequence_length=100) == 2 * (2 * block + 80) + 4 * 2 * attention


@pytest.mark.parametrize(
    "config",
    [
        MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=2),
        GPT2Config(vocab_size=10, n_embd=8, n_layer=2, n_head=2, n_positions=16),
        MambaConfig(vocab_size=10, hidden_size=8, num_hidden_layers=2, state_size=4),
    ],
    ids=["experts", "other matrices", "no attention"],
)
def test_what_the_formula_is_not_for_has_no_flops(config):
    assert flops_per_token(AutoModelForCausalLM.from_config(config), sequence_length=8) is None


def test_smollm2_has_the_flops_that_others_count():
    """formats.md C.3: 1.23 GFLOP a token at 2,048 tokens."""
    config = LlamaConfig(vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                         num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert flops_per_token(model, sequence_length=2048) == pytest.approx(1.23e9, rel=0.01)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA Something New", None),
    ],
)
def test_a_devices_peak_is_the_dense_one_and_never_a_guess(monkeypatch, name, peak):
    """989 TFLOP/s for an H100, not the sparse 1,979: with a wrong peak, 104% have been reported."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert peak_of(torch.device("cuda")) == peak
    assert peak_of(torch.device("cpu")) is None
    assert max(PEAKS.values()) < 3e15


def test_means_count_by_weight_and_leave_out_what_has_none():
    tally = Tally()
    tally.add(["a", "b", "a", "c"], np.array([3.0, 5.0, 9.0, 0.0]), np.array([1.0, 2.0, 3.0, 0.0]))
    assert tally.means() == {"a": 3.0, "b": 2.5}
    assert tally.means() == {}


def test_lines_after_the_step_of_a_resume_are_taken_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        append(path, {"step": step})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    truncate(path, "step", 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    truncate(tmp_path / "absent.jsonl", "step", 2)


@pytest.mark.parametrize("line", ["what is this\n", '{"loss": 1.0}\n', "[1]\n", '{"step": "x"}\n', "3\n"])
def test_a_line_that_no_training_wrote_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + line)
    with pytest.raises(CheckpointError, match=r"metrics.jsonl:2: got .*, expected a line of mixer train with `step`"):
        truncate(path, "step", 2)


def test_tensorboard_gets_every_number_of_a_line(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self):
            written.append("flushed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = Log(tmp_path / "metrics.jsonl", step=4, tensorboard=True)
    log.write({"step": 5, "stage": "a", "mfu": "n/a", "loss": 2, "sources": {"web": 1.5}})
    expected = [("step", 5.0, 5), ("loss", 2.0, 5), ("sources/web", 1.5, 5), "flushed"]
    assert written == [(str(tmp_path / "tensorboard"), 5), *expected]
    assert (tmp_path / "metrics.jsonl").read_text().startswith('{"step": 5, "stage": "a"')


def test_tensorboard_that_is_not_there_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **keys):
        if name == "torch.utils.tensorboard":
            raise ImportError(name)
        return real(name, *rest, **keys)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RecipeError, match=r"train.tensorboard: got true without the package tensorboard"):
        Log(tmp_path / "metrics.jsonl", step=0, tensorboard=True)


def test_progress_is_a_line_a_minute_where_there_is_no_terminal(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr("curricula.metrics.time.monotonic", lambda: clock[0])
    bar = Bar("plain", total=1000, done=0, is_shown=True)
    for clock[0], tokens in ((30.0, 100), (61.0, 250), (90.0, 300)):
        bar.show(tokens=tokens, loss=2.5, rate=1234.0)
    bar.close()
    assert capsys.readouterr().err == "plain: 250/1,000 tokens, loss 2.500, 1,234 tokens/s, 183 s left\n"


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    return training.parted(training.build_run(tmp_path_factory.mktemp("parted")))


def test_losses_are_told_by_topic_and_validated_by_source_and_topic(parted):
    settings = ["train.validate_every=3200", "train.log_every=2"]
    training.run(parted, "plain", *settings)
    found = lines(parted)
    assert [line["step"] for line in found] == [2, 4, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    assert {(line["device"], line["peak_flops"], line["mfu"]) for line in found} == {("cpu", None, "n/a")}
    assert all(set(line["topics"]) <= {"physics", "biology"} for line in found)
    assert any(len(line["topics"]) == 2 for line in found)
    told = lines(parted, file="validation.jsonl")
    assert [(line["tokens"], line["stage"]) for line in told] == [
        (0, "adapt"), (3200, "adapt"), (6400, "adapt"), (9600, "adapt"), (12800, "anneal"),
    ]  # fmt: skip
    groups = [[(one["source"], one["topic"]) for one in line["losses"]] for line in told]
    held = [group for group in groups[0] if group in {("books", "biology"), ("books", "physics"), ("pages", None)}]
    assert groups[0] == held
    assert groups[0]
    assert all(group == groups[0] for group in groups)
    for before, after in zip(told[0]["losses"], told[-1]["losses"], strict=True):
        assert after["loss"] < before["loss"]
