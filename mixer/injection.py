"""How well an index finds its own items: they are put into text in several forms, and looked for.

Every build can measure itself so. A form changes what a copy on the web would change; each choice is a hash of the
seed and the item, so the figures do not depend on the order of anything. Text that holds no item tells the other half:
what is found there is shown, for a person to judge.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mixer.benchmark import Item
from mixer.decontaminate import Hit, Index
from mixer.ngrams import tokens
from mixer.run import digest

NEEDS = {
    "question_only": "question",
    "question_edited": "question",
    "passage_only": "passage",
    "options_only": "options",
}
"""The part by which a form can be found at all; the others can be found by any."""
FORMS = ("verbatim", "rewrapped", "embedded", "edited", *NEEDS)

_PROSE_CHARS = 4000
_SHOWN = 300
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]{{2}}|[^\W_{_CJK}]{{2,}}")
_ANOTHER = ("lantern", "seventeen", "orchard", "quietly", "velvet", "harbour")
_ANOTHER_CJK = ("灯笼", "果园", "港口", "玻璃", "琥珀", "麻雀")
_CASES = (str, str.lower, str.upper, str.title)
_STOPS = (r"\g<0>", "", " ", "\u2026")
_QUOTES = str.maketrans({"'": "\u2019", '"': "\u201d", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


@dataclass(frozen=True, slots=True)
class Recall:
    """How many items were found in one form.

    Args:
        form: One of FORMS.
        tried: Items that can be found in it.
        caught: Those that were.
        unmatchable: Items that are too short or say too little to be looked for in it.
        missed: Benchmark and id of some that were not found.
    """

    form: str
    tried: int
    caught: int
    unmatchable: int
    missed: tuple[tuple[str, str], ...]

    @property
    def share(self) -> float:
        """Found of those that can be; 0 where there are none."""
        return self.caught / self.tried if self.tried else 0.0


@dataclass(frozen=True, slots=True)
class Example:
    """What was found in clean text, beside the item that it was taken for."""

    text: str
    wanted: str
    hit: Hit


@dataclass(frozen=True, slots=True)
class Report:
    """What an index finds, of its own items and in clean text.

    Args:
        recall: By form, in the order of FORMS.
        items: How many were tried.
        unmatchable: Those that cannot be found in any form.
        documents: Clean texts.
        words: In them.
        found: Places in them that were taken for an item; those that overlap count once.
        examples: Some of these places, chosen by hash.
    """

    recall: tuple[Recall, ...]
    items: int
    unmatchable: int
    documents: int
    words: int
    found: int
    examples: tuple[Example, ...]

    @property
    def found_per_million(self) -> float:
        """Places found in a million clean words."""
        return 1e6 * self.found / self.words if self.words else 0.0


def forms(item: Item, seed: int, prose: str = "") -> dict[str, str]:
    """The item as copies of it would look, by form; a form that it cannot take is left out.

    Args:
        item: What is written.
        seed: Decides, with the item, what is changed where.
        prose: Text that the `embedded` form stands in the middle of; without it there is no such form.
    """
    key = [seed, item.benchmark, item.id]
    question, edited = item.question, _edited(item.question, key)
    found = {"verbatim": _shown(item, question), "rewrapped": _rewrapped(_shown(item, question), key)}
    if prose:
        found["embedded"] = _embedded(_shown(item, question), prose[:_PROSE_CHARS], key)
    if edited != question:
        found |= {"edited": _shown(item, edited), "question_edited": edited}
    if len(item.choices) > 1:
        found["options_only"] = _lettered(sorted(item.choices, key=lambda choice: digest([*key, choice])))
    if item.passage:
        found["passage_only"] = item.passage
    found["question_only"] = question
    return {form: found[form] for form in FORMS if form in found}


def measure(
    index: Index, items: Sequence[Item], clean: Sequence[str], seed: int, *, most: int = 2000, shown: int = 10
) -> Report:
    """Recall by form, and what is found in text that should hold no item.

    Args:
        index: Built from these items.
        items: All of them.
        clean: Texts to look for nothing in; those with nothing found serve as prose.
        seed: Of the choices.
        most: Items to try, chosen by hash.
        shown: Examples to keep.
    """
    by_name = {(item.benchmark, item.id): item for item in items}
    places, prose = [], []
    for number, text in enumerate(clean):
        hits = list(_apart(index.find(text)))
        places += [(digest([seed, number, hit.start]), text, hit) for hit in hits]
        prose += [] if hits else [text]
    examples = [
        Example(text[hit.start : hit.end][:_SHOWN], _wanted(by_name[hit.benchmark, hit.item], hit.part)[:_SHOWN], hit)
        for _, text, hit in sorted(places, key=lambda place: place[0])[:shown]
    ]
    tried = sorted(by_name.values(), key=lambda item: digest([seed, item.benchmark, item.id]))[:most]
    parts = index.findable()
    count = sum(int((tokens(text) > 0).sum()) for text in clean)
    lost = sum(not parts[item.benchmark, item.id] for item in tried)
    recall = _recall(index, tried, prose, seed)
    return Report(recall, len(tried), lost, len(clean), count, len(places), tuple(examples))


def _recall(index: Index, items: Sequence[Item], prose: Sequence[str], seed: int) -> tuple[Recall, ...]:
    parts = index.findable()
    caught = dict.fromkeys(FORMS, 0)
    hopeless = dict.fromkeys(FORMS, 0)
    missed: dict[str, list[tuple[str, str]]] = {form: [] for form in FORMS}
    for item in items:
        name = (item.benchmark, item.id)
        around = prose[_draw(len(prose), [seed, *name, "prose"])] if prose else ""
        for form, text in forms(item, seed, around).items():
            if not (NEEDS[form] in parts[name] if form in NEEDS else parts[name]):
                hopeless[form] += 1
            elif index.find(text):
                caught[form] += 1
            else:
                missed[form].append(name)
    return tuple(
        Recall(form, caught[form] + len(missed[form]), caught[form], hopeless[form], tuple(missed[form][:20]))
        for form in FORMS
    )


def _draw(size: int, key: Sequence[object]) -> int:
    return int(digest(list(key)), 16) % size


def _shown(item: Item, question: str) -> str:
    answer = f"Answer: {item.answer}" if item.answer else ""
    return "\n".join(line for line in (item.passage, question, _lettered(item.choices), answer) if line)


def _lettered(choices: Sequence[str]) -> str:
    return "\n".join(f"{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(choices))


def _wanted(item: Item, part: str) -> str:
    texts = {"question": item.question, "passage": item.passage, "options": _lettered(item.choices)}
    return texts.get(part, f"{item.question}\n{_lettered(item.choices)}")


def _rewrapped(text: str, key: Sequence[object]) -> str:
    """The text in other lines, with other quotes, and by hash in another case and with other stops."""
    text = re.sub(r"[,.;:!?](?=\s|$)", _STOPS[_draw(len(_STOPS), [*key, "stops"])], text.translate(_QUOTES))
    text = _CASES[_draw(len(_CASES), [*key, "case"])](text)
    width = 3 + _draw(6, [*key, "width"])
    text = re.sub(rf"([{_CJK}]{{{2 * width}}})", "\\1\n", text)
    pieces = text.split()
    return "\n".join("  ".join(pieces[i : i + width]) for i in range(0, len(pieces), width))


def _embedded(text: str, prose: str, key: Sequence[object]) -> str:
    """The text on one line in the middle of the prose."""
    at = len(prose) // 3 + _draw(len(prose) // 3 + 1, [*key, "place"])
    at = prose.find(" ", at, at + 50) if prose.find(" ", at, at + 50) >= 0 else at
    return f"{prose[:at]} {' '.join(text.split())} {prose[at:]}"


def _edited(text: str, key: Sequence[object]) -> str:
    """The text with one word, or two CJK characters, replaced; as it is where it has none."""
    found = list(_WORD.finditer(text))
    if not found:
        return text
    word = found[_draw(len(found), [*key, "word"])]
    known = _ANOTHER_CJK if re.match(f"[{_CJK}]", word[0]) else _ANOTHER
    others = [other for other in known if other != word[0].lower()]
    return text[: word.start()] + others[_draw(len(others), [*key, "other"])] + text[word.end() :]


def _apart(hits: Sequence[Hit]) -> Iterator[Hit]:
    """Of hits that overlap, the first."""
    end = -1
    for hit in hits:
        if hit.start >= end:
            yield hit
        end = max(end, hit.end)
