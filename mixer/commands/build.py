"""`mixer build`: from a recipe to a Run."""

import json
import shlex
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from mixer.cli_group import say
from mixer.commands.options import (
    Json,
    RecipeFile,
    RunFolder,
    Set,
    build_options,
    load_recipe,
    open_scheduler,
    open_synthesizer,
    run_folder,
    score_opener,
    spelled,
    spelled_base,
)


def build(
    recipe: RecipeFile,
    run: RunFolder = None,
    executor: Annotated[str, typer.Option(help="Where the work runs: local.")] = "local",
    workers: Annotated[int | None, typer.Option(help="Processes. Default: one a core.", show_default=False)] = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Build a Run: read, clean, deduplicate, synthesize, tokenize, pack, plan, order.

    Safe to repeat: finished steps are skipped, and what a language model answered is not asked again.

    Example: mixer build recipes/quickstart.yaml --workers 2
    """
    from mixer import tables
    from mixer.build import build as build_run
    from mixer.execute import check_executor
    from mixer.ordering import as_json

    loaded, path = load_recipe(recipe, set_)
    target = run_folder(run, loaded)
    check_executor(executor)
    asks = loaded.synth_sources or loaded.scores.teachers
    opened: Any = open_synthesizer(path.parent) if asks else nullcontext()
    with opened as synthesize:
        where = build_options(path, target, workers) | {
            "synthesize": synthesize,
            "open_score": score_opener(synthesize),
        }
        built = build_run(loaded, **where, scheduler=open_scheduler())
    if json_:
        typer.echo(
            json.dumps(as_json(built.plan) | {"run": str(target), "sources": built.manifest["sources"]}, indent=2)
        )
        return
    tables.show_ledgers(built.ledgers, built.manifest["sources"])
    tables.show_plan(built.plan)
    typer.echo(f"Run: {target}")
    again = f"change the mixture in seconds: mixer build {recipe}{spelled(run, set_)} --set {_another(loaded)}"
    train = shlex.join(["mixer", "train", str(target), *(spelled_base(path.parent) if recipe.is_file() else [])])
    say(f"next: {train}\nor {again}" if loaded.train else f"next: {again}")


def _another(recipe: Any) -> str:
    """An override that gives another mixture over the same shards."""
    stage = recipe.mixed_stages[0]
    place = f"stages.{stage.name}"
    if stage.adapt is not None:
        # Its topics must stay: another mixture might leave nothing to adapt.
        return f"{place}.adapt.alpha={2 * stage.adapt.alpha:g}"
    if stage.replay is not None:
        return f"{place}.replay.share={stage.replay.share / 2:g}"
    weights = stage.mixture if isinstance(stage.mixture, dict) else {}
    numbers = {name: weight for name, weight in weights.items() if isinstance(weight, float)}
    if len(numbers) > 1:
        first, weight = next(iter(numbers.items()))
        return f"{place}.mixture.{first}={weight + 1:g}"
    return f"{place}.mixture=natural" if weights else f"{place}.mixture='{{temperature: 2}}'"
