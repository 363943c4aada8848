"""What each stage did, where its last checkpoint was kept: scores by stage, and the metrics of continual learning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from curricula import checkpoint as checkpoints
from curricula.retention.measure import Reading
from curricula.retention.statistics import backward_transfer, change_from_base, forgetting, overall
from mixer.run import read_json


def stage_ends(run: Path, training: Path) -> dict[str, Path]:
    """Stage -> the checkpoint at its end, of stages from the first on; empty with one stage, or where one is missing.

    Args:
        run: The Run folder.
        training: A folder of its `checkpoints/`.
    """
    planned = (read_json(run / "plan.json") or {}).get("stages", [])
    by_position = {
        checkpoints.read(path.parent.parent)[0].position: path.parent.parent
        for path in training.glob("step-*/trainer/state.json")
    }
    ends = np.cumsum([stage["sequences"] for stage in planned]).tolist()
    if len(ends) < 2 or not set(ends) <= set(by_position):
        return {}
    return {stage["name"]: by_position[end] for stage, end in zip(planned, ends, strict=True)}


def continual(before: Mapping[str, Reading], after: Mapping[str, Mapping[str, Reading]]) -> dict[str, Any]:
    """Scores, minus bits per byte, of every slice after every stage, with what is known of forgetting.

    OP and BWT are those of the slices that name the stage that teaches them, where every stage has one at least.

    Args:
        before: Slice -> what the base needs.
        after: Stage -> the same after it, in their order.
    """
    names, stages = list(before), list(after)
    table = np.array([[-readings[name].bits_per_byte for name in names] for readings in (before, *after.values())])
    found: dict[str, Any] = {
        "scores": {
            stage: dict(zip(names, row, strict=True))
            for stage, row in zip(["base", *stages], table.tolist(), strict=True)
        },
        "forgetting": {
            stage: dict(zip(names, forgetting(table, number), strict=True)) for number, stage in enumerate(stages, 1)
        },
    }
    for kind in ("general", "domain"):
        columns = [number for number, name in enumerate(names) if before[name].texts.kind == kind]
        if columns:
            told = {stage: change_from_base(table, number, columns) for number, stage in enumerate(stages, 1)}
            found[f"delta_{kind}"] = told
    taught = [[number for number, name in enumerate(names) if before[name].texts.stage == stage] for stage in stages]
    if all(taught):
        square = np.stack([table[:, columns].mean(axis=1) for columns in taught], axis=1)
        found["overall"] = {stage: overall(square, number) for number, stage in enumerate(stages, 1)}
        found["backward_transfer"] = {
            stage: backward_transfer(square, number) for number, stage in enumerate(stages, 1) if number > 1
        }
    return found
