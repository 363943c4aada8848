"""kill -9 at random moments, resume each time: the shards and the order are those of an undisturbed build.

    .venv/bin/python benchmarks/kill.py [RECIPE] [KILLS] [CALM_RUN]

Half of the kills hit the whole process group, half the main process alone, which leaves workers behind for a moment.
A kill waits at most a fifth of what the undisturbed build took, so that the kills spread over all its parts.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMPARED = ("documents", "dropped", "shards", "order", "plan.json")


def command(recipe: str, run: Path, workers: int) -> list[str]:
    return [sys.executable, "-m", "mixer.cli", "build", recipe, "--run", str(run), "--workers", str(workers)]


def hashes(run: Path) -> dict[str, str]:
    """Relative name -> SHA-256 of every file that is promised to be the same."""
    paths = [path for name in COMPARED for path in [run / name, *(run / name).rglob("*")] if path.is_file()]
    return {path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main() -> None:
    recipe = sys.argv[1] if len(sys.argv) > 1 else "quickstart"
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calm = Path(sys.argv[3]) if len(sys.argv) > 3 else folder / "calm"
        began = time.perf_counter()
        subprocess.run(command(recipe, folder / "one-worker", 1), check=True, capture_output=True)
        calm_s = time.perf_counter() - began
        if not calm.is_dir():
            subprocess.run(command(recipe, calm, 2), check=True, capture_output=True)
        landed = 0
        for number in range(kills):
            process = subprocess.Popen(
                command(recipe, folder / "hit", 2),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            time.sleep(rng.uniform(0.5, max(10.0, calm_s / 5)))
            landed += process.poll() is None
            whole_group = number % 2 == 0
            os.killpg(process.pid, signal.SIGKILL) if whole_group else process.kill()
            process.wait()
        subprocess.run(command(recipe, folder / "hit", 2), check=True, capture_output=True)
        expected = hashes(calm)
        print(f"{len(expected)} files; {landed} of {kills} kills hit a running build")
        print(f"killed and resumed: {'identical' if hashes(folder / 'hit') == expected else 'DIFFERENT'}")
        print(f"--workers 1 and 2: {'identical' if hashes(folder / 'one-worker') == expected else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
