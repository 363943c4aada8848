"""Arms beside each other: domain gain against forgetting of each general slice, as a table and a figure."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

GAIN, FORGETTING = 0.9, 0.25
"""What is aimed at: so much of the reference's gain at so much of its forgetting."""
_TRAINING = re.compile(r"(.+)-(\d+(?:\.\d+)?e[-+]\d+)")
"""Arm and rate in the name of a training."""
_MARKERS = "os^D"
"""Ten arms each, in ten colours."""


def training_of(arm: str, rate: float) -> str:
    """The name of an arm's training at a rate; no two rates share one.

    Example:
        >>> training_of("plain", 2e-4), training_of("plain", 1.5e-4)
        ('plain-2e-04', 'plain-1.5e-04')
    """
    told = next(text for digits in range(17) if float(text := f"{rate:.{digits}e}") == rate)
    return f"{arm}-{told}"


@dataclass(frozen=True, slots=True)
class Point:
    """One way to train, over its seeds.

    Args:
        arm: Its name; one that mixes weights with the base's is told so.
        rate: Learning rate.
        share: Of the base in the weights.
        seeds: Whose trainings these are.
        gains: By seed: bits per byte gained over all domain text.
        lost: General slice -> by seed, bits per byte lost.
        certain: General slices that lost something for certain, with every seed.
        drops: Task -> by seed, share of its items lost.
        passes: Whether every seed passed the gate.
    """

    arm: str
    rate: float
    share: float
    seeds: tuple[int, ...]
    gains: tuple[float, ...]
    lost: Mapping[str, tuple[float, ...]]
    certain: tuple[str, ...]
    drops: Mapping[str, tuple[float, ...]]
    passes: bool

    @property
    def gain(self) -> float:
        return float(np.mean(self.gains))

    def lost_of(self, name: str) -> float:
        return float(np.mean(self.lost[name]))

    def over(self, seeds: Sequence[int]) -> "Point":
        """The same over such of its trainings as have one of these seeds, over all where none has."""
        chosen = [place for place, seed in enumerate(self.seeds) if seed in seeds] or range(len(self.seeds))

        def kept(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(values[place] for place in chosen)

        return replace(
            self,
            seeds=tuple(self.seeds[place] for place in chosen),
            gains=kept(self.gains),
            lost={name: kept(values) for name, values in self.lost.items()},
            drops={name: kept(values) for name, values in self.drops.items()},
        )

    @property
    def title(self) -> str:
        mixed = f" + {self.share:g} of the base" if self.share else ""
        return f"{self.arm}{mixed} at {self.rate:g}"


def points_of(results: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Results of the same arm, rate and share, together.

    Args:
        results: What `mixer retention --json` told of a training, with `arm`, `rate` and `seed`.
    """
    groups: dict[tuple[str, float, float], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["arm"], result["rate"], 0.0), []).append(result)
        for share, mixed in result.get("interpolated", {}).items():
            told = {**mixed, "seed": result["seed"]}
            groups.setdefault((result["arm"], result["rate"], float(share)), []).append(told)
    return [_point(*key, found) for key, found in sorted(groups.items())]


def _point(arm: str, rate: float, share: float, found: Sequence[Mapping[str, Any]]) -> Point:
    def by_seed(rows: str, kind: str, sign: int) -> dict[str, tuple[float, ...]]:
        names = [row["name"] for row in found[0][rows] if row["kind"] == kind]
        told = [{row["name"]: sign * row["difference"]["value"] for row in one[rows]} for one in found]
        return {name: tuple(one[name] for one in told) for name in names}

    lows = [
        {row["name"]: row["difference"]["low"] for row in one["slices"] if row["kind"] == "general"} for one in found
    ]
    return Point(
        arm,
        rate,
        share,
        seeds=tuple(one["seed"] for one in found),
        gains=tuple(one["gain"] for one in found),
        lost=by_seed("slices", "general", 1),
        certain=tuple(name for name in lows[0] if all(low[name] > 0 for low in lows)),
        drops=by_seed("tasks", "task", -1),
        passes=all(one["gate"]["passes"] for one in found),
    )


def results_of_guards(runs: Iterable[Path]) -> list[dict[str, Any]]:
    """What the guard measured at the end of each training: few documents, and nothing has to be measured.

    Its bounds are one-sided, so an interval of these is the 90% one where the recipe's confidence is 95%.

    Args:
        runs: Folders; a training that has not ended in one is left out.
    """
    found = []
    for path in sorted(path for run in runs for path in run.glob("checkpoints/*/guard.jsonl")):
        named, run = _TRAINING.fullmatch(path.parent.name), path.parents[2]
        lines = path.read_text("utf-8").splitlines()
        line = json.loads(lines[-1]) if lines else {"tokens": 0}
        if named is None or line["tokens"] != _tokens(run):
            continue
        recipe = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
        slices = recipe["retention"]["slices"]
        rows = [
            {
                "name": name,
                "kind": slices[name].get("kind", "general"),
                "difference": {"value": lost["value"], "low": lost["least"], "high": lost["most"]},
            }
            for name, lost in line["lost"].items()
        ]
        told = {"slices": rows, "tasks": [], "gain": line["gain"], "gate": {"passes": not line["forgotten"]}}
        found.append(told | {"arm": named[1], "rate": float(named[2]), "seed": recipe["seed"]})
    return found


def _tokens(run: Path) -> int:
    plan = json.loads((run / "plan.json").read_text("utf-8"))
    return int(sum(stage["sequences"] for stage in plan["stages"]) * plan["sequence_length"])


def best(points: Sequence[Point], arm: str) -> Point | None:
    """An arm's point of greatest gain with its first seed, as the run chose it; None where it has none.

    Points with some of the base's weights are no rate of their own, and left out.
    """
    own = [point for point in points if point.arm == arm and not point.share]
    first = min((seed for point in own for seed in point.seeds), default=0)
    return max(own, key=lambda point: point.over([first]).gain, default=None)


def compared(points: Sequence[Point], *, reference: str, control: str | None) -> list[dict[str, Any]]:
    """A row a point, against the reference arm at its best rate, and less what the control did.

    Both with the point's seeds: another seed draws other text, and that differs by as much as the arms do. A slice's
    share of forgetting is told where the reference lost something for certain; the worst of them counts. Their share
    together is told beside it, in which what a slice gained is 0.

    Args:
        points: All of them.
        reference: Its name, such as `plain`.
        control: Name of the arm that trained on general text alone; its best rate for gain would be no control, so the
            rate is the reference's.
    """
    measure = best(points, reference)
    same = [point for point in points if point.arm == control and measure and point.rate == measure.rate]
    return [_row(point, measure, same[0] if same else None) for point in points]


def _row(point: Point, measure: Point | None, control: Point | None) -> dict[str, Any]:
    same = point.over(measure.seeds) if measure is not None else point
    measure, control = (other and other.over(point.seeds) for other in (measure, control))
    shares = {}
    if measure is not None:
        shares = {name: same.lost_of(name) / measure.lost_of(name) for name in measure.certain}
    gain_share = same.gain / measure.gain if measure is not None and measure.gain > 0 else None
    worst, together = max(shares.values(), default=None), None
    if measure is not None and shares:
        # What is gained on one slice makes up for nothing on another.
        lost = sum(max(0.0, same.lost_of(name)) for name in shares)
        together = lost / sum(measure.lost_of(name) for name in shares)
    return {
        "title": point.title,
        "arm": point.arm,
        "rate": point.rate,
        "share": point.share,
        "seeds": len(point.gains),
        "gain": point.gain,
        "gains": list(point.gains),
        "gain_less_control": None if control is None else point.gain - control.gain,
        "lost": {name: point.lost_of(name) for name in point.lost},
        "lost_less_control": None
        if control is None
        else {name: point.lost_of(name) - control.lost_of(name) for name in point.lost},
        "drops": {name: float(np.mean(values)) for name, values in point.drops.items()},
        "gain_share": gain_share,
        "forgetting_shares": shares,
        "worst_share": worst,
        "together_share": together,
        "passes": point.passes,
        "reaches": gain_share is not None and worst is not None and gain_share >= GAIN and worst <= FORGETTING,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown, and which of them reach what is aimed at."""
    slices = list(rows[0]["lost"])
    lost = [f"{name} lost" for name in slices]
    head = ["", "seeds", "gain", "of reference", *lost, "worst, of reference", "together", "gate"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [
            row["title"],
            str(row["seeds"]),
            f"{row['gain']:+.4f}",
            _share(row["gain_share"]),
            *(f"{row['lost'][name]:+.4f}" for name in slices),
            _share(row["worst_share"]),
            _share(row["together_share"]),
            "passes" if row["passes"] else "fails",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    reached = [row["title"] for row in rows if row["reaches"]]
    aim = f"{GAIN:.0%} of the reference's gain at {FORGETTING:.0%} of its forgetting on every slice that it forgot"
    return "\n".join([*lines, "", f"{aim}: {', '.join(reached) or 'none'}", ""])


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0%}"


def draw(points: Sequence[Point], path: Path) -> None:
    """Write the figure: a panel a general slice, a line an arm over its rates, its mixtures with the base beside it."""
    from matplotlib.figure import Figure

    from mixer.figures import save

    slices, arms = list(points[0].lost), list(dict.fromkeys(point.arm for point in points))
    across, down = min(3, len(slices)), math.ceil(len(slices) / 3)
    figure = Figure(figsize=(4.4 * across, 3.6 * down + 0.2 * math.ceil(len(arms) / 6)), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for panel in panels[len(slices) :]:
        panel.remove()
    for panel, name in zip(panels, slices, strict=False):
        for number, arm in enumerate(arms):
            look = {"color": f"C{number % 10}", "marker": _MARKERS[number // 10 % len(_MARKERS)], "ms": 4, "lw": 0.8}
            own = sorted((point for point in points if point.arm == arm), key=lambda p: (p.rate, p.share))
            panel.plot(*_line([point for point in own if not point.share], name), label=arm, **look)
            for rate in {point.rate for point in own if point.share}:
                mixed = [point for point in own if point.rate == rate]
                panel.plot(*_line(mixed, name), **look | {"marker": "x", "ls": ":"})
        panel.axvline(0, color="grey", lw=0.5)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("bits per byte lost", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(visible=True, alpha=0.3, lw=0.5)
    for panel in panels[::across]:
        panel.set_ylabel("domain bits per byte gained", fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 * across, fontsize=7)
    save(figure, path)


def _line(points: Sequence[Point], name: str) -> tuple[list[float], list[float]]:
    """What a slice lost, and what was gained."""
    return [point.lost_of(name) for point in points], [point.gain for point in points]
