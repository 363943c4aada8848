"""`mixer retention`: what a Run's trainings taught, and what they made the model forget."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from mixer.cli_group import say
from mixer.commands.options import Base, Json, RunPath, Set, spelled, spelled_base, store

_GATE_FAILED = 3


def retention(
    run: RunPath,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure this training below RUN/checkpoints. Repeatable. Default: all that ended.",
            show_default=False,
        ),
    ] = None,
    base: Base = Path(),
    mix: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SHARE", help="Measure trained weights mixed with this share of the base's too. Repeatable."
        ),
    ] = None,
    no_tasks: Annotated[bool, typer.Option("--no-tasks", help="Leave tasks out, which need lm-eval.")] = False,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Measure trainings against their base: held-out texts in bits per byte, tasks, and early signs of forgetting.

    Ends with exit code 3 when a training that was measured fails the recipe's gate. The base is measured once.

    Example: mixer retention runs/science --name plain --mix 0.3 --mix 0.5
    """
    from curricula.retention.survey import open_survey, survey, trainings_of
    from mixer import tables
    from mixer.errors import RecipeError
    from mixer.recipe.file import load

    if not (run / "recipe.yaml").is_file():
        raise RecipeError(f"{run}: got no recipe.yaml, expected a Run that was built", hint="run mixer build first")
    if odd := [share for share in mix or [] if not 0 < share < 1]:
        raise RecipeError(f"--mix: got {odd[0]:g}, expected a share between 0 and 1", hint="--mix 0.3")
    recipe = load(run / "recipe.yaml", overrides=set_ or [])
    trainings = trainings_of(run, name or [])
    opened = open_survey(run, recipe, base=base, store=store(), with_tasks=not no_tasks, say=say)
    report = survey(opened, trainings, shares=mix or [])
    if json_:
        typer.echo(json.dumps(report, indent=2))
    else:
        tables.show_retention(report)
    say(f"all of it is in {run}/retention: report.json, frontier.svg, documents.parquet")
    failed = [training for training, found in report["trainings"].items() if not found["gate"]["passes"]]
    if failed:
        say(f"gate failed: {', '.join(failed)}\nnext: more replay, a lower rate, or another method (docs/retention.md)")
        raise typer.Exit(_GATE_FAILED)
    mixed = _mixed(run, name or [], base, no_tasks=no_tasks) + spelled(None, set_)
    say(f"next: look at {run}/retention/frontier.svg" if mix else f"next: {mixed}")


def _mixed(run: Path, names: list[str], base: Path, *, no_tasks: bool) -> str:
    """The command that measures the same with weights in between, which costs no training."""
    words = ["mixer", "retention", str(run), *(word for name in names for word in ("--name", name))]
    return shlex.join([*words, *spelled_base(base), *(["--no-tasks"] if no_tasks else []), "--mix", "0.3"])
