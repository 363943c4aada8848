"""Is a document's loss that of a plain loop, one document at a time in float32? On 200 real ones, one of 2 MB.

    .venv/bin/python benchmarks/perplexity_equal.py ../shared/data [smollm2 [CHARACTERS]]

By default the model is a random one of a few thousand weights (`tests/tiny_model.py`), and it ends in minutes. With
`smollm2` it is the packaged one, over an hour on two cores: ordinary documents are cut shorter, and the long one to
CHARACTERS where they are given.
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import zstandard
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))

from curricula.difficulty import DifficultyScorer
from curricula.model import model_folder
from tests.tiny_model import tiny_model


@dataclass(frozen=True, slots=True)
class Setting:
    """Which model reads how much at once, and how many characters of an ordinary and of the long document."""

    folder: Path
    size: int
    chars: int
    longest: int | None = None


def texts_of(path: Path) -> list[str]:
    raw = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read()
    return [json.loads(line)["text"] for line in raw.decode().strip().split("\n")]


def plain(setting: Setting, texts: list[str]) -> np.ndarray:
    """Mean loss of each text."""
    model = AutoModelForCausalLM.from_pretrained(setting.folder, dtype=torch.float32).eval()
    tokenizer, found = Tokenizer.from_file(str(setting.folder / "tokenizer.json")), []
    frame, overlap = model.config.bos_token_id, setting.size // 4
    for text in texts:
        ids = torch.tensor([frame, *tokenizer.encode(text, add_special_tokens=False).ids])
        total, done = 0.0, 1
        while done < len(ids):
            start = max(0, done - overlap) if done > 1 else 0
            end = min(start + setting.size, len(ids))
            with torch.no_grad():
                logs = torch.log_softmax(model(ids[None, start:end]).logits[0].float(), -1)
            total -= logs[torch.arange(done - start - 1, end - start - 1), ids[done:end]].sum().item()
            done = end
        found.append(total / (len(ids) - 1))
    return np.array(found)


def compare(setting: Setting, data: Path) -> None:
    biology, physics = (texts_of(data / f"science_text/openstax-{name}.jsonl.zst") for name in ("biology", "physics"))
    book = max(texts_of(data / "english/classic-books.jsonl.zst"), key=len)[: setting.longest]
    texts = [text[: setting.chars] for text in (*biology[:120], *physics[:79])] + [book]
    print(f"{len(texts)} documents, the longest of {len(book.encode()):,} bytes", flush=True)
    losses = {}
    for name in ("float32", "bfloat16"):
        began = time.perf_counter()
        scorer = DifficultyScorer(setting.folder, dtype=name, max_length=setting.size, device="cpu")
        scored = scorer(texts)
        losses[name] = np.array([each.loss for each in scored])
        tokens, took = sum(each.tokens for each in scored), time.perf_counter() - began
        print(f"{name}: {tokens:,} tokens at {tokens / took:,.0f} a second, loss of the longest {losses[name][-1]:.4f}")
        sys.stdout.flush()
    expected = plain(setting, texts)
    for name, found in losses.items():
        gap = np.abs(found - expected)
        print(f"{name}: largest difference {gap.max():.1e} nats, {(gap / expected).max():.1e} of the loss; ", end="")
        print(f"of the longest {gap[-1]:.1e} nats, {gap[-1] / expected[-1]:.1e}")


def main() -> None:
    data = Path(sys.argv[1])
    if sys.argv[2:3] == ["smollm2"]:
        store = Path.home() / ".cache" / "curriculum-mixer"
        longest = int(sys.argv[3]) if sys.argv[3:] else None
        compare(Setting(model_folder("smollm2", base=Path(), store=store), 512, 1200, longest), data)
        return
    with tempfile.TemporaryDirectory() as name:
        compare(Setting(tiny_model(Path(name)), 128, 3000), data)


if __name__ == "__main__":
    main()
