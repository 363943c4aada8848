"""A Run's plan and order anew, over the same shards: after a round, or with losses to choose sequences by."""

from collections.abc import Mapping
from pathlib import Path

from mixer.context import Context
from mixer.errors import SourceError
from mixer.exports.step import export_all
from mixer.history import Revision, read_history, revisions_of
from mixer.ordering import Scheduler, as_json, write_orders
from mixer.plan import plan
from mixer.pools import pools_of
from mixer.realised import write_realised
from mixer.recipe.file import load
from mixer.recipe.recipe import Recipe
from mixer.run import read_json, sha256, write_json
from mixer.shard import index_of
from mixer.steps import Say, Steps
from mixer.types import Plan, Pool


def open_run(run: Path) -> Recipe:
    """The recipe that a Run was built from.

    Raises:
        SourceError: It is no finished Run.
    """
    if not (run / "manifest.json").is_file():
        raise SourceError(f"{run}: got no manifest.json, expected a finished Run", hint="run mixer build")
    return load(run / "recipe.yaml")


def pools_of_run(run: Path, recipe: Recipe) -> dict[str, Pool]:
    """The pools that a Run's shards hold."""
    return pools_of(recipe, {name: index_of(run / "shards" / name) for name in recipe.sources})


def held_out_pools(run: Path, source: str) -> list[str]:
    """The pools of a source that some sequence is held out of."""
    parts = index_of(run / "shards" / source)["parts"]
    held = [part for part in parts if part["held_out"] and part["sequences"]]
    return [source if part["topic"] is None else f"{source}/{part['topic']}" for part in held]


def replan(
    run: Path, recipe: Recipe, scheduler: Scheduler, say: Say, *, done: int, history: list[Revision] | None = None
) -> Plan:
    """The plan with all that is known of later rounds; writes `plan.json`, `order/`, `realised/` and the manifest.

    Args:
        run: A finished Run.
        recipe: Its recipe.
        scheduler: Orders stages.
        say: Takes a line for people.
        done: Stages of the plan, from the first, that were trained on and must stay as they are.
        history: The rounds that were found. Default: those that the Run knows.

    Raises:
        PlanError: The new plan cannot be met.
        SourceError: The order of a stage that was trained on would change.
    """
    context = Context(recipe, run, run, run, 1, Steps(run, say), say)
    pools = pools_of_run(run, recipe)
    planned = plan_of(run, recipe, pools, say, history=history)
    before = _hashes(run, planned, done)
    write_orders(context, planned, pools, scheduler)
    if _hashes(run, planned, done) != before:
        raise SourceError(
            f"{run}/order: got another order of a stage that was trained on, expected the same",
            hint="the Run was built with another version; go on with that one",
        )
    write_realised(context, planned, pools)
    write_json(run / "plan.json", as_json(planned) | {"seed": recipe.seed})
    export_all(context)
    _amend_manifest(context)
    return planned


def plan_of(
    run: Path, recipe: Recipe, pools: Mapping[str, Pool], say: Say, *, history: list[Revision] | None = None
) -> Plan:
    """The plan of a Run's pools, with the rounds that were found so far; by default those that the Run knows."""
    if history is None:
        history = read_history(run, recipe, pools, say)
    available = {name: pool.available for name, pool in pools.items()}
    return plan(recipe, available, revisions=revisions_of(history))


def _hashes(run: Path, planned: Plan, done: int) -> list[str]:
    paths = [run / "order" / f"{stage.name}.npy" for stage in planned.stages[:done]]
    return [sha256(path) for path in paths if path.is_file()]


def _amend_manifest(context: Context) -> None:
    """The manifest with the new files of `order/`, `realised/` and `exports/`."""
    path = context.run / "manifest.json"
    manifest = read_json(path)
    steps = {"order": "order", "realised": "realised"}
    steps |= {f"export {wanted.folder}": f"exports/{wanted.folder}" for wanted in context.recipe.exports}
    again = ("order", "realised", "exports")
    kept = {name: found for name, found in manifest["files"].items() if name.partition("/")[0] not in again}
    new = {
        f"{folder}/{file}": {"bytes": size, "sha256": digest}
        for step, folder in steps.items()
        for file, (size, digest) in context.steps.files(step).items()
    }
    write_json(path, manifest | {"files": kept | new, "timings": context.steps.timings()})
