"""The part of `exports.py` and `loader.py` that runs in the peers' venvs: reference writers, batches, loaders.

python exports_peers.py TASK REQUEST: TASK is `write`, `batch` or `load`; REQUEST is JSON. Prints JSON.
"""

import json
import sys
import tempfile
import time
import types
from importlib import import_module, util
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np


def stand_in_for_torchvision():
    """What `import streaming` asks torchvision for, which text needs none of."""
    if util.find_spec("torchvision") is not None:
        return
    for ending in ("", ".datasets", ".transforms", ".transforms.functional"):
        module = types.ModuleType(f"torchvision{ending}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.VisionDataset, module.to_tensor = object, None
        sys.modules[module.__name__] = module


def documents(request):
    ids = np.load(request["ids"])
    return np.split(ids, np.cumsum(request["lengths"])[:-1])


def write_megatron(request, out):
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{out}/peer.bin", dtype=getattr(np, request["dtype"]))
    for ids in documents(request):
        builder.add_document(ids.astype(np.int64), [len(ids)])
    builder.finalize(f"{out}/peer.idx")
    return {".bin": f"{out}/peer.bin", ".idx": f"{out}/peer.idx"}


def write_mds(request, out):
    stand_in_for_torchvision()
    from streaming import MDSWriter

    length = request["lengths"][0]
    columns = {"tokens": f"ndarray:{request['dtype']}:{length}"}
    with MDSWriter(columns=columns, out=f"{out}/mds", size_limit=request["size_limit"]) as writer:
        for ids in documents(request):
            writer.write({"tokens": ids.astype(request["dtype"])})
    return {path.name: str(path) for path in sorted(Path(f"{out}/mds").iterdir())}


def write_nanotron(request, out):
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    file = TokenizedFile(
        out,
        "peer.ds",
        tokenizer_name_or_path=request["tokenizer"],
        save_final_metadata=True,
        token_size=request["token_size"],
    )
    for ids in documents(request):
        file.write(ids.tolist(), None)
    file.close()
    return {ending: f"{out}/peer.ds{ending}" for ending in ("", ".index", ".metadata")}


def batches(dataset, size, number, get):
    """The batch `number` of a torch DataLoader without shuffle."""
    from torch.utils.data import DataLoader

    for i, batch in enumerate(DataLoader(dataset, batch_size=size, shuffle=False, num_workers=0)):
        if i == number:
            return get(batch).tolist()
    raise AssertionError(number)


def configuration(request, name):
    """The configuration beside the export, run as it stands."""
    space = {"__file__": f"{request['folder']}/config/{name}", "__name__": "configuration"}
    exec(compile(Path(space["__file__"]).read_text(), name, "exec"), space)
    return space


def batch_megatron(request, size, numbers):
    sys.path.insert(0, request["package"])
    theirs = import_module("theirs_megatron")
    with tempfile.TemporaryDirectory() as cache:
        rows = theirs._gpt_dataset(request, "premixed", request["sequences"], theirs._megatron_config(request, cache))
        return [batches(rows, size, n, lambda batch: batch["tokens"]) for n in numbers]


def batch_litdata(request, size, numbers):
    import litdata

    loader = litdata.StreamingDataLoader(configuration(request, "litgpt_data.py")["train_dataset"](), batch_size=size)
    wanted = dict.fromkeys(numbers)
    for i, batch in enumerate(loader):
        if i in wanted:
            wanted[i] = batch.tolist()
    return list(wanted.values())


def batch_olmo(request, size, numbers):
    from olmo_core.data import NumpyDataLoaderConfig

    with tempfile.TemporaryDirectory() as work:
        dataset = configuration(request, "olmo_data.py")["dataset_config"](work).build()
        loader = NumpyDataLoaderConfig(
            global_batch_size=size * request["sequence_length"], seed=0, work_dir=work
        ).build(dataset)
        loader.shuffle = False
        loader.reshuffle(1)
        wanted = dict.fromkeys(numbers)
        for i, batch in enumerate(loader):
            if i in wanted:
                wanted[i] = batch["input_ids"].tolist()
        return list(wanted.values())


def batch_parquet(request, size, numbers):
    rows = configuration(request, "trl.py")["train_dataset"]().select_columns(["input_ids"]).with_format("torch")
    return [batches(rows, size, n, lambda batch: batch["input_ids"]) for n in numbers]


def batch_arrow(request, size, numbers):
    import datasets

    rows = datasets.load_from_disk(request["folder"])["train"].select_columns(["input_ids"]).with_format("torch")
    return [batches(rows, size, n, lambda batch: batch["input_ids"]) for n in numbers]


def batch_mds(request, size, numbers):
    stand_in_for_torchvision()
    from streaming import StreamingDataset

    rows = StreamingDataset(
        local=f"{request['folder']}/premixed", shuffle=False, num_canonical_nodes=1, batch_size=size
    )
    return [batches(rows, size, n, lambda batch: batch["tokens"].long()) for n in numbers]


def batch_webdataset(request, size, numbers):
    rows = configuration(request, "dataset.py")["train_dataset"]()
    found = [sample[0] for sample in rows]
    return [np.stack(found[n * size : (n + 1) * size]).tolist() for n in numbers]


def batch_nanotron(request, size, numbers):
    """Nanoset's index over datatrove's windows, as nanotron builds it (its own package needs a GPU)."""
    from datatrove.utils.dataset import DatatroveFolderDataset

    found = []
    for name in sorted(path.name for path in Path(request["folder"]).iterdir() if path.name[:1].isdigit()):
        rows = DatatroveFolderDataset(
            f"{request['folder']}/{name}", request["sequence_length"] - 1, filename_pattern="*.ds", recursive=False
        )
        index = np.arange(len(rows))
        np.random.RandomState(request["shuffle_seed"]).shuffle(index)
        found += [rows[int(i)]["input_ids"].numpy() for i in index]
    return [np.stack(found[n * size : (n + 1) * size]).tolist() for n in numbers]


def rate(rows, batch, most):
    """Sequences a second of an iterable of batches, after a tenth of them."""
    seen, began, counted = 0, None, 0
    for ids in rows:
        seen += batch
        if began is not None:
            counted += batch
        elif seen >= most // 10:
            began = time.perf_counter()
        if seen >= most:
            break
        del ids
    return counted / (time.perf_counter() - began)


def load_litdata(request):
    import litdata
    from litdata.streaming.item_loader import TokensLoader

    rows = litdata.StreamingDataset(
        f"{request['folder']}/premixed",
        item_loader=TokensLoader(request["length"]),
        shuffle=True,
        drop_last=False,
        seed=1,
    )
    loader = litdata.StreamingDataLoader(rows, batch_size=request["batch"], num_workers=request["workers"])
    return rate(loader, request["batch"], request["sequences"])


def load_mds(request):
    stand_in_for_torchvision()
    from streaming import StreamingDataLoader, StreamingDataset

    rows = StreamingDataset(
        local=f"{request['folder']}/premixed",
        shuffle=True,
        num_canonical_nodes=1,
        batch_size=request["batch"],
        shuffle_seed=1,
    )
    loader = StreamingDataLoader(rows, batch_size=request["batch"], num_workers=request["workers"])
    return rate(loader, request["batch"], request["sequences"])


def load_mds_local(request):
    stand_in_for_torchvision()
    from streaming import LocalDataset

    rows = LocalDataset(f"{request['folder']}/premixed")
    picks = np.random.default_rng(1).permutation(len(rows)).reshape(-1, request["batch"])
    return rate(
        (np.stack([rows[int(i)]["tokens"] for i in pick]) for pick in picks), request["batch"], request["sequences"]
    )


def main():
    task, request = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    function = globals()[f"{task}_{request['format']}"]
    if task == "write":
        answer = function(request, request["out"])
    elif task == "batch":
        answer = function(request, request["batch"], request["numbers"])
    else:
        answer = function(request)
    print("ANSWER " + json.dumps(answer))


if __name__ == "__main__":
    main()
