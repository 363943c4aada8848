"""`mixer trace`, `mixer why`, `mixer diff`: where a sequence comes from, where a document went, what changed."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mixer.commands.options import Base, Json, RunPath, store
from mixer.errors import RecipeError

TrainingName = Annotated[
    str | None,
    typer.Option(
        help="As this training took it: its guard may have raised replay. Default: as built.", show_default=False
    ),
]


def trace(
    run: RunPath,
    stage: Annotated[str | None, typer.Option(help="A stage of the plan.", show_default=False)] = None,
    index: Annotated[int | None, typer.Option(help="Which sequence of the stage, from 0.", show_default="0")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="SOURCE/FILE", help="A shard, instead of a stage.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file of an export of this Run, with ids.", show_default=False)
    ] = None,
    offset: Annotated[
        int | None, typer.Option(help="Which token of the shard or file, from 0.", show_default="0")
    ] = None,
    name: TrainingName = None,
    base: Base = Path(),
    json_: Json = False,
) -> None:
    """Show what fills a training sequence: documents, addresses, bytes of texts, scores, how a model wrote it.

    Of a table or an archive, the tokens of a file are counted row after row.

    Example: mixer trace runs/quickstart --stage adapt --index 12
    Example: mixer trace runs/quickstart --file exports/megatron/premixed.bin --offset 123456
    """
    from mixer import explained
    from mixer.replan import open_run
    from mixer.tokens import load
    from mixer.trace import trace_shard, trace_stage

    if sum(each is not None for each in (stage, shard, file)) != 1:
        hint = "name --stage and --index, or --shard or --file and --offset"
        raise RecipeError("trace: got no place, or several, expected one", hint=hint)
    if (index if stage is None else offset) is not None:
        wrong = "--index counts within a --stage" if stage is None else "--offset counts within a --shard or --file"
        raise RecipeError(f"trace: got both of two ways to name a place: {wrong}", hint="leave it out")
    if name is not None and stage is None:
        told = "trace: got --name, expected it with --stage alone"
        raise RecipeError(told, hint="shards and exports are the same for every training; leave it out")
    recipe = open_run(run)
    encoder = load(recipe.tokenizer, base, store())
    if stage is not None:
        found = trace_stage(run, recipe, encoder, stage=stage, index=index or 0, training=name)
    elif shard is not None:
        found = trace_shard(run, encoder, shard=shard, offset=offset or 0)
    else:
        from mixer.exports.locate import trace_file

        found = trace_file(run, recipe, encoder, file=file or Path(), offset=offset or 0)
    _print(found, explained.trace_lines, json_=json_)


def why(
    run: RunPath,
    document: Annotated[str, typer.Argument(metavar="DOCUMENT_ID", help="Such as `pages/tides.html#0`.")],
    name: TrainingName = None,
    json_: Json = False,
) -> None:
    """Say what became of a document: the step that ended it, or the sequences and stages that hold it.

    Example: mixer why runs/quickstart "sample/science/tides.html#0"
    """
    from mixer import explained
    from mixer.replan import open_run
    from mixer.why import why as explain

    found = explain(run, open_run(run), document, training=name)
    if json_:
        typer.echo(json.dumps([asdict(fate) for fate in found], indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(explained.fate_lines(found)))


def diff(
    run: RunPath,
    other: Annotated[Path, typer.Argument(metavar="RUN", help="Another Run folder.")],
    json_: Json = False,
) -> None:
    """Show what differs between two Runs: recipe, documents, scores, shares, and which steps were made otherwise.

    Example: mixer diff runs/quickstart runs/other
    """
    from mixer import explained
    from mixer.diff import diff as compare
    from mixer.replan import open_run

    found = compare(run, other, (open_run(run), open_run(other)))
    _print(found, explained.difference_lines, json_=json_)


def _print(found: Any, lines: Any, *, json_: bool) -> None:
    if json_:
        typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False, default=str))
    else:
        typer.echo("\n".join(lines(found)))
