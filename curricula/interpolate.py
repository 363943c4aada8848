"""Weights between the base model and the trained one (WiSE-FT, arXiv 2109.01903): (1 - share) trained + share base.

After the training, so free: shares of .3 to .5 often keep most of what was learned and give back much of what was
forgotten. Which share is best is measured, so write several and compare them on both sides.

A block-expanded model has no counterpart in the base model for its new blocks. There the tensors through which a block
adds to the residual stream are moved towards the value at which it adds nothing, so that share 1 is the base model's
function again; the rest of a new block stays as trained, since it has no effect of its own.

A mix is rounded at random, so that its mean is kept, by a seed of the tensor's name. In bfloat16 many weights end one
step of the number type from where they began; rounded to the nearest, all of these would go the same way, and a share
of 0.45 would be one of 0.38 in effect, 0.55 one of 0.62 (docs/methods.md).

Price: both models are read once, tensor by tensor, and one shard of the result is held in memory.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from curricula.methods.block_expansion import RECORD
from curricula.order import seed_of
from mixer.errors import SourceError
from mixer.run import staged, write_json

_PART = 2**22
"""Numbers that are mixed at once; what bounds memory beside a tensor and its counterpart."""
_LAYER = re.compile(r"(.*\blayers\.)(\d+)\.(.*)")


def sweep(base: Path, trained: Path, out: Path, *, shares: Iterable[float]) -> list[Path]:
    """Folders `out/share-0.30` and so on, one model each, in the order of the shares.

    Args:
        base: Folder of the model that training began with.
        trained: Folder of the model that it ended with.
        out: Where the folders go.
        shares: Of the base model, in [0, 1].

    Raises:
        SourceError: The two cannot be mixed.
    """
    return [interpolate(base, trained, out / f"share-{digits_of(share)}", share=share) for share in shares]


def digits_of(share: float) -> str:
    """A share in two digits, and in as many more as tell it apart from its neighbours.

    >>> digits_of(0.3), digits_of(0.325)
    ('0.30', '0.325')
    """
    digits = next((count for count in range(2, 17) if round(share, count) == share), 17)
    return f"{share:.{digits}f}"


def interpolate(base: Path, trained: Path, out: Path, *, share: float, shard_bytes: int = 10**9) -> Path:
    """Write the mixed model as a plain Hugging Face folder, in the number types of the trained one; `out` again.

    Args:
        base: Folder of the model that training began with.
        trained: Folder of the model that it ended with; its config and tokenizer are copied.
        out: Folder to write.
        share: Of the base model; 0 gives the trained model back bit for bit.
        shard_bytes: Most bytes of a file, and about what is held in memory.

    Raises:
        SourceError: A folder has no safetensors, the two models have not the same tensors, or `out` holds one of them.
        ValueError: The share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    if any(model.resolve().is_relative_to(out.resolve()) for model in (base, trained)):
        raise SourceError(
            f"{out}: got the folder of a model that is to be mixed, expected another one to write to",
            hint="it would be replaced; name a folder beside it",
        )
    from huggingface_hub import split_state_dict_into_shards_factory
    from safetensors.torch import save_file

    ours, theirs = Weights(trained), Weights(base)
    origins = origins_of(ours, theirs, trained)
    parts = split_state_dict_into_shards_factory(
        {name: ours.size(name) for name in ours.files},
        get_storage_size=int,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    with staged(out) as scratch:
        for path in trained.iterdir():
            if path.is_file() and not path.name.endswith((".safetensors", ".safetensors.index.json")):
                shutil.copyfile(path, scratch / path.name)
        for filename, names in parts.filename_to_tensors.items():
            mixed = {name: _mixed(ours, theirs, name, origins[name], share) for name in names}
            save_file(mixed, scratch / filename, metadata={"format": "pt"})
        if parts.is_sharded:
            index = {"metadata": parts.metadata, "weight_map": parts.tensor_to_filename}
            write_json(scratch / "model.safetensors.index.json", index)
    return out


def _mixed(ours: "Weights", theirs: "Weights", name: str, origin: str | float | None, share: float) -> torch.Tensor:
    """The mix, computed in float32; a share of 0 or 1 is exact, and so is a weight that both have alike."""
    tensor = ours.read(name)
    if origin is None:
        return tensor
    other = theirs.read(origin) if isinstance(origin, str) else torch.tensor(origin).expand(tensor.shape)
    # The same draws for every share: a weight goes from one model to the other and never back as the share rises.
    draws = torch.Generator().manual_seed(seed_of(0, "interpolate", name))
    out = torch.empty(tensor.shape, dtype=tensor.dtype)
    flat = [full.reshape(-1) for full in (out, tensor, other)]
    for first in range(0, out.numel(), _PART):
        place, mine, its = (full[first : first + _PART] for full in flat)
        place.copy_(rounded(torch.lerp(mine.float(), its.float(), share), tensor.dtype, draws))
    return out


def rounded(values: torch.Tensor, dtype: torch.dtype, draws: torch.Generator) -> torch.Tensor:
    """The values in another number type, each rounded to one of its two neighbours so that the mean is kept.

    Args:
        values: In float32.
        dtype: Rounding is at random for types of two bytes, and of no account for others.
        draws: Where the randomness comes from.

    Example:
        >>> rounded(torch.full((1000,), 1 + 0.25 / 128), torch.bfloat16, torch.Generator().manual_seed(0)).unique()
        tensor([1.0000, 1.0078], dtype=torch.bfloat16)
    """
    near = values.to(dtype)
    if dtype.itemsize != 2:
        return near
    # Numbers of one sign are ordered as their bits are, so a neighbour is one bit pattern away.
    bits = near.view(torch.int16) - (near.float().abs() > values.abs()).to(torch.int16)
    low, high = bits.view(dtype), (bits + 1).view(dtype)
    chance = (values - low.float()) / (high.float() - low.float())
    return torch.where(torch.rand(values.shape, generator=draws) < chance, high, low)


def origins_of(ours: "Weights", theirs: "Weights", trained: Path) -> dict[str, str | float | None]:
    """Name of a trained tensor -> what it is moved towards: a base tensor, a number, or nothing (it stays).

    Args:
        ours: The trained model's tensors.
        theirs: The base model's.
        trained: Folder of the trained model.

    Raises:
        SourceError: The two have not the same tensors.
    """
    record = json.loads((trained / "config.json").read_text("utf-8")).get(RECORD)
    if record and len(ours.files) == len(theirs.files):
        record = None
    found = {name: _origin(name, record) for name in ours.files}
    wanted = {origin for origin in found.values() if isinstance(origin, str)}
    if odd := sorted(wanted ^ set(theirs.files)):
        raise SourceError(
            f"{theirs.folder}: got tensors that differ from those of {ours.folder} by `{odd[0]}`"
            f" (and {len(odd) - 1} more), expected the base of this training",
            hint="the vocabulary, the depth and tied embeddings must agree; a depth changed by other means than"
            " `kind: block_expansion` has nothing to mix with",
        )
    for name, origin in found.items():
        shapes = ours.shape(name), theirs.shape(origin) if isinstance(origin, str) else ours.shape(name)
        if shapes[0] != shapes[1] or not ours.is_floating(name):
            raise SourceError(
                f"{ours.folder}: got `{name}` of shape {shapes[0]} ({ours.kind(name)}) for a base of shape {shapes[1]},"
                " expected floating-point tensors of one shape",
                hint="mix models before they are quantised or their vocabulary is changed",
            )
    return found


def _origin(name: str, record: Mapping[str, Any] | None) -> str | float | None:
    match = _LAYER.fullmatch(name)
    if record is None or match is None:
        return name
    start, index, rest = match[1], int(match[2]), match[3]
    if index in record["blocks"]:
        shut: float | None = record["shut"].get(rest)
        return shut
    return f"{start}{index - sum(new < index for new in record['blocks'])}.{rest}"


class Weights:
    """The tensors of a model's folder, read one at a time."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self.folder = folder
        paths = sorted(folder.glob("*.safetensors"))
        if not paths or not (folder / "config.json").is_file():
            raise SourceError(
                f"{folder}: got no config.json and safetensors, expected a model in Hugging Face format",
                hint="name a checkpoint's folder, or save the model with transformers' save_pretrained",
            )
        self._open: dict[Path, Any] = {path: safe_open(path, framework="pt") for path in paths}
        self.files = {name: path for path, file in self._open.items() for name in file.keys()}  # noqa: SIM118 - no mapping

    def read(self, name: str) -> torch.Tensor:
        """One tensor."""
        tensor: torch.Tensor = self._open[self.files[name]].get_tensor(name)
        return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self._open[self.files[name]].get_slice(name).get_shape())

    def kind(self, name: str) -> str:
        """Its number type, as safetensors names it."""
        return str(self._open[self.files[name]].get_slice(name).get_dtype())

    def is_floating(self, name: str) -> bool:
        """Whether its numbers are floating-point."""
        return self.kind(name) in ("F64", "F32", "F16", "BF16")

    def size(self, name: str) -> int:
        """Its bytes."""
        width = {"F64": 8, "F32": 4}.get(self.kind(name), 2)
        total = width
        for extent in self.shape(name):
            total *= extent
        return total
