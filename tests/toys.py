"""Small real things to build from: a byte tokenizer, a few dozen documents, a recipe over them."""

import json
import os
import random
import signal
import time
from pathlib import Path

import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mixer.execute import Step
from mixer.run import staged

WORDS = [
    "river",
    "sand",
    "water",
    "rock",
    "light",
    "heat",
    "cell",
    "leaf",
    "seed",
    "star",
    "dust",
    "orbit",
    "atom",
    "salt",
    "acid",
    "wave",
    "sound",
    "the",
    "of",
    "and",
    "with",
    "to",
    "that",
]


def no_synthesis(*_: object) -> Path:
    """For builds whose recipe has no synthetic source."""
    raise AssertionError("no synthetic source was asked for")


def byte_tokenizer(folder: Path) -> Path:
    """A tokenizer whose ids are bytes (0-255), then <bos> 256 and <eos> 257, as a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<bos>", special=True), AddedToken("<eos>", special=True)])
    backend.save(str(folder / "tokenizer.json"))
    config = {"bos_token": {"content": "<bos>"}, "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def sentences(seed: int, count: int) -> str:
    """Prose of a kind, different for every seed."""
    rng = random.Random(seed)
    return " ".join(" ".join(rng.choices(WORDS, k=9)).capitalize() + "." for _ in range(count))


def corpus(folder: Path) -> Path:
    """`web.jsonl` (30 documents, 3 of them the same), `books/*.txt` (6) and `pages/*.html` (8)."""
    byte_tokenizer(folder / "bytes")
    rows = [{"text": sentences(n, 6), "url": f"https://example.org/{n}"} for n in range(28)]
    rows += [{"text": sentences(5, 6).upper()}, {"text": sentences(5, 6)}]
    (folder / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "books").mkdir(exist_ok=True)
    for n in range(6):
        (folder / "books" / f"{n}.txt").write_text(sentences(100 + n, 30))
    (folder / "pages").mkdir(exist_ok=True)
    for n in range(8):
        paragraphs = "".join(f"<p>{sentences(200 + 10 * n + k, 8)}</p>" for k in range(4))
        html = f"<html><head><title>Page {n}</title></head><body><nav>menu</nav><article>{paragraphs}</article></body></html>"
        (folder / "pages" / f"{n}.html").write_text(html)
    return folder


def sources(**changes: dict[str, object]) -> dict[str, dict[str, object]]:
    """The corpus's three sources, with keys added to some."""
    known: dict[str, dict[str, object]] = {
        "web": {"kind": "jsonl", "path": "web.jsonl", "language": "en"},
        "books": {"kind": "text", "path": "books/*.txt", "language": "en"},
        "pages": {"kind": "html", "path": "pages/*.html", "language": "en"},
    }
    return {name: source | changes.get(name, {}) for name, source in known.items()}


def recipe(folder: Path, **changes: object) -> Path:
    """A recipe file over the corpus, with top-level keys replaced."""
    content = {
        "name": "toy",
        "seed": 3,
        "tokenizer": "bytes",
        "sequence_length": 64,
        "sources": sources(),
        "stages": [
            {"name": "adapt", "token_budget": 9600, "mixture": {"web": 5, "books": 3, "pages": 2}},
            {"name": "anneal", "token_budget": 3200, "mixture": {"web": 1, "pages": 1}},
        ],
    } | changes
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


class KillItself(Step):
    """Writes as a step of ours does, and is killed from outside while at it."""

    def __init__(self, target: Path) -> None:
        super().__init__()
        self.target = target

    def run(self, data=None, rank=0, world_size=1):
        with staged(self.target.with_name(f"{rank}")):
            if rank == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Sleep(Step):
    """Writes a file and takes ten seconds more."""

    def __init__(self, begun: Path) -> None:
        super().__init__()
        self.begun = begun

    def run(self, data=None, rank=0, world_size=1):
        self.begun.with_name(f"{self.begun.name}-{rank}").touch()
        time.sleep(10)
