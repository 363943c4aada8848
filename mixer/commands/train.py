"""`mixer train`: from a Run to a trained model."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from mixer.cli_group import say
from mixer.commands.options import Base, Json, Set, spelled, spelled_base, store
from mixer.errors import RecipeError

_GATE_FAILED = 3
"""Exit code of a training that the guard stopped."""
_STOPPED = 128
"""Exit code of a process that a signal ended, less the signal."""


def train(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A Run folder that `mixer build` made.")],
    method: Annotated[
        str | None,
        typer.Option(help="Train by this method instead of the recipe's: plain, lora, ...", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Folder below RUN/checkpoints. Default: the method.", show_default=False)
    ] = None,
    base: Base = Path(),
    schedule: Annotated[
        bool, typer.Option("--schedule", help="Print the learning rate by tokens seen, and train nothing.")
    ] = False,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Train on a Run's stages, in order; checkpoints are Hugging Face folders. Run again to go on exactly where it was.

    Several methods stand side by side in RUN/checkpoints. With several GPUs: torchrun --nproc-per-node 8 -m mixer.cli
    train RUN. SIGTERM and Ctrl-C save a checkpoint before they end it.

    Example: mixer train runs/quickstart
    """
    from functools import partial

    from curricula.closed_loop import before_stage, check_validation
    from curricula.instruct import check_instruct, instruct_job
    from curricula.job import job_of, settings_of
    from curricula.parallel import world
    from curricula.retention.guard import open_guard
    from curricula.train import train as run_training
    from mixer.recipe.file import load

    if not (run / "recipe.yaml").is_file():
        raise RecipeError(f"{run}: got no recipe.yaml, expected a Run that was built", hint="run mixer build first")
    built = load(run / "recipe.yaml")
    # The recipe's own method keeps its keys; another one begins with its defaults, which --set may change.
    is_other = method and built.train and built.train.method.kind != method
    first = [f"train.method={{kind: {method}}}"] if is_other else []
    recipe = load(run / "recipe.yaml", overrides=[*first, *(set_ or [])])
    settings = settings_of(recipe)
    name = name or settings.method.kind
    job = job_of(run, recipe, name=name, base=base, store=store())
    if schedule:
        typer.echo("\n".join(f"{seen}\t{rate:.6g}" for seen, rate in job.schedule.table()))
        return
    check_instruct(settings, job.base, base=base)
    with world() as here:
        tell = say if here.is_first else _silent
        again = _again(here.size, run, method=method, name=name, base=base) + spelled(None, set_)

        def next_stage(stage: str, _: Any) -> None:
            if here.is_first:
                before_stage(run, job.folder, stage, say=tell)

        check_validation(run, say=_silent)
        watched = partial(open_guard, job, run=run, recipe=recipe, base=base, world=here, say=tell)
        done = run_training(job, world=here, say=tell, next_stage=next_stage, watched=watched)
        if settings.instruct and done.folder and not done.is_cut:
            job = instruct_job(run, job, settings.instruct, base=base, store=store(), say=tell)
            done = run_training(job, world=here, say=tell)
    if here.is_first:
        _show(done, job, again=again, after=_after(run, built, job.folder.name, base, set_), json_=json_)
    if done.is_cut:
        raise typer.Exit(_GATE_FAILED)
    if done.folder is None:
        raise typer.Exit(_STOPPED + (done.signal or 0))


def _again(processes: int, run: Path, *, method: str | None, name: str, base: Path) -> str:
    """The command that goes on with this training, for a shell in the same folder."""
    start = ["mixer"] if processes == 1 else ["torchrun", "--nproc-per-node", str(processes), "-m", "mixer.cli"]
    words = [*start, "train", str(run), "--name", name]
    words += ["--method", method] if method else []
    return shlex.join([*words, *spelled_base(base)])


def _after(run: Path, built: Any, name: str, base: Path, overrides: list[str] | None) -> str:
    """What comes after a training: to measure it, as far as the Run's recipe says by what.

    Another model than the recipe's is named again, and the training with it: others began with the recipe's.
    """
    if built.retention is None:
        return "add `retention` to the recipe (docs/retention.md) and build again, to measure what was forgotten"
    other = [text for text in overrides or [] if text.startswith(("train.model=", "train.revision="))]
    words = ["mixer", "retention", str(run), *(["--name", name] if other else []), *spelled_base(base)]
    return shlex.join(words) + spelled(None, other)


def _silent(_: str) -> None:
    """For all processes but the first."""


def _show(done: Any, job: Any, *, again: str, after: str, json_: bool) -> None:
    if done.folder is None:
        say(f"stopped at {done.state.tokens:,} of {job.tokens:,} tokens, with a checkpoint\nnext: go on with: {again}")
    elif json_:
        typer.echo(json.dumps({"model": str(done.folder), "steps": done.state.step, "tokens": done.state.tokens}))
    else:
        typer.echo(f"Model: {done.folder}")
        say(f"next: {after}")
