"""Building a Run from token ids against building it from the text of the same documents: seconds and peak memory.

    .venv/bin/mixer build benchmarks/science.yaml --run runs/science-benchmark
    .venv/bin/python benchmarks/imports.py runs/science-benchmark [--copies 16]

The Run is exported as megatron files and as JSONL, each file lies there several times under other names, and a recipe
reads all of them. Both builds use two workers, no filters and no deduplication; memory is that of the largest process.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

MIXER = [sys.executable, "-m", "mixer.cli"]
SOURCES = {
    "megatron": {"kind": "tokens", "format": "megatron", "path": "megatron/*.bin"},
    "jsonl": {"kind": "jsonl", "path": "jsonl/*.jsonl", "language": "en"},
}
LENGTH = 2048


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--copies", type=int, default=16)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.run) as name:
        folder = Path(name)
        for kind in SOURCES:
            copy(asked.run, folder, kind, asked.copies)
        found = {kind: built(folder, kind) for kind in SOURCES}
    for kind, one in found.items():
        rate, memory = one["tokens"] / one["seconds"] / 1e6, one["memory"] / 2**30
        print(f"{kind}: {one['tokens']:,} tokens in {one['seconds']:.1f} s, {rate:.2f}M/s, {memory:.2f} GiB")
    ids, text = found["megatron"], found["jsonl"]
    faster = ids["tokens"] / ids["seconds"] / (text["tokens"] / text["seconds"])
    print(f"from ids against from text: {faster:.1f} of its speed, {ids['memory'] / text['memory']:.2f} of its memory")


def copy(run: Path, folder: Path, kind: str, copies: int) -> None:
    """Files of an export, several times."""
    out = folder / f"export-{kind}"
    command = [*MIXER, "export", str(run), "--format", kind, "--out", str(out), "--mode", "blended"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (folder / kind).mkdir()
    for path in sorted(out.rglob("*")):
        if path.suffix in (".bin", ".idx", ".jsonl"):
            for number in range(copies):
                shutil.copy(path, folder / kind / f"{path.stem}-{number}{path.suffix}")


def built(folder: Path, kind: str) -> dict[str, float]:
    """Seconds, tokens and bytes of memory of a build."""
    recipe = {
        "name": kind,
        "seed": 0,
        "tokenizer": "smollm2",
        "sequence_length": LENGTH,
        "sources": {"old": SOURCES[kind]},
        "clean": {"filters": [], "dedup": {"exact": False, "near": None}},
        "stages": [{"name": "adapt", "token_budget": "1M", "mixture": {"old": 1}}],
    }
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    command = [*MIXER, "build", str(path), "--run", str(folder / f"run-{kind}"), "--workers", "2"]
    began = time.perf_counter()
    # Of this command and what it started; the usage of all children would be that of the largest so far.
    _, status, usage = os.wait4(subprocess.Popen(command, stdout=subprocess.DEVNULL).pid, 0)
    seconds = time.perf_counter() - began
    assert not status, f"{command} ended with {status}"
    manifest = json.loads((folder / f"run-{kind}" / "manifest.json").read_text("utf-8"))
    tokens = manifest["sources"]["old"]["document_tokens"]
    return {"seconds": seconds, "tokens": tokens, "memory": usage.ru_maxrss * 1024}


if __name__ == "__main__":
    main()
