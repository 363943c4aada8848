"""What a blended export becomes in its trainer, stage by stage, beside what the plan asks for."""

from collections.abc import Callable, Mapping
from typing import Any

from mixer.exports import realised

_TOLERANCE = 0.005
"""Of a source's share of a stage; more is worth a warning."""
Rule = Callable[[list[int], list[int], int], list[int]]
"""From planned sequences, sequences that each source has, and tokens a sequence, to sequences that are drawn."""


def _olmo(planned: list[int], sizes: list[int], length: int) -> list[int]:
    return realised.olmo(
        planned,
        [[size * length] for size in sizes],
        tokens=sum(planned) * length,
        batch_tokens=length,
        sequence_length=length,
    )


RULES: Mapping[str, tuple[str, Rule]] = {
    "megatron": ("the source most in arrears is next", lambda planned, *_: realised.megatron(planned, sum(planned))),
    "mds": ("`choose`: counts, exactly", lambda planned, *_: planned),
    "litdata": ("independent draws, seed 42", lambda planned, *_: realised.litdata(planned, sum(planned))),
    "olmo": ("whole windows a file, topped up evenly", _olmo),
    "nanotron": (
        "one greedy epoch, repeated",
        lambda planned, sizes, _: realised.nanotron(planned, sizes, sum(planned)),
    ),
    "parquet": ("independent draws until the last source ends", lambda p, sizes, _: realised.interleave(p, sizes)),
    "arrow": ("independent draws until the last source ends", lambda p, sizes, _: realised.interleave(p, sizes)),
    "jsonl": ("independent draws until the last source ends", lambda p, sizes, _: realised.interleave(p, sizes)),
    "webdataset": ("independent draws", lambda planned, *_: realised.litdata(planned, sum(planned))),
    "torchtitan": ("weights cut to whole numbers", lambda planned, *_: realised.grain(planned, sum(planned))),
}


def blends(
    name: str,
    counts: Mapping[str, Mapping[str, int]],
    sizes: Mapping[str, int],
    row_tokens: Mapping[str, float],
    sequence_length: int,
) -> tuple[dict[str, Any], list[str]]:
    """The trainer's rule and what it makes of each stage; and warnings where that strays from the plan.

    Trainers weigh rows. Where rows are documents, a source's weight is its share of tokens over its tokens a row.

    Args:
        name: Of the format.
        counts: Stage -> source -> sequences that the plan asks for.
        sizes: Source -> rows that it has.
        row_tokens: Source -> tokens a row.
        sequence_length: Tokens a sequence.
    """
    told, rule = RULES[name]
    stages: dict[str, Any] = {}
    warnings: list[str] = []
    for stage, sequences in counts.items():
        rows = {source: round(count * sequence_length / row_tokens[source]) for source, count in sequences.items()}
        has = [sizes[source] for source in rows]
        drawn = dict(zip(rows, rule(list(rows.values()), has, sequence_length), strict=True))
        tokens = {source: drawn[source] * row_tokens[source] for source in rows}
        stages[stage] = {
            source: {
                "asked": sequences[source] / sum(sequences.values()),
                "weight": planned / sum(rows.values()),
                "planned": planned,
                "predicted": drawn[source],
                "predicted_fraction": tokens[source] / max(1, sum(tokens.values())),
                "epochs": drawn[source] / sizes[source],
            }
            for source, planned in rows.items()
        }
        warnings += list(_strays(stage, stages[stage]))
        if name == "nanotron":
            unseen = realised.nanotron_unseen(list(rows.values()), has)
            warnings += [
                f"stage `{stage}`: {count:,} of the {sizes[source]:,} sequences of `{source}` are in no epoch"
                for source, count in zip(rows, unseen, strict=True)
                if count
            ]
    return {"rule": told, "stages": stages}, warnings


def _strays(stage: str, sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = [
        f"stage `{stage}`: `{name}` becomes {share['predicted_fraction']:.2%}, asked for {share['asked']:.2%}"
        for name, share in sources.items()
        if abs(share["predicted_fraction"] - share["asked"]) > _TOLERANCE
    ]
    planned, drawn = (sum(share[key] for share in sources.values()) for key in ("planned", "predicted"))
    if drawn != planned:
        found.append(f"stage `{stage}`: {drawn:,} rows are drawn, {planned:,} were planned")
    return found
