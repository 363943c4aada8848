"""A small Run to train on: the toy corpus, built once, and a random model of a few thousand weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from curricula.job import Job, job_of
from curricula.parallel import world
from curricula.scheduler import Scheduler
from curricula.scores.score import open_score
from curricula.train import train
from mixer.build import build
from mixer.recipe.file import load
from tests import toys
from tests.tiny_model import tiny_model

TRAIN = {
    "model": "model",
    "learning_rate": 2.0e-3,
    "tokens_per_step": 640,
    "micro_batch": 4,
    "dtype": "float32",
    "warmup": 0.1,
}

TEMPLATE = (
    "{% for m in messages %}<bos>{{ m.role }}\n{{ m.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant\n{% endif %}"
)


def build_run(folder: Path, **changes) -> Path:
    """A folder with the toy corpus, a tiny model `model`, and a Run of 20 steps of 640 tokens: 15 adapt, 5 anneal."""
    toys.corpus(folder)
    tiny_model(folder / "model", attention_dropout=0.1)
    tiny_model(folder / "plain-model")
    chat_tokenizer(tiny_model(folder / "chat-model"))
    recipe = load(toys.recipe(folder, **({"train": TRAIN} | changes)))
    where = {"base": folder, "run": folder / "run", "store": folder / "store", "workers": 1}
    handed = {"scheduler": Scheduler(), "synthesize": toys.no_synthesis, "open_score": open_score}
    build(recipe, **where, **handed, say=lambda _: None)
    return folder


def chat_tokenizer(folder: Path) -> Path:
    """The byte tokenizer with a chat template, as transformers reads it."""
    toys.byte_tokenizer(folder)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    return folder


def parted(folder: Path) -> Path:
    """The Run with books of two topics and pages of none, each in parts that the orders draw from and that are held out."""
    drawn = np.concatenate([np.load(folder / "run/order" / f"{stage}.npy") for stage in ("adapt", "anneal")])
    for source, name, topics in ((1, "books", ["physics", "biology"]), (2, "pages", [None])):
        path = folder / "run" / "shards" / name / "index.json"
        index = json.loads(path.read_text())
        used = int(drawn[drawn[:, 0] == source, 1].max()) + 1
        parts: list[dict] = []
        for is_held_out, count in ((False, used), (True, index["sequences"] - used)):
            for topic, rows in zip(topics, np.array_split(np.arange(count), len(topics)), strict=True):
                first = sum(part["sequences"] for part in parts)
                parts.append({"topic": topic, "held_out": is_held_out, "first_sequence": first, "sequences": len(rows)})
        path.write_text(json.dumps(index | {"parts": parts}))
    return folder


def copied(built: Path, target: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(built, target, symlinks=True, dirs_exist_ok=True)
    return target


def job(folder: Path, name: str = "plain", *overrides: str) -> Job:
    """The training of the Run."""
    recipe = load(folder / "run" / "recipe.yaml", overrides=overrides)
    return job_of(folder / "run", recipe, name=name, base=folder, store=folder / "store")


def run(folder: Path, name: str = "plain", *overrides: str, said=None, **hooks):
    """Train to the end on this process, with one thread: a build leaves as many as it liked, and sums depend on it."""
    torch.set_num_threads(1)
    with world(device="cpu") as here:
        return train(job(folder, name, *overrides), world=here, say=(said if said is not None else []).append, **hooks)
