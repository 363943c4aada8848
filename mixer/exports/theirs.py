"""An export as the trainer's own library reads it: `python theirs.py REQUEST`, run by an interpreter that has it.

Needs nothing of this package, so that it can run in a venv of the trainer's. Prints a line of JSON a set: the library,
its version, how many ids it gave out and their SHA-256 as int32, the same of documents' lengths where it knows them.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module, metadata, util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = {
    "megatron": ("megatron-core", "torch"),
    "mds": ("mosaicml-streaming", "torch"),
    "litdata": ("litdata", "torch"),
    "olmo": ("ai2-olmo-core", "torch"),
    "nanotron": ("datatrove", "torch"),
    "parquet": ("datasets",),
    "arrow": ("datasets",),
    "webdataset": ("webdataset",),
    "torchtitan": ("grain",),
    "jsonl": ("datasets",),
}
"""The distribution that reads each format, and what it needs; llm.c is not Python."""
Request = Mapping[str, Any]
Ids = Iterator[np.ndarray]


def copy_to(folder: Path) -> Path:
    """The script with what it needs in a folder of its own: beside the formats, their names would hide libraries."""
    here = Path(__file__)
    for part in (here, here.with_name("theirs_megatron.py")):
        shutil.copy(part, folder)
    return folder / here.name


def _files(request: Request, name: str, ending: str) -> list[str]:
    found = Path(request["folder"]).glob(f"*.{ending}")
    return sorted(str(path) for path in found if path.stem.rpartition("-")[0] == name)


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
    for ending in ("", ".datasets", ".transforms", ".transforms.functional"):
        module: Any = types.ModuleType(f"torchvision{ending}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.VisionDataset, module.to_tensor = object, None
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
    with tempfile.TemporaryDirectory() as work:
        rows = data.NumpyFSLDataset(
            *_files(request, name, "npy"),
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


def _datatrove(request: Request, name: str, **options: Any) -> Any:
    return import_module("datatrove.utils.dataset").DatatroveFolderDataset(
        str(Path(request["folder"]) / name),
        request["sequence_length"] - 1,
        filename_pattern="*.ds",
        recursive=False,
        token_size=2 if request["dtype"] == "uint16" else 4,
        **options,
    )


def nanotron(request: Request, name: str) -> Ids:
    """The windows of `DatatroveFolderDataset`, in the order in which nanotron's Nanoset shuffles them."""
    rows = _datatrove(request, name)
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
    files = _files(request, name, {"parquet": "parquet", "json": "jsonl"}[kind])
    with tempfile.TemporaryDirectory() as cache:
        library = import_module("datasets")
        rows = library.load_dataset(kind, data_files=files, split="train", cache_dir=cache)
        yield from _hf_rows(rows, request["content"])


def parquet(request: Request, name: str) -> Ids:
    """The rows of `datasets.load_dataset`."""
    return _hf_files(request, name, "parquet")


jsonl = partial(_hf_files, kind="json")


def arrow(request: Request, name: str) -> Ids:
    """The rows of `datasets.load_from_disk`."""
    found = import_module("datasets").load_from_disk(request["folder"])
    return _hf_rows(found[name], request["content"])


def _webdataset(request: Request, name: str) -> Any:
    return import_module("webdataset").WebDataset(_files(request, name, "tar"), shardshuffle=False).decode()


def webdataset(request: Request, name: str) -> Ids:
    """The samples of `WebDataset`."""
    return (sample["npy"] for sample in _webdataset(request, name))


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


def documents_olmo(request: Request, name: str) -> Ids:
    """The documents that `get_document_indices` finds in `.csv.gz`."""
    find = import_module("olmo_core.data.utils").get_document_indices
    for path in _files(request, name, "npy"):
        yield np.array([end - start for start, end in find(path)])


def documents_nanotron(request: Request, name: str) -> Ids:
    """Where positions start anew in each window, in the order of the file."""
    rows = _datatrove(request, name, return_positions=True)
    for i in range(len(rows)):
        starts = np.flatnonzero(rows[i]["positions"].numpy() == 0)
        yield np.diff(starts, append=request["sequence_length"])


def documents_webdataset(request: Request, name: str) -> Ids:
    """`lengths` of each sample."""
    for sample in _webdataset(request, name):
        yield np.array(sample["json"]["lengths"])


def documents_torchtitan(request: Request, name: str) -> Ids:
    """The lengths of what the source gives out."""
    return (np.array([len(ids)]) for ids in torchtitan(request, name))


def _digest(stream: Ids | None, kind: str) -> dict[str, Any]:
    """How many numbers a stream holds, and their hash."""
    digest, count = hashlib.sha256(), 0
    for block in stream or ():
        digest.update(np.ascontiguousarray(block, kind).data)
        count += len(block)
    return {"count": count, "sha256": digest.hexdigest()}


def main() -> None:
    """Read the sets that a request names, and say what came out."""
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    name, library = request["format"], LIBRARIES[request["format"]][0]
    readers = vars(import_module("theirs_megatron")) if name == "megatron" else globals()
    documents = readers.get(f"documents_{name}") if request["content"] == "tokens" else None
    for part in request["sets"]:
        told: dict[str, Any] = {"set": part, "tokens": _digest(readers[name](request, part), "<i4")}
        if documents and (stream := documents(request, part)):
            told["documents"] = _digest(stream, "<i8")
        print(json.dumps(told | {"library": library, "version": metadata.version(library)}))  # noqa: T201
    if name == "megatron" and request["mode"] == "blended":
        for stage, sources in request["blend"]["stages"].items():
            weights = {source: share["weight"] for source, share in sources.items()}
            found = readers["blend"](request, weights, sum(share["planned"] for share in sources.values()))
            print(json.dumps({"stage": stage, "blend": found}))  # noqa: T201


if __name__ == "__main__":
    main()
