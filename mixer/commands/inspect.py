"""Commands that look and write nothing: `check`, `plan`, `recipes`, `schema`, `doctor`."""

import json
from typing import Annotated

import typer

from mixer.cli_group import say
from mixer.commands.options import Json, RecipeFile, RunFolder, Set, load_recipe, run_folder, spelled, store


def check(recipe: RecipeFile, set_: Set = None) -> None:
    """Check a recipe: every error at once, each with its line.

    Example: mixer check recipes/quickstart.yaml
    """
    loaded, path = load_recipe(recipe, set_)
    typer.echo(f"{path}: recipe `{loaded.name}` is sound: {len(loaded.sources)} sources, {len(loaded.stages)} stages")
    say(f"next: mixer plan {recipe}{spelled(None, set_)}")


def plan(recipe: RecipeFile, run: RunFolder = None, set_: Set = None, json_: Json = False) -> None:
    """Show what a build would hold: sequences, tokens and epochs of every source in every stage. Writes nothing.

    Sizes come from an earlier build where there is one, else from a sample, and are then marked `~`.

    Example: mixer plan recipes/quickstart.yaml
    """
    from mixer import tables
    from mixer.estimate import estimate
    from mixer.ordering import as_json

    loaded, path = load_recipe(recipe, set_)
    estimated = estimate(loaded, base=path.parent, run=run_folder(run, loaded), store=store(), say=say)
    if json_:
        typer.echo(json.dumps(as_json(estimated.plan) | {"estimate": estimated.costs()}, indent=2))
        return
    tables.show_plan(estimated.plan)
    tables.show_costs(estimated)
    say(f"next: mixer build {recipe}{spelled(run, set_)}")


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe.", show_default=False)] = None,
) -> None:
    """List the shipped recipes, or print one.

    Example: mixer recipes quickstart > my.yaml
    """
    from mixer.shipped import listing, recipe_path

    typer.echo(recipe_path(name).read_text("utf-8") if name else listing())


def schema() -> None:
    """Print the recipe's JSON Schema, for an editor to check and complete recipes with.

    Example: mixer schema > recipe.schema.json
    """
    from mixer.recipe.file import schema as recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=2))


def doctor(json_: Json = False) -> None:
    """Say what this machine has and can run: libraries, engine, device, memory, disk, model cache.

    Example: mixer doctor
    """
    from dataclasses import asdict

    from mixer import tables
    from mixer.doctor import doctor as examine

    checks = examine(store())
    if json_:
        typer.echo(json.dumps([asdict(found) for found in checks], indent=2))
    else:
        tables.show_checks(checks)
