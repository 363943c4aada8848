"""A small Run that says what it must not forget, and a training of it."""

import json
from pathlib import Path

from tests import toys, training

SLICES = {
    "prose": {"path": "prose.jsonl", "min_bytes": 20, "max_bytes": 150},
    "numbers": {"path": "numbers.txt", "split": "line", "min_bytes": 20},
    "books": {"source": "books", "kind": "domain", "min_bytes": 20, "max_bytes": 150},
}
RETENTION = {"slices": SLICES, "window": 64, "replicates": 200, "max_forgetting": 5.0}


def write_slices(folder: Path) -> None:
    rows = [{"text": toys.sentences(900 + n, 3)} for n in range(12)]
    (folder / "prose.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "numbers.txt").write_text("\n".join(" ".join(str(n * k) for k in range(9, 20)) for n in range(1, 13)))


def build(folder: Path) -> Path:
    """A Run with two stages, two general slices and a domain slice, and its training `short`."""
    build_run(folder, held_out=8)
    training.run(folder, "short", "train.tokens_per_step=3200")
    return folder


def build_run(folder: Path, *, held_out: int) -> None:
    write_slices(folder)
    sources = toys.sources() | {"more": {"kind": "jsonl", "path": "more.jsonl"}}
    rows = [{"text": toys.sentences(5000 + n, 6)} for n in range(200)]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    slices = SLICES | {"books": SLICES["books"] | {"source": "more"}}
    stages = [
        {"name": "adapt", "token_budget": 9600, "mixture": {"web": 3, "books": 3, "pages": 2, "more": 2}},
        {"name": "anneal", "token_budget": 3200, "mixture": {"web": 1, "pages": 1}},
    ]
    validation = {"sequences": held_out, "sources": ["more"]}
    changes = {"sources": sources, "stages": stages, "validation": validation}
    training.build_run(folder, train=training.TRAIN, retention=RETENTION | {"slices": slices}, **changes)
