"""What is minimised: a causal model with its loss as one module, so that DDP and FSDP2 can wrap both.

Precision. What trains is kept in float32, where the optimizer and the methods see it; forward and backward run in
bfloat16 on rounded copies that live for one micro-batch, and gradients add up in float32. That is what FSDP2's mixed
precision does, and on one device it needs less memory and time than autocast, which keeps the residual stream and what
norms save in float32.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from curricula.loss import BLOCK_LOGITS, CHUNK_LOGITS, head_loss, head_nats
from curricula.masking import inputs_of, taken

_PROBE = 8


@contextlib.contextmanager
def rounded(module: nn.Module, dtype: torch.dtype) -> Iterator[Mapping[Tensor, nn.Parameter]]:
    """During the block, which must hold the backward pass too, the module computes with rounded parameters.

    Gradients arrive at the parameters themselves, in their own dtype. Tied parameters share one copy.

    Yields:
        Each copy with the parameter that it is of.
    """
    owners = [
        (part, name, parameter)
        for part in module.modules()
        for name, parameter in part._parameters.items()
        if parameter is not None and parameter.dtype != dtype and parameter.is_floating_point()
    ]
    copies = {parameter: parameter.to(dtype) for parameter in dict.fromkeys(parameter for *_, parameter in owners)}
    try:
        for part, name, parameter in owners:
            # Not setattr: a module takes nothing but a Parameter under a parameter's name.
            part._parameters[name] = copies[parameter]  # type: ignore[assignment]
        yield {short: parameter for parameter, short in copies.items()}
    finally:
        for part, name, parameter in owners:
            part._parameters[name] = parameter


def compact(module: nn.Module) -> None:
    """Keep frozen float32 parameters in bfloat16 where that loses nothing, as for any model saved in bfloat16."""
    for parameter in module.parameters():
        if not parameter.requires_grad and parameter.dtype == torch.float32:
            short = parameter.data.to(torch.bfloat16)
            if torch.equal(short.float(), parameter.data):
                parameter.data = short


class Objective(nn.Module):
    """A model and its loss.

    Args:
        model: A causal language model of transformers, with whatever a method put into it.
        dtype: Of the arithmetic.
        is_sharded: FSDP2 rounds the parameters itself.
    """

    def __init__(self, model: Any, *, dtype: torch.dtype, is_sharded: bool) -> None:
        super().__init__()
        self.model = model
        self._dtype, self._is_sharded = dtype, is_sharded
        self._originals: Mapping[Tensor, nn.Parameter] = {}
        kind = next(model.parameters()).device.type
        self._chunk, self._block = CHUNK_LOGITS[kind], BLOCK_LOGITS[kind]
        with rounded(model, dtype):
            self._is_plain = has_plain_head(model)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """The block in which forward and backward run, of any number of batches between two steps."""
        if self._is_sharded:
            yield
            return
        with rounded(self.model, self._dtype) as self._originals:
            yield
        self._originals = {}

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor | None, Tensor]:
        """The weighted sum of losses (None outside of training) and (targets,) nats, float32.

        Args:
            batch: `ids`, `positions` (rows, length), `bounds`, `longest` as in `inputs_of`; `places` (targets,) in the
                flattened ids that predict something, `targets` (targets,) what comes next there, and `weights`
                (targets,) float32 of each in the sum.
        """
        inputs = inputs_of(batch["ids"], batch["positions"], batch["bounds"], batch["longest"])
        if self._is_plain:
            rows = self.model.base_model(**taken(self.model.base_model, inputs)).last_hidden_state
            layer = self.model.get_output_embeddings()
            head, bias = layer.weight, layer.bias
            # Past the rounded copy, the gradient of the output layer stays in float32 all the way.
            owner = self._originals.get(head, head)
        else:
            rows = self.model(**taken(self.model, inputs)).logits
        rows = rows.flatten(0, 1).index_select(0, batch["places"])
        if not self._is_plain:
            return self._by_logits(rows, batch)
        if not self.training:
            return None, head_nats(rows, head, bias, batch["targets"], chunk_logits=self._chunk)
        rounded_head = (owner, head.detach())
        sizes = {"chunk_logits": self._chunk, "block_logits": self._block}
        return head_loss(rows, rounded_head, bias, batch["targets"], batch["weights"], **sizes)

    def _by_logits(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor | None, Tensor]:
        nats = nn.functional.cross_entropy(logits.float(), batch["targets"], reduction="none")
        return (nats * batch["weights"]).sum() if self.training else None, nats.detach()


@torch.no_grad()
def has_plain_head(model: Any) -> bool:
    """Whether the output layer alone turns hidden states into logits; some models scale or cap them afterwards.

    Those are run whole, all logits at once.
    """
    layer = model.get_output_embeddings()
    if type(layer) is not nn.Linear:
        return False
    was_training = model.training
    ids = torch.arange(_PROBE, device=layer.weight.device).unsqueeze(0)
    model.eval()
    whole = model(input_ids=ids, use_cache=False).logits.float()
    alone = layer(model.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()
    model.train(was_training)
    # Nearly equal will not do: a cap of 30 changes a logit of 1 by 0.0004, but one of 20 by 2.5.
    return bool(torch.allclose(whole, alone, rtol=1e-6, atol=1e-6))


def blocks_of(model: Any) -> list[nn.Module]:
    """The model's repeated blocks, as transformers names them."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [part for part in model.modules() if type(part).__name__ in names]
