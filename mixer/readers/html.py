"""HTML pages: a file each, the members of a tar, or the rows of a JSON Lines file; their bytes are decoded later."""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from mixer.readers import archive, jsonl
from mixer.readers.rows import Part, declared
from mixer.readers.streams import DAMAGE, MAX_ROW_BYTES, damaged, too_long, unwrapped
from mixer.recipe.sources import HtmlSource
from mixer.types import Failure, Page, Skipped

_WRAPPERS = {".gz", ".zst", ".tgz", ".tzst"}
_NOT_A_PAGE = re.compile(
    r"\.(7z|aac|atom|avi|avif|bin|bmp|bz2|css|csv|docx?|eot|epub|exe|flac|gif|ico|jar|jpe?g|m?js|json|jsonl|less|log|m4a"
    r"|map|md|mkv|mov|mp[34]|og[gv]|otf|parquet|pdf|png|pptx?|ps|rar|rss|rst|scss|sqlite|svg|tar|tiff?|toml|ts|tsv|ttf"
    r"|txt|wasm|wav|web[mp]|woff2?|xlsx?|xz|ya?ml|zip)"
)


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
    with archive.opened(stream) as tar:
        for number, member in enumerate(archive.files(tar)):
            identity = f"{name}/{archive.neutral(member.name)}"
            # A tar may hold one name twice, and every row needs an id of its own.
            identity = f"{identity}#{number}" if identity in seen else identity
            seen.add(identity)
            if part.owns(number):
                yield _member(tar, member, identity, source)


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, source: HtmlSource) -> Page | Failure | Skipped:
    path = PurePosixPath(member.name.lower())
    suffix = PurePosixPath(path.stem).suffix if path.suffix in _WRAPPERS else path.suffix
    if _NOT_A_PAGE.fullmatch(suffix):
        return Skipped(name, f"not html: {suffix}")
    if member.size > MAX_ROW_BYTES:
        return too_long(name)
    content = archive.content(tar, member)
    try:
        return _page(unwrapped(io.BytesIO(content)), name, source)
    except DAMAGE as error:
        return damaged(name, error)
