"""The files inside a tar, one after the other, in memory; nothing of an archive is ever written under its own name."""

import io
import tarfile
from collections.abc import Iterator
from typing import Any

from mixer.readers.rows import printable
from mixer.readers.streams import DAMAGE, DamagedError

_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_MAX_HEADER = 2**15


def opened(stream: io.BufferedReader) -> tarfile.TarFile:
    """The archive, to be read once from its beginning.

    Raises:
        DamagedError: It is no tar.
    """
    try:
        return tarfile.open(fileobj=stream, mode="r|", tarinfo=_Strict)
    except DAMAGE:
        raise
    except Exception as error:
        raise DamagedError(f"not a tar file: {error}") from error


def files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files; tarfile fails on hostile headers with errors of many kinds.

    Raises:
        DamagedError: The rest cannot be read.
    """
    while True:
        try:
            member = archive.next()
        except DAMAGE:
            raise
        except tarfile.TarError as error:
            raise DamagedError(str(error)) from error
        except Exception as error:
            raise DamagedError(f"bad tar header: {error}") from error
        if member is None:
            return
        # Otherwise every header read so far would stay in memory.
        archive.members = []  # type: ignore[attr-defined]
        if member.isreg():
            yield member


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """All bytes of the file that `files` gave last.

    Raises:
        DamagedError: The archive ends before it does.
    """
    try:
        file = archive.extractfile(member)
        return b"" if file is None else file.read()
    except tarfile.TarError as error:
        raise DamagedError(str(error)) from error


def neutral(name: str) -> str:
    """A member's name as an id: no way up, no control characters.

    Example:
        >>> neutral("/../dev/./a.csv")
        '_/dev/a.csv'
    """
    parts = [part for part in printable(name).split("/") if part not in ("", ".")]
    return "/".join("_" if part == ".." else part for part in parts) or "_"


class _Strict(tarfile.TarInfo):
    """A header that raises when it is damaged or built to hurt.

    tarfile takes a bad header, and a cut between members, for the end of the archive; a sparse map that is cut off
    makes it loop for ever, and long extended headers cost it quadratic time.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> Any:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:  # type: ignore[attr-defined]
            raise DamagedError(f"bad tar header: {error}") from error
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise DamagedError("cut tar: no end mark") from error

    def _proc_member(self, archive: Any) -> Any:
        if self.type in _EXTENDED and self.size > _MAX_HEADER:
            raise DamagedError(f"bad tar header: {self.size} bytes long")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise DamagedError("sparse member")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_gnusparse_00(self, *_: Any) -> None:
        raise DamagedError("sparse member")

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00
