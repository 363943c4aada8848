"""kill -9 of a run while a model answers: every page accounted for, nothing logged is asked again, the same bytes."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import yaml

from tests.endpoint import answer, endpoint
from tests.test_synth import recipe_of

ROOT = Path(__file__).parents[1]


def command(folder, run):
    return [sys.executable, "-m", "mixer.cli", "synth", str(folder / "r.yaml"), "--run", str(folder / run)]


def answered(folder):
    log = folder / "hit" / "synth" / "qa" / "responses" / "00000.jsonl"
    return [json.loads(line)["key"] for line in log.read_text("utf-8").split("\n")[:-1]] if log.is_file() else []


def slowly(payload):
    time.sleep(0.3)
    return answer(payload)


def table(folder, run):
    (found,) = (folder / run / ".cache" / "synth").iterdir()
    return found


def test_five_kills_of_the_run_lose_nothing_and_change_nothing(tmp_path):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    rng = random.Random(1)
    with endpoint(slowly) as (url, _):
        recipe = recipe_of(tmp_path, url).model_dump(mode="json", by_alias=True, exclude_none=True)
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
        landed, kept = 0, []
        for _ in range(5):
            before = len(answered(tmp_path))
            run = subprocess.Popen(command(tmp_path, "hit"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            end = time.monotonic() + 60
            while run.poll() is None and len(answered(tmp_path)) <= before + rng.randint(0, 3) < 99:
                time.sleep(0.02)
                assert time.monotonic() < end
            landed += run.poll() is None
            run.kill()
            run.wait()
            assert answered(tmp_path)[: len(kept)] == kept
            kept = answered(tmp_path)
        done = subprocess.run(command(tmp_path, "hit"), env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert landed >= 3
    keys = answered(tmp_path)
    assert len(keys) == len(set(keys))
    assert pl.read_parquet(table(tmp_path, "hit") / "candidates.parquet")["page"].n_unique() == 3

    (tmp_path / "again").mkdir()
    subprocess.run(["cp", "-r", tmp_path / "hit" / "synth", tmp_path / "again" / "synth"], check=True)
    subprocess.run(command(tmp_path, "again"), env=env, check=True, capture_output=True)
    for name in ("candidates", "documents", "dropped"):
        pair = [(table(tmp_path, run) / f"{name}.parquet").read_bytes() for run in ("hit", "again")]
        assert pair[0] == pair[1], name
