"""What only the whole recipe shows to be wrong with its training; reads the plain tree."""

from collections.abc import Iterator, Mapping
from typing import Any

from mixer.recipe.section import PACKAGED, parse_count
from mixer.recipe.yaml import Problem, Spot, show

_KEY = "[key]"
_SCHEDULES = {
    "constant": {"warmup", "start"},
    "wsd": {"warmup", "start", "decay", "final"},
    "cosine": {"warmup", "start", "final"},
    "infinite": {"warmup", "start", "cooldown", "hold", "decay", "final"},
}
"""Schedule -> the keys that it reads."""
_DEFAULTS = {"warmup": 0.01, "cooldown": 0.3, "decay": 0.1}
_SEQUENCE_LENGTH = 2048
_TOKENS_PER_STEP = 131_072


def find(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems between sections.

    Args:
        tree: The recipe as plain values.
    """
    train = tree.get("train")
    stages = tree.get("stages")
    for number, stage in enumerate(stages if isinstance(stages, list) else ()):
        own = stage.get("learning_rate") if isinstance(stage, dict) else None
        if isinstance(own, dict):
            spot: Spot = ("stages", number, "learning_rate")
            yield from _segment(spot, own)
            if train is None:
                told = "has no effect without `train`, which says what is trained; add it, or remove this"
                yield Problem(spot, told, (*spot, _KEY))
    if isinstance(train, dict):
        yield from _segment(("train",), train)
        yield from _train(train, tree)
        if isinstance(train.get("instruct"), dict):
            yield from _segment(("train", "instruct"), train["instruct"])


def _segment(spot: Spot, segment: Mapping[str, Any]) -> Iterator[Problem]:
    """Keys that the schedule does not read, and schedules that do not do what their name says."""
    schedule = segment.get("schedule", "wsd")
    if not isinstance(schedule, str) or schedule not in _SCHEDULES:
        return
    reads = _SCHEDULES[schedule]
    for key in ("cooldown", "hold", "decay", "final"):
        if segment.get(key) is not None and key not in reads:
            known = [name for name, keys in _SCHEDULES.items() if key in keys]
            told = f"has no effect with `schedule: {schedule}`, but with {' and '.join(known)}; remove it"
            yield Problem((*spot, key), told, (*spot, key, _KEY))
    if schedule in ("wsd", "infinite") and _is_zero(segment.get("decay")):
        told = f"got 0, expected some tokens: `schedule: {schedule}` ends with a decay; `constant` has none"
        yield Problem((*spot, "decay"), told, (*spot, "decay"))
    for key in ("hold", "final") if schedule == "infinite" else ():
        if _is_zero(segment.get(key)):
            told = "got 0, expected a number above 0: the anneal is a power of it"
            yield Problem((*spot, key), told, (*spot, key))
    yield from _too_long(spot, {key: segment.get(key) for key in _DEFAULTS if key in reads})


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def _too_long(spot: Spot, amounts: Mapping[str, Any]) -> Iterator[Problem]:
    """Shares that sum to over the whole; what is said in tokens is compared when the tokens are known."""
    shares = {key: _DEFAULTS[key] if amount is None else amount for key, amount in amounts.items()}
    shares = {key: share for key, share in shares.items() if isinstance(share, float) and 0 <= share <= 1}
    said = [key for key in shares if amounts[key] is not None]
    if sum(shares.values()) > 1 and said:
        parts = " + ".join(f"{key} {share:g}" for key, share in shares.items())
        yield Problem((*spot, said[-1]), f"got {parts}, expected at most 1 in all", (*spot, said[-1]))


def _train(train: Mapping[str, Any], tree: Mapping[str, Any]) -> Iterator[Problem]:
    if train.get("model") == PACKAGED and train.get("revision") is not None:
        told = f"has no effect on the packaged `{PACKAGED}`; remove it"
        yield Problem(("train", "revision"), told, ("train", "revision", _KEY))
    length, step = tree.get("sequence_length", _SEQUENCE_LENGTH), train.get("tokens_per_step", _TOKENS_PER_STEP)
    yield from _too_short(("train",), step, length)
    own = train.get("instruct")
    if isinstance(own, dict) and (own.get("tokens_per_step") or own.get("sequence_length")):
        step, length = own.get("tokens_per_step") or step, own.get("sequence_length") or length
        yield from _too_short(("train", "instruct"), step, length)


def _too_short(spot: Spot, step: Any, length: Any) -> Iterator[Problem]:
    """Steps that hold no sequence."""
    try:
        tokens = parse_count(step)
    except ValueError:
        return
    if isinstance(length, int) and 0 < tokens < length:
        told = f"got {show(step)}, expected at least one sequence of {length:,} tokens"
        yield Problem((*spot, "tokens_per_step"), told, (*spot, "tokens_per_step"))
