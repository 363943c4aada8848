"""docs/calibration.md and its figure from the report of `mixer synth --calibrate`.

.venv/bin/python benchmarks/synth/report.py RUN/synth/calibrate/report.json [WITH_VOTES.json]
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
WIDTH, HEIGHT, LEFT, TOP = 560, 320, 50, 20
COLOURS = ("#1b6ca8", "#c0392b", "#27ae60", "#8e44ad", "#d68910")
CURVES = ("combined", "near_answer", "relevance", "on_page")


def table(decision: Mapping[str, Any], curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Markdown of one question type."""
    yield "| pairs | number | pass all checks |\n|---|---|---|"
    for label, row in decision.items():
        yield f"| {label} | {row['pairs']:,} | {row['passed']:.3f} |"
    wrong = [label for label in decision if label != "gold"]
    yield "\n| check | threshold | gold kept | " + " | ".join(f"rejects {label}" for label in wrong) + " |"
    yield "|---" * (3 + len(wrong)) + "|"
    for name, points in curves.items():
        for point in points:
            if point["gold_kept"] >= 0.85:
                rejected = " | ".join(f"{point['rejected'].get(label, 0):.3f}" for label in wrong)
                yield f"| {name} | {point['threshold']:.3f} | {point['gold_kept']:.3f} | {rejected} |"


def figure(curves: Mapping[str, Sequence[Mapping[str, Any]]], label: str) -> str:
    """An SVG: share of gold kept to the right, share of that corruption rejected upwards."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + 170}" height="{HEIGHT + 60}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT}" height="{HEIGHT - TOP}" fill="none" stroke="#888"/>',
    ]
    for tick in range(6):
        x, y = place(0.5 + tick / 10, 0), place(0.5, tick / 5)
        parts.append(f'<text x="{x[0] - 8:.0f}" y="{HEIGHT + 18}">{0.5 + tick / 10:.1f}</text>')
        parts.append(f'<text x="{LEFT - 28}" y="{y[1] + 4:.0f}">{tick / 5:.1f}</text>')
    parts.append(f'<text x="{WIDTH // 2 - 30}" y="{HEIGHT + 42}">share of gold kept</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 6}">share of {label} rejected</text>')
    for number, name in enumerate(name for name in CURVES if name in curves):
        points = " ".join("{:.1f},{:.1f}".format(*place(p["gold_kept"], p["rejected"][label])) for p in curves[name])
        colour = COLOURS[number]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH + 12}" y="{TOP + 20 + 18 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def place(kept: float, rejected: float) -> tuple[float, float]:
    """Pixels of a point."""
    return LEFT + (WIDTH - LEFT) * (kept - 0.5) / 0.5, HEIGHT - (HEIGHT - TOP) * rejected


def main() -> None:
    found = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    parts = [(DOCS / "calibration.head.md").read_text("utf-8").rstrip()]
    for kind, decision in found["decision"].items():
        parts.append(f"\n## {kind}\n\n" + "\n".join(table(decision, found["curves"][kind])))
    parts.append("\n## By set, all checks together\n\n| set | label | number | pass |\n|---|---|---|---|")
    for name, decision in found["by_discipline"].items():
        parts += [f"| {name} | {label} | {row['pairs']:,} | {row['passed']:.3f} |" for label, row in decision.items()]
    if len(sys.argv) > 2:
        voted = json.loads(Path(sys.argv[2]).read_text("utf-8"))
        parts.append("\n## With the packaged model's votes, on a part\n")
        for kind, decision in voted["decision"].items():
            parts.append("\n".join(table(decision, voted["curves"][kind])))
    (DOCS / "calibration.md").write_text("\n".join(parts) + "\n", "utf-8")
    (DOCS / "calibration.svg").write_text(figure(found["curves"]["open"], "other_answer"), "utf-8")


if __name__ == "__main__":
    main()
