"""Bits per byte of slices against lm-eval's rolling likelihood: same model, same text, same windows.

    .venv/bin/python benchmarks/retention/rolling.py benchmarks/retention/bad_run.yaml [--documents 6] [--window 512]

Both read in the same number type, in batches of their own; what is left between them is rounding. Needs lm-eval.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np

from curricula.model import model_folder
from curricula.retention.measure import Subject, read_slices
from curricula.retention.slices import texts_of
from mixer.commands.options import store
from mixer.recipe.file import load


def main() -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--documents", type=int, default=6)
    parser.add_argument("--window", type=int, default=512)
    asked = parser.parse_args()
    recipe = load(asked.recipe)
    assert recipe.retention is not None
    assert recipe.train is not None
    base = asked.recipe.parent
    subject = Subject(model_folder(recipe.train.model, base=base, store=store()), store=store())
    files = {name: own for name, own in recipe.retention.slices.items() if own.path is not None}
    slices = [texts_of(name, own, run=base, base=base).most(asked.documents) for name, own in files.items()]
    tokenizer = AutoTokenizer.from_pretrained(subject.folder, local_files_only=True)
    lm = HFLM(
        pretrained=subject.model, tokenizer=tokenizer, batch_size=4, max_length=asked.window, softmax_dtype="float32"
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        found = read_slices(subject, slices, window=asked.window, cache=Path(cache))
    ours = time.perf_counter() - began
    began, worst = time.perf_counter(), 0.0
    for texts in slices:
        requests = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts.texts]
        nats = np.array(lm.loglikelihood_rolling(requests, disable_tqdm=True))
        theirs = -nats.sum() / math.log(2) / texts.sizes.sum()
        worst = max(worst, abs(found[texts.name].bits_per_byte - theirs))
        print(
            f"{texts.name}\t{len(requests)} documents\tours {found[texts.name].bits_per_byte:.5f}\tlm-eval {theirs:.5f}"
        )
    print(f"largest difference {worst:.6f} bits per byte; {ours:.1f} s against {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
