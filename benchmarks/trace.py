"""Do training tokens lead back to their pages? A thousand random ones of a real Run, each held against its page's text.

    .venv/bin/mixer build benchmarks/science.yaml && .venv/bin/python benchmarks/trace.py runs/science-benchmark [COUNT]

A token counts as traced when the bytes that `mixer trace` names of the Document's text are what the tokenizer spells it
as, byte for byte; control tokens name no bytes, and stand at a document's end.
"""

import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from tokenizers import decoders

from mixer.replan import open_run
from mixer.shard import Sequences
from mixer.table import scan
from mixer.tokens import load
from mixer.trace import bytes_of, trace_stage

SEED = 4


def spelled(token: str) -> bytes:
    """The bytes of a token of a byte-level vocabulary."""
    return decoders.ByteLevel().decode([token]).encode()


def main() -> None:
    run, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    recipe = open_run(run)
    encoder = load(recipe.tokenizer, Path(), Path.home() / ".cache" / "curriculum-mixer")
    rng = np.random.default_rng(SEED)
    stages = {path.stem: len(np.load(path, mmap_mode="r")) for path in sorted((run / "order").glob("*.npy"))}
    picked = [(stage, int(rng.integers(stages[stage]))) for stage in rng.choice(list(stages), count)]
    began, right, control = time.perf_counter(), 0, 0
    for stage, index in picked:
        found = trace_stage(run, recipe, encoder, stage=stage, index=index)
        offset = int(rng.integers(recipe.sequence_length))
        origin = next(each for each in found.origins if each.offset <= offset < each.offset + each.length)
        table = scan(run / "documents" / found.source).filter(pl.col("id") == origin.document)
        [text] = table.select("text").collect()["text"]
        [ids] = encoder.encode([text])
        place = origin.start + offset - origin.offset
        token = int(Sequences(run / "shards" / found.source)[found.sequence][offset])
        begin, end = bytes_of(encoder, text, ids, place, 1)
        piece = text.encode()[begin:end]
        if token in encoder.special:
            control += 1
            right += piece == b"" and place == len(ids) - 1
        else:
            whole = spelled(encoder.backend.id_to_token(token))
            # A token that parts a character spells no text of its own; its bytes are counted.
            right += piece == whole if b"\xef\xbf\xbd" not in whole else token == ids[place]
    took = time.perf_counter() - began
    print(f"{right:,} of {count:,} tokens traced to their bytes ({control} ends of text), {took / count:.2f} s each")
    sys.exit(right != count)


if __name__ == "__main__":
    main()
