"""A small Run made without a build: hand-written documents, real shards, an order, a plan and a recipe."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl

from mixer import shard
from mixer.layout import Group
from mixer.recipe.recipe import Recipe
from mixer.run import write_json
from mixer.shard import TokenFiles, write
from mixer.tokens import Encoder

LENGTH = 8
# Of one token (an end of text), ending where a sequence ends, longer than two sequences, and ordinary ones.
WEB = [
    [5, 6, 7, 0],
    [0],
    [8, 9, 0],
    [*range(10, 29), 0],
    [30, 31, 32, 33, 34, 35, 36, 0],
    [40, 0],
    [41, 42, 43, 44, 45, 0],
]
BOOKS = [[*range(50, 65), 0], [66, 67, 68, 0], [70, 71, 72, 73, 0], [*range(74, 88), 0]]


def encoder(vocab_size: int = 100, *, bos: int | None = None, eos: int | None = 0) -> Encoder:
    """Ids below `vocab_size`; 0 ends a document, 1 opens one where there is a BOS."""
    special = frozenset(i for i in (bos, eos) if i is not None)
    return Encoder(None, bos, eos, special, vocab_size, "toy")


def make(
    run: Path,
    *,
    documents: dict[str, list[list[int]]] | None = None,
    orders: dict[str, Sequence[tuple[int, int]]] | None = None,
    tokens: Encoder | None = None,
    packing: str = "concat_and_chunk",
    length: int = LENGTH,
    shard_tokens: int | None = None,
) -> Recipe:
    """Write a Run; returns its recipe. By default two sources and two stages, with sequences that repeat.

    Args:
        run: A folder that is not there yet.
        documents: Source -> ids of its documents, packed in this order.
        orders: Stage -> (source, sequence) pairs; default: every sequence once, then some again.
        tokens: What encoded them.
        packing: By which policy.
        length: Tokens a sequence.
        shard_tokens: Tokens a shard; default: what a build uses.
    """
    documents = documents or {"web": WEB, "books": BOOKS}
    tokens = tokens or encoder()
    with patch.object(shard, "_SHARD_TOKENS", shard_tokens or shard._SHARD_TOKENS):
        counts = {name: _source(run, name, content, tokens, packing, length) for name, content in documents.items()}
    orders = orders or _orders(list(counts.values()))
    names = list(documents)
    stages = []
    (run / "order").mkdir()
    for stage, pairs in orders.items():
        order = np.array(pairs, np.int32).reshape(-1, 2)
        np.save(run / "order" / f"{stage}.npy", order)
        shares = {name: int((order[:, 0] == number).sum()) for number, name in enumerate(names)}
        sources = {
            name: {"sequences": count, "fraction": count / len(order), "weight": count, "tokens": count * length}
            for name, count in shares.items()
            if count
        }
        stages.append({"name": stage, "sequences": len(order), "token_budget": len(order) * length, "sources": sources})
    write_json(run / "plan.json", {"stages": stages, "sequence_length": length})
    return _recipe(names, stages, packing, length)


def _source(run: Path, name: str, documents: list[list[int]], tokens: Encoder, packing: str, length: int) -> int:
    unit = run / ".cache" / name
    unit.mkdir(parents=True)
    np.array([i for ids in documents for i in ids], tokens.dtype).tofile(unit / "tokens.bin")
    np.save(unit / "lengths.npy", np.array([len(ids) for ids in documents], np.int64))
    (run / "documents" / name).mkdir(parents=True)
    texts = [f"{name} {number}: {' '.join(map(str, ids))} é\n" for number, ids in enumerate(documents)]
    rows = {"id": [f"{name}#{n}" for n in range(len(texts))], "text": texts, "source": [name] * len(texts)}
    pl.DataFrame(rows).write_parquet(run / "documents" / name / "000000.parquet")
    target = run / "shards" / name
    target.mkdir(parents=True)
    files = TokenFiles([unit], tokens.dtype)
    order = np.arange(len(documents))
    groups = [Group(None, held_out=False, runs=(order,))]
    made = write(target, files, groups, tokens, source=name, sequence_length=length, packing=packing)
    return int(made["sequences"])


def _orders(counts: Sequence[int]) -> dict[str, list[tuple[int, int]]]:
    rng = np.random.default_rng(5)
    every = [(source, sequence) for source, count in enumerate(counts) for sequence in range(count)]
    first = [every[i] for i in rng.permutation(len(every))]
    return {"adapt": first, "anneal": [every[i] for i in rng.permutation(len(every))[: len(every) // 2]]}


def _recipe(names: Sequence[str], stages: Sequence[dict[str, Any]], packing: str, length: int) -> Recipe:
    mixtures = [{name: float(share["weight"]) for name, share in stage["sources"].items()} for stage in stages]
    plain = [
        {"name": stage["name"], "token_budget": stage["token_budget"], "mixture": mixture}
        for stage, mixture in zip(stages, mixtures, strict=True)
    ]
    return Recipe.model_validate(
        {
            "name": "toy",
            "seed": 3,
            "tokenizer": "toy",
            "sequence_length": length,
            "packing": packing,
            "sources": {name: {"kind": "jsonl", "path": f"{name}.jsonl"} for name in names},
            "stages": plain,
        }
    )


def rows(run: Path, recipe: Recipe) -> list[list[int]]:
    """What the Run trains on, sequence by sequence, read the plain way."""
    from mixer.shard import Sequences

    sources = [Sequences(run / "shards" / name) for name in recipe.sources]
    orders = [np.load(run / "order" / f"{stage.name}.npy") for stage in recipe.stages]
    return [sources[source][sequence].tolist() for order in orders for source, sequence in order.tolist()]


def hold_out(run: Path, name: str, first: int, count: int) -> None:
    """Mark sequences of a source as held out, in its index."""
    path = run / "shards" / name / "index.json"
    index = json.loads(path.read_text())
    cuts = [(0, first, False), (first, count, True), (first + count, index["sequences"] - first - count, False)]
    index["parts"] = [
        {"topic": None, "held_out": out, "first_sequence": begin, "sequences": size}
        for begin, size, out in cuts
        if size
    ]
    write_json(path, index)
