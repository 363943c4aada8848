"""How much of its input a matrix, or a whole block, keeps: what decides ranks in OSFT and places in block expansion.

The paper of OSFT takes the mean cosine between the input X and the output Y = W X of a matrix. That compares
coordinates: it is undefined where W is not square, and where W is square it depends on how the coordinates of heads
happen to be numbered. On SmolLM2, with the first coordinates of both, its mean over all matrices is -0.0005; divided by
that mean, as the paper does, importances run from -266 to 468. Here the coordinates of the output are first matched to
those of the input as well as can be, by the best Q with orthonormal rows or columns:

    I = max over Q of mean_i cos(Q x_i, y_i) = nuclear norm of mean_i x_i y_i^T / (|x_i| |y_i|)

(orthogonal Procrustes). It is the paper's cosine for the best numbering, lies in [0, 1], and is 1 where W only turns
its input. It needs more tokens than a matrix has rows: fewer are easy to match whatever W does.

Price: one forward pass, one float32 matrix of W's shape for each, and its singular values at the end.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch.nn.functional import cosine_similarity, normalize

from curricula.methods.weights import exact


def importances(model: Any, names: Sequence[str], batches: Iterable[torch.Tensor]) -> dict[str, float]:
    """Name of a weight -> how much of its input it keeps, divided by the mean of all.

    Args:
        model: A causal model; stays as it is.
        names: `<module>.weight` of linear modules.
        batches: (rows, length) int64 token ids each.
    """
    sums: dict[str, torch.Tensor] = {}
    counts = dict.fromkeys(names, 0)

    def watch(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            plain = output if module.bias is None else output - module.bias
            x, y = (normalize(value.flatten(0, -2).float(), dim=1) for value in (inputs[0], plain))
            sums[name] = sums.get(name, 0) + x.T @ y
            counts[name] += len(x)

        return hook

    hooks = [(model.get_submodule(name.removesuffix(".weight")), watch(name)) for name in names]
    _run(model, hooks, batches)
    found = {name: float(torch.linalg.svdvals(sums.pop(name)).sum()) / counts[name] for name in names}
    mean = sum(found.values()) / len(found)
    return {name: value / mean for name, value in found.items()}


def changes(model: Any, blocks: Sequence[Any], batches: Iterable[torch.Tensor]) -> list[float]:
    """How much each block changes the residual stream: the mean over tokens of 1 - cos(before it, after it).

    Args:
        model: A causal model; stays as it is.
        blocks: Its decoder blocks.
        batches: (rows, length) int64 token ids each.
    """
    sums = [0.0] * len(blocks)
    tokens = 0

    def watch(number: int) -> Callable[..., None]:
        def hook(_module: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
            nonlocal tokens
            after = output if isinstance(output, torch.Tensor) else output[0]
            similar = cosine_similarity(inputs[0].float(), after.float(), dim=-1)
            sums[number] += float((1 - similar).sum())
            tokens += similar.numel() if number == 0 else 0

        return hook

    _run(model, [(block, watch(number)) for number, block in enumerate(blocks)], batches)
    return [value / tokens for value in sums]


def _run(model: Any, hooks: Sequence[tuple[Any, Callable[..., None]]], batches: Iterable[torch.Tensor]) -> None:
    """Read batches with hooks in place; dropout is off meanwhile."""
    with exact(), ExitStack() as stack:
        stack.callback(model.train, model.training)
        model.eval()
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        # Without the output layer, unless it is what is measured: logits of a large vocabulary take more than all else.
        head = getattr(model, "get_output_embeddings", lambda: None)()
        body = model if any(module is head for module, _ in hooks) else getattr(model, "base_model", model)
        for ids in batches:
            body(input_ids=ids, use_cache=False)
