"""Documents scored a second, against the loop of the `evaluate` library's perplexity and against a bare forward pass.

    .venv/bin/python benchmarks/perplexity.py ../shared/data [DOCUMENTS] [TOKENS]

Real pages of mixed length, cut at TOKENS so that all three read the same. The first peer does what `evaluate` 0.4
does: batches of 16 in the order given, padded to the longest, float32 logits of every place. The second runs the model
on batches that are already made, in the number type that we use, and computes no loss.
"""

import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import zstandard

from curricula.difficulty import DifficultyScorer
from curricula.model import model_folder
from mixer.run import digest

FILES = ("science_text/openstax-biology.jsonl.zst", "science_text/openstax-physics.jsonl.zst")


def texts_of(data: Path, count: int) -> list[str]:
    """Documents of every length: sections of books, and single paragraphs of others."""
    found = []
    for name in FILES:
        raw = zstandard.ZstdDecompressor().stream_reader((data / name).open("rb"))
        rows = pl.read_ndjson(io.BytesIO(raw.read()))["text"].to_list()
        found += rows[: count // 4]
        found += [part for row in rows for part in row.split("\n\n") if len(part) > 80][: count // 4]
    return sorted(found, key=digest)[:count]


def evaluate_style(model: Any, rows: list[np.ndarray], frame: int) -> tuple[np.ndarray, float]:
    """Mean losses and seconds of the loop as users write it."""
    began, losses = time.perf_counter(), []
    for start in range(0, len(rows), 16):
        batch = rows[start : start + 16]
        width = max(map(len, batch)) + 1
        ids = torch.full((len(batch), width), frame)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for number, row in enumerate(batch):
            ids[number, 1 : len(row) + 1] = torch.from_numpy(row.astype(np.int64))
            mask[number, : len(row) + 1] = 1
        with torch.no_grad():
            logits = model(ids, attention_mask=mask).logits
        flat = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        losses += ((flat * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)).tolist()
    return np.array(losses), time.perf_counter() - began


def main() -> None:
    data = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    tokens = int(sys.argv[3]) if len(sys.argv) > 3 else 512
    store = Path.home() / ".cache" / "curriculum-mixer"
    folder = model_folder("smollm2", base=Path(), store=store)
    scorer = DifficultyScorer(folder, max_tokens=tokens)
    texts = texts_of(data, count)
    scorer(texts[:2])
    began = time.perf_counter()
    found = scorer(texts)
    ours = time.perf_counter() - began
    total = sum(each.tokens for each in found)
    kind = str(scorer._model.dtype).removeprefix("torch.")
    print(f"{len(texts)} documents, {total:,} tokens, {scorer.device}, {kind}: {total / ours:,.0f} tokens/s")

    batches: list[torch.Tensor] = []
    forward = scorer._losses

    def kept(rows: Any, windows: Any) -> np.ndarray:
        width = len(rows[0])
        ids = np.full((len(rows), width), scorer._frame, np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
        batches.append(torch.from_numpy(ids).to(scorer.device))
        return np.zeros(sum(window.end - window.first for window in windows), np.float32)

    scorer._losses = kept  # type: ignore[method-assign]
    scorer(texts)
    scorer._losses = forward  # type: ignore[method-assign]
    began = time.perf_counter()
    with torch.inference_mode():
        for ids in batches:
            scorer._model(input_ids=ids, use_cache=False)
    bare = time.perf_counter() - began
    print(f"bare forward: {total / bare:,.0f} tokens/s, ratio {bare / ours:.2f} (at least 0.8)")

    rows = [ids[:tokens] for ids in scorer._encoder.encode(texts)]
    losses, theirs = evaluate_style(scorer._model.float(), rows, scorer._frame)
    print(f"evaluate-style loop: {total / theirs:,.0f} tokens/s, ratio {theirs / ours:.2f} (at least 3)")
    worst = np.abs(losses - np.array([each.loss for each in found])).max()
    print(f"largest difference of a document's loss: {worst:.1e}")


if __name__ == "__main__":
    main()
