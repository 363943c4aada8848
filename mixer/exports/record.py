"""What `export.json` says of an export: the facts of its Run, the stage table, sources, and what a blend becomes."""

from collections.abc import Mapping
from typing import Any

from mixer import __version__
from mixer.errors import ExportError
from mixer.exports.blend import blends
from mixer.exports.llmc import frame
from mixer.exports.policy import POLICIES, module
from mixer.exports.rows import Rows
from mixer.exports.target import opened
from mixer.exports.training import Training
from mixer.recipe.exports import Export
from mixer.run import digest

_OF_DATA = (
    "training",
    "documents",
    "format",
    "mode",
    "content",
    "shuffle_seed",
    "tokenizer",
    "dtype",
    "frame",
    "sequence_length",
    "sets",
)
_OF_SOURCE = ("sequences", "documents", "document_tokens", "padding_tokens")


def record_of(exported: Training, wanted: Export, sets: Mapping[str, Rows]) -> dict[str, Any]:
    """All that is known before anything is written; `fingerprint` is of what decides the data files."""
    facts, policy = exported.shards.facts, POLICIES[wanted.format]
    stages = _stages(exported)
    record = {
        "export": wanted.model_dump(mode="json", exclude_unset=True),
        "training": exported.fingerprint,
        "documents": exported.documents_digest() if wanted.is_text else None,
        "format": wanted.format,
        "mode": wanted.mode,
        "content": "text" if wanted.is_text else "tokens",
        "mixer": __version__,
        "recipe": exported.recipe.name,
        "recipe_digest": digest(exported.recipe.model_dump(mode="json", by_alias=True)),
        "seed": exported.recipe.seed,
        "shuffle_seed": wanted.shuffle_seed,
        "tokenizer": exported.shards.tokenizer,
        "tokenizer_digest": facts.tokenizer,
        "vocab_size": facts.vocab_size,
        "bos": facts.bos,
        "eos": facts.eos,
        "padding": facts.padding,
        "dtype": module(wanted.format).dtype(facts.vocab_size).name,
        "sequence_length": facts.sequence_length,
        "packing": facts.packing,
        "frame": "before" if frame(facts)[0] else "after",
        "sets": {name: len(rows) for name, rows in sets.items()},
        "sequences": sum(stage["sequences"] for stage in stages),
        "stages": stages,
        "sources": _sources(exported),
        "policy": {"boundaries": policy.boundaries, "frame": policy.frame, "order": policy.order},
        "switches": [text.replace("SHUFFLE_SEED", str(wanted.shuffle_seed)) for text in policy.switches],
    }
    record["warnings"] = _warnings(exported, wanted, stages)
    record["fingerprint"] = digest([wanted.file_bytes, {key: record[key] for key in _OF_DATA}])
    return record


def _warnings(exported: Training, wanted: Export, stages: list[dict[str, Any]]) -> list[str]:
    found = [f"stage `{name}` waits for losses, and is left out" for name in exported.waiting]
    padding = sum(index["padding_tokens"] for index in exported.shards.index.values())
    if padding and wanted.format not in ("arrow", "jsonl"):
        found.append(f"{padding:,} tokens are padding, which this trainer may learn as text")
    if wanted.format == "nanotron":
        found += [
            f"stage `{stage['name']}` begins within a step of {wanted.batch_sequences:,} sequences: nanotron begins it"
            f" {rest:,} earlier, and the last of the stage before are left out"
            for stage in stages
            if (rest := stage["first_sequence"] % wanted.batch_sequences)
        ]
    return found


def _stages(exported: Training) -> list[dict[str, Any]]:
    """The stage table: where each stage begins, in sequences and tokens, and what it draws of whom."""
    length = exported.shards.facts.sequence_length
    found, first = [], 0
    for stage in exported.plan["stages"]:
        count = stage["sequences"]
        shares = {
            name: {"sequences": share["sequences"], "asked": share["fraction"], "fraction": share["sequences"] / count}
            for name, share in stage["sources"].items()
        }
        found.append(
            {
                "name": stage["name"],
                "first_sequence": first,
                "sequences": count,
                "first_token": first * length,
                "tokens": count * length,
                "sources": shares,
            }
        )
        first += count
    return found


def _sources(exported: Training) -> dict[str, dict[str, Any]]:
    """What each source holds, how often training goes through it, and where it comes from, as the recipe has it."""
    drawn = dict.fromkeys(exported.shards.names, 0)
    for sequences in exported.counts().values():
        for name, count in sequences.items():
            drawn[name] += count
    found = {}
    for name, index in exported.shards.index.items():
        origin = exported.recipe.sources[name]
        told = {key: getattr(origin, key, None) for key in ("kind", "path", "revision", "licence")}
        found[name] = {
            **{key: index[key] for key in _OF_SOURCE},
            "epochs": drawn[name] / max(1, len(exported.source(name))),
            "origin": {key: value for key, value in told.items() if value is not None},
        }
    return found


def blend_of(exported: Training, wanted: Export, sets: Mapping[str, Rows]) -> tuple[dict[str, Any], list[str]]:
    """What the trainer makes of a blend's weights, and warnings.

    Raises:
        ExportError: Text is wanted of a source in which no document begins.
    """
    length = exported.shards.facts.sequence_length
    sizes, tokens = {name: len(rows) for name, rows in sets.items()}, dict.fromkeys(sets, float(length))
    if wanted.is_text:
        sizes = {name: sum(1 for _ in opened(rows)) for name, rows in sets.items()}
        for name in (name for name, size in sizes.items() if not size):
            raise ExportError(f"export: source `{name}`: got no document that begins in it", hint="export tokens")
        tokens = {name: sum(text_tokens(rows).values()) / sizes[name] for name, rows in sets.items()}
    steps = wanted.batch_sequences
    return blends(wanted.format, exported.counts(), sizes, tokens, length, batch_sequences=steps)


def text_tokens(rows: Rows) -> dict[str, int]:
    """Tokens of the documents that a set holds, by source: how near whole documents come to the plan."""
    found = dict.fromkeys(rows.shards.names, 0)
    for source, document in opened(rows):
        found[source] += int(rows.shards.spans(source).document_length[document])
    return {name: count for name, count in found.items() if count}
