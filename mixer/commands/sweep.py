"""`mixer sweep`: which mixture a stage should have, from short runs of a small model or from their recorded losses."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mixer.cli_group import say
from mixer.commands.options import Json, RecipeFile, RunFolder, Set, load_recipe, run_folder, spelled, store
from mixer.errors import PlanError, RecipeError


def sweep(
    recipe: RecipeFile,
    losses: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Losses of runs made elsewhere (.jsonl, .csv), instead of new runs."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="Write the recipe with the recommended mixture.")
    ] = None,
    run: RunFolder = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Recommend the mixture of a stage, beside the uniform, natural and UniMax ones, or say why the runs do not tell.

    Example: mixer sweep my.yaml --losses losses.jsonl --out better.yaml
    """
    from curricula.search.results import read
    from curricula.search.stock import stock_of
    from curricula.search.sweep import analyse, asked, slices_of
    from mixer import tables
    from mixer.estimate import estimate
    from mixer.run import write_json

    loaded, path = load_recipe(recipe, set_)
    if loaded.sweep is None:
        raise RecipeError(f"{path}: got no `sweep`, expected one: what to vary", hint="`mixer schema` describes it")
    _check_place(out, path)
    written, loaded = loaded, loaded.model_copy(update={"sweep": asked(loaded)})
    target = run_folder(run, loaded)
    plan = estimate(loaded, base=path.parent, run=target, store=store(), say=say).plan
    stock = stock_of(plan, loaded.sweep.stage, max_epochs=loaded.max_epochs)
    if losses is not None:
        tokens = loaded.sweep.tokens_per_run
        results = read(losses, sources=tuple(stock.mixture), slices=slices_of(loaded.sweep), tokens=tokens)
    else:
        results = _trained(loaded, path.parent, target, stock)
    report = analyse(loaded.sweep, stock, results, seed=loaded.seed)
    found = report.as_json()
    write_json(target / "sweep" / "report.json", found)
    if json_:
        typer.echo(json.dumps(found, indent=2))
    else:
        tables.show_sweep(found)
    if out is None:
        say(f"next: {report.verdict.advice}; all of it is in {target}/sweep/report.json")
        return
    _write(out, written, path, report, varied=loaded.sweep.vary, overridden=bool(set_))
    say(f"next: mixer plan {out}{spelled(run, None)}")


def open_surrogate(run: Path, recipe: Any, base: Path, wanted: Any) -> Any:
    """What trains a small model on a mixture and evaluates it, a `Surrogate` of the sweep; plans all runs first."""
    if recipe.train is None or not (run / "manifest.json").is_file():
        got = "no `train`" if recipe.train is None else f"no finished Run {run}"
        raise RecipeError(
            f"{recipe.name}: got {got} and no `--losses`, expected what to train, or losses of runs made elsewhere",
            hint="add `train` and `validation`, build, and sweep again; or record losses in a file (docs/sweep.md)",
        )
    from curricula.search.surrogate import TrainedSurrogate

    surrogate = TrainedSurrogate(run, recipe, base=base, store=store(), say=say)
    surrogate.check(wanted)
    return surrogate


def _trained(recipe: Any, base: Path, run: Path, stock: Any) -> Any:
    from curricula.search.results import Table
    from curricula.search.sweep import jobs, slices_of, train
    from mixer.run import locked

    wanted = jobs(recipe.sweep, stock, seed=recipe.seed)
    surrogate = open_surrogate(run, recipe, base, wanted)
    slices = slices_of(recipe.sweep)
    with locked(run):
        path = run / "sweep" / "results.jsonl"
        table = Table(path, made_by=surrogate.made_by, sources=tuple(stock.mixture), slices=slices)
        return train(wanted, table, surrogate, say=say)


def _check_place(out: Path | None, recipe: Path) -> None:
    """A recipe's paths start from its own folder, so another folder would change what they mean."""
    if out is None:
        return
    if out.resolve() == recipe.resolve() or out.resolve().parent != recipe.resolve().parent:
        raise RecipeError(
            f"--out: got {out}, expected another file in {recipe.parent}, where the recipe's paths start from",
            hint=f"--out {recipe.with_name(recipe.stem + '-swept.yaml')}",
        )


def _write(out: Path, recipe: Any, path: Path, report: Any, *, varied: Any, overridden: bool) -> None:
    from mixer.recipe import edit as recipe_edit

    if report.recommended is None:
        raise PlanError(
            f"--out: got no answer ({report.verdict.kind}), expected one to write: {report.verdict.reason}",
            hint=report.verdict.advice,
        )
    mixture = {name: part.value for name, part in report.recommended.items()}
    text = None if overridden else path.read_text("utf-8-sig")
    stage = next(each for each in recipe.mixed_stages if each.name == recipe.sweep.stage)
    if stage.replay is None:
        recipe_edit.write(out, recipe, text=text, stage=stage.name, mixture=mixture)
    else:
        share = sum(mixture[name] for name in varied.sources)
        recipe_edit.write_replay(out, recipe, text=text, stage=stage.name, share=share)
