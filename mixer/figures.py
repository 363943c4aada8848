"""Figures as SVG files: the same bytes for the same numbers, drawn without a screen."""

from pathlib import Path
from typing import Any

import polars as pl

_WIDTH, _HEIGHT = 9.0, 2.6


def realised_figure(table: pl.DataFrame, path: Path) -> None:
    """Write a stage's shares and scores over its windows: a panel of shares, and one for each score.

    Args:
        table: As `realised.windows_of` gives it, of one stage.
        path: The SVG to write.
    """
    scores = [score for score in table["score"].unique().sort().to_list() if score]
    table = table.sort("window", maintain_order=True)
    figure, panels = _figure(1 + len(scores))
    counts = table.unique(["window", "pool"], maintain_order=True)
    for pool in counts["pool"].unique(maintain_order=True):
        own = counts.filter(pl.col("pool") == pool)
        middle = middle_of(own)
        [line] = panels[0].plot(middle, (own["count"] / own["sequences"]).to_list(), label=pool)
        panels[0].plot(middle, (own["asked"] / own["sequences"]).to_list(), color=line.get_color(), ls=":", lw=0.8)
        for panel, score in zip(panels[1:], scores, strict=True):
            known = (
                table.filter((pl.col("pool") == pool) & (pl.col("score") == score)).drop_nulls("mean").sort("window")
            )
            at = (known["first"] + known["sequences"] / 2).to_list()
            if at:
                panel.plot(at, known["mean"].to_list(), color=line.get_color())
                panel.fill_between(
                    at, known["low"].to_list(), known["high"].to_list(), color=line.get_color(), alpha=0.15
                )
    panels[0].set_title(f"{table['stage'][0]}: share of each window (dotted: asked for)", fontsize=9)
    panels[0].set_ylim(bottom=0)
    panels[0].legend(fontsize=7, ncols=4)
    for panel, score in zip(panels[1:], scores, strict=True):
        panel.set_title(f"{score} of sequences: mean, least and greatest", fontsize=9)
    panels[-1].set_xlabel("sequences into the stage", fontsize=8)
    save(figure, path)


def middle_of(windows: pl.DataFrame) -> list[float]:
    """Where the middle of each window lies, in sequences."""
    return (windows["first"] + windows["sequences"] / 2).to_list()


def _figure(rows: int) -> tuple[Any, list[Any]]:
    """A figure of some panels, one above the other, that share their x axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT * rows), layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for panel in panels:
        panel.tick_params(labelsize=7)
        panel.grid(visible=True, alpha=0.3, lw=0.5)
    return figure, list(panels)


def save(figure: Any, path: Path) -> None:
    """Write a figure as SVG without date and random ids."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "curriculum-mixer", "svg.fonttype": "none", "text.parse_math": False}):
        figure.savefig(path, format="svg", metadata={"Date": None})
