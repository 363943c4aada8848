"""Megatron's own reading of an export, for `theirs.py`."""

import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Request = Mapping[str, Any]
Ids = Iterator[np.ndarray]


class _Tokenizer:
    """As much of a tokenizer as Megatron's data sets ask for."""

    def __init__(self, request: Request) -> None:
        self.vocab_size = request["vocab_size"]
        self.eod = request["eos"] if request["eos"] is not None else request["padding"]
        self.pad = -1
        self.unique_identifiers = {"class": "none"}


def _megatron_config(request: Request, cache: str) -> Any:
    gpt = import_module("megatron.core.datasets.gpt_dataset")
    return gpt.GPTDatasetConfig(
        random_seed=request["shuffle_seed"] if request["shuffle_seed"] is not None else 1234,
        sequence_length=request["sequence_length"],
        split="1,0,0",
        path_to_cache=cache,
        tokenizer=_Tokenizer(request),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
    )


def _gpt_dataset(request: Request, name: str, samples: int, config: Any) -> Any:
    gpt = import_module("megatron.core.datasets.gpt_dataset")
    enums = import_module("megatron.core.datasets.utils")
    low = gpt.GPTDataset.build_low_level_dataset(str(Path(request["folder"]) / name), config)
    entries = np.arange(low.sequence_lengths.shape[0], dtype=np.int32)
    prefix = str(Path(request["folder"]) / name)
    return gpt.GPTDataset(low, prefix, entries, samples, enums.Split.train, config)


def _indexed(request: Request, name: str) -> Any:
    library = import_module("megatron.core.datasets.indexed_dataset")
    return library.IndexedDataset(str(Path(request["folder"]) / name), multimodal=False)


def megatron(request: Request, name: str) -> Ids:
    """Premixed: the samples of `GPTDataset`; blended, or without a seed: the entries of `IndexedDataset`."""
    if request["mode"] == "premixed" and request["shuffle_seed"] is not None:
        with tempfile.TemporaryDirectory() as cache:
            rows = request["sets"][name]
            samples = _gpt_dataset(request, name, rows, _megatron_config(request, cache))
            assert len(samples) == rows, (len(samples), rows)
            for i in range(rows):
                yield samples[i]["tokens"].numpy()
        return
    entries = _indexed(request, name)
    for i in range(request["sets"][name] if request["mode"] == "premixed" else len(entries)):
        yield entries[i]


def blend(request: Request, weights: Mapping[str, float], samples: int) -> list[int]:
    """How many samples of each source Megatron's blend of that many gives out."""
    blended = import_module("megatron.core.datasets.blended_dataset")
    builder = import_module("megatron.core.datasets.blended_megatron_dataset_builder")
    with tempfile.TemporaryDirectory() as cache:
        config = _megatron_config(request, cache)
        shares = [weight / sum(weights.values()) for weight in weights.values()]
        exact = builder._get_size_per_split_per_dataset(shares, [samples])
        enough = builder._get_size_per_split_per_dataset(shares, [samples], surplus=config.mid_level_dataset_surplus)
        parts = [_gpt_dataset(request, name, size[0], config) for name, size in zip(weights, enough, strict=True)]
        config.path_to_cache = None
        mixture = blended.BlendedDataset(parts, shares, sum(size[0] for size in exact), config)
        return [int(count) for count in np.bincount(mixture.dataset_index, minlength=len(shares))]


def documents_megatron(request: Request, name: str) -> Ids | None:
    """The lengths of a blend's entries."""
    if request["mode"] == "premixed":
        return None
    entries = _indexed(request, name)
    return iter([np.array(entries.sequence_lengths)])
