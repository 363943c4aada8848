"""kill -9 of the engine at random moments, then of the run: every page accounted for, nothing asked twice, same bytes.

    .venv/bin/python benchmarks/synth/kill.py [KILLS]

Half of the kills hit the vLLM server of a run that goes on, half the run itself, which is then started again.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

RECIPE = "quickstart"
LIMIT_S = 1500.0


def start(run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mixer.cli", "synth", RECIPE, "--run", str(run), "--workers", "1"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def answers(run: Path) -> list[str]:
    """Addresses in the log, in the order written."""
    whole = [path.read_text("utf-8").rpartition("\n")[0] for path in (run / "synth/qa/responses").glob("*.jsonl")]
    return [json.loads(line)["key"] for text in whole for line in text.split("\n") if line]


def servers() -> list[int]:
    """Process numbers of vLLM servers that are children of a run."""
    found = subprocess.run(["pgrep", "-f", "vllm.entrypoints.openai.api_server"], capture_output=True, text=True)
    return [int(number) for number in found.stdout.split()]


def wait_for_more(run: Path, more: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the log has grown by that many answers; False when the run ended first."""
    first, end = len(answers(run)), time.monotonic() + LIMIT_S
    while len(answers(run)) < first + more and time.monotonic() < end:
        if process.poll() is not None:
            return False
        time.sleep(0.2)
    return True


def hashes(folder: Path) -> dict[str, str]:
    paths = sorted((folder / ".cache" / "synth").rglob("*.parquet"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        done = {"engine": 0, "run": 0}
        process = start(run)
        while sum(done.values()) < kills and wait_for_more(run, rng.randint(1, 12), process):
            if done["engine"] < kills // 2:
                os.kill(rng.choice(servers()), signal.SIGKILL)
                done["engine"] += 1
            else:
                process.kill()
                process.wait()
                done["run"] += 1
                process = start(run)
        code = process.wait()
        keys = answers(run)
        print(f"killed: {done}; exit code {code}; {len(keys)} answers, {len(keys) - len(set(keys))} asked twice")
        (found,) = (run / ".cache" / "synth").iterdir()
        pages = pl.read_parquet(run / ".cache" / "synth-work" / "qa" / "pages.parquet").height
        candidates = pl.read_parquet(found / "candidates.parquet")
        named = pl.read_parquet(found / "dropped.parquet").filter(pl.col("reason").str.starts_with("pages: no passage"))
        print(f"{pages} pages = {candidates['page'].n_unique()} with candidates + {named.height} named")
        again = Path(name) / "again"
        shutil.copytree(run / "synth", again / "synth")
        start(again).wait()
        print(f"replay from the log: {'identical' if hashes(again) == hashes(run) else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
