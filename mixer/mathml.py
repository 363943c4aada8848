r"""Formulas in pages as TeX, which a language model can read.

Extractors drop MathML or run its parts together: one half becomes 12. Where the author's TeX is at hand it is taken,
else TeX is written from the structure. A formula without any, such as a lone letter, stays plain text.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_TEX = ("application/x-tex", "tex", "latex", "application/x-latex")
_BOXES = {"katex", "katex-display", "mwe-math-element", "MathJax"}
"""Classes of the elements in which renderers keep MathML beside a second copy for display."""
_FORMULAS = ("{*}math", "m:math", "mml:math", "mjx-container", "script")
_BOX_LEVELS = 4
_MAX_DEPTH = 60
_SPACED = set("=<>≤≥≠≈≡∼≅∝→⟶←↔⇒⇔⇌∈∉⊂⊆∪∩∧∨+−±×·÷*-")
_SIGN = re.compile(r"(?<![^({\[,])\s?([\u2212+-]) ")
_INVISIBLE = re.compile("[\u2061-\u2064\u200b]")
_SPECIAL = re.compile(r"[#$%&_{}]")
_ACCENTS = {
    **dict.fromkeys("\u00af\u203e\u0304\u0305", "bar"),
    **dict.fromkeys("^\u02c6\u0302", "hat"),
    **dict.fromkeys("\u2192\u20d7", "vec"),
    **dict.fromkeys("~\u02dc\u0303", "tilde"),
    **dict.fromkeys("\u02d9\u0307.", "dot"),
}
_DISPLAY_STYLE = re.compile(r"\{\\(?:display|text)style (.*)\}", re.DOTALL)
_SILENT = {"annotation", "annotation-xml", "mphantom", "none", "mprescripts", "maligngroup", "malignmark"}


def to_tex(tree: Any) -> None:
    """Turns each formula of an lxml tree into a span of text, in place."""
    for element in list(tree.iter(*_FORMULAS)):
        name = _local(element)
        if name == "script":
            kind = element.get("type") or ""
            if kind.startswith("math/tex"):
                _become(element, _delimited((element.text or "").strip(), is_block="display" in kind))
        elif name == "mjx-container" and next(element.iter("math"), None) is None:
            source = next((part.get("data-latex") for part in element.iter() if part.get("data-latex")), "")
            _become(element, _delimited(source, is_block=element.get("display") == "true"))
        elif name == "math":
            _become(_box(element), formula(element))


def formula(math: Any) -> str:
    r"""One `math` element as `\(TeX\)`, `\[TeX\]` for a block, or plain text where it has no structure."""
    is_block = math.get("display") == "block"
    source = _source(math)
    if source:
        return _delimited(source, is_block=is_block)
    tex = _SIGN.sub(r"\1", " ".join(_tex(math, 0).split())) or " ".join((math.text or "").split())
    return _delimited(tex, is_block=is_block) if re.search(r"[\\^_]", tex) else tex


def _source(math: Any) -> str:
    notes = (part for part in math.iter() if _local(part) == "annotation" and part.get("encoding", "").lower() in _TEX)
    note = next(notes, None)
    written = [note.text if note is not None else None, math.get("data-latex"), math.get("alttext")]
    source = next((text.strip() for text in written if text and text.strip()), "")
    inner = _DISPLAY_STYLE.fullmatch(source)
    return inner[1].strip() if inner else source


def _delimited(tex: str, *, is_block: bool) -> str:
    if not tex:
        return ""
    return f"\\[{tex}\\]" if is_block else f"\\({tex}\\)"


def _box(math: Any) -> Any:
    """The outermost element near a formula that holds nothing else."""
    box = step = math
    for _ in range(_BOX_LEVELS):
        step = step.getparent()
        if step is None or _local(step) not in ("span", "mjx-container", "mjx-assistive-mml"):
            break
        if _local(step) == "mjx-container" or _BOXES & set((step.get("class") or "").split()):
            box = step
    return box


def _become(element: Any, text: str) -> None:
    # Not removed and merged into its neighbour: with many formulas in one paragraph that takes quadratic time.
    element.clear(keep_tail=True)
    element.tag = "span"
    element.text = text


def _local(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2].rpartition(":")[2] if isinstance(tag, str) else ""


def _tex(node: Any, depth: int) -> str:
    name = _local(node)
    if name in _SILENT or not name:
        return ""
    if depth > _MAX_DEPTH:
        return " ".join("".join(node.itertext()).split())
    if name in ("mi", "mn", "mo", "mtext", "ms"):
        return _token(node, name)
    if name == "mspace":
        return " "
    children = [child for child in node if _local(child)]
    if name == "semantics":
        children = children[:1]
    parts = [_tex(child, depth + 1) for child in children]
    write = _WRITERS.get(name)
    if write is None or len(parts) < 2:
        return _wrapped(node, name, parts)
    return write(parts)


def _token(node: Any, name: str) -> str:
    text = _INVISIBLE.sub("", " ".join("".join(node.itertext()).split()))
    text = _SPECIAL.sub(r"\\\g<0>", text)
    is_word = name in ("mi", "mtext") and len(text) > 1 and text[0].isalpha()
    return f" {text} " if is_word or text in _SPACED else text


def _wrapped(node: Any, name: str, parts: Sequence[str]) -> str:
    inner = "".join(parts)
    if name == "msqrt":
        return rf"\sqrt{{{inner.strip()}}}"
    if name == "mfenced":
        separator = (node.get("separators", ",").strip() or " ")[0]
        opened, closed = str(node.get("open", "(")), str(node.get("close", ")"))
        return opened + _joined(parts, f"{separator} ") + closed
    if name == "mtable":
        rows = _joined(parts, r" \\ ")
        return rf" \begin{{matrix}} {rows} \end{{matrix}} "
    return _joined(parts, " & ") if name in ("mtr", "mlabeledtr") else inner


def _joined(parts: Iterable[str], separator: str) -> str:
    return separator.join(part.strip() for part in parts)


def _frac(parts: Sequence[str]) -> str:
    return rf"\frac{{{parts[0].strip()}}}{{{parts[1].strip()}}}"


def _scripted(*marks: str) -> Callable[[Sequence[str]], str]:
    def write(parts: Sequence[str]) -> str:
        pairs = zip(marks, parts[1:], strict=False)
        return parts[0].strip() + "".join(f"{mark}{{{part.strip()}}}" for mark, part in pairs if part.strip())

    return write


def _over(parts: Sequence[str]) -> str:
    base, over = parts[0].strip(), parts[1].strip()
    accent = _ACCENTS.get(over)
    return rf"\{accent}{{{base}}}" if accent else rf"\overset{{{over}}}{{{base}}}"


def _root(parts: Sequence[str]) -> str:
    return rf"\sqrt[{parts[1].strip()}]{{{parts[0].strip()}}}"


def _multiscripts(parts: Sequence[str]) -> str:
    return _scripted(*"_^" * (len(parts) // 2))(parts)


_WRITERS: dict[str, Callable[[Sequence[str]], str]] = {
    "mfrac": _frac,
    "mmultiscripts": _multiscripts,
    "mover": _over,
    "mroot": _root,
    "msub": _scripted("_"),
    "msubsup": _scripted("_", "^"),
    "msup": _scripted("^"),
    "munder": _scripted("_"),
    "munderover": _scripted("_", "^"),
}
