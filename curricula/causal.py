"""A causal language model from its folder: on which device, in which arithmetic, and after which token it reads."""

from pathlib import Path
from typing import Any

from mixer.errors import RecipeError
from mixer.hardware import multiplies_bfloat16


def load_model(folder: Path, *, dtype: str = "auto", device: str) -> Any:
    """A folder's model, ready to be asked.

    Args:
        folder: In Hugging Face format.
        dtype: `auto` is bfloat16 where the device has its arithmetic, else float32.
        device: `cuda` or `cpu`.

    Raises:
        RecipeError: It cannot be read.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    # Its bar over a file that is read in seconds would be drawn across ours.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype_of(dtype, device)),
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="sdpa",
        )
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"scores: got {folder}, expected a causal language model: {error}",
            hint="name a folder with config.json, safetensors and tokenizer.json",
        ) from error
    return model.to(device).eval()


def dtype_of(dtype: str, device: str) -> str:
    """What `auto` stands for on this machine; any other name is itself."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if device == "cuda" or multiplies_bfloat16() else "float32"


def device() -> str:
    """`cuda` where there is one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def frame_token(config: Any, folder: Path) -> int:
    """The token that stands before a text: beginning of text, else end of text."""
    for name in ("bos_token_id", "eos_token_id"):
        token = getattr(config, name, None)
        if isinstance(token, list):
            token = token[0]
        if token is not None:
            return int(token)
    raise RecipeError(
        f"scores: got the model {folder} without bos_token_id and eos_token_id, expected one",
        hint="set one in its config.json",
    )
