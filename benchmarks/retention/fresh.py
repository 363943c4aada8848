"""A point of the comparison on documents that had no part in choosing it: those of each slice beyond the recipe's.

    .venv/bin/python benchmarks/retention/fresh.py frozen_replay5 2e-4 --mix 0.3 --seeds 1 2 [--documents 60]

Many points are compared on the same documents, and the one that looks best there owes some of that to them. Prints what
the reference and the arm changed on others, with 95% intervals over documents, and the arm's share of the reference's;
of several seeds together the mean. A slice with less than two more documents is named and left out.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from experiment import Lab, open_lab
from frontier import training_of

from curricula.interpolate import interpolate
from curricula.order import seed_of
from curricula.retention.measure import Subject, read_slices
from curricula.retention.slices import Texts, texts_of
from curricula.retention.statistics import Difference, paired_bootstrap
from mixer.commands.options import store
from mixer.recipe.file import load
from mixer.recipe.retention import Retention


@dataclass(frozen=True, slots=True)
class Row:
    """One slice: what the reference lost against the base, and what the arm lost; less than zero is gained."""

    texts: Texts
    reference: Difference
    arm: Difference


def compared(lab: Lab, name: str, rate: float, share: float, *, seeds: Sequence[int], documents: int) -> list[Row]:
    """What the reference at its best rate and an arm lost on so many further documents of each slice."""
    rules = load(lab.base / lab.arms.recipe).retention
    assert rules is not None
    slices, best = _unseen(lab, rules, documents), lab.best_rate(lab.arms.reference)

    def read(folder: Path) -> dict[str, np.ndarray]:
        found = read_slices(Subject(folder, store=store()), slices, window=rules.window, cache=lab.out / "readings")
        return {name: reading.bits for name, reading in found.items()}

    before = read(lab.model)
    reference = [read(_folder(lab, lab.arms.reference, best, seed)) for seed in seeds]
    arm = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            trained = _folder(lab, name, rate, seed)
            arm.append(read(interpolate(lab.model, trained, Path(scratch) / "mixed", share=share)))

    def lost(own: Texts, after: list[dict[str, np.ndarray]]) -> Difference:
        return paired_bootstrap(
            before[own.name] * len(after),
            np.sum([found[own.name] for found in after], axis=0),
            own.sizes * len(after),
            confidence=rules.confidence,
            replicates=rules.replicates,
            seed=seed_of(0, "fresh", own.name),
        )

    return [Row(own, lost(own, reference), lost(own, arm)) for own in slices]


def _unseen(lab: Lab, rules: Retention, documents: int) -> list[Texts]:
    """The documents of each slice that come after those of the recipe."""
    found = []
    for name, own in rules.slices.items():
        more = own.model_copy(update={"max_documents": own.max_documents + documents})
        whole = texts_of(name, more, run=lab.base, base=lab.base)
        ids, texts = (part[own.max_documents :] for part in (whole.ids, whole.texts))
        if len(ids) > 1:
            found.append(Texts(name, own.kind, ids, texts))
        else:
            print(f"{name}: left out, got {len(ids)} further documents, expected two at least", file=sys.stderr)
    return found


def _folder(lab: Lab, name: str, rate: float, seed: int) -> Path:
    run = lab.out / f"{lab.arms.arms[name].data}-s{seed}-{lab.key}"
    folder = run / "checkpoints" / training_of(name, rate) / "final"
    if not folder.is_dir():
        sys.exit(f"{folder}: got no such model; train it with `experiment.py run {name}`")
    return folder


def table(rows: Sequence[Row]) -> str:
    """Markdown; of a domain slice what was gained, as a loss below zero."""
    lines = ["| slice | documents | reference lost | arm lost | of the reference's |", "|---|---|---|---|---|"]
    for row in rows:
        changes = [f"{one.value:+.4f} ({one.low:+.4f} to {one.high:+.4f})" for one in (row.reference, row.arm)]
        told = f"{row.texts.name} ({row.texts.kind})"
        is_certain = row.reference.low > 0 or row.reference.high < 0
        share = f"{row.arm.value / row.reference.value:.0%}" if is_certain else "n/a"
        lines.append("| " + " | ".join([told, str(row.arm.count), *changes, share]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("arm")
    parser.add_argument("rate", type=float)
    parser.add_argument("--mix", type=float, default=0.0, help="share of the base's weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--arms", type=Path, default=Path(__file__).with_name("arms.yaml"))
    asked = parser.parse_args()
    lab = open_lab(asked.arms)
    if asked.arm not in lab.arms.arms:
        parser.error(f"got the arm {asked.arm!r}, expected one of {', '.join(lab.arms.arms)}")
    print(table(compared(lab, asked.arm, asked.rate, asked.mix, seeds=asked.seeds, documents=asked.documents)))


if __name__ == "__main__":
    main()
