"""Loss on sequences that no order holds, by source and topic: what a stage taught, and what it made forget."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule

from curricula.loader import batches_of
from curricula.metrics import Tally
from curricula.objective import Objective
from curricula.parallel import World
from curricula.rows import Batch, Rows

Group = tuple[str, str | None]
"""A source and a topic."""


def group_of(rows: Rows, source: int, sequence: int) -> Group:
    """What a sequence counts for."""
    return rows.names[source], rows.topic(source, sequence)


@torch.no_grad()
def validate(
    objective: Objective, rows: Rows, held_out: Sequence[tuple[int, int]], *, world: World, micro_batch: int
) -> dict[Group, float]:
    """Mean loss in nats a token of each (source, topic) over held-out sequences; every process gets all of it.

    Args:
        objective: The model with its loss; goes on training afterwards.
        rows: Where sequences come from.
        held_out: Source and number of each sequence.
        world: The processes, which share the work.
        micro_batch: Sequences at once.
    """
    picked = np.array(held_out, np.int64).reshape(-1, 2)
    found = np.zeros((3, len(picked)))
    with evaluating(objective):
        for batch in batches_of(rows, picked, rank=world.rank, size=world.size, micro_batch=micro_batch):
            _, nats = objective(on_device(batch, world.device))
            found += batch.by_row(nats.double().cpu().numpy(), len(picked))
    sums, weights, _ = world.sum(found)
    tally: Tally = Tally()
    tally.add((group_of(rows, *pair) for pair in picked.tolist()), sums, weights)
    return tally.means()


@contextlib.contextmanager
def evaluating(objective: Objective) -> Iterator[None]:
    """The block in which the objective is asked between two steps; it goes on training afterwards."""
    objective.eval()
    with objective.computing():
        yield
    objective.train()
    for part in objective.modules():
        if isinstance(part, FSDPModule):
            # Only a backward pass would part them again; a checkpoint would find the rounded copies.
            part.reshard()


def on_device(batch: Batch, device: torch.device, *, scale: float = 1.0) -> dict[str, Any]:
    """A batch as the objective takes it.

    Args:
        batch: Of the loader.
        device: Where to compute.
        scale: Every weight is multiplied by it, such as 1 / tokens of the whole step.
    """
    arrays = {name: getattr(batch, name) for name in ("ids", "positions", "bounds", "places", "targets")}
    tensors = {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}
    weights = torch.from_numpy((batch.weights * scale).astype(np.float32)).to(device, non_blocking=True)
    return {**tensors, "weights": weights, "longest": batch.longest}
