"""How often `mixer sweep` finds a planted best mixture, and how often it answers where there is none to find.

    .venv/bin/python benchmarks/sweep.py [SWEEPS] [NOISE] [KIND]

Every sweep draws a law at random, simulates the losses of its runs (noise of 0.2% of the loss, as between seeds of
small models) and asks. The truth is the optimum of the drawn law, under the same caps and price of divergence.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from curricula.search.laws import DCpt, MixingLaw, PowerLaw
from curricula.search.results import Result
from curricula.search.stock import Stock
from curricula.search.sweep import analyse, jobs
from mixer.recipe.sweep import Sweep

NAMES = ("web", "books", "code", "qa")
HELD = (5 * 10**9, 2 * 10**9, 2 * 10**9, 10**9)
STOCK = Stock(
    dict(zip(NAMES, (0.5, 0.2, 0.2, 0.1), strict=True)),
    dict(zip(NAMES, HELD, strict=True)),
    dict.fromkeys(NAMES, 0),
    10**9,
    4.0,
)
Losses = dict[str, Callable[[np.ndarray], float]]
"""Slice -> its loss at weights (K,)."""


def share_sweep(**changes: object) -> Sweep:
    """Two runs of each of nine shares of `qa`."""
    vary = {"kind": "share", "sources": ["qa"]}
    return Sweep.model_validate({"stage": "s", "vary": vary, "tokens_per_run": 10**7, "seeds": 2} | changes)


def weights_sweep(mixtures: int) -> Sweep:
    """So many mixtures of all four sources, three slices that count alike."""
    vary = {"kind": "weights", "mixtures": mixtures}
    targets = {"a": 1, "b": 1, "c": 1}
    return Sweep.model_validate({"stage": "s", "vary": vary, "tokens_per_run": 10**7, "targets": targets})


def at_share(law: DCpt | PowerLaw) -> Callable[[np.ndarray], float]:
    return lambda weights: float(law.predict(weights[None, 3:])[0])


def inside(rng: np.random.Generator) -> tuple[Losses, float]:
    """A loss with its least value at a share between 0.08 and 0.5, at least 0.03 nats below the ends of the grid."""
    shares = np.linspace(0.02, 0.7, 6801)[:, None]
    while True:
        law = DCpt(2.0, rng.uniform(0.3, 1.5), rng.uniform(0.7, 2), rng.uniform(0.03, 0.3), 0.03, rng.uniform(0.3, 1))
        losses = law.predict(shares)
        best = float(shares[losses.argmin(), 0])
        if 0.08 < best < 0.5 and min(losses[0], losses[-1]) - losses.min() > 0.03:
            return {"science": at_share(law)}, best


def tolerated(rng: np.random.Generator) -> tuple[Losses, float]:
    """A domain loss that falls with the share, a general one that rises and passes its tolerance at the best share."""
    best = rng.uniform(0.1, 0.5)
    power, least = rng.uniform(0.8, 2.0), rng.uniform(2.6, 2.84)
    general = PowerLaw((2.86 * 1.03 - least) / best**power, power, least)
    domain = PowerLaw(-rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6), 2.8)
    return {"science": at_share(domain), "general": at_share(general)}, float(best)


def mixing(rng: np.random.Generator, sweep: Sweep) -> tuple[Losses, np.ndarray]:
    """Three slices, each helped most by one source; the best weights from the drawn laws themselves."""
    from curricula.search.sweep import _question

    t = rng.normal(0, 0.4, (3, 4))
    t[np.arange(3), [1, 2, 3]] -= rng.uniform(0.5, 1.5, 3)
    laws = {name: MixingLaw(float(np.log(2.0)), tuple(row.tolist())) for name, row in zip("abc", t, strict=True)}
    tried = np.array([[0.0] * 4, [1.0] * 4])
    choice = _question(sweep, STOCK, tried, [10**7], {}).choose(laws)
    assert choice is not None
    losses: Losses = {name: lambda w, law=law: float(law.predict(w[None])[0]) for name, law in laws.items()}
    return losses, choice.weights


def ask(sweep: Sweep, losses: Losses, rng: np.random.Generator, noise: float, number: int):
    """The report of simulated runs."""
    results = []
    for job in jobs(sweep, STOCK, seed=number):
        weights = np.array([job.mixture.get(name, 0.0) for name in NAMES])
        found = {name: loss(weights) * float(np.exp(noise * rng.standard_normal())) for name, loss in losses.items()}
        base = dict.fromkeys(losses, 2.86)
        results.append(Result(job.mixture, job.tokens, job.seed, found if job.tokens else base))
    return analyse(sweep, STOCK, results, seed=number)


def show(title: str, sweeps: int, one: Callable[[np.random.Generator, int], tuple[object, np.ndarray | None]]) -> None:
    """Run the sweeps of one kind; print how they ended and how far the answers were off."""
    began = time.monotonic()
    kinds: Counter[str] = Counter()
    off, covered = [], []
    for number in range(sweeps):
        report, truth = one(np.random.default_rng([number, len(title)]), number)
        kinds[report.verdict.kind] += 1
        if report.recommended and truth is not None:
            parts = list(report.recommended.values())
            off.append(max(abs(part.value - true) for part, true in zip(parts, truth, strict=True)))
            covered += [part.low <= true <= part.high for part, true in zip(parts, truth, strict=True)]
    ends = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    accuracy = ""
    if off:
        within = np.mean(np.array(off) <= 0.02)
        accuracy = (
            f"; answers within 2 points {within:.0%}, median error {100 * np.median(off):.1f} points,"
            f" largest {100 * max(off):.1f}, in the interval {np.mean(covered):.0%}"
        )
    print(f"{title}: {sweeps} sweeps: {ends}{accuracy}; {(time.monotonic() - began) / sweeps:.1f} s each", flush=True)


def on_line(share: float) -> np.ndarray:
    rest = np.array([0.5, 0.2, 0.2, 0.0])
    return rest / rest.sum() * (1 - share) + np.array([0, 0, 0, share])


def main() -> None:
    sweeps = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    noise = float(sys.argv[2]) if len(sys.argv) > 2 else 0.002
    target, kept = share_sweep(targets={"science": 1}), share_sweep(targets={"science": 1}, keep={"general": 0.03})

    def best_inside(rng, number):
        losses, best = inside(rng)
        return ask(target, losses, rng, noise, number), on_line(best)

    def within_tolerance(rng, number):
        losses, best = tolerated(rng)
        return ask(kept, losses, rng, noise, number), on_line(best)

    def beyond(rng, number):
        law = PowerLaw(-rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6), 2.8)
        return ask(target, {"science": at_share(law)}, rng, noise, number), None

    def flat(rng, number):
        return ask(target, {"science": lambda weights: 2.8}, rng, noise, number), None

    def weights(count):
        def planted(rng, number):
            sweep = weights_sweep(count)
            losses, best = mixing(rng, sweep)
            return ask(sweep, losses, rng, noise, number), best

        return planted

    def flat_weights(rng, number):
        return ask(weights_sweep(24), dict.fromkeys("abc", lambda weights: 2.8), rng, noise, number), None

    kinds = {
        "share, best one inside": best_inside,
        "share, largest within 3%": within_tolerance,
        "share, best one beyond the grid": beyond,
        "share, no effect": flat,
        "weights, 24 mixtures of 4 sources": weights(24),
        "weights, 12 mixtures of 4 sources": weights(12),
        "weights, no effect": flat_weights,
    }
    for title, one in kinds.items():
        if len(sys.argv) < 4 or title.startswith(sys.argv[3]):
            show(title, sweeps, one)


if __name__ == "__main__":
    main()
