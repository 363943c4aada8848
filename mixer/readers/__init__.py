"""One reader a kind of source; each gives every row of its part of a file exactly once, whatever the file holds."""

from collections.abc import Iterator

from mixer.readers import html, hub, jsonl, parquet, text, warc
from mixer.readers.rows import Part
from mixer.readers.streams import DAMAGE, damaged, open_stream
from mixer.recipe.sources import HtmlSource, HubSource, JsonlSource, PageSource, ParquetSource, TextSource, WarcSource
from mixer.types import Failure, Page, Skipped

Row = Page | Failure | Skipped


def rows(path: str, name: str, source: PageSource, part: Part) -> Iterator[Row]:
    """The rows of one file that are ours, in order; damage to the file is the last of them, in part 0 only."""
    try:
        yield from _rows(path, name, source, part)
    except DAMAGE as error:
        if part.stripe == 0:
            yield damaged(name, error)


def _rows(path: str, name: str, source: PageSource, part: Part) -> Iterator[Row]:
    if isinstance(source, HubSource):
        yield from hub.rows(path, name, source, part)
        return
    if isinstance(source, ParquetSource):
        yield from parquet.rows(path, name, source, part)
        return
    with open_stream(path) as stream:
        if isinstance(source, HtmlSource):
            yield from html.rows(stream, name, source, part)
        elif isinstance(source, WarcSource):
            yield from warc.rows(stream, name, source, part)
        elif isinstance(source, JsonlSource):
            yield from jsonl.rows(stream, name, source, part)
        elif isinstance(source, TextSource):
            yield from text.rows(stream, name, source, part)
