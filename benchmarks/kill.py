"""kill -9 at random moments, resume each time: the shards and the order are those of an undisturbed build.

    .venv/bin/python benchmarks/kill.py [RECIPE] [KILLS]

Half of the kills hit the whole process group, half the main process alone, which leaves workers behind for a moment.
A build that ends before its kill is compared and removed, and the next one starts from nothing.
"""

import hashlib
import os
import random
import shutil
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


def hit(recipe: str, run: Path, rng: random.Random, longest_s: float, *, whole_group: bool) -> bool:
    """Start a build and kill it at a random moment; False when it had ended by then."""
    process = subprocess.Popen(
        command(recipe, run, 2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    time.sleep(rng.uniform(0.5, longest_s))
    if process.poll() is not None:
        if process.returncode:
            raise SystemExit(f"a build after a kill ended with exit code {process.returncode}")
        return False
    os.killpg(process.pid, signal.SIGKILL) if whole_group else process.kill()
    process.wait()
    return True


def main() -> None:
    recipe = sys.argv[1] if len(sys.argv) > 1 else "benchmarks/kill.yaml"
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        subprocess.run(command(recipe, folder / "calm", 2), check=True, capture_output=True)
        calm_s = time.perf_counter() - began
        subprocess.run(command(recipe, folder / "one", 1), check=True, capture_output=True)
        expected, landed, finished, different = hashes(folder / "calm"), 0, 0, 0
        while landed < kills:
            if hit(recipe, folder / "hit", rng, calm_s, whole_group=landed % 2 == 0):
                landed += 1
                if landed < kills:
                    continue
                subprocess.run(command(recipe, folder / "hit", 2), check=True, capture_output=True)
            finished += 1
            different += hashes(folder / "hit") != expected
            shutil.rmtree(folder / "hit")
        print(f"{len(expected)} files, {calm_s:.0f} s undisturbed; {landed} kills hit a running build")
        print(f"builds that ended after kills: {finished}, of which differ from the undisturbed one: {different}")
        print(f"--workers 1 and 2: {'identical' if hashes(folder / 'one') == expected else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
