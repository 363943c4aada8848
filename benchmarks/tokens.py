"""Tokenization, from documents on disk to ids on disk, against raw tokenizers.encode_batch on the same text.

    .venv/bin/python benchmarks/tokens.py [DATA]

The peer gets the texts in memory and gives lists of ids; ours reads Parquet, frames each document and writes.
Both use every core; each is timed three times, in turn; the best of each counts.
"""

import io
import json
import sys
import tempfile
import time
from pathlib import Path

import zstandard

from mixer.recipe.recipe import TokenizerSpec
from mixer.table import DOCUMENTS, TableWriter
from mixer.tokens import EncodeDocuments, TokenTask, load


def texts_of(data: Path) -> list[str]:
    """Texts of the textbooks and the code."""
    texts = []
    for path in sorted([*data.glob("science_text/openstax-*.zst"), *data.glob("code/*.zst")]):
        with path.open("rb") as file:
            lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
            texts += [json.loads(line)["text"] for line in lines]
    return texts


def main() -> None:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    texts = texts_of(data)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    ours, peer = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with TableWriter(folder / "documents.parquet", DOCUMENTS) as table:
            for number, text in enumerate(texts):
                table.write(id=str(number), text=text, url=None, source="bench", metadata="{}")
        spec, folders = TokenizerSpec(path="smollm2"), (folder, folder)
        encoder = load(spec, *folders)
        for turn in range(3):
            began = time.perf_counter()
            step = EncodeDocuments([TokenTask(folder / "documents.parquet", folder / str(turn))], spec, folders, 2)
            step.run()
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            ids = [found.ids for found in encoder.backend.encode_batch(texts, add_special_tokens=False)]
            peer.append(time.perf_counter() - began)
    print(f"{len(texts):,} documents, {megabytes:.1f} MB, {sum(map(len, ids)):,} tokens")
    print(f"ours {megabytes / min(ours):.2f} MB/s, tokenizers.encode_batch {megabytes / min(peer):.2f} MB/s")
    print(f"ratio: {min(peer) / min(ours):.2f} (at least 0.9)")


if __name__ == "__main__":
    main()
