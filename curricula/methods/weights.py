"""Weights of a model in training: gathered where they are sharded, exchanged in a copy where it is saved."""

import contextlib
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


def agreed(value: Any) -> Any:
    """The first process's value, on every process: what each measures or decomposes itself may differ by rounding.

    Args:
        value: A tensor, overwritten in place on the other processes, or anything that can be pickled.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    if isinstance(value, torch.Tensor):
        torch.distributed.broadcast(value, 0)
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, 0)
    return box[0]


def twin(model: Any, weights: Mapping[str, torch.Tensor]) -> Any:
    """The model with other values for some parameters, to be saved; the rest is shared, so it costs only these.

    Not `copy.deepcopy`, which would copy everything and which FSDP2 forbids.

    Args:
        model: Any module, sharded or not; stays as it is, though modules are replaced in the twin.
        weights: Name of a parameter -> its value in the twin. Tied names follow.
    """
    values = {
        id(model.get_parameter(name)): torch.nn.Parameter(value.detach(), requires_grad=False)
        for name, value in weights.items()
    }
    return _twin(model, values, {})


def _twin(module: Any, values: Mapping[int, torch.nn.Parameter], done: dict[int, Any]) -> Any:
    if module is not None and id(module) not in done:
        other = done[id(module)] = object.__new__(type(module))
        other.__dict__ = {
            **module.__dict__,
            "_parameters": {key: values.get(id(value), value) for key, value in module._parameters.items()},
            "_modules": {key: _twin(value, values, done) for key, value in module._modules.items()},
        }
    return done.get(id(module))


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
