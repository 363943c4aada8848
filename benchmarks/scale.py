"""Plan and order a trillion tokens: 122M sequences of 8,192, 30 sources, 4 stages; time and memory, and how they grow.

    .venv/bin/python benchmarks/scale.py [FOLDER]

Groups, ramps, a preset, replay and a source mixed by topic; one source is taken in buckets by its score. Each size
runs in a process of its own and writes its orders as a build does, below FOLDER (default: a temporary one).
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from curricula.scheduler import Scheduler
from mixer.mixture import source_of
from mixer.ordering import draws_of, write_order
from mixer.plan import plan
from mixer.pools import guessed_pools
from mixer.recipe.recipe import Recipe

LENGTH = 8192
SOURCES = 30
BUDGETS = (10**9, 10**10, 10**11, 10**12)


def recipe_of(budget: int) -> Recipe:
    names = [f"s{number:02d}" for number in range(SOURCES)]
    groups = {
        "web": {"weight": 6, "mixture": {name: 1 + number % 7 for number, name in enumerate(names[:10])}},
        "books": {"weight": {"from": 3, "to": 1}, "mixture": {"temperature": 3, "sources": names[10:20]}},
        names[20]: {"weight": 2, "topics": {"physics": 3, "biology": 2, "rest": 1}},
    }
    groups |= {name: {"from": 0.2, "to": 0.5, "at": 0.5} for name in names[21:25]}
    replay = {"share": 0.1, "mixture": dict.fromkeys(names[25:], 1)}
    order = {names[0]: {"by": "text", "buckets": 10}}
    stages = [
        {"name": f"stage{number}", "token_budget": budget // 4, "mixture": groups, "replay": replay, "order": order}
        for number in range(4)
    ]
    return Recipe.model_validate(
        {
            "name": "scale",
            "tokenizer": "none",
            "sequence_length": LENGTH,
            "sources": {name: {"kind": "text", "path": "none"} for name in names},
            "scores": {"text": {}, "topic": {}},
            "max_epochs": 4,
            "stages": stages,
        }
    )


def run(budget: int, folder: Path) -> dict[str, Any]:
    recipe = recipe_of(budget)
    began = time.perf_counter()
    available = budget // LENGTH // 12
    pools = {pool.name: pool for name in recipe.sources for pool in guessed_pools(recipe, name, available)}
    planned = plan(recipe, {name: pool.available for name, pool in pools.items()})
    after = time.perf_counter()
    scheduler, rows = Scheduler(), 0
    for stage, draws in draws_of(planned, pools):
        sources = np.array([list(recipe.sources).index(source_of(draw.name)) for draw in draws], np.int32)
        own = {
            draw.name: rule
            for draw in draws
            for name, rule in recipe.mixed_stages[0].order.items()
            if draw.name == name
        }
        pieces = scheduler.order(draws, seed=1, segments=stage.segments, orders=own)
        write_order(folder / f"{budget}-{stage.name}.npy", pieces, sources, stage.sequences)
        rows += stage.sequences
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"sequences": rows, "plan_s": after - began, "order_s": ended - after, "peak_gib": peak}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(name)
        for budget in BUDGETS:
            done = subprocess.run(
                [sys.executable, __file__, "--one", str(budget), str(folder)],
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout)
            print(
                f"{budget / 1e9:6,.0f}B tokens, {found['sequences']:12,} sequences: plan {found['plan_s']:.2f} s,"
                f" order {found['order_s']:.1f} s, {found['order_s'] / found['sequences'] * 1e9:.0f} ns a sequence,"
                f" peak {found['peak_gib']:.2f} GiB",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(run(int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
