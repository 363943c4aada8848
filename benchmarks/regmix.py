"""The log-linear mixing law on real runs: RegMix's 64 mixtures of 17 Pile domains, trained at 1B parameters.

    .venv/bin/python benchmarks/regmix.py test_mixture_1B.csv test_pile_loss_1B.csv

The files are in `data/` of https://github.com/sail-sg/regmix. Each run is left out in turn and predicted by a law of
the other 63; the peer is linear regression on the weights, RegMix's simpler alternative, left out in the same way.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from curricula.search.laws import MixingLaw


def table(path: Path) -> dict[str, np.ndarray]:
    """Column -> values, without the index."""
    rows = list(csv.DictReader(path.open()))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "index"}


def left_out(weights: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the law and linear regression say of each run that they did not see."""
    whole = MixingLaw.fit(weights, losses)
    by_law, by_line = np.empty(len(losses)), np.empty(len(losses))
    for run in range(len(losses)):
        rest = np.arange(len(losses)) != run
        by_law[run] = MixingLaw.fit(weights[rest], losses[rest], whole).predict(weights[run : run + 1])[0]
        by_line[run] = weights[run] @ np.linalg.lstsq(weights[rest], losses[rest])[0]
    return by_law, by_line


def show(name: str, losses: np.ndarray, law: np.ndarray, line: np.ndarray) -> None:
    def judged(predicted: np.ndarray) -> str:
        off = np.abs(predicted - losses)
        rank = spearmanr(predicted, losses).statistic
        return f"rank correlation {rank:.3f}, error {np.median(off):.4f} (median), {np.sqrt((off**2).mean()):.4f} (rms)"

    print(f"{name}: runs differ by {losses.std(ddof=1):.4f}; law: {judged(law)}; line: {judged(line)}")


def main() -> None:
    mixtures, found = table(Path(sys.argv[1])), table(Path(sys.argv[2]))
    weights = np.stack(list(mixtures.values()), axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    with threadpool_limits(1):
        predicted = {name: left_out(weights, losses) for name, losses in found.items()}
    for name, losses in found.items():
        show(name.removeprefix("metric/the_pile_").removesuffix("_val_loss"), losses, *predicted[name])
    mean = [np.mean([predicted[name][side] for name in found], axis=0) for side in (0, 1)]
    show("mean of all", np.mean(list(found.values()), axis=0), *mean)


if __name__ == "__main__":
    main()
