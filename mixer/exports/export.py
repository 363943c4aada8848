"""From a Run to what another trainer reads: files, their hashes, the trainer's configuration, a record of it all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixer import __version__
from mixer.exports import fragments
from mixer.exports.blend import blends
from mixer.exports.folder import JOURNAL, Folder, remove
from mixer.exports.llmc import frame
from mixer.exports.policy import POLICIES, module
from mixer.exports.rows import Rows
from mixer.exports.target import Told, opened
from mixer.exports.training import Training, training
from mixer.recipe import Recipe
from mixer.recipe_exports import Export
from mixer.run import digest, discard, files_of, read_json, write_json
from mixer.steps import Say

RECORD = "export.json"
VERSION = 1
"""Raise it when the same Run would be exported otherwise."""


def export(run: Path, recipe: Recipe, wanted: Export, target: Path, *, say: Say) -> Told:
    """Write a Run for another trainer; returns the record, `export.json`.

    A finished export of the same content is left alone; one that was cut short goes on.

    Args:
        run: The Run folder.
        recipe: Its recipe.
        wanted: Format and options.
        target: The folder to fill.
        say: Takes a line for people.

    Raises:
        ShardError: The Run's shards are missing or damaged, or the format cannot hold its vocabulary.
    """
    with scratch_folder(target) as scratch:
        run_training = training(run, recipe, scratch)
        sets = run_training.sets(wanted, staged=module(wanted.format).staged)
        record = _record(run_training, wanted, sets)
        record["fingerprint"] = digest([VERSION, record])
        done, why = _earlier(target, record["fingerprint"])
        if done is not None:
            say(f"skip export {wanted.folder}: nothing changed")
            return done
        say(f"make export {wanted.folder}: {why}")
        folder = Folder(target, record["fingerprint"])
        try:
            return _write(run_training, wanted, sets, record, folder)
        finally:
            folder.close()


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside an export's files, gone when the block ends."""
    target.mkdir(parents=True, exist_ok=True)
    scratch = target / ".scratch"
    discard(scratch)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        discard(scratch)


def _earlier(target: Path, fingerprint: str) -> tuple[Told | None, str]:
    """The record of a whole export of this content; else why there is none, and the files of another are removed."""
    record: Told | None = read_json(target / RECORD)
    if record is None:
        return None, "not done yet" if not (target / JOURNAL).is_file() else "not finished yet"
    sizes = files_of(target)
    whole = all(sizes.get(name) == file["bytes"] for name, file in record["files"].items())
    if whole and record["fingerprint"] == fingerprint:
        return record, ""
    (target / RECORD).unlink()
    for name in record["files"]:
        remove(target, name)
    return None, "the Run or the options changed" if whole else "its files are gone or changed"


def _write(
    run_training: Training, wanted: Export, sets: Mapping[str, Rows], record: dict[str, Any], folder: Folder
) -> Told:
    """Write the files, then the record of them."""
    for name, rows in sets.items():
        module(wanted.format).write(rows, folder, name, wanted)
    if wanted.is_text:
        record["text"] = {name: _text_tokens(rows) for name, rows in sets.items()}
    if wanted.mode == "blended":
        record["blend"], warnings = _blend(run_training, wanted, sets)
        record["warnings"] += warnings
    for name, text in fragments.render(wanted, record).items():
        folder.text(f"config/{name}", text)
    record["files"] = dict(sorted(folder.files.items()))
    write_json(folder.path / RECORD, record)
    (folder.path / JOURNAL).unlink()
    return record


def _record(run_training: Training, wanted: Export, sets: Mapping[str, Rows]) -> dict[str, Any]:
    """All that is known before anything is written; it decides what is."""
    facts, policy = run_training.shards.facts, POLICIES[wanted.format]
    padding = {name: index["padding_tokens"] for name, index in run_training.shards.index.items()}
    stages = _stages(run_training)
    record = {
        "export": wanted.model_dump(mode="json", exclude_unset=True),
        "training": run_training.fingerprint,
        "format": wanted.format,
        "mode": wanted.mode,
        "content": "text" if wanted.is_text else "tokens",
        "mixer": __version__,
        "recipe": run_training.recipe.name,
        "seed": run_training.recipe.seed,
        "shuffle_seed": wanted.shuffle_seed,
        "tokenizer": run_training.shards.tokenizer,
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
        "sources": {
            name: {key: index[key] for key in ("sequences", "documents", "document_tokens", "padding_tokens")}
            for name, index in run_training.shards.index.items()
        },
        "policy": {"boundaries": policy.boundaries, "frame": policy.frame, "order": policy.order},
        "switches": [text.replace("SHUFFLE_SEED", str(wanted.shuffle_seed)) for text in policy.switches],
        "warnings": [f"stage `{name}` waits for losses, and is left out" for name in run_training.waiting],
    }
    if any(padding.values()) and wanted.format not in ("arrow", "jsonl"):
        record["warnings"].append(f"{sum(padding.values()):,} tokens are padding, which this trainer may learn as text")
    return record


def _blend(run_training: Training, wanted: Export, sets: Mapping[str, Rows]) -> tuple[dict[str, Any], list[str]]:
    length = run_training.shards.facts.sequence_length
    if not wanted.is_text:
        sizes = {name: len(rows) for name, rows in sets.items()}
        tokens = dict.fromkeys(sizes, float(length))
        return blends(
            wanted.format, run_training.counts(), sizes, tokens, length, batch_sequences=wanted.batch_sequences
        )
    documents = {name: sum(1 for _ in opened(rows)) for name, rows in sets.items()}
    tokens = {name: sum(_text_tokens(rows).values()) / documents[name] for name, rows in sets.items()}
    return blends(wanted.format, run_training.counts(), documents, tokens, length)


def _stages(run_training: Training) -> list[dict[str, Any]]:
    """The stage table: where each stage begins, in sequences and tokens, and what it draws of whom."""
    length = run_training.shards.facts.sequence_length
    found, first = [], 0
    for stage in run_training.plan["stages"]:
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


def _text_tokens(rows: Rows) -> dict[str, int]:
    """Tokens of the documents that a set holds, by source: how near whole documents come to the plan."""
    found = dict.fromkeys(rows.shards.names, 0)
    for source, document in opened(rows):
        found[source] += int(rows.shards.spans(source).document_length[document])
    return {name: count for name, count in found.items() if count}
