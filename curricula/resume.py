"""A checkpoint put back: weights into the model, moments into the optimizer, and what the method kept."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from curricula.checkpoint import AGAIN, METHOD, damaged, trained_parameters
from curricula.methods.weights import put
from mixer.errors import CheckpointError


def load_weights(checkpoint: Path, model: Any) -> None:
    """Put a checkpoint's weights into a model that was prepared as the saved one was, before it is sharded.

    Raises:
        CheckpointError: It holds other parameters.
    """
    parameters = dict(trained_parameters(model))
    with _opened(checkpoint / "trainer" / "weights.safetensors") as weights:
        if odd := sorted(set(weights.keys()) ^ set(parameters)):
            raise CheckpointError(
                f"{checkpoint}: got {len(weights.keys())} trained parameters, expected {len(parameters)};"
                f" they differ in {odd[0]}",
                hint=AGAIN,
            )
        for name, parameter in parameters.items():
            value = weights.get_tensor(name)
            if value.shape != parameter.shape:
                raise damaged(checkpoint, f"`{name}` of shape {tuple(value.shape)} for {tuple(parameter.shape)}")
            parameter.detach().copy_(value)


def load_optimizer(checkpoint: Path, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's moments into the optimizer of a model, which may be sharded.

    Raises:
        CheckpointError: They are not those of the model's parameters.
    """
    parameters = dict(trained_parameters(model))
    with _opened(checkpoint / "trainer" / "optimizer.safetensors") as moments:
        for key in list(moments.keys()):
            name, _, kind = key.rpartition("|")
            tensor, parameter = moments.get_tensor(key), parameters.get(name)
            if parameter is None or tensor.shape not in (torch.Size(), parameter.shape):
                raise damaged(checkpoint, f"moments of shape {tuple(tensor.shape)} for `{name}`")
            if tensor.ndim == 0:
                placed = tensor.to(parameter.device)
            else:
                placed = torch.zeros_like(parameter, dtype=tensor.dtype)
                put(placed, tensor.to(parameter.device))
            optimizer.state[parameter][kind] = placed


def method_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """What the method kept; empty where it keeps nothing.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = checkpoint / METHOD
    if not path.is_file():
        return {}
    with _opened(path) as kept:
        return {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 - no mapping


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except Exception as error:
        raise CheckpointError(f"{path}: got {error}, expected a whole file of safetensors", hint=AGAIN) from error
