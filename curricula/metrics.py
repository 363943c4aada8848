"""What a training writes down as it goes: `metrics.jsonl`, a bar or a line a minute, TensorBoard, and honest MFU.

MFU is the FLOPs of the model's arithmetic over what the device could do in the time. Formula, a token: 6 x the
parameters of matrices that multiply (the output layer too, embeddings not) + 12 x layers x heads' width x sequence
length for attention counted in full (PaLM, nanoGPT); a frozen matrix has no gradient of its own and counts 4. A device
whose peak is not in the table gives "n/a", never a guess.
"""

import json
import os
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

from mixer.errors import RecipeError
from mixer.run import write_text

FORMULA = "6 N_matmul (4 where frozen) + 12 L d T"
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
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
"""Dense bfloat16 FLOP/s by a part of the device's name, the more exact ones first; not the doubled, sparse figures."""
_LINE_EVERY_S = 60.0


def peak_of(device: torch.device) -> float | None:
    """Dense bfloat16 FLOP/s of a device; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def flops_per_token(model: Any, *, sequence_length: int) -> float | None:
    """FLOPs of forward and backward a token, by FORMULA; None for a mixture of experts, which the formula is not for.

    Args:
        model: A causal model of transformers, with the parameters that train marked so.
        sequence_length: Tokens that attention is counted over.
    """
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    if getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None):
        return None
    total = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) or module is head:
            total += (6.0 if module.weight.requires_grad else 4.0) * module.weight.numel()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return float(total + 12.0 * config.num_hidden_layers * width * sequence_length)


class Tally:
    """Sums of losses by a key, until they are told; means in nats a token."""

    def __init__(self) -> None:
        self._sums: dict[Any, np.ndarray] = defaultdict(lambda: np.zeros(2))

    def add(self, keys: Iterable[Any], sums: np.ndarray, weights: np.ndarray) -> None:
        """Add rows, each with its key, the sum of its losses and of their weights."""
        for key, *row in zip(keys, sums, weights, strict=True):
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
    """Take back JSON lines whose `key` is above `most`, and a last line that a kill cut short."""
    if not path.is_file():
        return
    lines = path.read_text("utf-8").splitlines(keepends=True)
    write_text(path, "".join(line for line in lines if line.endswith("\n") and json.loads(line)[key] <= most))


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
