"""`mixer adapt`: the next round's plan, or sequences to train on again, from recorded losses."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mixer.cli_group import say
from mixer.commands.options import Json, RunPath
from mixer.errors import RecipeError


def adapt(
    run: RunPath,
    before: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Validation losses when the last round began (JSON).")
    ] = None,
    after: Annotated[Path | None, typer.Option(metavar="FILE", help="Validation losses when it ended.")] = None,
    losses: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Losses of sequences, to choose those that come again (`resample`)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Take the losses of this training, of RUN/checkpoints.", show_default=False)
    ] = None,
    json_: Json = False,
) -> None:
    """Plan the next round over the same shards: topics whose validation loss rose get more (Llama-3-SynE).

    Losses are nats a token by `source/topic`; `mixer train` adapts by its own as it goes. With --losses, order the
    stages that come again by loss instead.

    Example: mixer adapt runs/science --before step0.json --after step1.json
    """
    from dataclasses import asdict

    from curricula import rounds
    from curricula.closed_loop import validated_around
    from mixer import tables
    from mixer.pools import topic_sources
    from mixer.replan import open_run

    if losses is not None:
        for stage in rounds.resample(run, losses, say=say):
            typer.echo(f"{run}/order/{stage}.npy: ordered by the losses in {losses}")
        return
    if name is not None:
        pair, whose = validated_around(run, run / "checkpoints" / name, say=say), name
    elif before is not None and after is not None:
        recipe = open_run(run)
        sources = sorted({source for stage in recipe.mixed_stages if stage.adapt for source in topic_sources(stage)})
        pair, whose = [rounds.read_losses(path, sources) for path in (before, after)], f"{before}, {after}"
    else:
        raise RecipeError(
            "adapt: got no losses, expected --name, or --before and --after, or --losses",
            hint="mixer adapt RUN --before step0.json --after step1.json",
        )
    found = rounds.adapt(run, *pair, method=whose, say=say)
    if json_:
        changes = [asdict(change) for change in found.changes]
        typer.echo(json.dumps({"round": found.name, "topics": changes}, indent=2))
        return
    tables.show_round(found.name, found.changes)
    tables.show_plan(found.planned)
    say(f"next: mixer train {run}")
