"""HTML pages: a file each, the members of a tar, or the rows of a JSON Lines file; their bytes are decoded later."""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any

from mixer.readers import jsonl
from mixer.readers.rows import Part, declared, printable
from mixer.readers.streams import DAMAGE, MAX_ROW_BYTES, DamagedError, damaged, too_long, unwrapped
from mixer.recipe_sources import HtmlSource
from mixer.types import Failure, Page, Skipped

_WRAPPERS = {".gz", ".zst", ".tgz", ".tzst"}
_NOT_A_PAGE = re.compile(
    r"\.(7z|aac|atom|avi|avif|bin|bmp|bz2|css|csv|docx?|eot|epub|exe|flac|gif|ico|jar|jpe?g|m?js|json|jsonl|less|log|m4a"
    r"|map|md|mkv|mov|mp[34]|og[gv]|otf|parquet|pdf|png|pptx?|ps|rar|rss|rst|scss|sqlite|svg|tar|tiff?|toml|ts|tsv|ttf"
    r"|txt|wasm|wav|web[mp]|woff2?|xlsx?|xz|ya?ml|zip)"
)
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_MAX_HEADER = 2**15


def layout(name: str) -> str:
    """`tar`, `jsonl` or `page`: how the file is laid out, by its name."""
    path = PurePosixPath(name.lower())
    if path.suffix in {".tgz", ".tzst"}:
        return "tar"
    suffix = PurePosixPath(path.stem).suffix if path.suffix in _WRAPPERS else path.suffix
    return {".tar": "tar", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(suffix, "page")


def rows(stream: io.BufferedReader, name: str, source: HtmlSource, part: Part) -> Iterator[Page | Failure | Skipped]:
    """A Page, a Failure or, for a tar's member that is no page, a Skipped, for each row of ours."""
    kind = layout(name)
    if kind == "jsonl":
        yield from jsonl.rows(stream, name, source, part)
    elif kind == "tar":
        yield from _members(stream, name, source, part)
    else:
        yield _page(stream, name, source)


def _page(stream: IO[bytes], name: str, source: HtmlSource) -> Page | Failure:
    content = stream.read(MAX_ROW_BYTES + 1)
    if len(content) > MAX_ROW_BYTES:
        return too_long(name)
    return Page(name, content, "html", metadata=declared(source))


def _members(
    stream: io.BufferedReader, name: str, source: HtmlSource, part: Part
) -> Iterator[Page | Failure | Skipped]:
    seen: set[str] = set()
    with _opened(stream) as archive:
        for number, member in enumerate(_files(archive)):
            identity = f"{name}/{_neutral(member.name)}"
            # A tar may hold one name twice, and every row needs an id of its own.
            identity = f"{identity}#{number}" if identity in seen else identity
            seen.add(identity)
            if part.owns(number):
                yield _member(archive, member, identity, source)


def _member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, source: HtmlSource
) -> Page | Failure | Skipped:
    path = PurePosixPath(member.name.lower())
    suffix = PurePosixPath(path.stem).suffix if path.suffix in _WRAPPERS else path.suffix
    if _NOT_A_PAGE.fullmatch(suffix):
        return Skipped(name, f"not html: {suffix}")
    if member.size > MAX_ROW_BYTES:
        return too_long(name)
    content = _bytes(archive, member)
    try:
        return _page(unwrapped(io.BytesIO(content)), name, source)
    except DAMAGE as error:
        return damaged(name, error)


def _opened(stream: io.BufferedReader) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=stream, mode="r|", tarinfo=_Strict)
    except DAMAGE:
        raise
    except Exception as error:
        raise DamagedError(f"not a tar file: {error}") from error


def _files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files; tarfile fails on hostile headers with errors of many kinds."""
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


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        file = archive.extractfile(member)
        return b"" if file is None else file.read()
    except tarfile.TarError as error:
        raise DamagedError(str(error)) from error


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


def _neutral(name: str) -> str:
    """A member's name as an id: no way up, no control characters."""
    parts = [part for part in printable(name).split("/") if part not in ("", ".")]
    return "/".join("_" if part == ".." else part for part in parts) or "_"
