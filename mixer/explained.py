"""What `mixer trace`, `mixer why` and `mixer diff` print for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixer.diff import Difference
    from mixer.trace import Origin, Token, Trace
    from mixer.why import Fate

_SHOWN = 100


def trace_lines(found: "Trace") -> Iterator[str]:
    """Yield the lines that show a sequence and what fills it."""
    where = f"stage {found.stage}, place {found.index:,}: " if found.stage is not None else ""
    yield f"{where}sequence {found.sequence:,} of source {found.source}"
    if found.place is not None:
        yield f"place {found.place:,}: {_token(found.token)}"
    for origin in found.origins:
        yield ""
        yield f"places {origin.offset:,} to {origin.offset + origin.length - 1:,}: {origin.document}"
        yield from (f"  {line}" for line in _origin(origin))


def _token(token: "Token | None") -> str:
    if token is None:
        return "padding"
    bytes_ = "" if token.begin is None else f"bytes {token.begin:,} to {token.end:,} of its text: "
    return f"token {token.start:,} of {token.document}, {bytes_}{_short(token.text)}"


def _origin(origin: "Origin") -> Iterator[str]:
    if origin.url:
        yield f"url: {origin.url}"
    if origin.begin is None:
        first = int(origin.metadata["first_token"]) - ("bos" in origin.metadata.get("added", ""))
        place = f"from token {origin.start:,}, of its file {first + origin.start:,}"
    else:
        place = f"bytes {origin.begin:,} to {origin.end:,} of its text, from token {origin.start:,}"
    yield f"{place}: {_short(origin.text)}"
    for score, columns in origin.scores.items():
        yield f"{score}: {', '.join(f'{name} {_number(value)}' for name, value in columns.items())}"
    for candidate in origin.synthesis.get("candidates", ()):
        yield f"written by {candidate['model']} from {candidate['page_source']}/{candidate['page']}"
        yield f"prompt {candidate['prompt']}: {_short(candidate['question'] or candidate['text'])}"
        yield from (f"evidence: {_short(quote)}" for quote in candidate["evidence"] or ())
        checks = (f"{check['name']} {_number(check['score'])}" for check in candidate["checks"] or ())
        yield f"verdicts: {', '.join(checks)}"
    if responses := origin.synthesis.get("responses"):
        yield f"{len(responses)} raw answers; --json shows them with their prompts"


def fate_lines(found: Sequence["Fate"]) -> Iterator[str]:
    """Yield the lines that say what became of a document."""
    for fate in found:
        ended = f"dropped by {fate.step}" + (f": {fate.reason}" if fate.reason else "")
        yield f"{fate.source}/{fate.document}: {'kept' if fate.state == 'kept' else ended}"
        if fate.url:
            yield f"  url: {fate.url}"
        for score, columns in fate.scores.items():
            yield f"  {score}: {', '.join(f'{name} {_number(value)}' for name, value in columns.items())}"
        yield from (f"  held {hit['benchmark']} {hit['item']}: {_short(hit['text'])}" for hit in fate.hits)
        if fate.state == "kept":
            yield f"  {fate.tokens:,} tokens in {len(fate.places)} sequences"
        for place in fate.places:
            taken = [f"{stage} at {_places(at, place.counts[stage])}" for stage, at in place.stages.items()]
            told = "held out for validation" if place.held_out else "; ".join(taken) or "in no stage"
            yield f"  sequence {place.sequence:,}, {place.tokens:,} tokens: {told}"


def _places(at: Sequence[int], count: int) -> str:
    shown = ", ".join(map(str, at))
    return shown if count == len(at) else f"{shown} and {count - len(at):,} more"


def difference_lines(found: "Difference") -> Iterator[str]:
    """Yield the lines that show what differs between two Runs."""
    if found.is_empty:
        yield "nothing differs"
    yield from _pairs("recipe", found.recipe)
    for source, its in found.documents.items():
        yield f"documents {source}: {its.kept[0]:,} -> {its.kept[1]:,}"
        for kind in ("removed", "added", "changed"):
            if count := getattr(its, kind):
                names = ", ".join(its.examples[kind][:3])
                yield f"  {count:,} {kind}: {names}{', ...' if count > 3 else ''}"
        yield from (f"  {line}" for line in _pairs("dropped", its.reasons))
    yield from _pairs("tokens", found.tokens)
    yield from _pairs("scores (count, 5%, 50%, 95% or labels, hash)", found.scores)
    yield from _pairs("order", found.orders)
    yield from _pairs("sequences", found.shares)
    yield from (f"step {name}: {why}" for name, why in found.steps.items())


def _pairs(title: str, values: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    yield from (f"{title} {key}: {_number(one)} -> {_number(other)}" for key, (one, other) in values.items())


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _short(text: str | None) -> str:
    flat = " ".join((text or "").split())
    return repr(flat if len(flat) <= _SHOWN else flat[:_SHOWN] + "...")
