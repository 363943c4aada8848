"""`mixer build` against a plain datatrove pipeline: same reader, extractor, filters and tokenizer, in the same run.

    .venv/bin/python benchmarks/build.py [DATA] [PAGES]

The peer is what a datatrove user would write: JsonlReader, Trafilatura, three filters, DocumentTokenizer, on as many
workers. Ours does all that and also identifies languages, repairs, deduplicates with proof, packs, plans and orders.
Then the same Run is mixed anew with other weights, and memory is measured as the input grows 1x, 4x and 16x.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from mixer.read import read, units
from mixer.recipe.sources import HtmlSource
from mixer.tokens import packaged_tokenizer
from mixer.types import Page

FILTERS = ["gopher_repetition", "gopher_quality", "fineweb"]
FILES = 8
BASE_DOCUMENTS = 4500
MIXER = [sys.executable, "-m", "mixer.cli", "build"]


def sample(data: Path, folder: Path, pages: int) -> float:
    """Write every n-th science page into FILES files; returns megabytes of HTML."""
    source = HtmlSource(kind="html", path=str(data.resolve() / "science_html/*.jsonl.zst"))
    found = [item for unit in units("pages", source, Path()) for item in read(unit, source) if isinstance(item, Page)]
    chosen = found[:: max(1, len(found) // pages)][:pages]
    for number in range(FILES):
        rows = [json.dumps({"html": page.content, "url": page.url}) for page in chosen[number::FILES]]
        (folder / f"{number}.jsonl").write_text("\n".join(rows) + "\n")
    return sum(len(page.content.encode()) for page in chosen) / 1e6


def recipe(folder: Path, name: str = "bench", mixture: int = 1) -> Path:
    """A recipe over the sample, cut in two sources so that there is something to mix."""
    halves = {"even": [f"{n}.jsonl" for n in range(0, FILES, 2)], "odd": [f"{n}.jsonl" for n in range(1, FILES, 2)]}
    path = folder / f"{name}.yaml"
    content = {
        "name": name,
        "tokenizer": "smollm2",
        "sequence_length": 512,
        "sources": {half: {"kind": "html", "path": files, "language": "en"} for half, files in halves.items()},
        "clean": {"filters": FILTERS},
        "stages": [{"name": "only", "token_budget": "100K", "mixture": {"even": mixture, "odd": 1}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def peer(folder: Path, tokenizer: Path, workers: int) -> float:
    """Seconds of the plain datatrove pipeline, in a process of its own."""
    code = f"""
import time
began = time.perf_counter()
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
if __name__ == "__main__":
    LocalPipelineExecutor([
        JsonlReader({str(folder)!r}, text_key="html", glob_pattern="*.jsonl"),
        Trafilatura(favour_precision=False, deduplicate=False, timeout=60),
        GopherRepetitionFilter(), GopherQualityFilter(), FineWebQualityFilter(),
        DocumentTokenizer({str(folder / "peer")!r}, tokenizer_name_or_path={str(tokenizer)!r},
                          eos_token="<|endoftext|>", shuffle_documents=False),
    ], tasks={FILES}, workers={workers}, logging_dir={str(folder / "peer-logs")!r}).run()
    print(time.perf_counter() - began)
"""
    (folder / "peer.py").write_text(code)
    done = subprocess.run([sys.executable, str(folder / "peer.py")], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def ours(path: Path, run: Path, workers: int) -> float:
    """Seconds of `mixer build`, start-up included."""
    began = time.perf_counter()
    command = [*MIXER, str(path), "--run", str(run), "--workers", str(workers)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def peak_gib(path: Path, run: Path) -> float:
    """Peak memory of a build in one process, in GiB."""
    command = [*MIXER, str(path), "--run", str(run), "--workers", "1"]
    code = (
        "import resource, subprocess, sys\n"
        f"subprocess.run({command!r}, check=True, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def grow(folder: Path, times: int) -> Path:
    """A corpus of `times` times 20 MB of text without duplicates; at 16x, more than the whole process takes at 1x."""
    target = folder / f"grown{times}"
    target.mkdir()
    rng = random.Random(times)
    words = [f"word{number}" for number in range(5000)]
    with (target / "all.jsonl").open("w") as file:
        for _ in range(times * BASE_DOCUMENTS):
            file.write(json.dumps({"text": " ".join(rng.choices(words, k=500))}) + "\n")
    content = {
        "name": "grown",
        "tokenizer": "smollm2",
        "sequence_length": 512,
        "sources": {"pages": {"kind": "jsonl", "path": "all.jsonl", "language": "en"}},
        "stages": [{"name": "only", "token_budget": "10K", "mixture": {"pages": 1}}],
    }
    path = target / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def main() -> None:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    pages = int(sys.argv[2]) if len(sys.argv) > 2 else 480
    workers = len(os.sched_getaffinity(0))
    # Both sides start from compiled modules, as on a machine that has run them before.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        megabytes = sample(data, folder, pages)
        tokenizer = packaged_tokenizer(folder / "store")
        path = recipe(folder)
        ours(path, folder / "warm", workers)
        theirs, mine = [], []
        for turn in range(2):
            theirs.append(peer(folder, tokenizer, workers))
            mine.append(ours(path, folder / f"run{turn}", workers))
            subprocess.run(["rm", "-rf", str(folder / "peer"), str(folder / "peer-logs")], check=True)
        first, other = min(mine), ours(recipe(folder, mixture=3), folder / "run0", workers)
        print(f"{pages} pages, {megabytes:.1f} MB of HTML, {workers} workers")
        print(f"ours {pages / first:.1f} documents/s, {megabytes / first:.2f} MB/s ({first:.1f} s)")
        print(
            f"datatrove {pages / min(theirs):.1f} documents/s, {megabytes / min(theirs):.2f} MB/s ({min(theirs):.1f} s)"
        )
        print(f"ratio: {min(theirs) / first:.2f} (at least 1.0)")
        print(f"re-mix: {other:.1f} s, {100 * other / first:.1f}% of the first build (under 5%)")
        peaks = {times: peak_gib(grow(folder, times), folder / f"mem{times}") for times in (1, 4, 16)}
        print("peak memory, GiB: " + ", ".join(f"{times}x {peak:.2f}" for times, peak in peaks.items()))
        print(f"growth 1x to 16x: {peaks[16] / peaks[1]:.2f} (within 1.5)")


if __name__ == "__main__":
    main()
