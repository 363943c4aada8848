"""An export as the trainer's own library reads it: `python theirs.py REQUEST`, run by an interpreter that has it.

Needs nothing of this package, so that it can run in a venv of the trainer's. Prints a line of JSON a set: the library,
its version, how many rows it gave out and the SHA-256 of their ids as int32, in order.
"""

import hashlib
import json
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata, util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = {
    "megatron": "megatron-core",
    "mds": "mosaicml-streaming",
    "litdata": "litdata",
    "olmo": "ai2-olmo-core",
    "nanotron": "datatrove",
    "parquet": "datasets",
    "arrow": "datasets",
    "webdataset": "webdataset",
    "torchtitan": "grain",
    "jsonl": "datasets",
}
"""The distribution that reads each format; llm.c is not Python."""
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
    indexed = import_module("megatron.core.datasets.indexed_dataset")
    entries = indexed.IndexedDataset(str(Path(request["folder"]) / name), multimodal=False, mmap=True)
    for i in range(request["sets"][name] if request["mode"] == "premixed" else len(entries)):
        yield entries[i]


def megatron_blend(request: Request, weights: Mapping[str, float], samples: int) -> list[int]:
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


def mds(request: Request, name: str) -> Ids:
    """The samples of `LocalDataset`."""
    if util.find_spec("torchvision") is None:
        _stand_in_for_torchvision()
    streaming = import_module("streaming")
    rows = streaming.LocalDataset(str(Path(request["folder"]) / name))
    for i in range(len(rows)):
        yield rows[i]["tokens"]


def _stand_in_for_torchvision() -> None:
    """What `import streaming` asks torchvision for, which text needs none of."""
    names: dict[str, dict[str, Any]] = {
        "": {},
        ".datasets": {"VisionDataset": object},
        ".transforms": {},
        ".transforms.functional": {"to_tensor": None},
    }
    for name, content in names.items():
        module = types.ModuleType(f"torchvision{name}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        vars(module).update(content)
        sys.modules[module.__name__] = module


def litdata(request: Request, name: str) -> Ids:
    """The windows of a `StreamingDataset` with a `TokensLoader`."""
    library, loaders = import_module("litdata"), import_module("litdata.streaming.item_loader")
    loader = loaders.TokensLoader(block_size=request["sequence_length"])
    rows = library.StreamingDataset(
        str(Path(request["folder"]) / name), item_loader=loader, shuffle=False, drop_last=False
    )
    for row in rows:
        yield row.numpy()


def olmo(request: Request, name: str) -> Ids:
    """The instances of `NumpyFSLDataset`."""
    data = import_module("olmo_core.data")
    paths = sorted(p for p in Path(request["folder"]).glob("*.npy") if p.stem.rpartition("-")[0] == name)
    with tempfile.TemporaryDirectory() as work:
        rows = data.NumpyFSLDataset(
            *map(str, paths),
            sequence_length=request["sequence_length"],
            pad_token_id=request["padding"],
            eos_token_id=request["eos"] if request["eos"] is not None else request["padding"],
            vocab_size=request["vocab_size"],
            dtype=getattr(np, request["dtype"]),
        )
        rows.work_dir = work
        rows.prepare()
        for i in range(len(rows)):
            yield rows[i]["input_ids"].numpy()


def nanotron(request: Request, name: str) -> Ids:
    """The windows of `DatatroveFolderDataset`, in the order in which nanotron's Nanoset shuffles them."""
    library = import_module("datatrove.utils.dataset")
    rows = library.DatatroveFolderDataset(
        str(Path(request["folder"]) / name),
        request["sequence_length"] - 1,
        filename_pattern="*.ds",
        recursive=False,
        token_size=2 if request["dtype"] == "uint16" else 4,
    )
    order = np.arange(len(rows))
    if request["mode"] == "premixed" and request["shuffle_seed"] is not None:
        np.random.RandomState(request["shuffle_seed"]).shuffle(order)
    for i in order.tolist():
        yield rows[i]["input_ids"].numpy()


def _hf_rows(rows: Any, content: str) -> Ids:
    """Ids, or the bytes of texts."""
    if content == "text":
        for row in rows.select_columns(["text"]):
            yield np.frombuffer(row["text"].encode(), np.uint8)
    else:
        for batch in rows.select_columns(["input_ids"]).with_format("numpy").iter(256):
            yield batch["input_ids"].reshape(-1)


def _hf_files(request: Request, name: str, kind: str) -> Ids:
    ending = {"parquet": "parquet", "json": "jsonl"}[kind]
    found = Path(request["folder"]).glob(f"*.{ending}")
    files = sorted(str(path) for path in found if path.stem.rpartition("-")[0] == name)
    with tempfile.TemporaryDirectory() as cache:
        library = import_module("datasets")
        rows = library.load_dataset(kind, data_files=files, split="train", cache_dir=cache)
        yield from _hf_rows(rows, request["content"])


def parquet(request: Request, name: str) -> Ids:
    """The rows of `datasets.load_dataset`."""
    return _hf_files(request, name, "parquet")


def jsonl(request: Request, name: str) -> Ids:
    """The texts of `datasets.load_dataset`."""
    return _hf_files(request, name, "json")


def arrow(request: Request, name: str) -> Ids:
    """The rows of `datasets.load_from_disk`."""
    folder = Path(request["folder"])
    found = import_module("datasets").load_from_disk(str(folder if name == "train" else folder / name))
    return _hf_rows(found["train"], request["content"])


def webdataset(request: Request, name: str) -> Ids:
    """The samples of `WebDataset`."""
    files = sorted(str(p) for p in Path(request["folder"]).glob("*.tar") if p.stem.rpartition("-")[0] == name)
    for sample in import_module("webdataset").WebDataset(files, shardshuffle=False).decode():
        yield sample["npy"]


def torchtitan(request: Request, name: str) -> Ids:
    """The documents of the memory-mapped pair, through a grain source as torchtitan's example has it."""

    class Documents:
        def __init__(self) -> None:
            folder = Path(request["folder"]) / name
            self.tokens = np.memmap(folder / "tokens.bin", np.uint32, "r")
            self.offsets = np.load(folder / "document_offsets.npy", mmap_mode="r")

        def __len__(self) -> int:
            return len(self.offsets) - 1

        def __getitem__(self, index: int) -> np.ndarray:
            return np.asarray(self.tokens[self.offsets[index] : self.offsets[index + 1]], np.int64)

    rows = import_module("grain").MapDataset.source(Documents())
    for i in range(len(rows)):
        yield rows[i]


def main() -> None:
    """Read the sets that a request names, and say what came out."""
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    reader = globals()[request["format"]]
    library = LIBRARIES[request["format"]]
    for name in request["sets"]:
        digest, tokens = hashlib.sha256(), 0
        for ids in reader(request, name):
            digest.update(np.ascontiguousarray(ids, "<i4").data)
            tokens += len(ids)
        told = {"library": library, "version": metadata.version(library), "set": name, "tokens": tokens}
        print(json.dumps(told | {"sha256": digest.hexdigest()}))  # noqa: T201 - the answer
    if request["format"] == "megatron" and request["mode"] == "blended":
        for stage, sources in request["blend"]["stages"].items():
            weights = {name: share["weight"] for name, share in sources.items()}
            found = megatron_blend(request, weights, sum(share["planned"] for share in sources.values()))
            print(json.dumps({"stage": stage, "blend": found}))  # noqa: T201


if __name__ == "__main__":
    main()
