"""What is shown of each export format, and how fast flat formats are written: `exports.py RUN PYTHON [PYTHON...]`.

RUN is a finished Run (`mixer build benchmarks/kill.yaml --run runs/kill`); the interpreters have the trainers'
libraries (docs/exports.md says how to make them). Prints a table of formats and checks, a batch of each real loader
against ours, and the speed of writing as a ratio to `cp` of the same bytes on the same disk, both synced. PARTS chooses
among `table`, `batches` and `speed`, FORMATS among the formats: most of the time goes into starting the libraries anew.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import large_run
from curricula.job import order_file
from curricula.loader import Loader, Track
from curricula.shards import Shards
from mixer.exports import theirs
from mixer.exports.asked import interpreter_for
from mixer.exports.export import export
from mixer.exports.policy import POLICIES, module
from mixer.exports.verify import verify
from mixer.recipe.exports import Export
from mixer.recipe.file import load
from tests import toy_run

PEERS = Path(__file__).with_name("exports_peers.py")
VOCABS = (65_499, 65_500, 65_536, 65_537)
REFERENCE = ("megatron", "mds", "nanotron")
BATCHED = ("megatron", "mds", "litdata", "olmo", "nanotron", "parquet", "arrow", "webdataset")
SPEED = ("megatron", "olmo", "nanotron", "llmc", "mds", "litdata", "torchtitan")
SIZE = 8


def chosen(formats):
    """Those of the formats that FORMATS names; all of them without it."""
    wanted = os.environ.get("FORMATS", "").split()
    return [name for name in formats if not wanted or name in wanted]


@cache
def interpreter(name, *pythons):
    return interpreter_for(name, pythons)


def quiet(_):
    return None


def ask(python, task, **request):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "request.json").write_text(json.dumps(request))
        shutil.copy(PEERS, folder)
        done = subprocess.run(
            [python, f"{folder}/{PEERS.name}", task, f"{folder}/request.json"], capture_output=True, text=True
        )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert answers, done.stderr[-3000:]
    return json.loads(answers[-1].removeprefix("ANSWER "))


def shown(scratch, name, pythons, **options):
    """Whether one export reads back equal: with ours, and with theirs where an interpreter has it."""
    made = {key: options.pop(key) for key in ("tokens", "documents", "packing", "length") if key in options}
    recipe = toy_run.make(scratch / "run", **made)
    wanted = Export(format=name, **options)
    export(scratch / "run", recipe, wanted, scratch / "out", say=quiet)
    found = verify(scratch / "run", recipe, scratch / "out", python=interpreter(name, *pythons))
    record = json.loads((scratch / "out" / "export.json").read_text())
    return found, record


def case(name, pythons, **options):
    with tempfile.TemporaryDirectory() as folder:
        found, record = shown(Path(folder), name, pythons, **options)
    return [each for each in found if each.reader != "ours"], any(each.documents for each in found), record


def at_the_limit(name, pythons):
    """Three rows a file exactly, then one byte less."""
    from mixer.exports import litdata, llmc, mds  # noqa: F401 - named for their layouts

    row = 8 * np.dtype(module(name).dtype(100)).itemsize
    text = len(json.dumps(mds.config(np.dtype("<u2"), 8, 999), sort_keys=True))
    sizes = {
        "mds": (8 + text + 3 * (row + 4), "shard", 5, 8),
        "litdata": (8 + 3 * (row + 4), "chunk", 5, 8),
        "olmo": (3 * row, ".npy", 4 + 2, 5 + 3),
        "parquet": (3 * row, ".parquet", 4 + 2, 5 + 3),
        "arrow": (3 * 8 * 9, ".arrow", 5, 8),
        "webdataset": (1024 + 3 * (2048 + row), ".tar", 4 + 2, 5 + 3),
        "llmc": (1024 + 2 + 3 * row, ".bin", 4 + 2, 5 + 3),
    }
    if name not in sizes:
        return "one file"
    limit, word, exactly, less = sizes[name]
    for size, files in ((limit, exactly), (limit - 1, less)):
        _, _, record = case(name, pythons, file_bytes=size)
        found = sum(word in file for file in record["files"] if not file.startswith("config/"))
        assert found == files, (name, size, found, files)
    return "ok"


def identical(name, pythons):
    """Whether our files are those of the reference writer, byte for byte: both dtypes, premixed and blended."""
    if name not in REFERENCE:
        return "-"
    python = interpreter(name, *pythons)
    for vocab, mode in ((100, "premixed"), (100, "blended"), (70_000, "premixed"), (70_000, "blended")):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            _, record = shown(folder, name, [], mode=mode, tokens=toy_run.encoder(vocab))
            for part in record["sets"]:
                compare(name, python, folder, part, record)
    return "yes"


def compare(name, python, folder, part, record):
    """One set against the reference writer fed with the same documents in the order of the file."""
    ids, lengths, ours = file_order(name, folder / "out", part, record)
    np.save(folder / "ids.npy", ids)
    (folder / "peer").mkdir(exist_ok=True)
    request = {
        "ids": str(folder / "ids.npy"),
        "lengths": lengths.tolist(),
        "dtype": record["dtype"],
        "out": str(folder / "peer"),
    }
    request |= {
        "tokenizer": record["tokenizer"],
        "token_size": np.dtype(record["dtype"]).itemsize,
        "size_limit": 1 << 26,
    }
    peer = ask(python, "write", format=name, **request)
    assert peer
    for ending, path in peer.items():
        assert Path(path).read_bytes() == ours(ending).read_bytes(), (name, part, ending)
    shutil.rmtree(folder / "peer")


def file_order(name, out, part, record):
    """Ids and lengths of documents as they stand in the files, and where each of our files is."""
    from mixer.exports import megatron, nanotron

    length = record["sequence_length"]
    if name == "megatron":
        ids, lengths, _, _ = megatron.read_index(out / f"{part}.idx")
        return np.fromfile(out / f"{part}.bin", ids), lengths, lambda ending: out / f"{part}{ending}"
    if name == "nanotron":
        file = out / part / nanotron.FILE
        lengths = np.concatenate(list(nanotron.documents(out, part, record)))
        return np.fromfile(file, record["dtype"]), lengths, lambda ending: file.with_name(file.name + ending)
    rows = np.concatenate(list(module("mds").read(out, part, record)))
    return rows.reshape(-1), np.full(len(rows), length), lambda ending: out / part / ending


def table(pythons):
    heads = ("format", "ours", "theirs", "bytes", "documents", *map(str, VOCABS), "1 token, window edge", "roll-over")
    print(" | ".join(heads))
    for name in chosen(POLICIES):
        with_theirs, documents, _ = case(name, pythons)
        reader = with_theirs[0].reader if with_theirs else "-"
        edges = []
        for vocab in VOCABS if name != "jsonl" else ():
            tokens = toy_run.encoder(vocab)
            long = {"web": [[vocab - 1, 5, vocab - 1, 0], [6, vocab - 2, 7, 8, 9, 0], [0], [vocab - 1, 0]]}
            _, _, record = case(name, pythons, tokens=tokens, documents=long, length=4)
            edges.append(record["dtype"])
        for packing in ("concat_and_chunk", "best_fit"):
            for mode in ("premixed", "blended") if name not in ("llmc", "arrow") else ("premixed",):
                case(name, pythons, packing=packing, mode=mode)
        row = (name, "equal", reader, identical(name, pythons), "files" if documents else "EOS in row")
        print(" | ".join((*row, *(edges or ["-"] * 4), "equal", at_the_limit(name, pythons))), flush=True)


def training_loader(run, recipe, per_step):
    """The loader that `mixer train` trains a Run with."""
    stages = json.loads((run / "plan.json").read_text())["stages"]
    tracks = [Track(stage["name"], stage["sequences"], order_file(run, stage["name"])) for stage in stages]
    return Loader(Shards(run, list(recipe.sources), document_mask=True), tracks, per_step=per_step)


def rows_of(loader, first, count):
    """The ids of `count` rows from a position on, step after step."""
    found = []
    while len(found) < count:
        step = loader.step(first + len(found))
        found += [row for batch in loader.batches(step, micro_batch=loader.per_step) for row in batch.ids.tolist()]
    return found[:count]


def batch_table(run, pythons):
    """One batch, and one from the middle, of each real loader against those of the loader that `mixer train` has."""
    recipe = load(run / "recipe.yaml")
    loader = training_loader(run, recipe, SIZE)
    numbers = [0, loader.sequences // SIZE // 2]
    assert rows_of(loader, 0, loader.sequences) == toy_run.rows(run, recipe)
    for name in chosen(BATCHED):
        with tempfile.TemporaryDirectory() as folder:
            record = export(run, recipe, Export(format=name), Path(folder), say=quiet)
            python = interpreter(name, *pythons)
            with tempfile.TemporaryDirectory() as package:
                theirs.copy_to(Path(package))
                found = ask(
                    python,
                    "batch",
                    **{**record, "folder": folder, "batch": SIZE, "numbers": numbers, "package": package},
                )
        equal = [batch == rows_of(loader, n * SIZE, SIZE) for n, batch in zip(numbers, found, strict=True)]
        told = f"batches {numbers} of {SIZE} x {recipe.sequence_length} equal ours: {equal}"
        print(f"{name}: {theirs.LIBRARIES[name][0]}: {told}", flush=True)
        assert all(equal), name


def speed(folder, sequences):
    """Seconds of an export against `cp` of the files it wrote, both synced, the better of three."""
    run = folder / "large"
    recipe = large_run.make(run, sequences=sequences)
    for path in run.rglob("*.bin"):
        path.read_bytes()
    for name in chosen(SPEED):
        best, copied = [], []
        for _ in range(3):
            target = folder / "out"
            os.sync()
            began = time.perf_counter()
            record = export(run, recipe, Export(format=name), target, say=quiet)
            best.append(time.perf_counter() - began)
            os.sync()
            files = [str(target / file) for file in record["files"]]
            (folder / "copy").mkdir()
            began = time.perf_counter()
            subprocess.run(["cp", "--reflink=never", *files, str(folder / "copy")], check=True)
            subprocess.run(["sync", *map(str, (folder / "copy").iterdir())], check=True)
            copied.append(time.perf_counter() - began)
            shutil.rmtree(folder / "copy")
            shutil.rmtree(target)
        size = sum(file["bytes"] for file in record["files"].values())
        told = f"{name}: {size / 1e9:.2f} GB in {min(best):.2f} s, cp and sync {min(copied):.2f} s"
        print(f"{told}: ratio {min(copied) / min(best):.2f}", flush=True)


def main():
    run, pythons = Path(sys.argv[1]), sys.argv[2:]
    parts = os.environ.get("PARTS", "table batches speed").split()
    if "table" in parts:
        table(pythons)
    if "batches" in parts:
        batch_table(run, pythons)
    if "speed" in parts:
        with tempfile.TemporaryDirectory(dir=run.parent) as folder:
            speed(Path(folder), int(os.environ.get("SEQUENCES", "250_000")))


if __name__ == "__main__":
    main()
