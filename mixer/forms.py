"""A benchmark item as its copies on the web look, in several forms; what changes is a hash of the seed and the item."""

import re
from collections.abc import Sequence

from mixer.benchmark import Item
from mixer.run import digest

NEEDS = {
    "question_only": "question",
    "question_edited": "question",
    "passage_only": "passage",
    "options_only": "options",
}
"""The part by which a form can be found at all; the others can be found by any."""
FORMS = ("verbatim", "rewrapped", "embedded", "reordered", "edited", *NEEDS)

_PROSE_CHARS = 4000
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]{{2}}|[^\W_{_CJK}]{{2,}}")
_ANOTHER = ("lantern", "seventeen", "orchard", "quietly", "velvet", "harbour")
_ANOTHER_CJK = ("灯笼", "果园", "港口", "玻璃", "琥珀", "麻雀")
_CASES = (str, str.lower, str.upper, str.title)
_STOPS = (r"\g<0>", "", " ", "\u2026")
_QUOTES = str.maketrans({"'": "\u2019", '"': "\u201d", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
_MARKS: tuple[str, ...] = (
    "{letter}. ",
    "({letter}) ",
    "{small}) ",
    "{number}. ",
    "({number}) ",
    "{roman}. ",
    "{circled}",
    "- ",
)
_MARKS += ("Option {letter}: ",)
_CIRCLED_ONE = 0x2460


def forms(item: Item, seed: int, prose: str = "") -> dict[str, str]:
    """The item as copies of it would look, by form; a form that it cannot take is left out.

    Args:
        item: What is written.
        seed: Decides, with the item, what is changed where, and how choices are marked.
        prose: Text that the `embedded` form stands in the middle of; without it there is no such form.
    """
    key = [seed, item.benchmark, item.id]
    question, edited = item.question, _edited(item.question, key)
    shown, shuffled = _shown(item, question, key), sorted(item.choices, key=lambda choice: digest([*key, choice]))
    found = {"verbatim": shown, "rewrapped": _rewrapped(shown, key)}
    if prose:
        found["embedded"] = _embedded(shown, prose[:_PROSE_CHARS], key)
    if edited != question:
        found |= {"edited": _shown(item, edited, key), "question_edited": edited}
    if len(item.choices) > 1:
        found["options_only"] = _listed(shuffled, key)
        found["reordered"] = _shown(item, question, key, shuffled)
    if item.passage:
        found["passage_only"] = item.passage
    found["question_only"] = question
    return {form: found[form] for form in FORMS if form in found}


def draw(size: int, key: Sequence[object]) -> int:
    """A number below `size`, the same for the same key."""
    return int(digest(list(key)), 16) % size


def _shown(item: Item, question: str, key: Sequence[object], choices: Sequence[str] | None = None) -> str:
    answer = f"Answer: {item.answer}" if item.answer else ""
    listed = _listed(item.choices if choices is None else choices, key)
    return "\n".join(line for line in (item.passage, question, listed, answer) if line)


def _listed(choices: Sequence[str], key: Sequence[object]) -> str:
    """The choices a line each, marked in a way drawn by hash; by letters where there are more than ten."""
    style = _MARKS[draw(len(_MARKS), [*key, "mark"]) if len(choices) <= len(_ROMAN) else 0]
    return "\n".join(f"{_mark(style, number)}{choice}" for number, choice in enumerate(choices))


def _mark(style: str, number: int) -> str:
    letter, roman = chr(ord("A") + number), _ROMAN[min(number, len(_ROMAN) - 1)]
    circled = chr(_CIRCLED_ONE + number)
    return style.format(letter=letter, small=letter.lower(), number=number + 1, roman=roman, circled=circled)


def _rewrapped(text: str, key: Sequence[object]) -> str:
    """The text in other lines, with other quotes, and by hash in another case and with other stops."""
    text = re.sub(r"[,.;:!?](?=\s|$)", _STOPS[draw(len(_STOPS), [*key, "stops"])], text.translate(_QUOTES))
    text = _CASES[draw(len(_CASES), [*key, "case"])](text)
    width = 3 + draw(6, [*key, "width"])
    text = re.sub(rf"([{_CJK}]{{{2 * width}}})", "\\1\n", text)
    pieces = text.split()
    return "\n".join("  ".join(pieces[i : i + width]) for i in range(0, len(pieces), width))


def _embedded(text: str, prose: str, key: Sequence[object]) -> str:
    """The text on one line in the middle of the prose."""
    at = len(prose) // 3 + draw(len(prose) // 3 + 1, [*key, "place"])
    at = prose.find(" ", at, at + 50) if prose.find(" ", at, at + 50) >= 0 else at
    return f"{prose[:at]} {' '.join(text.split())} {prose[at:]}"


def _edited(text: str, key: Sequence[object]) -> str:
    """The text with one word, or two CJK characters, replaced; as it is where it has none."""
    found = list(_WORD.finditer(text))
    if not found:
        return text
    word = found[draw(len(found), [*key, "word"])]
    known = _ANOTHER_CJK if re.match(f"[{_CJK}]", word[0]) else _ANOTHER
    others = [other for other in known if other != word[0].lower()]
    return text[: word.start()] + others[draw(len(others), [*key, "other"])] + text[word.end() :]
