"""`mixer synth`: the synthetic sources alone, or the calibration of their checks."""

import json
from pathlib import Path
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
    open_synthesizer,
    run_folder,
    score_opener,
    spelled,
    store,
)
from mixer.errors import RecipeError


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

    loaded, path = load_recipe(recipe, set_)
    if not loaded.synth_sources:
        raise RecipeError(f"{path}: got no source of `kind: synth`, expected one", hint="`mixer schema` describes it")
    target = run_folder(run, loaded)
    if calibrate is not None:
        _calibrate(loaded, path.parent, target, calibrate, json_=json_)
        return
    with open_synthesizer(path.parent, regenerate=regenerate) as synthesize:
        where = build_options(path, target, workers) | {
            "synthesize": synthesize,
            "open_score": score_opener(synthesize),
        }
        made = synthesize_only(loaded, **where)
    encoder = load_encoder(loaded.tokenizer, path.parent, store())
    funnels = {
        name: funnel(folder / "candidates.parquet", lambda texts: sum(map(len, encoder.encode(texts))))
        for name, folder in made.items()
    }
    if json_:
        typer.echo(json.dumps({name: found.to_dicts() for name, found in funnels.items()}, indent=2))
    else:
        tables.show_funnels(funnels)
        typer.echo(f"Run: {target}")
    say(f"next: mixer build {recipe}{spelled(run, set_)}")


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
    with locked(run), open_synthesizer(base) as synthesizer:
        found = synthesizer.calibrate(Context(loaded, base, run, store(), 1, Steps(run, say), say), task, rows)
        write_json(run / "synth" / "calibrate" / "report.json", found)
    if json_:
        typer.echo(json.dumps(found, indent=2))
        return
    tables.show_calibration(found)
    say(f"next: put thresholds into synth.science_qa.verify; all of it is in {run}/synth/calibrate/report.json")
