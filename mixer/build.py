"""`mixer build`: from a recipe to a Run with documents, shards, a plan, an order and a manifest, each step once.

Pack, then mix: shards belong to one source and know nothing of weights, so another mixture re-uses them as they are.
"""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixer import __version__, shard
from mixer.assess import Prepared
from mixer.context import Context, OpenScore, Synthesize
from mixer.exports.step import export_all
from mixer.layout import layout
from mixer.ledger import Ledger, conserve
from mixer.ordering import Scheduler, as_json, write_orders
from mixer.pools import PackRule, pack_rule, pools_of
from mixer.prepare import prepare, prepare_texts
from mixer.publish import publish
from mixer.realised import write_realised
from mixer.recipe.file import dump
from mixer.recipe.recipe import Recipe
from mixer.replan import plan_of
from mixer.run import digest, keep_only, locked, sweep, write_json, write_text
from mixer.shard import TokenFiles
from mixer.steps import Say, Steps
from mixer.tokens import Encoder, load
from mixer.types import Plan

_DECLARED_TOLERANCE = 0.05
_KINDS = ("documents", "dropped", "shards")
_SHARED_STEPS = {
    "clean",
    "dedup",
    "decontaminate",
    "decontamination",
    "dedup audit",
    "import",
    "tokens",
    "corpus",
    "order",
    "realised",
}


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
        pools = pools_of(recipe, packed)
        planned = plan_of(run, recipe, pools, say)
        write_orders(context, planned, pools, scheduler)
        write_realised(context, planned, pools)
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
    recipe, target, rule = context.recipe, context.run / "shards" / name, pack_rule(context.recipe, name)
    inputs = {
        **source.inputs,
        "documents": digest([folder.name for folder in source.documents]),
        "tokenizer": encoder.digest,
        "sequence_length": recipe.sequence_length,
        "packing": recipe.packing,
        "seed": recipe.seed,
        "version": shard.VERSION,
    } | _follows(source, rule)
    with context.steps.folder(f"shards {name}", inputs, target) as scratch:
        if scratch is not None:
            tokens = TokenFiles(source.tokens, encoder.dtype)
            how: dict[str, Any] = {"sequence_length": recipe.sequence_length, "packing": recipe.packing}
            groups = layout(context.run, name, rule, tokens.lengths, seed=recipe.seed, **how)
            frame = encoder.frame_only if name in recipe.token_sources else encoder
            shard.write(scratch, tokens, groups, frame, source=name, **how)
    return shard.index_of(target)


def _follows(source: Prepared, rule: PackRule) -> dict[str, Any]:
    """What the packing of a source follows beside its documents; nothing where it is only shuffled."""
    scores = [score for score in ((rule.by or "").partition(".")[0],) if score]
    if rule.topics or rule.is_by_label:
        scores.append("topic")
    taken = {score: digest([folder.name for folder in source.scores[score]]) for score in scores}
    return {"rule": asdict(rule), "scores": taken} if rule != PackRule() else {}


def _compare_declared(context: Context, packed: Mapping[str, Mapping[str, Any]]) -> None:
    for name, source in context.recipe.sources.items():
        if source.declared:
            found, declared = packed[name]["document_tokens"], source.declared.tokens
            if abs(found - declared) > _DECLARED_TOLERANCE * declared:
                context.say(f"warning: source `{name}` has {found:,} tokens, {declared:,} were declared")


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
        ("realised", "realised"),
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
