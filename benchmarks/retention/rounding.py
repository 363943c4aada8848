"""How far a mix of weights really goes back to the base, with the two ways of rounding it to the models' number type.

    .venv/bin/python benchmarks/retention/rounding.py BASE TRAINED [SHARE ...]

BASE and TRAINED are folders of models in bfloat16, such as `checkpoints/NAME/final` of two Runs of the comparison.
Told is the share in effect, measured along what training changed, and the size of the rounding over that of the change.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from curricula.interpolate import Weights, interpolate


def in_effect(
    base: Weights, trained: Weights, mixed: Callable[[str], torch.Tensor], share: float
) -> tuple[float, float]:
    """The share of the base, and the error, over all tensors that both models have."""
    along = change = error = 0.0
    for name in base.files:
        start = base.read(name).double()
        moved, kept = trained.read(name).double() - start, mixed(name).double() - start
        along += float((kept * moved).sum())
        change += float((moved * moved).sum())
        error += float(((kept - (1 - share) * moved) ** 2).sum())
    return 1 - along / change, (error / change) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("shares", nargs="*", type=float, default=[0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7])
    asked = parser.parse_args()
    base, trained = Weights(asked.base), Weights(asked.trained)
    print("| share asked | to the nearest | error | at random | error |\n|---|---|---|---|---|")
    for share in asked.shares:

        def nearest(name: str, share: float = share) -> torch.Tensor:
            end = trained.read(name)
            return torch.lerp(end.float(), base.read(name).float(), share).to(end.dtype)

        with tempfile.TemporaryDirectory() as folder:
            ours = Weights(interpolate(asked.base, asked.trained, Path(folder) / "mixed", share=share))
            found = *in_effect(base, trained, nearest, share), *in_effect(base, trained, ours.read, share)
        print(f"| {share:g} | {found[0]:.3f} | {found[1]:.0%} | {found[2]:.3f} | {found[3]:.0%} |")


if __name__ == "__main__":
    main()
