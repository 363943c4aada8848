"""What a blended export becomes in its trainer, stage by stage, beside what the plan asks for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mixer.exports import realised

_TOLERANCE = 0.005
"""Of a source's share of a stage; more is worth a warning."""
_RELATIVE = 0.05
"""The same of the source's own share."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one stage asks of a trainer.

    Args:
        planned: Rows of each source.
        weights: The same before they are rounded: of a source of long documents less than half a row may be asked for.
        sizes: Rows that each source has.
        length: Tokens a sequence.
        batch: Sequences a step.
    """

    planned: list[int]
    weights: list[float]
    sizes: list[int]
    length: int
    batch: int

    @property
    def rows(self) -> int:
        """Rows of the stage."""
        return sum(self.planned)


def _olmo(asked: Asked) -> list[int]:
    return realised.olmo(
        asked.planned,
        [[size * asked.length] for size in asked.sizes],
        tokens=asked.rows * asked.length,
        batch_tokens=asked.batch * asked.length,
        sequence_length=asked.length,
    )


RULES: Mapping[str, tuple[str, Callable[[Asked], list[int]]]] = {
    "megatron": ("the source most in arrears is next", lambda a: realised.megatron(a.planned, a.rows)),
    "mds": ("`choose`: counts, exactly", lambda a: a.planned),
    "litdata": ("independent draws, seed 42, one worker", lambda a: realised.litdata(a.weights, a.rows)),
    "olmo": ("whole windows a file, topped up evenly to whole batches", _olmo),
    "nanotron": ("one greedy epoch, repeated", lambda a: realised.nanotron(a.planned, a.sizes, a.rows)),
    "parquet": ("independent draws, seed 42", lambda a: realised.drawn(a.weights, a.rows)),
    "jsonl": (
        "independent draws, seed 42, until the last source ends",
        lambda a: realised.interleave(a.weights, a.sizes),
    ),
    "webdataset": ("independent draws without a seed; these are of one", lambda a: realised.litdata(a.weights, a.rows)),
    "torchtitan": ("weights cut to whole numbers", lambda a: realised.grain(a.planned, a.rows)),
}
"""Format -> the trainer's rule in words, and carried out: rows of each source that are drawn."""


def blends(
    name: str,
    counts: Mapping[str, Mapping[str, int]],
    sizes: Mapping[str, int],
    row_tokens: Mapping[str, float],
    sequence_length: int,
    *,
    batch_sequences: int = 1,
) -> tuple[dict[str, Any], list[str]]:
    """The trainer's rule and what it makes of each stage; and warnings where that strays from the plan.

    Trainers weigh rows. Where rows are documents, a source's weight is its share of tokens over its tokens a row.

    Args:
        name: Of the format.
        counts: Stage -> source -> sequences that the plan asks for.
        sizes: Source -> rows that it has.
        row_tokens: Source -> tokens a row.
        sequence_length: Tokens a sequence.
        batch_sequences: Sequences a step.
    """
    told, rule = RULES[name]
    stages: dict[str, Any] = {}
    warnings: list[str] = []
    for stage, sequences in counts.items():
        weights = {source: count * sequence_length / row_tokens[source] for source, count in sequences.items()}
        rows = {source: round(weight) for source, weight in weights.items()}
        has = [sizes[source] for source in rows]
        asked = Asked(list(rows.values()), list(weights.values()), has, sequence_length, batch_sequences)
        drawn = dict(zip(rows, rule(asked), strict=True))
        tokens = {source: drawn[source] * row_tokens[source] for source in rows}
        stages[stage] = {
            source: {
                "asked": sequences[source] / sum(sequences.values()),
                "weight": weights[source] / sum(weights.values()),
                "planned": planned,
                "predicted": drawn[source],
                "predicted_fraction": tokens[source] / max(1, sum(tokens.values())),
                "epochs": drawn[source] / sizes[source],
            }
            for source, planned in rows.items()
        }
        warnings += _strays(stage, stages[stage])
        if name == "nanotron":
            unseen = realised.nanotron_unseen(list(rows.values()), has)
            warnings += [
                f"stage `{stage}`: {count:,} of the {sizes[source]:,} sequences of `{source}` are in no epoch"
                for source, count in zip(rows, unseen, strict=True)
                if count
            ]
    return {"rule": told, "stages": stages}, warnings


def _strays(stage: str, sources: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a warning for every source that strays, by much of the stage or by much of its own share."""
    for name, share in sources.items():
        asked, becomes = share["asked"], share["predicted_fraction"]
        if abs(becomes - asked) > min(_TOLERANCE, _RELATIVE * asked):
            yield f"stage `{stage}`: `{name}` becomes {becomes:.2%}, asked for {asked:.2%}"
    planned, drawn = (sum(share[key] for share in sources.values()) for key in ("planned", "predicted"))
    if drawn != planned:
        yield f"stage `{stage}`: {drawn:,} rows are drawn, {planned:,} were planned"
