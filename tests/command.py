"""The `mixer` command, in this process."""

from typer.testing import CliRunner

from mixer.cli import app


def mixer(*arguments: object):
    """What a call of the command printed, and its exit code."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
