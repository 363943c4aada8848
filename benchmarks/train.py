"""Tokens a second and peak memory of `mixer train` against Hugging Face's Trainer, on the same batches of one Run.

    .venv/bin/mixer build benchmarks/train.yaml --run runs/train
    .venv/bin/python benchmarks/train.py runs/train [--steps 4] [--rounds 2] [--arms hf plain lora ...] [--threads 2]

Each arm runs in a process of its own, in turn, `--rounds` times; the first step of each process is left out. Peer and
product read the same packed rows with restarted positions in the same micro-batches, in bfloat16, and take the same
AdamW steps. Every other method of the product is timed against `plain`; so is `unmasked`, plain training with documents
that see each other, which tells what masking costs. On a machine with CUDA it also prints the MFU of random Llamas of
135M, 1B and 3B parameters.
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from curricula.job import Job, job_of
from curricula.metrics import FORMULA, flops_per_token, peak_of
from curricula.objective import Objective
from curricula.parallel import World, world
from curricula.rows import Batch, Row, batch_of, starts_of, weights_of
from curricula.train import train
from curricula.validation import on_device
from curricula.workbench import optimizer_of
from mixer.commands.options import store
from mixer.recipe.file import load

METHODS = {
    "plain": "{kind: plain}",
    "freeze": "{kind: freeze, train: ['model.layers.2*']}",
    "block_expansion": "{kind: block_expansion, groups: 6}",
    "osft": "{kind: osft}",
    "lora": "{kind: lora}",
    "lora_16": "{kind: lora, rank: 16}",
}
ARMS = {name: [f"train.method={method}"] for name, method in METHODS.items()} | {
    "unmasked": ["train.method={kind: plain}", "train.document_mask=false"]
}
SIZES = {
    "135M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "vocab_size": 49_152, "tie_word_embeddings": True},
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": True},
    "3B": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
           "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": True},
}  # fmt: skip


class Enough(Exception):
    """The steps that were asked for are done."""


def job(run: Path, kind: str, folder: Path) -> Job:
    recipe = load(run / "recipe.yaml", overrides=ARMS[kind])
    found = job_of(run, recipe, name=kind, base=run, store=store())
    # Checkpoints of a benchmark are of no use to anyone.
    return Job(**{name: getattr(found, name) for name in Job.__dataclass_fields__} | {"folder": folder})


def ours(run: Path, kind: str, steps: int) -> list[float]:
    """Seconds of each step."""
    times = [time.perf_counter()]

    def note(_: str, state: Any) -> None:
        times.append(time.perf_counter())
        if state.step == steps:
            raise Enough

    with tempfile.TemporaryDirectory() as folder, world() as here, contextlib.suppress(Enough):
        train(job(run, kind, Path(folder)), world=here, say=print, after_step=note)
    return np.diff(times).tolist()


def theirs(run: Path, steps: int) -> list[float]:
    """Seconds of each step of Hugging Face's Trainer."""
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    found = job(run, "plain", Path())
    loader, settings = found.loader, found.settings
    dataset = []
    for number in range(steps * loader.per_step):
        pair = loader.picked(loader.step(number - number % loader.per_step))[number % loader.per_step]
        row = loader.rows.row(*map(int, pair))
        batch = batch_of([row], [0])
        # A label says what stands there; the first token of a document is nobody's target.
        labels = np.where(np.r_[0.0, row.weights[:-1]] > 0, row.ids, -100)
        dataset.append({"input_ids": row.ids, "position_ids": batch.positions[0], "labels": labels})
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=settings.micro_batch,
            gradient_accumulation_steps=loader.per_step // settings.micro_batch,
            max_steps=steps,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            adam_beta2=settings.betas[1],
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        )
        model = AutoModelForCausalLM.from_pretrained(found.base, dtype=torch.float32)
        InOrder(model=model, args=arguments, train_dataset=dataset, callbacks=[Clock()]).train()
    return np.diff(times).tolist()


def rows(count: int, length: int, vocabulary: int) -> Batch:
    """Random documents of 200 to 1,800 tokens, packed."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(count):
        ends = np.unique(np.minimum(np.cumsum(draw.integers(200, 1800, length // 200)), length))
        offsets, lengths = np.r_[0, ends[:-1]], np.diff(np.r_[0, ends])
        ids = draw.integers(0, vocabulary, length)
        found.append(Row(ids, starts_of(length, offsets, lengths), weights_of(length, offsets, lengths), length))
    return batch_of(found, list(range(count)))


def utilisation(size: dict[str, Any], here: World, *, length: int = 2048, tokens: int = 16_384, steps: int = 10) -> str:
    """Tokens a second and MFU of a random Llama on one device, a step a micro-batch."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from curricula.masking import attention_of
    from curricula.objective import blocks_of

    config = LlamaConfig(**size, max_position_embeddings=length)
    compiled = here.device.type == "cuda"
    config._attn_implementation = attention_of(
        "auto", config, device=here.device.type, is_compiled=compiled, is_half=True
    )
    with here.device:
        model = LlamaForCausalLM(config)
    for block in blocks_of(model) if compiled else ():
        block.compile()
    objective = Objective(model, dtype=torch.bfloat16, is_sharded=False).train()
    optimizer = optimizer_of(model, betas=(0.9, 0.95), weight_decay=0.1)
    batch = rows(max(1, tokens // length), length, config.vocab_size)
    inputs = on_device(batch, here.device, scale=1 / len(batch.places))
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        with objective.computing():
            loss, _ = objective(inputs)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())
        times.append(time.perf_counter() - began)
    rate, flops, peak = (
        batch.ids.size / median(times[3:] or times),
        flops_per_token(model, sequence_length=length),
        peak_of(here.device),
    )
    told = f"{rate * flops / peak:.1%} of {peak / 1e12:g} TFLOP/s" if peak and flops else "n/a"
    return f"{rate:,.0f} tokens/s, MFU {told} ({FORMULA}), {tokens:,} tokens a step of {length:,}"


def measure(arguments: argparse.Namespace, arm: str) -> dict[str, float]:
    """Tokens a second, and peak memory in bytes, of an arm in a process of its own."""
    command = [sys.executable, __file__, str(arguments.run), "--steps", str(arguments.steps), "--arm", arm]
    command += ["--threads", str(arguments.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--arms", nargs="+", default=["hf", *ARMS])
    parser.add_argument("--arm")
    arguments = parser.parse_args()
    if arguments.arm:
        torch.set_num_threads(arguments.threads)
        times = (
            theirs(arguments.run, arguments.steps)
            if arguments.arm == "hf"
            else ours(arguments.run, arguments.arm, arguments.steps)
        )
        per_step = load(arguments.run / "recipe.yaml").train.tokens_per_step
        usage = resource.getrusage(resource.RUSAGE_SELF)
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else usage.ru_maxrss * 1024
        cpu = usage.ru_utime + usage.ru_stime
        print(json.dumps({"times": times, "tokens": per_step, "memory": memory, "cpu": cpu}))
        return
    if torch.cuda.is_available():
        with world() as here:
            for name, size in SIZES.items():
                print(f"random Llama {name}: {utilisation(size, here)}", flush=True)
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arguments.arms}
    for _ in range(arguments.rounds):
        for arm in arguments.arms:
            found[arm].append(one := measure(arguments, arm))
            told = ", ".join(f"{one['tokens'] / seconds:.1f}" for seconds in one["times"])
            print(f"{arm}: {told} tokens/s by step, {one['memory'] / 2**30:.2f} GiB", file=sys.stderr, flush=True)
    rates = {arm: median(one["tokens"] / t for one in many for t in one["times"][1:]) for arm, many in found.items()}
    memory = {arm: max(one["memory"] for one in many) for arm, many in found.items()}
    for arm in arguments.arms:
        peer = "hf" if arm in ("hf", "plain") and "hf" in rates else "plain"
        ratios = f"{rates[arm] / rates[peer]:.2f} of {peer}'s speed, {memory[arm] / memory[peer]:.2f} of its memory"
        print(f"{arm:16} {rates[arm]:8.1f} tokens/s {memory[arm] / 2**30:6.2f} GiB   {ratios}")


if __name__ == "__main__":
    main()
