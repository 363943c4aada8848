"""One process or many: set up by torchrun's environment variables, the same code either way.

Reductions of ours are sums in float64 in the order that gloo or NCCL fixes for a number of processes, so a resume with
as many processes is exact on a CPU.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from curricula.objective import Objective, blocks_of
from mixer.errors import MixerError, RecipeError


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train together, and this one among them.

    Args:
        rank: This process.
        size: How many there are.
        device: Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over all processes, float64."""
        values = np.asarray(values, np.float64)
        if self.size == 1:
            return values
        tensor = torch.from_numpy(values.copy()).to(self.device)
        torch.distributed.all_reduce(tensor)
        return np.asarray(tensor.cpu().numpy())

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block at whose end all processes wait for each other; where it fails on one, it fails on all.

        Raises:
            MixerError: It failed on another process.
        """
        try:
            yield
        except Exception:
            self.sum(np.ones(1))
            raise
        if self.sum(np.zeros(1))[0]:
            raise MixerError(
                f"train: got a failure of another of {self.size} processes, expected all of them to go on",
                hint="its own message says why",
            )


@contextlib.contextmanager
def world(*, device: str | None = None) -> Iterator[World]:
    """This process among those that torchrun started; alone without it.

    Args:
        device: `cuda` or `cpu`. Default: CUDA where there is one.
    """
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    if size == 1:
        yield World(0, 1, place)
        return
    torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield World(torch.distributed.get_rank(), size, place)
    finally:
        torch.distributed.destroy_process_group()


def shard(objective: Objective, model: Any, *, dtype: torch.dtype, size: int) -> Any:
    """The objective with parameters parted over all processes (FSDP2): float32 shards, rounded when gathered.

    Raises:
        RecipeError: The model's class does not say which blocks it is made of.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    blocks = blocks_of(model)
    if not blocks:
        raise RecipeError(
            f"train.parallel: got `fsdp` for {type(model).__name__}, whose blocks are not known, expected `ddp`",
            hint="use `parallel: ddp`",
        )
    kind = next(model.parameters()).device.type
    mesh = init_device_mesh(kind, (size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    return objective


def replicate(objective: Objective, size: int) -> Any:
    """The objective as every process holds it whole (DDP); itself where there is one process."""
    if size == 1:
        return objective
    # Gradients are views of the buckets that are reduced: no second copy of them.
    return nn.parallel.DistributedDataParallel(objective, gradient_as_bucket_view=True)


@contextlib.contextmanager
def synchronised(module: Any, *, is_last: bool) -> Iterator[None]:
    """Gradients are exchanged in the last micro-batch of a step alone."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        with contextlib.nullcontext() if is_last else module.no_sync():
            yield
    else:
        if hasattr(module, "set_requires_gradient_sync"):
            module.set_requires_gradient_sync(is_last)
        yield
