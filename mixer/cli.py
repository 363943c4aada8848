"""The `mixer` command: parse, call one function, print. stdout is the result, stderr everything else."""

import json
import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from mixer.cli_group import Group, say
from mixer.errors import RecipeError

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Turn web pages and corpora into a staged, exactly budgeted mixture for continual pre-training.

    Start with: mixer build quickstart""",
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, or a shipped recipe's name.")]
RunFolder = Annotated[
    Path | None, typer.Option("--run", help="The Run folder. Default: runs/NAME.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value: stages.0.token_budget=30M."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def check(recipe: RecipeFile, set_: Set = None) -> None:
    """Check a recipe: every error at once, each with its line.

    Example: mixer check recipes/quickstart.yaml
    """
    loaded, path = _load(recipe, set_)
    typer.echo(f"{path}: recipe `{loaded.name}` is sound: {len(loaded.sources)} sources, {len(loaded.stages)} stages")
    say(f"next: mixer plan {recipe}{_spelled(None, set_)}")


@app.command()
def plan(recipe: RecipeFile, run: RunFolder = None, set_: Set = None, json_: Json = False) -> None:
    """Show what a build would hold: sequences, tokens and epochs of every source in every stage. Writes nothing.

    Sizes come from an earlier build where there is one, else from a sample, and are then marked `~`.

    Example: mixer plan recipes/quickstart.yaml
    """
    from mixer import tables
    from mixer.build import as_json
    from mixer.estimate import estimate

    loaded, path = _load(recipe, set_)
    estimated = estimate(loaded, base=path.parent, run=_run(run, loaded), store=_store(), say=say)
    if json_:
        typer.echo(json.dumps(as_json(estimated.plan) | {"estimate": estimated.costs()}, indent=2))
        return
    tables.show_plan(estimated.plan)
    tables.show_costs(estimated)
    say(f"next: mixer build {recipe}{_spelled(run, set_)}")


@app.command()
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
    from mixer.build import as_json
    from mixer.build import build as build_run
    from mixer.execute import check_executor

    loaded, path = _load(recipe, set_)
    target = _run(run, loaded)
    check_executor(executor)
    asks = loaded.synth_sources or loaded.scores.teachers
    opened: Any = _synthesizer(path.parent) if asks else nullcontext()
    with opened as synthesize:
        where = _where(path, target, workers) | {"synthesize": synthesize, "open_score": _open_score(synthesize)}
        built = build_run(loaded, **where, scheduler=_schedule)
    if json_:
        typer.echo(
            json.dumps(as_json(built.plan) | {"run": str(target), "sources": built.manifest["sources"]}, indent=2)
        )
        return
    tables.show_ledgers(built.ledgers, built.manifest["sources"])
    tables.show_plan(built.plan)
    typer.echo(f"Run: {target}")
    first, weight = next(iter(loaded.stages[0].mixture.items()))
    again = f"mixer build {recipe}{_spelled(run, set_)} --set stages.0.mixture.{first}={weight + 1:g}"
    say(f"next: change the mixture in seconds: {again}")


@app.command()
def synth(
    recipe: RecipeFile,
    run: RunFolder = None,
    workers: Annotated[int | None, typer.Option(help="Processes. Default: one a core.", show_default=False)] = None,
    regenerate: Annotated[
        bool, typer.Option("--regenerate", help="Forget the answers in the response log and ask the model anew.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="LABELLED", help="Measure the checks on labelled or gold pairs (jsonl) instead."),
    ] = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Write the synthetic sources of a recipe alone: ask the model, verify, and show the funnel (`build` does it too).

    What the model answered is kept in RUN/synth/NAME/responses; another filter over the same answers asks for nothing.

    Example: mixer synth recipes/quickstart.yaml
    """
    from mixer import tables
    from mixer.build import synthesize_only
    from mixer.tokens import load as load_encoder
    from synth.output import funnel

    loaded, path = _load(recipe, set_)
    if not loaded.synth_sources:
        raise RecipeError(f"{path}: got no source of `kind: synth`, expected one", hint="`mixer schema` describes it")
    target = _run(run, loaded)
    if calibrate is not None:
        _calibrate(loaded, path.parent, target, calibrate, json_=json_)
        return
    with _synthesizer(path.parent, regenerate=regenerate) as synthesize:
        where = _where(path, target, workers) | {"synthesize": synthesize, "open_score": _open_score(synthesize)}
        made = synthesize_only(loaded, **where)
    encoder = load_encoder(loaded.tokenizer, path.parent, _store())
    funnels = {
        name: funnel(folder / "candidates.parquet", lambda texts: sum(map(len, encoder.encode(texts))))
        for name, folder in made.items()
    }
    if json_:
        typer.echo(json.dumps({name: found.to_dicts() for name, found in funnels.items()}, indent=2))
    else:
        tables.show_funnels(funnels)
        typer.echo(f"Run: {target}")
    say(f"next: mixer build {recipe}{_spelled(run, set_)}")


def _calibrate(loaded: Any, base: Path, run: Path, labelled: Path, *, json_: bool) -> None:
    from mixer import tables
    from mixer.context import Context
    from mixer.run import locked, write_json
    from mixer.steps import Steps
    from synth.labelled import read

    task = loaded.synth.science_qa
    if task is None:
        raise RecipeError("synth.science_qa: got none, expected one to calibrate", hint="`mixer schema` describes it")
    rows = read(labelled)
    with locked(run), _synthesizer(base) as synthesizer:
        found = synthesizer.calibrate(Context(loaded, base, run, _store(), 1, Steps(run, say), say), task, rows)
        write_json(run / "synth" / "calibrate" / "report.json", found)
    if json_:
        typer.echo(json.dumps(found, indent=2))
        return
    tables.show_calibration(found)
    say(f"next: put thresholds into synth.science_qa.verify; all of it is in {run}/synth/calibrate/report.json")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe.", show_default=False)] = None,
) -> None:
    """List the shipped recipes, or print one.

    Example: mixer recipes quickstart > my.yaml
    """
    from mixer.shipped import listing, recipe_path

    typer.echo(recipe_path(name).read_text("utf-8") if name else listing())


@app.command()
def schema() -> None:
    """Print the recipe's JSON Schema, for an editor to check and complete recipes with.

    Example: mixer schema > recipe.schema.json
    """
    from mixer.recipe_file import schema as recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=2))


@app.command()
def doctor(json_: Json = False) -> None:
    """Say what this machine has and can run: libraries, engine, device, memory, disk, model cache.

    Example: mixer doctor
    """
    from dataclasses import asdict

    from mixer import tables
    from mixer.doctor import doctor as examine

    checks = examine(_store())
    if json_:
        typer.echo(json.dumps([asdict(found) for found in checks], indent=2))
    else:
        tables.show_checks(checks)


def _load(recipe: Path, overrides: list[str] | None) -> tuple[Any, Path]:
    from mixer.recipe_file import load
    from mixer.shipped import resolve

    path = resolve(recipe)
    return load(path, overrides=overrides or []), path


def _where(recipe: Path, run: Path, workers: int | None) -> dict[str, Any]:
    """What every build is told: where things lie, how many processes, and where lines for people go."""
    from mixer.execute import check_workers, default_workers

    count = default_workers() if workers is None else check_workers(workers)
    return {"base": recipe.parent, "run": run, "store": _store(), "workers": count, "say": say}


def _schedule(*draws: Any, seed: int) -> Any:
    from curricula.order import order

    return order(*draws, seed=seed)


def _open_score(synthesizer: Any) -> Any:
    """Makes scores ready; the synthesizer, where there is one, asks their teachers."""

    def opened(context: Any, name: str, documents: Any) -> Any:
        from curricula.score import open_score

        return open_score(context, name, documents, label=synthesizer.labels if synthesizer else None)

    return opened


def _synthesizer(base: Path, *, regenerate: bool = False) -> Any:
    """Makes synthetic sources; finds models where the recipe and the store have them."""
    from synth.synthesize import Synthesizer, Weights

    def locate(model: Any) -> Weights:
        from curricula.model import fingerprint, model_folder

        if model.endpoint is not None:
            return Weights(None, f"{model.name}@{model.revision or 'unknown'}")
        folder = model_folder(model.path, base=base, store=_store(), revision=model.revision)
        return Weights(folder, fingerprint(folder, _store()))

    return Synthesizer(locate, regenerate=regenerate)


def _spelled(run: Path | None, overrides: list[str] | None) -> str:
    """The options that the next command needs to mean the same Run and recipe."""
    words = [["--run", str(run)]] if run else []
    words += [["--set", override] for override in overrides or []]
    return "".join(f" {option} {shlex.quote(value)}" for option, value in words)


def _run(run: Path | None, recipe: Any) -> Path:
    return run or Path("runs") / recipe.name


def _store() -> Path:
    """Where converted models are kept between Runs."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "curriculum-mixer"


def main() -> None:
    """Run the `mixer` command."""
    try:
        app()
    except BrokenPipeError:
        # The reader of our output (head, less) has left; that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
