"""`mixer build`: from a recipe to a Run with documents, shards, a plan, an order and a manifest, each step once.

Pack, then mix: shards belong to one source and know nothing of weights, so another mixture re-uses them as they are.
"""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from mixer import __version__, shard
from mixer.assess import Prepared
from mixer.context import Context, OpenScore, Synthesize
from mixer.exports.step import export_all
from mixer.ledger import Ledger, conserve
from mixer.plan import plan
from mixer.prepare import prepare, prepare_texts
from mixer.publish import publish
from mixer.recipe import Recipe
from mixer.recipe_file import dump
from mixer.run import digest, keep_only, locked, sweep, write_json, write_text
from mixer.shard import TokenFiles
from mixer.steps import Say, Steps
from mixer.table import scan
from mixer.tokens import Encoder, load
from mixer.types import Draw, Plan

Scheduler = Callable[..., Iterator[np.ndarray]]
"""`curricula.order.order`, handed in: this package imports none of the others."""

ORDER_VERSION = 1
"""Raise it when the scheduler would order the same plan otherwise."""

_DECLARED_TOLERANCE = 0.05
_KINDS = ("documents", "dropped", "shards")
_SHARED_STEPS = {"clean", "dedup", "decontaminate", "decontamination", "dedup audit", "tokens", "corpus", "order"}


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made: the plan, each source's ledger, and the manifest as written."""

    plan: Plan
    ledgers: Mapping[str, Ledger]
    manifest: Mapping[str, Any]


def build(
    recipe: Recipe,
    *,
    base: Path,
    run: Path,
    store: Path,
    workers: int,
    scheduler: Scheduler,
    synthesize: Synthesize,
    open_score: OpenScore,
    say: Say,
) -> Built:
    """Make the Run of a recipe, or bring it up to date.

    Args:
        recipe: What to build.
        base: Folder that the recipe's relative paths start from.
        run: The Run folder.
        store: Where converted models are kept between Runs.
        workers: Processes to clean and tokenize with; the result does not depend on it.
        scheduler: Orders a stage.
        synthesize: Makes the synthetic sources.
        open_score: Makes scores ready to be taken.
        say: Takes a line for people about each step.

    Raises:
        RecipeError, SourceError, PlanError, ShardError, EngineError: What the user can mend.
    """
    with locked(run):
        sweep(run)
        context = Context(recipe, base, run, store, workers, Steps(run, say), say)
        encoder = load(recipe.tokenizer, base, store)
        # Written last: a Run without a manifest is not finished, whatever else lies in it.
        (run / "manifest.json").unlink(missing_ok=True)
        prepared = prepare(context, encoder, synthesize, open_score)
        publish(context, prepared)
        ledgers = {name: conserve(run, name, source.cleaned) for name, source in prepared.items()}
        packed = {name: _pack(context, name, source, encoder) for name, source in prepared.items()}
        _compare_declared(context, packed)
        planned = plan(recipe, {name: index["sequences"] for name, index in packed.items()})
        _order(context, planned, scheduler)
        _remove_others(context)
        write_text(run / "recipe.yaml", dump(recipe))
        write_json(run / "plan.json", as_json(planned) | {"seed": recipe.seed})
        export_all(context)
        manifest = _manifest(context, prepared, ledgers, packed)
        write_json(run / "manifest.json", manifest)
        return Built(planned, ledgers, manifest)


def synthesize_only(
    recipe: Recipe,
    *,
    base: Path,
    run: Path,
    store: Path,
    workers: int,
    synthesize: Synthesize,
    open_score: OpenScore,
    say: Say,
) -> dict[str, Path]:
    """The synthetic sources of a recipe and no more, as `build` would make them: name -> folder of the result."""
    with locked(run):
        sweep(run)
        context = Context(recipe, base, run, store, workers, Steps(run, say), say)
        ready = prepare_texts(context, synthesize, open_score)
        return {name: ready[name].cleaned[0] for name in recipe.synth_sources}


def _pack(context: Context, name: str, source: Prepared, encoder: Encoder) -> Mapping[str, Any]:
    recipe, target = context.recipe, context.run / "shards" / name
    inputs = {
        **source.inputs,
        "documents": digest([folder.name for folder in source.documents]),
        "tokenizer": encoder.digest,
        "sequence_length": recipe.sequence_length,
        "packing": recipe.packing,
        "seed": recipe.seed,
        "version": shard.VERSION,
    }
    with context.steps.folder(f"shards {name}", inputs, target) as scratch:
        if scratch is not None:
            tokens = TokenFiles(source.tokens, encoder.dtype)
            order = packing_order(context.run / "documents" / name, seed=recipe.seed, name=name)
            shard.write(
                scratch,
                tokens,
                order,
                encoder,
                source=name,
                sequence_length=recipe.sequence_length,
                packing=recipe.packing,
            )
    return shard.index_of(target)


def packing_order(folder: Path, *, seed: int, name: str) -> np.ndarray:
    """A source's documents, as row numbers, shuffled by a hash of each id: neighbours on a site part company."""
    salt = xxhash.xxh3_64_intdigest(f"{seed}\x1fpack\x1f{name}".encode())
    keys = [
        xxhash.xxh3_64_intdigest(document.encode(), seed=salt)
        for table in sorted(folder.glob("*.parquet"))
        for document in scan(table).select("id").collect()["id"]
    ]
    return np.argsort(np.array(keys, np.uint64), kind="stable")


def _compare_declared(context: Context, packed: Mapping[str, Mapping[str, Any]]) -> None:
    for name, source in context.recipe.sources.items():
        if source.declared:
            found, declared = packed[name]["document_tokens"], source.declared.tokens
            if abs(found - declared) > _DECLARED_TOLERANCE * declared:
                context.say(f"warning: source `{name}` has {found:,} tokens, {declared:,} were declared")


def as_json(planned: Plan) -> dict[str, Any]:
    """The plan as `plan.json` and `mixer plan --json` hold it."""
    return {
        "sequence_length": planned.sequence_length,
        "available": dict(planned.available),
        "estimated": sorted(planned.estimated),
        "warnings": list(planned.warnings),
        "stages": [asdict(stage) for stage in planned.stages],
    }


def draws_of(planned: Plan) -> Iterator[tuple[str, Sequence[Draw]]]:
    """Yield each stage's name and draws; a source goes on where the stage before left it."""
    drawn = dict.fromkeys(planned.available, 0)
    for stage in planned.stages:
        yield (
            stage.name,
            [
                Draw(name, planned.available[name], drawn[name], share.sequences)
                for name, share in stage.sources.items()
            ],
        )
        for name, share in stage.sources.items():
            drawn[name] += share.sequences


def _order(context: Context, planned: Plan, scheduler: Scheduler) -> None:
    seed, numbers = context.recipe.seed, {name: i for i, name in enumerate(context.recipe.sources)}
    draws = dict(draws_of(planned))
    inputs = {
        "stages": {stage: [asdict(draw) for draw in its_draws] for stage, its_draws in draws.items()},
        "sources": list(numbers),
        "seed": seed,
        "version": ORDER_VERSION,
    }
    with context.steps.folder("order", inputs, context.run / "order") as scratch:
        if scratch is not None:
            for stage, its_draws in draws.items():
                total = sum(draw.count for draw in its_draws)
                sources = np.array([numbers[draw.name] for draw in its_draws], np.int32)
                pieces = scheduler(its_draws, seed=seed)
                write_order(scratch / f"{stage}.npy", pieces, sources, total)


def _remove_others(context: Context) -> None:
    """Take away what an earlier recipe left: the Run holds this recipe's sources and no others."""
    names = set(context.recipe.sources)
    for kind in _KINDS:
        keep_only(context.run / kind, names)
    scores = set(context.recipe.scores.taken)
    keep_only(context.run / "scores", scores)
    kept = {f"{kind} {name}" for kind in ("clean", *_KINDS) for name in names} | _SHARED_STEPS
    kept |= {f"export {wanted.folder}" for wanted in context.recipe.exports}
    context.steps.keep_only(kept | {f"{kind} {name}" for kind in ("score", "scores") for name in scores})


def write_order(path: Path, pieces: Iterator[np.ndarray], sources: np.ndarray, total: int) -> None:
    """Write a stage's order as .npy, (total, 2) int32: source (its place in the recipe) and sequence."""
    with path.open("wb") as file:
        header = {"descr": "<i4", "fortran_order": False, "shape": (total, 2)}
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
        for piece in pieces:
            piece[:, 0] = sources[piece[:, 0]]
            file.write(piece.astype("<i4", copy=False).data)


_VERSIONS = ("datatrove", "trafilatura", "tokenizers", "polars", "pyarrow", "numpy")


def _manifest(
    context: Context,
    prepared: Mapping[str, Prepared],
    ledgers: Mapping[str, Ledger],
    packed: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Fingerprints, counts, bytes, hashes, versions and timings; two Runs of equal input differ only in `timings`."""
    steps = [(f"{kind} {name}", f"{kind}/{name}") for name in packed for kind in _KINDS] + [
        ("order", "order"),
        ("dedup audit", "dedup"),
    ]
    if context.recipe.clean.decontaminate:
        steps.append(("decontamination", "decontamination"))
    steps += [(f"scores {score}", f"scores/{score}") for score in context.recipe.scores.taken]
    steps += [(f"export {wanted.folder}", f"exports/{wanted.folder}") for wanted in context.recipe.exports]
    files = {
        f"{folder}/{file}": {"bytes": size, "sha256": sha256}
        for step, folder in steps
        for file, (size, sha256) in context.steps.files(step).items()
    }
    return {
        "recipe": digest(context.recipe.model_dump(mode="json")),
        "sources": {
            name: ledgers[name].as_json()
            | {key: index[key] for key in _COUNTS}
            | {"fingerprint": digest(prepared[name].inputs)}
            for name, index in packed.items()
        },
        "files": files,
        "versions": {"mixer": __version__, "python": platform.python_version()}
        | {name: version(name) for name in _VERSIONS},
        "timings": context.steps.timings(),
    }


_COUNTS = ("tokenizer", "document_tokens", "sequences", "left_out_tokens", "padding_tokens")
