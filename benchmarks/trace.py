"""Do training tokens lead back to their pages? A thousand random ones of a real Run, each held against its page's text.

    .venv/bin/mixer build benchmarks/science.yaml && .venv/bin/python benchmarks/trace.py runs/science-benchmark [COUNT]

A token counts as traced when the bytes that `mixer trace` names of the Document's text are what its vocabulary spells,
byte for byte, parts of characters too; so must the piece of its document around it, token by token. Control tokens name
no bytes, and stand at a document's end.
"""

import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from mixer.replan import open_run
from mixer.shard import Sequences
from mixer.table import scan
from mixer.tokens import load
from mixer.trace import bytes_of, trace_stage

SEED = 4


def alphabet():
    """Character -> byte of a byte-level vocabulary, as GPT-2's encoder lays it down."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTES = alphabet()


def spelled(encoder, ids):
    """The bytes that tokens stand for, by their vocabulary alone."""
    tokens = [encoder.backend.id_to_token(int(i)) for i in ids if int(i) not in encoder.special]
    return b"".join(bytes(BYTES[character] for character in token) for token in tokens)


def main() -> None:
    run, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    recipe = open_run(run)
    encoder = load(recipe.tokenizer, Path(), Path.home() / ".cache" / "curriculum-mixer")
    rng = np.random.default_rng(SEED)
    stages = {path.stem: len(np.load(path, mmap_mode="r")) for path in sorted((run / "order").glob("*.npy"))}
    picked = [(stage, int(rng.integers(stages[stage]))) for stage in rng.choice(list(stages), count)]
    began, right, control, parts = time.perf_counter(), 0, 0, 0
    for stage, index in picked:
        found = trace_stage(run, recipe, encoder, stage=stage, index=index)
        offset = int(rng.integers(recipe.sequence_length))
        origin = next(each for each in found.origins if each.offset <= offset < each.offset + each.length)
        table = scan(run / "documents" / found.source).filter(pl.col("id") == origin.document)
        [text] = table.select("text").collect()["text"]
        [ids] = encoder.encode([text])
        place = origin.start + offset - origin.offset
        packed = Sequences(run / "shards" / found.source)[found.sequence]
        begin, end = bytes_of(encoder, text, ids, place, 1)
        own, around = packed[[offset]], packed[origin.offset : origin.offset + origin.length]
        is_control = int(own[0]) in encoder.special
        control += is_control
        parts += b"\xef\xbf\xbd" in spelled(encoder, own).decode("utf-8", "replace").encode()
        right += (
            text.encode()[begin:end] == spelled(encoder, own)
            and text.encode()[origin.begin : origin.end] == spelled(encoder, around)
            and (not is_control or place == len(ids) - 1)
        )
    took = time.perf_counter() - began
    kinds = f"{control} ends of text, {parts} parts of characters"
    print(f"{right:,} of {count:,} tokens traced to their bytes ({kinds}), {took / count:.2f} s each")
    sys.exit(right != count)


if __name__ == "__main__":
    main()
