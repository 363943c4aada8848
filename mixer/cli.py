"""The `mixer` command: parse, call one function, print. stdout is the result, stderr everything else."""

import os
import sys

import typer

from mixer.cli_group import Group
from mixer.commands import adapt, build, explain, export, inspect, retention, sweep, synth, train

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Turn web pages and corpora into a staged, exactly budgeted mixture for continual pre-training.

    Start with: mixer build quickstart""",
)
for command in (
    inspect.check,
    inspect.plan,
    build.build,
    synth.synth,
    train.train,
    retention.retention,
    adapt.adapt,
    sweep.sweep,
    explain.trace,
    explain.why,
    explain.diff,
    export.export,
    inspect.recipes,
    inspect.schema,
    inspect.doctor,
):
    app.command()(command)


def main() -> None:
    """Run the `mixer` command."""
    try:
        app()
    except BrokenPipeError:
        # The reader of our output (head, less) has left; that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
