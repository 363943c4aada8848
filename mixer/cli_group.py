"""How the `mixer` command ends: what the user can mend is one sentence and exit code 2, never a traceback."""

import errno
from typing import Any

import typer
from typer.core import TyperGroup

from mixer.errors import MixerError


def say(line: str) -> None:
    """Print a line for people on stderr."""
    typer.echo(line, err=True)


class Group(TyperGroup):
    """Ends with exit code 2 and no traceback when the user can mend it; anything else is our bug and shows one."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MixerError as error:
            hint = f"\n\nhint: {error.hint}" if error.hint else ""
            say(f"error: {error}{hint}")
            raise typer.Exit(2) from None
        except OSError as error:
            if error.errno not in _ENVIRONMENT:
                raise
            say(
                f"error: {error.filename}: {error.strerror}\n\nhint: check the path, its permissions and the free space"
            )
            raise typer.Exit(2) from None


_ENVIRONMENT = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST),
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE),
}
"""What the machine refuses, and the user can mend."""
