"""Weights of a model in training: gathered where they are sharded, exchanged in a copy where it is saved."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor on this process; every process of a sharded model must ask for it."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather else tensor


def put(parameter: torch.Tensor, value: torch.Tensor) -> None:
    """Write a full tensor, the same on every process, into a parameter that may be sharded."""
    if hasattr(parameter, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        sharded: Any = parameter
        value = distribute_tensor(value.to(parameter.dtype), sharded.device_mesh, sharded.placements)
    parameter.detach().copy_(value)


def twin(model: Any, weights: Mapping[str, torch.Tensor]) -> Any:
    """A copy of a model with other values for some parameters; all others are shared, so it costs only these.

    Args:
        model: Any module; stays as it is.
        weights: Name of a parameter -> its value in the copy. Tied names follow.
    """
    memo: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    for name, value in weights.items():
        memo[id(model.get_parameter(name))] = torch.nn.Parameter(value.detach(), requires_grad=False)
    return copy.deepcopy(model, memo)


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Float32 products in float32: no autocast, no TF32, no bfloat16 passes, whatever the trainer has set."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        with torch.no_grad(), torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
