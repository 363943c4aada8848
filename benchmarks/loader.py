"""Batches in training order, against litdata and mosaicml-streaming on the same data: `loader.py PYTHON [PYTHON]`.

A shuffled stage, everything in the page cache, batches of 64 sequences of 2,048 ids. Ours is the loader that `mixer
train` trains with: ids, positions that begin anew with each document, targets and their weights; the others hand out
ids alone. Gathering ids alone, as an export does, is a line of its own. Against a plain copy of the same rows, twice:
in a random order (what memory allows), and one after the other (what it allows when nothing is random).
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import large_run
from benchmarks.exports import ask, quiet, training_loader
from mixer.exports import theirs
from mixer.exports.asked import interpreter_for
from mixer.exports.export import export
from mixer.exports.training import training
from mixer.recipe.exports import Export

BATCH = 64
TURNS = 3


def batches(order):
    return [order[first : first + BATCH] for first in range(0, len(order) - BATCH + 1, BATCH)]


def ours(loader):
    """Sequences a second of the trainer's loader, and gigabytes a second of the arrays that it hands out."""
    began, position, size = time.perf_counter(), 0, 0
    while step := loader.step(position):
        for batch in loader.batches(step, micro_batch=BATCH):
            arrays = (batch.ids, batch.positions, batch.bounds, batch.places, batch.targets, batch.weights)
            size += sum(array.nbytes for array in arrays)
        position += step.count
    took = time.perf_counter() - began
    return position / took, size / took / 1e9


def gathered(shards, order):
    """Sequences a second of ids alone, as an export gathers them."""
    began = time.perf_counter()
    for pairs in batches(order):
        shards.ids(pairs)
    return len(order) / (time.perf_counter() - began)


def copies(memory, picks):
    """Sequences a second of copying rows that lie in memory, in the order given."""
    out = np.empty((BATCH, memory.shape[1]), memory.dtype)
    began = time.perf_counter()
    for pick in picks:
        np.take(memory, pick, axis=0, out=out, mode="clip")
    return len(picks) * BATCH / (time.perf_counter() - began)


def straight(memory):
    """The same, one after the other."""
    out = np.empty((BATCH, memory.shape[1]), memory.dtype)
    began = time.perf_counter()
    for first in range(0, len(memory) - BATCH + 1, BATCH):
        np.copyto(out, memory[first : first + BATCH])
    return len(memory) / (time.perf_counter() - began)


def main():
    pythons, sequences = sys.argv[1:], int(os.environ.get("SEQUENCES", "200_000"))
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as name:
        folder = Path(name)
        recipe = large_run.make(folder / "run", sequences=sequences)
        shards = training(folder / "run", recipe, folder).shards
        order = np.load(folder / "run" / "order" / "adapt.npy", mmap_mode="r")
        memory = np.concatenate([shards.ids(pairs) for pairs in batches(order)])
        picks = np.random.default_rng(1).permutation(len(memory) // BATCH * BATCH).reshape(-1, BATCH)
        loader = training_loader(folder / "run", recipe, BATCH)
        mine, gigabytes = max(ours(loader) for _ in range(TURNS))
        alone = max(gathered(shards, order) for _ in range(TURNS))
        random = max(copies(memory, picks) for _ in range(TURNS))
        plain = max(straight(memory) for _ in range(TURNS))
        print(f"{len(order):,} sequences, {memory.nbytes / 1e9:.1f} GB", flush=True)
        print(f"ours: {mine:,.0f} sequences/s, {gigabytes:.2f} GB/s of ids, positions, targets and weights", flush=True)
        print(f"ids alone, as exports gather them: {alone:,.0f} sequences/s", flush=True)
        for told, copied in (("in random order", random), ("one after the other", plain)):
            as_bytes = copied * memory.shape[1] * memory.itemsize / 1e9
            print(
                f"copy of the same rows {told}: {copied:,.0f}/s, {as_bytes:.2f} GB/s, ratio {mine / copied:.2f} in",
                end=" ",
            )
            print(f"sequences, {gigabytes / as_bytes:.2f} in bytes, {alone / copied:.2f} of ids alone", flush=True)
        del memory
        for form, tasks in (("litdata", ["litdata"]), ("mds", ["mds", "mds_local"])):
            export(folder / "run", recipe, Export(format=form), folder / form, say=quiet)
            python = interpreter_for(form, pythons)
            for task in tasks:
                for workers in (0,) if task == "mds_local" else (0, 2):
                    request = {"folder": str(folder / form), "length": 2048, "batch": BATCH, "workers": workers}
                    found = ask(python, "load", format=task, sequences=min(sequences, 40_000), **request)
                    told = f"{theirs.LIBRARIES[form][0]} ({task}, {workers} workers): {found:,.0f}/s"
                    print(f"{told}, ratio {mine / found:.1f} (at least 2)", flush=True)


if __name__ == "__main__":
    main()
