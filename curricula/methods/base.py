"""The interface of a method, which is plain training where a method says nothing else.

The trainer calls, in this order: `calibrate` where `needs_calibration`; `prepare` once; `trainable` once; then at every
optimizer step `before_step` (after gradients are accumulated and before they are clipped), the step, `after_step`;
`figures` when it logs; `state` and `load_state` around a resume; `export` when it saves what others load.

Parameters may be replaced between `prepare` and the first step, as sharding does, so methods keep names, not tensors.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Method:
    """Plain continual pre-training: every parameter trains, nothing is projected, the model is saved as it is."""

    @property
    def needs_calibration(self) -> bool:
        """Whether `calibrate` is called, at a resume too, before `prepare`."""
        return False

    def calibrate(self, model: Any, batches: Iterable["torch.Tensor"]) -> None:
        """Measure on the base model what `prepare` then decides by.

        Args:
            model: The base model, which stays as it is.
            batches: (rows, length) int64 token ids each, on the model's device; the same ones at a resume.
        """

    def prepare(self, model: Any) -> Any:
        """The model to train, from the base model in Hugging Face format with the weights it starts from.

        Called before the optimizer is made and before parameters are wrapped or sharded; may change the model in place.
        """
        return model

    def trainable(self, model: Any) -> Iterator[tuple[str, "torch.nn.Parameter"]]:
        """Yield the parameters that train, by name; all others are frozen by the trainer."""
        yield from model.named_parameters()

    def before_step(self, model: Any) -> None:
        """Change gradients, before they are clipped and the optimizer's step uses them."""

    def after_step(self, model: Any) -> None:
        """Change parameters after the optimizer's step, such as to project them back."""

    def figures(self, model: Any) -> Mapping[str, float]:
        """Numbers of the method to log beside the loss."""
        return {}

    def state(self) -> dict[str, "torch.Tensor"]:
        """What a resume needs beside the model's own weights, as tensors."""
        return {}

    def load_state(self, state: Mapping[str, "torch.Tensor"]) -> None:
        """Take back what `state` gave, after `prepare` on the base model and before the weights are loaded."""

    def export(self, model: Any) -> Any:
        """A plain Hugging Face model with the trained weights, for `save_pretrained`; the model goes on training."""
        return model
