"""Gain against forgetting, a panel a general slice: where each training of a Run stands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixer.figures import save

_COLUMNS, _WIDTH, _HEIGHT = 3, 3.6, 3.0


def draw_frontier(trainings: Mapping[str, Mapping[str, Any]], path: Path, *, limit: float) -> None:
    """Write the figure: further left forgot less, higher up gained more; a line joins what was mixed with the base.

    Args:
        trainings: Name -> its part of the report.
        path: The SVG to write.
        limit: Forgetting that is allowed.
    """
    from matplotlib.figure import Figure

    first = next(iter(trainings.values()))
    names = [row["name"] for row in first["slices"] if row["kind"] == "general"]
    columns = min(_COLUMNS, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for number, panel in enumerate(panels.flat):
        if number >= len(names):
            panel.set_visible(False)
            continue
        _panel(panel, names[number], trainings, limit)
    panels[0, 0].legend(fontsize=7)
    save(figure, path)


def _panel(panel: Any, name: str, trainings: Mapping[str, Mapping[str, Any]], limit: float) -> None:
    for training, found in trainings.items():
        points = [_point(found, name), *(_point(mixed, name) for mixed in found.get("interpolated", {}).values())]
        xs, lows, highs, ys = (list(column) for column in zip(*points, strict=True))
        [line] = panel.plot(xs, ys, marker="o", ms=4, lw=0.8, label=training)
        panel.errorbar(xs, ys, xerr=[lows, highs], color=line.get_color(), lw=0.8, ls="none")
    panel.axvline(limit, color="black", ls=":", lw=0.8)
    panel.axvline(0, color="grey", lw=0.5)
    panel.set_title(name, fontsize=9)
    panel.set_xlabel("bits per byte lost", fontsize=8)
    panel.set_ylabel("domain bits per byte gained", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.grid(visible=True, alpha=0.3, lw=0.5)


def _point(found: Mapping[str, Any], name: str) -> Sequence[float]:
    """Forgetting, how far its interval reaches to each side, and gain."""
    change = next(row["difference"] for row in found["slices"] if row["name"] == name)
    value = change["value"]
    return value, max(0.0, value - change["low"]), max(0.0, change["high"] - value), found["gain"] or 0.0
