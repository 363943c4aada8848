"""What people read: the plan, the ledgers, the costs and the doctor's findings as tables on stdout."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from mixer.types import Plan, Share

if TYPE_CHECKING:
    from mixer.doctor import Check
    from mixer.estimate import Estimate
    from mixer.ledger import Ledger


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=number > 0)
    return table


def _print(*things: Any) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200
    for thing in things:
        console.print(thing)


def tokens(count: float) -> str:
    """A token count for people: `120.0M`."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "K")):
        if count >= size:
            return f"{count / (1e3 if suffix == 'K' else size):.1f}{suffix}"
    return f"{count:,.0f}"


def show_plan(plan: Plan) -> None:
    """Print the plan: a line for each pool in each stage, then the warnings.

    `worth` is what the tokens of a repeated pool, all stages so far, are worth in fresh ones.
    """
    heads = ("stage", "source", "weight", "fraction", "available", "sequences", "tokens", "epochs so far", "worth")
    table = _table(*heads, left=2)
    for stage in plan.stages:
        for name, share in stage.sources.items():
            mark = "~" if name in plan.estimated else ""
            table.add_row(
                stage.name,
                name,
                "" if share.weight is None else f"{share.weight:g}",
                _fraction(share, stage.sequences),
                f"{mark}{plan.available[name]:,}",
                f"{share.sequences:,}",
                tokens(share.tokens),
                f"{mark}{share.epochs:.2f}",
                tokens(share.fresh_tokens) if share.epochs > 1 else "",
            )
        total = stage.sequences * plan.sequence_length
        asked = f"of {tokens(stage.token_budget)} asked"
        table.add_row(stage.name, "total", "", "", "", f"{stage.sequences:,}", tokens(total), asked, "", style="dim")
    _print(table, *[f"warning: {warning}" for warning in plan.warnings])


def _fraction(share: Share, sequences: int) -> str:
    """What was asked for, and what it comes to where it is more than rounding that differs."""
    became = share.sequences / sequences if sequences else 0.0
    is_other = abs(became - share.fraction) * sequences >= _ROUNDING
    return f"{share.fraction:.3f}" + (f" -> {became:.3f}" if is_other else "")


_ROUNDING = 2
"""Sequences."""


def show_round(name: str, changes: Sequence[Any]) -> None:
    """Print what a round's losses did, topic by topic, and what the next round makes of it."""
    table = _table(name, "loss before", "loss after", "factor", "share before", "share now")
    for one in changes:
        losses = f"{one.loss_before:.4f}", f"{one.loss_after:.4f}"
        table.add_row(one.pool, *losses, f"{one.factor:.3f}", f"{one.share_before:.3f}", f"{one.share_now:.3f}")
    _print(table, "")


def show_ledgers(ledgers: Mapping[str, "Ledger"], counts: Mapping[str, Mapping[str, int]]) -> None:
    """Print what became of every source's documents, with the reasons."""
    table = _table("source", "read", "kept", "dropped", "failed", "tokens", "sequences")
    for name, ledger in ledgers.items():
        table.add_row(
            name,
            f"{ledger.read:,}",
            f"{ledger.kept:,}",
            f"{sum(ledger.dropped.values()):,}",
            f"{ledger.failed:,}",
            tokens(counts[name]["document_tokens"]),
            f"{counts[name]['sequences']:,}",
        )
    reasons = _table("dropped", "step: reason", "documents", left=2)
    for name, ledger in ledgers.items():
        for reason, count in sorted(ledger.dropped.items(), key=lambda item: -item[1]):
            reasons.add_row(name, reason, f"{count:,}")
    _print(table, "", *([reasons, ""] if reasons.row_count else []))


def show_funnels(funnels: Mapping[str, Any]) -> None:
    """Print, for every synthetic source, what became of its pages: a column a discipline, from pages to accepted."""
    for name, found in funnels.items():
        disciplines = found["discipline"].unique(maintain_order=True).to_list()
        steps = found["step"].unique(maintain_order=True).to_list()
        ends = ["pages", "candidates"], ["accepted", "tokens"]
        ordered = [*ends[0], *(step for step in steps if step not in ends[0] + ends[1]), *ends[1]]
        counts = {(row["discipline"], row["step"]): row["count"] for row in found.to_dicts()}
        table = _table(name, *disciplines, "all")
        for step in (step for step in ordered if step in steps):
            row = [counts.get((discipline, step), 0) for discipline in disciplines]
            table.add_row(step, *(f"{count:,}" for count in (*row, sum(row))))
        _print(table, "")


_LEAST_GOLD = 0.85
"""Points of a curve that keep less of gold are in the report, not on the screen."""


def show_calibration(found: Mapping[str, Any]) -> None:
    """Print, for each question type, what passes by label, and what each check rejects at each share of gold kept."""
    for kind, decision in found["decision"].items():
        passed = _table(kind, "pairs", "passed all checks")
        for label, row in decision.items():
            passed.add_row(label, f"{row['pairs']:,}", f"{row['passed']:.3f}")
        wrong = [label for label in decision if label != "gold"]
        curves = _table("check", "threshold", "gold kept", *(f"rejects {label}" for label in wrong), "precision")
        for name, points in found["curves"][kind].items():
            for point in points:
                if point["gold_kept"] < _LEAST_GOLD:
                    continue
                rejected = [f"{point['rejected'].get(label, 0.0):.3f}" for label in wrong]
                ends = [f"{point['threshold']:.3f}", f"{point['gold_kept']:.3f}"], [f"{point['precision']:.3f}"]
                curves.add_row(name, *ends[0], *rejected, *ends[1])
        _print(passed, "", curves, "")
    if found["suggested"]:
        _print(*_suggested(found["suggested"]))


def _suggested(found: Mapping[str, Any]) -> Iterator[str]:
    """Thresholds as they stand in a recipe, and what they come to."""
    yield "suggested, for 95% of gold kept; in the other half of the groups they pass"
    yield "  " + ", ".join(f"{label} {row['passed']:.3f}" for label, row in found["held_out"].items())
    thresholds = ", ".join(f"{name}: {value:g}" for name, value in found["thresholds"].items())
    yield f"verify: {{thresholds: {{{thresholds}}}}}"


_MOST_TRIED = 15
"""Mixtures that are listed; of more, the report holds the rest."""


def show_sweep(found: Mapping[str, Any]) -> None:
    """Print what a sweep tried, the recommended mixture beside the baselines, and the verdict."""
    sources = list(found["rows"][0]["weights"])
    slices = list(found["tried"][0]["measured"])
    tried = _table("tried", *sources, "runs", *(f"{name}: measured, fitted" for name in slices), left=0)
    for number, one in enumerate(found["tried"][:_MOST_TRIED], start=1):
        weights = [f"{one['weights'][name]:.3f}" for name in sources]
        fitted = one["predicted"] or {}
        pairs = [
            f"{one['measured'][name]:.4f}, " + (f"{fitted[name]:.4f}" if name in fitted else "-") for name in slices
        ]
        tried.add_row(str(number), *weights, str(one["runs"]), *pairs)
    rows = _table("mixture", *sources, found["minimised"], "gain", "most epochs")
    for row in found["rows"]:
        recommended = (found["recommended"] or {}) if row["name"] == "recommended" else {}
        weights = [_interval(recommended.get(name), 3) or f"{row['weights'][name]:.3f}" for name in sources]
        most = max(row["epochs"].values())
        ends = [_interval(row["score"], 4), _interval(row["gain"], 4), f"{most:.2f}"]
        rows.add_row(row["name"], *weights, *ends, *([f"({row['note']})"] if row["note"] else []))
    more = len(found["tried"]) - _MOST_TRIED
    verdict = found["verdict"]
    kind = "answer" if verdict["kind"] == "answer" else f"no answer ({verdict['kind']})"
    _print(tried, *([f"and {more} more"] if more > 0 else []), "", rows, "")
    _print(*[f"warning: {warning}" for warning in found["warnings"]], f"{kind}: {verdict['reason']}")


def _interval(interval: Mapping[str, float] | None, digits: int) -> str:
    """A value with its ends, all to some digits; empty for none."""
    if interval is None:
        return ""
    value, low, high = (f"{interval[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def show_retention(report: Mapping[str, Any]) -> None:
    """Print each training's slices, tasks and signs against the base, and what the gate says of it."""
    sure = report["rules"]["confidence"]
    for name, found in report["trainings"].items():
        table = _table(
            name, "kind", "before", "after", "change", f"{100 * sure:g}% interval", "p (Holm)", "verdict", left=2
        )
        for row in (*found["slices"], *found["tasks"]):
            change = row["difference"]
            ends = f"{change['low']:+.4f} to {change['high']:+.4f}"
            numbers = f"{row['before']:.4f}", f"{row['after']:.4f}", f"{change['value']:+.4f}", ends
            table.add_row(row["name"], row["kind"], *numbers, f"{row['corrected']:.3f}", _verdict(row))
        gate = found["gate"]
        told = ["gate: passes"] if gate["passes"] else ["gate: fails", *(f"  {reason}" for reason in gate["reasons"])]
        _print(table, *_signs(found.get("probes")), *_mixed(found.get("interpolated", {})), *told, "")


def _verdict(row: Mapping[str, Any]) -> str:
    words = {"kept": "reached", "lost": "missed"} if row["kind"] == "domain" else {}
    return words.get(row["verdict"], row["verdict"] or "")


def _signs(probes: Mapping[str, Any] | None) -> Iterator[str]:
    """The probes in a line each."""
    if probes is None:
        return
    if shift := probes["token_shift"]:
        yield "tokens: " + ", ".join(f"{share:.1%} {name}" for name, share in shift.items())
    yield "nats from the base: " + ", ".join(f"{name} {nats:.4f}" for name, nats in probes["divergence"].items())
    base, trained = probes["in_context"]["base"], probes["in_context"]["trained"]
    yield "in context: " + ", ".join(f"{kind} {base[kind]:.3f} -> {trained[kind]:.3f}" for kind in base)
    if change := probes["weight_change"]:
        most = max(change, key=lambda name: change[name])
        yield f"weights: changed by up to {change[most]:.2%} ({most})"


def _mixed(interpolated: Mapping[str, Any]) -> Iterator[str]:
    for share, found in interpolated.items():
        lost = max(row["difference"]["value"] for row in found["slices"] if row["kind"] == "general")
        gain = "" if found["gain"] is None else f", gained {found['gain']:.4f}"
        told = "passes" if found["gate"]["passes"] else "fails"
        yield f"with {share} of the base: lost {lost:+.4f} where most{gain}; gate {told}"


def show_costs(estimate: "Estimate") -> None:
    """Print what the build would need; of declared sizes alone nothing says how long it would take."""
    costs = estimate.costs()
    is_known = any(size.is_counted or size.seconds for size in estimate.sizes.values())
    time = f"; time: about {costs['seconds']:,.0f} s on this machine" if is_known else ""
    _print(f"disk: about {_bytes(costs['disk_bytes'])}{time}")


def _bytes(count: float) -> str:
    """A size for people: `1.3 TB`."""
    for size, suffix in ((1e12, "TB"), (1e9, "GB")):
        if count >= size:
            return f"{count / size:,.1f} {suffix}"
    return f"{count / 1e6:,.0f} MB"


def show_checks(checks: Sequence["Check"]) -> None:
    """Print the doctor's findings, with hints under those that need one."""
    table = _table("", "what", "found", left=3)
    for check in checks:
        table.add_row(check.state, check.name, check.detail)
        if check.hint:
            table.add_row("", "", f"hint: {check.hint}")
    _print(table)


def show_exports(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what was exported, a line a set, and what a blend becomes."""
    table = _table("export", "set", "sequences", "dtype", "files", "bytes", left=2)
    for name, record in records.items():
        for number, (part, sequences) in enumerate(record["sets"].items()):
            sizes = [file["bytes"] for file in record["files"].values()]
            rest = ("", "") if number else (f"{len(sizes):,}", f"{sum(sizes):,}")
            table.add_row(name, part, f"{sequences:,}", record["dtype"], *rest)
    _print(table)
    for name, record in records.items():
        if "blend" in record:
            show_blend(name, record["blend"])


def show_blend(name: str, blend: Mapping[str, Any]) -> None:
    """Print what a trainer makes of a blended export's weights."""
    table = _table("stage", "source", "asked", "planned", "becomes", "share", "epochs", left=2)
    for stage, sources in blend["stages"].items():
        for source, share in sources.items():
            numbers = (f"{share['asked']:.2%}", f"{share['planned']:,}", f"{share['predicted']:,}")
            table.add_row(stage, source, *numbers, f"{share['predicted_fraction']:.2%}", f"{share['epochs']:.2f}")
    _print(f"{name}: {blend['rule']}", table)


def show_verified(found: Mapping[str, Iterable[Any]]) -> None:
    """Print what was read back, with which reader."""
    table = _table("export", "set", "read with", "tokens equal", "documents equal", left=3)
    for name, rows in found.items():
        for row in rows:
            documents = "" if row.documents is None else f"{row.documents:,}"
            table.add_row(name, row.set, row.reader, f"{row.tokens:,}" if row.tokens else "", documents)
    _print(table)
