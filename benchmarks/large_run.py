"""A Run of any size in seconds: random ids in real shards, with spans, an order and a plan, and no documents."""

from pathlib import Path

import numpy as np
import polars as pl

from curricula.order import order
from mixer.ordering import write_order
from mixer.pack import concat_and_chunk
from mixer.recipe.recipe import Recipe
from mixer.run import sha256, write_json
from mixer.types import Draw

VOCAB = 49_152
SHARES = {"web": 6, "books": 3, "qa": 1}


def make(
    run: Path, *, sequences: int, length: int = 2048, shard_sequences: int = 16_384, shuffle: bool = True
) -> Recipe:
    """Write a Run whose one stage draws `sequences`; returns its recipe.

    Args:
        run: A folder that is not there yet.
        sequences: In all, of three sources, 6 to 3 to 1.
        length: Tokens a sequence.
        shard_sequences: Sequences a shard.
        shuffle: Whether the stage is in the order of a build, or each source's in turn.
    """
    counts = {name: sequences * share // sum(SHARES.values()) for name, share in SHARES.items()}
    for number, (name, count) in enumerate(counts.items()):
        _source(run / "shards" / name, number, count, length, shard_sequences)
    (run / "order").mkdir()
    total = sum(counts.values())
    pieces = order([Draw(name, count, 0, count) for name, count in counts.items()], seed=7)
    if not shuffle:
        pieces = iter(
            [np.concatenate([np.stack([np.full(c, i), np.arange(c)], 1) for i, c in enumerate(counts.values())])]
        )
    write_order(run / "order" / "adapt.npy", pieces, np.arange(3, dtype=np.int32), total)
    shares = {name: {"sequences": count, "fraction": count / total} for name, count in counts.items()}
    write_json(run / "plan.json", {"stages": [{"name": "adapt", "sequences": total, "sources": shares}]})
    return Recipe.model_validate(
        {
            "name": "large",
            "tokenizer": "smollm2",
            "sequence_length": length,
            "sources": {name: {"kind": "jsonl", "path": f"{name}.jsonl"} for name in counts},
            "stages": [{"name": "adapt", "token_budget": total * length, "mixture": SHARES}],
        }
    )


def _source(folder: Path, seed: int, sequences: int, length: int, step: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 2000, sequences * length // 900)
    packed = concat_and_chunk(np.append(sizes, sequences * length), length)
    shards = []
    for number, first in enumerate(range(0, sequences, step)):
        count = min(step, sequences - first)
        low, high = np.searchsorted(packed.sequence, [first, first + count])
        columns = {"sequence": packed.sequence, "offset": packed.offset, "length": packed.length}
        columns |= {"document": packed.document, "document_start": packed.document_start}
        pl.DataFrame({key: column[low:high] for key, column in columns.items()}).write_parquet(
            folder / f"{number:05d}.spans.parquet"
        )
        ids = rng.integers(1, VOCAB, count * length, dtype=np.uint16)
        ends = (packed.sequence * length + packed.offset)[low:high] - first * length
        opens = ends[packed.document_start[low:high] == 0]
        ids[opens[opens > 0] - 1] = 0
        ids.tofile(folder / f"{number:05d}.bin")
        shards.append(
            {
                "file": f"{number:05d}.bin",
                "sequences": count,
                "first_sequence": first,
                "sha256": sha256(folder / f"{number:05d}.bin"),
                "spans": f"{number:05d}.spans.parquet",
                "spans_sha256": "",
            }
        )
    index = {"dtype": "uint16", "sequence_length": length, "packing": "concat_and_chunk", "tokenizer": "random"}
    index |= {"vocab_size": VOCAB, "bos": None, "eos": 0, "padding": 0, "documents": len(sizes) + 1}
    index |= {"document_tokens": sequences * length, "sequences": sequences, "left_out_tokens": 0, "padding_tokens": 0}
    write_json(folder / "index.json", index | {"shards": shards})
