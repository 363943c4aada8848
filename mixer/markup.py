r"""Markdown and JATS articles to plain text, in time linear in their length.

Markdown keeps what reads well as it stands (headings, lists, emphasis, code, TeX) and loses the rest: front matter,
HTML tags, attribute lists, addresses. A Markdown parser would also resolve emphasis inside TeX, which damages it.
Every pattern below either stops at the next possible start of itself or is possessive, so none can backtrack far.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from html import unescape
from typing import Any

from lxml import etree, html

from mixer import mathml

_FENCE = re.compile(r"[\s>]*(`{3,}|~{3,})")
_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n")
_FRONT_MATTER_END = re.compile(r"^(?:---|\.\.\.)[ \t]*$\n?", re.MULTILINE)
_KEPT = re.compile(
    r"(``[^`\n]++``|`[^`\n]++`|\$\$[^$]++\$\$|\$(?=[^\s$])[^$\n]*+(?<!\s)\$(?!\d)|\\\((?:[^\\\n]|\\[^()\n])*+\\\))"
)
_LABEL = r"(?<!\\)\[((?:[^\[\]\\]|\\.|\[(?:[^\[\]\\]|\\.)*+\])*+)\]"
_ADDRESS = r"(?:<[^<>\n]*+>|(?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.)*+\))*+)"
_FILE = r"(?:<[^<>\n]*+>|(?:[^()\"\\\n]|\\.|\((?:[^\s()\\]|\\.)*+\))*+)"
_TITLE = r"""(?:\s*+"((?:[^"\\]|\\.)*+)"|\s++'[^']*+')?\s*+\)"""
_IMAGE = re.compile(rf"!{_LABEL}(?:\(\s*+{_FILE}{_TITLE}|\[[^\[\]\n]*+\])", re.DOTALL)
_LINK = re.compile(rf"{_LABEL}(?:\(\s*+{_ADDRESS}{_TITLE}|\[[^\[\]\n]*+\])", re.DOTALL)
_DEFINITION = re.compile(r"^ {0,3}\[(?!\^)[^\[\]\n]++\]:[ \t]++\S++.*$\n?", re.MULTILINE)
_ATTRIBUTES = re.compile(r"\{:[^{}\n]*+\}(?:\*\*){0,2}")
_TAG = re.compile(r"""</?([A-Za-z][\w:-]*+)(?:\s(?:[^<>"']|"[^"]*+"|'[^']*+')*+)?/?>""")
_ESCAPE = re.compile(r"\\(['\"*_#<>`|~])")
_INLINE_TAG = re.compile(
    r"a|abbr|acronym|b|bd[io]|big|cite|code|data|del|dfn|em|emphasis|font|i|img|ins|kbd|link|mark|q|s|samp|small|span"
    r"|strike|strong|sub|sup|term|time|tt|u|var|wbr",
    re.IGNORECASE,
)
_CELL_TAG = re.compile("td|th|entry", re.IGNORECASE)
_BLOCK_TAG = re.compile(
    r"address|article|aside|blockquote|body|br|button|caption|center|cnx-pi|col|colgroup|colspec|dd|details|dialog|div"
    r"|dl|dt|embed|example|exercise|fieldset|figcaption|figure|footer|form|h[1-6]|head|header|hr|html|iframe|input|item"
    r"|label|legend|li|list|main|media|meta|nav|note|object|ol|option|p|para|param|picture|pre|problem|row|script"
    r"|section|select|solution|source|style|summary|svg|table|tbody|textarea|tfoot|tgroup|thead|title|tr|track|ul|video",
    re.IGNORECASE,
)
_ANY_TAG = re.compile(r"<[^<>]*+>")
_MAX_FORMULA = 30_000
"""Characters; the parser takes quadratic time for the attributes of one tag."""
_POWER = re.compile(r"(?<=\d)<sup>(?=[\u2212\u2013+-]?\d)")
_SKIPPED = {"table", "tex-math", "graphic", "inline-graphic", "table-wrap-foot", "supplementary-material", "ref-list"}
_PARAGRAPHS = {
    *("abstract", "body", "boxed-text", "def-item", "disp-formula", "disp-quote", "fig", "fn", "list"),
    *("list-item", "p", "sec", "statement", "table-wrap", "title", "verse-group", "verse-line"),
}
_ARTICLE_PARTS = (
    "(//*[local-name()='front']//*[local-name()='article-title'])[1]",
    "//*[local-name()='article-meta']/*[local-name()='abstract'][not(@abstract-type)]",
    "(//*[local-name()='body'])[1]",
)


class BadMarkupError(Exception):
    """The markup cannot be parsed; the text says why."""


def markdown_text(text: str) -> str:
    """Markdown without front matter, tags, attribute lists and addresses; code and TeX stay as they are."""
    pieces = [piece if is_code else _prose(piece) for piece, is_code in _blocks(_body(text))]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(pieces)).strip()


def _body(text: str) -> str:
    start = _FRONT_MATTER.match(text)
    end = _FRONT_MATTER_END.search(text, start.end()) if start else None
    return text[end.end() :] if end else text


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """The text in turns of prose and fenced code, which runs to its closing fence or the end."""
    held: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        closes = mark is not None and mark[1].startswith(fence) and not line[mark.end() :].strip()
        if fence and closes:
            yield "\n".join([*held, line]), True
            held, fence = [], ""
        elif mark and not fence:
            yield "\n".join(held), False
            held, fence = [line], mark[1]
        else:
            held.append(line)
    yield "\n".join(held), bool(fence)


def _prose(text: str) -> str:
    if "<" in text:
        text = _without(text, "<!--", "-->", lambda _: "")
        text = _without(text, "<math", "</math>", _formula)
        text = _without(text, "<m:math", "</m:math>", _formula)
    parts = _KEPT.split(_DEFINITION.sub("", text) if "]:" in text else text)
    return "".join(part if number % 2 else _plain(part) for number, part in enumerate(parts))


def _without(text: str, opening: str, closing: str, replace: Any) -> str:
    """The text with each `opening ... closing` replaced; one that never closes stays."""
    first, *rest = text.split(opening)
    written = [first]
    for piece in rest:
        inner, found, after = piece.partition(closing)
        if not found:
            written.append(opening + piece)
            continue
        formula = replace(opening + inner + closing)
        written.append(" " + formula if formula[:1] not in "+-" and written[-1][-1:].isalnum() else formula)
        stripped = after.lstrip("\n")
        # Converters put an empty line after a formula in mid-sentence.
        goes_on = formula and stripped[:1] and (stripped[0] in ".,;:)" or stripped[0].islower())
        written.append((" " if stripped[0].islower() else "") + stripped if goes_on and after != stripped else after)
    return "".join(written)


def _formula(source: str) -> str:
    if len(source) > _MAX_FORMULA:
        return " ".join(_ANY_TAG.sub(" ", source).split())
    try:
        return mathml.formula(html.fragment_fromstring(_ESCAPE.sub(r"\1", source)))
    except (etree.LxmlError, ValueError):
        return ""


def _plain(text: str) -> str:
    if "[" in text:
        text = _IMAGE.sub(_caption, text)
        text = _LINK.sub(lambda match: match[1].replace("\\[", "[").replace("\\]", "]"), text)
    if "{:" in text:
        text = _ATTRIBUTES.sub("", text)
    if "<" in text:
        text = _TAG.sub(_tag, _POWER.sub("^", text))
    if "\\" in text:
        text = _ESCAPE.sub(r"\1", text)
    return unescape(text) if "&" in text else text


def _caption(match: re.Match[str]) -> str:
    """What stands for an image: its alternative text and, where there is one, its title."""
    return "\n\n".join(part for part in (match[1].strip(), (match[2] or "").strip()) if part)


def _tag(match: re.Match[str]) -> str:
    replacement = _replacement(match[1])
    return match[0] if replacement is None else replacement


@lru_cache(maxsize=1024)
def _replacement(tag: str) -> str | None:
    if _INLINE_TAG.fullmatch(tag):
        return ""
    if _CELL_TAG.fullmatch(tag):
        return " "
    return "\n" if _BLOCK_TAG.fullmatch(tag) else None


def article_text(xml: str) -> str:
    """Title, abstract and body of a JATS article: paragraphs, headings and captions, one blank line apart.

    Raises:
        BadMarkupError: It is not well-formed XML.
    """
    root = _parsed(xml)
    mathml.to_tex(root)
    parts = [part for path in _ARTICLE_PARTS for part in root.xpath(path)]
    return "\n\n".join(paragraph for part in parts for paragraph in _paragraphs(part))


def _parsed(xml: str) -> Any:
    options = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
    parser = etree.XMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, **options)
    try:
        root = etree.fromstring(xml.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError as error:
        raise BadMarkupError(" ".join(str(error.msg).split())[:160]) from error
    for entity in list(root.iter(etree.Entity)):
        _spell_out(entity)
    return root


def _spell_out(entity: Any) -> None:
    """Replaces `&nbsp;` and the like, which the parser leaves because it loads no DTD."""
    span = etree.Element("span")
    span.text, span.tail, entity.tail = unescape(entity.text), entity.tail, None
    entity.getparent().replace(entity, span)


def _paragraphs(part: Any) -> Iterator[str]:
    held = [""]
    inside_skipped = 0
    for event, element in etree.iterwalk(part, events=("start", "end")):
        name = element.tag.rpartition("}")[2]
        is_start = event == "start"
        if name in _SKIPPED:
            inside_skipped += 1 if is_start else -1
        if inside_skipped:
            continue
        breaks = name in _PARAGRAPHS and not (is_start and _begins_caption(element))
        if breaks and "".join(held).strip() not in ("", "-"):
            yield " ".join("".join(held).split())
            held = [""]
        if is_start:
            held += [_lead(name, element, held[-1]), *filter(None, [element.text])]
        elif element is not part:
            held += filter(None, [" " if name in ("label", "title") else "", element.tail])
    if "".join(held).strip():
        yield " ".join("".join(held).split())


def _begins_caption(element: Any) -> bool:
    """Whether the element stands right after the label of a figure or table."""
    parent = element.getparent()
    return parent is not None and parent.tag.rpartition("}")[2] == "caption" and element.getprevious() is None


def _lead(name: str, element: Any, before: str) -> str:
    """What an element is marked with in the text; a power loses its height, and 10 to the 5 must not read 105."""
    if name == "list-item":
        return "- "
    is_power = name == "sup" and before[-1:].isdigit() and re.match(r"[\u2212\u2013+-]?\d", element.text or "")
    return "^" if is_power else ""
