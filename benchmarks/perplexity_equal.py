"""Is a document's loss that of a plain loop, one document at a time in float32? On 200 real ones, one of 2 MB.

    .venv/bin/python benchmarks/perplexity_equal.py ../shared/data

The model is a random one of a few thousand weights (`tests/tiny_model.py`), so that the plain loop ends in minutes.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import zstandard
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))

from curricula.difficulty import DifficultyScorer
from tests.tiny_model import tiny_model

SIZE, OVERLAP, FRAME = 128, 32, 256


def texts_of(path: Path) -> list[str]:
    raw = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read()
    return [json.loads(line)["text"] for line in raw.decode().splitlines()]


def plain(folder: Path, texts: list[str]) -> np.ndarray:
    """Mean loss of each text."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, found = Tokenizer.from_file(str(folder / "tokenizer.json")), []
    for text in texts:
        ids = torch.tensor([FRAME, *tokenizer.encode(text).ids])
        total, done = 0.0, 1
        while done < len(ids):
            start = max(0, done - OVERLAP) if done > 1 else 0
            end = min(start + SIZE, len(ids))
            with torch.no_grad():
                logs = torch.log_softmax(model(ids[None, start:end]).logits[0].float(), -1)
            total -= logs[torch.arange(done - start - 1, end - start - 1), ids[done:end]].sum().item()
            done = end
        found.append(total / (len(ids) - 1))
    return np.array(found)


def main() -> None:
    data = Path(sys.argv[1])
    biology, physics = (texts_of(data / f"science_text/openstax-{name}.jsonl.zst") for name in ("biology", "physics"))
    book = max(texts_of(data / "english/classic-books.jsonl.zst"), key=len)
    texts = [text[:3000] for text in (*biology[:120], *physics[:79])] + [book]
    print(f"{len(texts)} documents, the longest of {len(book.encode()):,} bytes")
    with tempfile.TemporaryDirectory() as name:
        folder = tiny_model(Path(name))
        expected = plain(folder, texts)
        for dtype in ("float32", "bfloat16"):
            found = np.array([each.loss for each in DifficultyScorer(folder, dtype=dtype, device="cpu")(texts)])
            gap = np.abs(found - expected)
            print(f"{dtype}: largest difference {gap.max():.1e} nats, {(gap / expected).max():.1e} of the loss")


if __name__ == "__main__":
    main()
