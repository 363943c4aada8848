"""From a page to its text: decode, bound, and keep the main part.

Work is bounded by what the page holds (bytes, elements, nesting), never by the clock, so the same pages are kept on
a busy machine. HTML is parsed once; formulas, captions and powers are spelled out in the tree, because extractors
drop them; then trafilatura or resiliparse takes the main text. A fragment without page furniture keeps all its text.
JSON inside a page is not read: trafilatura's search in it takes quadratic time.
"""

import codecs
import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any, Literal

from lxml import html
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from mixer import markup, webpage
from mixer.types import Page

Engine = Literal["trafilatura", "resiliparse"]

_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""UTF-32 before UTF-16, whose mark begins the same way."""
_DECLARATION = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?([\w.:-]{2,40})", re.IGNORECASE)
_HEAD_BYTES = 4096
_WIDER = {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "euc-kr": "cp949", "big5": "big5hkscs"}
"""What browsers decode a name as, in Python's codecs."""
_MULTIBYTE = {"gb18030", "cp932", "cp949", "big5hkscs", "euc_jp", "euc-jp", "iso2022_jp", "iso-2022-jp"}
_WHOLE_PAGE = re.compile(r"<(?:!doctype|html|head|body|frameset)[\s>]", re.IGNORECASE)
_MANY_BYTES = 1_000_000


class Rejected(Exception):
    """The page gives no text; the message is the reason."""


def decode(content: bytes, charset: str | None) -> str:
    """The text in `content`, whatever its encoding; what cannot be decoded becomes U+FFFD, and NULs go.

    A byte order mark decides. Else valid UTF-8 wins over a declared single-byte charset, which fits any bytes and is
    often wrong; then what is declared, if it fits; then detection.

    Args:
        content: As read.
        charset: What the HTTP header says.
    """
    for mark, name in _BOMS.items():
        if content.startswith(mark):
            return content[len(mark) :].decode(name, "replace").replace("\0", "")
    for encoding in _candidates(content, charset):
        try:
            return content.decode(encoding).replace("\0", "")
        except (UnicodeDecodeError, LookupError):
            continue
    return _forced(content).replace("\0", "")


def _candidates(content: bytes, charset: str | None) -> Iterator[str]:
    wide = _looks_utf16(content)
    if wide:
        yield wide
    declaration = _DECLARATION.search(content[:_HEAD_BYTES])
    declared = [charset or "", declaration[1].decode("ascii", "replace") if declaration else ""]
    named = [encoding for encoding in map(_codec, declared) if encoding and not encoding.startswith("utf-16")]
    if not _MULTIBYTE.intersection(named):
        yield "utf-8"
    yield from [*named, "utf-8"]


def _forced(content: bytes) -> str:
    """The text in bytes that are damaged, or whose encoding nobody states and detection must find."""
    wide = _looks_utf16(content) or _codec(detect_encoding(content) or "")
    if wide and wide != "utf-8":
        with contextlib.suppress(LookupError):
            return content.decode(wide, "replace")
    text = content.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    # Detection takes a text with few accents for UTF-8.
    is_latin = damaged > sum(not character.isascii() for character in text) - damaged
    return content.decode("cp1252", "replace") if is_latin else text


def _codec(name: str) -> str:
    """Python's codec for a charset as browsers understand it; nothing else may be named by a page."""
    standard = map_encoding_to_html5(name.strip().lower(), fallback_utf8=False) if name else None
    return _WIDER.get(standard, standard) if standard else ""


def _looks_utf16(content: bytes) -> str:
    """The UTF-16 without a byte order mark that Latin markup gives away: every other byte is zero."""
    head = content[:256]
    if len(head) < 8 or head.count(0) < len(head) // 3:
        return ""
    return "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"


def extract(page: Page, *, engine: Engine, max_bytes: int, max_elements: int) -> str:
    """The page's text.

    Args:
        page: As read.
        engine: Which library finds the main part of an HTML page.
        max_bytes: Longest page; for mark-up that is parsed.
        max_elements: Most elements; also bounds how deep they nest on average.

    Raises:
        Rejected: Too large, too many elements, too deeply nested, damaged, or without text.
    """
    if page.format in ("html", "jats"):
        _check_size(page.content, max_bytes)
    text = page.content if isinstance(page.content, str) else decode(page.content, page.metadata.get("charset"))
    if page.format == "markdown":
        text = markup.markdown_text(text)
    elif page.format == "jats":
        text = _article_text(text)
    elif page.format == "html":
        text = _page_text(text, engine, max_elements)
    if not text.strip():
        raise Rejected("no text found")
    return text


def _check_size(content: str | bytes, max_bytes: int) -> None:
    size = len(content)
    if isinstance(content, str) and size <= max_bytes < 4 * size:
        size = len(content.encode("utf-8", "replace"))
    if size > max_bytes:
        raise Rejected(f"too large: {size / 1e6:.1f} MB")


def _article_text(xml: str) -> str:
    try:
        return markup.article_text(xml)
    except markup.BadMarkupError as error:
        raise Rejected(f"bad xml: {error}") from error


def _page_text(text: str, engine: Engine, max_elements: int) -> str:
    is_whole = _WHOLE_PAGE.search(text) is not None
    try:
        tree = webpage.parsed(text, max_elements=max_elements)
        webpage.spell_out(tree)
        if is_whole and engine == "trafilatura":
            return _trafilatura(tree, size=len(text))
        source = html.tostring(tree, encoding="unicode")
        return str(extract_plain_text(source, main_content=is_whole, alt_texts=False, comments=False))
    except webpage.UnfitError as unfit:
        raise Rejected(str(unfit)) from unfit
    except Exception as error:
        raise Rejected(f"extractor failed: {type(error).__name__}") from error


def _trafilatura(tree: Any, *, size: int) -> str:
    """The main text of a parsed page.

    The slower cascade with its second opinions is on: without it, F1 on ten real pages falls from .97 to .90, for 30%
    of the time. Metadata, comments, formatting and trafilatura's memory of earlier pages are off.
    """
    import trafilatura
    from trafilatura.meta import reset_caches

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    found = trafilatura.extract(
        tree,
        fast=False,
        include_comments=False,
        include_formatting=False,
        include_tables=True,
        deduplicate=False,
        with_metadata=False,
    )
    if size > _MANY_BYTES:
        # Its caches count entries, not bytes, and would hold a thousand long texts.
        reset_caches()
    return str(found or "")
