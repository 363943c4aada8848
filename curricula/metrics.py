"""What a training writes down as it goes: `metrics.jsonl`, a bar or a line a minute, TensorBoard, and honest MFU.

MFU is the FLOPs of the model's arithmetic over what the device could do in the time. A token counts 2 for each
parameter of a matrix that multiplies (the output layer too, embeddings not), 2 more where it trains, and 2 more where
gradients pass it, which they do from the lowest trained block up; attention, counted in full, counts 4 a layer, width
of heads and position, and 8 more from that block up. Where all trains these are the 6 N + 12 L d T of PaLM and nanoGPT.
A device whose peak is not in the table gives "n/a", never a guess.
"""

import json
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from curricula.objective import blocks_of
from mixer.errors import CheckpointError, RecipeError
from mixer.run import write_text

FORMULA = "N_matmul (2 + 2 trained + 2 from the lowest trained block up) + L d T (4 + 8 from there up)"
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "MI300X": 1307e12,
}
"""Dense bfloat16 FLOP/s by words of the device's name, the more exact ones first; not the doubled, sparse figures."""
_OTHERS = re.compile(r"\b(Laptop|Max-Q|MIG|D)\b")
"""Words of names whose devices are slower than the one they are called after."""
_LINE_EVERY_S = 60.0


def device_name(device: torch.device) -> str:
    """What a device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_of(device: torch.device) -> float | None:
    """Dense bfloat16 FLOP/s of a device; None where it is not known."""
    name = device_name(device)
    if device.type != "cuda" or _OTHERS.search(name):
        return None
    return next((peak for part, peak in PEAKS.items() if re.search(rf"\b{part}\b", name)), None)


def flops_per_token(model: Any, *, sequence_length: int) -> float | None:
    """FLOPs of forward and backward a token, by FORMULA; None for a model that the formula is not for.

    Those are mixtures of experts, models with other matrices than linear layers, and those without attention.

    Args:
        model: A causal model of transformers, with the parameters that train marked so.
        sequence_length: Tokens that attention is counted over.
    """
    config = model.config.get_text_config()
    heads, hidden = (getattr(config, key, None) for key in ("num_attention_heads", "hidden_size"))
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    blocks = blocks_of(model)
    if experts or not heads or not hidden or not blocks or any(map(_is_other_matrix, model.modules())):
        return None
    attention = heads * (getattr(config, "head_dim", None) or hidden // heads) * sequence_length
    inside = {id(module) for block in blocks for module in block.modules()}
    first = next((block for block in blocks if _trains(block)), None)
    below = blocks[: blocks.index(first)] if first else blocks
    if any(_trains(part) for part in model.modules() if isinstance(part, torch.nn.Embedding)):
        below = []
    quiet = {id(module) for block in below for module in block.modules()}
    passes_head = len(below) < len(blocks)
    total = attention * (12.0 * len(blocks) - 8.0 * len(below))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            passes = id(module) not in quiet if id(module) in inside else passes_head
            total += (2.0 + 2.0 * module.weight.requires_grad + 2.0 * passes) * module.weight.numel()
    return float(total)


def _trains(module: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _is_other_matrix(module: torch.nn.Module) -> bool:
    """Whether a module has a matrix of its own that is neither a linear layer's nor looked up, as GPT-2's Conv1D."""
    if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
        return False
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))


class Tally:
    """Sums of losses by a key, until they are told; means in nats a token."""

    def __init__(self) -> None:
        self._sums: dict[Any, np.ndarray] = defaultdict(lambda: np.zeros(2))

    def add(self, keys: Iterable[Any], sums: np.ndarray, weights: np.ndarray) -> None:
        """Add rows, each with its key, the sum of its losses and of their weights."""
        for key, *row in zip(keys, sums, weights, strict=True):
            self._sums[key] += row

    def saved(self) -> list[Any]:
        """Key, sum of losses and sum of weights of each, as JSON that `load` takes back to the last bit."""
        return [[key, *row.tolist()] for key, row in self._sums.items()]

    def load(self, saved: Iterable[Any]) -> None:
        """Go on from what was saved."""
        for key, *row in saved:
            self._sums[key] += row

    def means(self) -> dict[Any, float]:
        """Key -> mean loss; keys without any weight are left out. The tally begins anew."""
        found = {key: float(total / weight) for key, (total, weight) in self._sums.items() if weight}
        self._sums.clear()
        return found


class Log:
    """`metrics.jsonl`, a line a logged step; lines after the step that a training resumes from are taken back.

    Args:
        path: The file.
        step: The step that training goes on from.
        tensorboard: Whether to write events beside it too.

    Raises:
        RecipeError: TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, *, step: int, tensorboard: bool) -> None:
        self._path = path
        self._events = _events(path.parent / "tensorboard", step) if tensorboard else None
        truncate(path, "step", step)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line, and make sure that it is on the disk."""
        append(self._path, line)
        if self._events:
            for name, value in _flat(line):
                self._events.add_scalar(name, value, line["step"])
            self._events.flush()


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Append a JSON line to a file and sync it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def truncate(path: Path, key: str, most: int) -> None:
    """Take back JSON lines whose `key` is above `most`, and a last line that a kill cut short.

    Raises:
        CheckpointError: A line is none that a training wrote.
    """
    if not path.is_file():
        return
    kept = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(keepends=True), start=1):
        if line.endswith("\n"):
            try:
                is_kept = json.loads(line)[key] <= most
            except (ValueError, TypeError, KeyError) as error:
                raise CheckpointError(
                    f"{path}:{number}: got {line.strip()[:40]!r}, expected a line of mixer train with `{key}`",
                    hint="remove the line, or train under another name (`--name`)",
                ) from error
            kept += [line] if is_kept else []
    write_text(path, "".join(kept))


def _flat(line: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            yield prefix + key, float(value)


def _events(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RecipeError(
            "train.tensorboard: got true without the package tensorboard, expected it to be installed",
            hint="pip install tensorboard, or leave `tensorboard` out: metrics.jsonl has the same",
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)


class Bar:
    """Progress on stderr: a bar on a terminal, else a line a minute. Loss, tokens/s and the time that is left.

    Args:
        label: What is trained.
        total: Tokens in all.
        done: Tokens at the beginning.
        is_shown: Whether this process is the one that prints.
    """

    def __init__(self, label: str, *, total: int, done: int, is_shown: bool) -> None:
        self._label, self._total, self._first, self._done = label, total, done, done
        self._began = self._told = time.monotonic()
        self._bars: Progress | None = None
        self._is_shown = is_shown
        if is_shown and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[told]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bars = Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=600.0)
            self._task = self._bars.add_task(label, total=total, completed=done, told="")
            self._bars.start()

    def show(self, *, tokens: int, loss: float, rate: float) -> None:
        """Say where training stands.

        Args:
            tokens: Seen so far.
            loss: Of the last step, in nats.
            rate: Tokens a second.
        """
        if not self._is_shown:
            return
        told = f"{tokens:,}/{self._total:,} tokens, loss {loss:.3f}, {rate:,.0f} tokens/s"
        if self._bars:
            self._bars.update(self._task, completed=tokens, told=told)
            return
        now = time.monotonic()
        if now - self._told >= _LINE_EVERY_S:
            self._told = now
            left = (now - self._began) / max(1, tokens - self._first) * (self._total - tokens)
            print(f"{self._label}: {told}, {left:,.0f} s left", file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Take the bar away."""
        if self._bars:
            self._bars.stop()
