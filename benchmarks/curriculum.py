"""Is a curriculum of real pages what its recipe says? Buckets, shares at every prefix, repeats, and what is held out.

    .venv/bin/mixer build benchmarks/curriculum.yaml && .venv/bin/python benchmarks/curriculum.py runs/curriculum

Reads the Run as a trainer would and counts everything anew; prints one line a check and ends with 1 where one fails.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np

from curricula.order import prefix_bound
from mixer.ordering import scores_of
from mixer.realised import asked_by
from mixer.recipe.file import load
from mixer.shard import index_of
from mixer.types import Segment, StagePlan

FAILED: list[str] = []


def check(title: str, *, holds: bool, told: str) -> None:
    print(f"{'ok  ' if holds else 'FAIL'} {title}: {told}")
    if not holds:
        FAILED.append(title)


def prefixes(stage: StagePlan, rows: np.ndarray, ranges: dict[str, tuple[int, int, int]]) -> None:
    """Every pool at every prefix against its share."""
    worst = 0.0
    for pool in stage.sources:
        source, first, last = ranges[pool]
        came = np.cumsum((rows[:, 0] == source) & (rows[:, 1] >= first) & (rows[:, 1] < last))
        asked = np.array([asked_by(stage, pool, place) for place in range(1, len(rows) + 1)])
        worst = max(worst, float(np.abs(came - asked).max()))
    bound = prefix_bound(len(stage.sources))
    check(f"{stage.name}: every prefix", holds=worst <= bound + 1e-9, told=f"worst {worst:.3f}, bound {bound:.3f}")


def buckets(run: Path, stage: StagePlan, rows: np.ndarray, ranges: dict[str, tuple[int, int, int]], rule: dict) -> None:
    """Scores of one pool in the stage: each bucket's lowest is at least the highest of the one before."""
    for pool, (source, first, last) in ranges.items():
        if pool.partition("/")[0] != rule["source"] or pool not in stage.sources:
            continue
        own = rows[(rows[:, 0] == source) & (rows[:, 1] >= first) & (rows[:, 1] < last), 1]
        scores = scores_of(run, rule["source"], rule["by"])[own] * (1 if rule["direction"] == "ascending" else -1)
        count, size = rule["buckets"] or max(1, len(scores)), len(scores)
        parts = np.split(scores, [-(-bucket * size // count) for bucket in range(1, count)])
        edges = [(part.min(), part.max()) for part in parts if len(part)]
        is_sorted = all(before[1] <= after[0] + 1e-9 for before, after in itertools.pairwise(edges))
        means = " ".join(f"{abs(part.mean()):.1f}" for part in np.array_split(scores, min(5, len(scores))))
        title = f"{stage.name}: {pool} {rule['direction']}, {rule['buckets'] or 'each its own'} buckets"
        check(
            title,
            holds=is_sorted and len(scores) > 1,
            told=f"{len(scores)} sequences, mean perplexity by fifth {means}",
        )


def main() -> None:
    run = Path(sys.argv[1])
    recipe, plan = load(run / "recipe.yaml"), json.loads((run / "plan.json").read_text())
    names, ranges, held = list(recipe.sources), {}, {}
    for number, name in enumerate(names):
        for part in index_of(run / "shards" / name)["parts"]:
            span = (number, part["first_sequence"], part["first_sequence"] + part["sequences"])
            pool = name if part["topic"] is None else f"{name}/{part['topic']}"
            (held if part["held_out"] else ranges)[pool] = span
    everything = []
    for told in plan["stages"]:
        stage = StagePlan(**told | {"segments": tuple(Segment(**each) for each in told["segments"])})
        rows = np.load(run / "order" / f"{stage.name}.npy")
        everything.append(rows)
        prefixes(stage, rows, ranges)
        own = next(each for each in recipe.mixed_stages if each.name == stage.stage)
        for source, rule in own.order.items():
            buckets(run, stage, rows, ranges, rule.model_dump() | {"source": source})
        figure = run / "realised" / f"{stage.name}.svg"
        check(f"{stage.name}: figure", holds=figure.is_file(), told=str(figure))
    rows = np.concatenate(everything)
    for pool, (source, first, last) in ranges.items():
        own = rows[(rows[:, 0] == source) & (rows[:, 1] >= first) & (rows[:, 1] < last), 1]
        size = plan["available"][pool]
        passes = [own[begin : begin + size] for begin in range(0, len(own), size)]
        is_fresh = all(len(set(each.tolist())) == len(each) for each in passes)
        check(
            f"{pool}: no repeat before exhaustion",
            holds=is_fresh,
            told=f"{len(own)} draws of {size}, {len(passes)} passes",
        )
    leaked = sum(
        int(((rows[:, 0] == s) & (rows[:, 1] >= first) & (rows[:, 1] < last)).sum()) for s, first, last in held.values()
    )
    count = sum(last - first for _, first, last in held.values())
    check("held out", holds=not leaked and count > 0, told=f"{count} sequences, {leaked} of them drawn")
    sys.exit(bool(FAILED))


if __name__ == "__main__":
    main()
