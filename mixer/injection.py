"""How well an index finds its own items: they are put into text in several forms, and looked for.

Every build can measure itself so, benchmark by benchmark: of many items a hundred tell enough, and a large benchmark
must not hide that nothing of a small one is found. Only a hit of the item itself counts. Text that holds no item tells
the other half: what is found there is shown, for a person to judge.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixer.benchmark import Item, parts, questions
from mixer.decontaminate import Hit, Index
from mixer.forms import FORMS, NEEDS, draw, forms
from mixer.ngrams import tokens
from mixer.run import digest

_SHOWN = 300
_MOST_MISSED = 20


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
class Measured:
    """What an index finds of some items.

    Args:
        items: How many were tried.
        unmatchable: Those that cannot be found in any form.
        recall: By form, in the order of FORMS.
    """

    items: int
    unmatchable: int
    recall: tuple[Recall, ...]


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
        together: Of all items that were tried.
        benchmarks: Of those of each benchmark, by name.
        documents: Clean texts.
        words: In them.
        found: Places in them that were taken for an item; those that overlap count once.
        examples: Some of these places, chosen by hash.
    """

    together: Measured
    benchmarks: Mapping[str, Measured]
    documents: int
    words: int
    found: int
    examples: tuple[Example, ...]

    @property
    def found_per_million(self) -> float:
        """Places found in a million clean words."""
        return 1e6 * self.found / self.words if self.words else 0.0


def measure(
    index: Index,
    items: Sequence[Item],
    clean: Sequence[str],
    seed: int,
    *,
    most: int = 2000,
    least: int = 100,
    shown: int = 10,
) -> Report:
    """Recall by benchmark and form, and what is found in text that should hold no item.

    Args:
        index: Built from these items.
        items: All of them.
        clean: Texts to look for nothing in; those with nothing found serve as prose.
        seed: Of the choices.
        most: Items to try, chosen by hash.
        least: Of each benchmark at least so many, or all that it has, beyond `most` if need be.
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
    tried = _chosen(by_name.values(), seed, most, least)
    results = [(item.benchmark, _tried(index, item, prose, seed, by_name)) for item in tried]
    count = sum(int((tokens(text) > 0).sum()) for text in clean)
    return Report(
        _measured([found for _, found in results]),
        {
            name: _measured([found for own, found in results if own == name])
            for name in sorted({own for own, _ in results})
        },
        len(clean),
        count,
        len(places),
        tuple(examples),
    )


def _chosen(items: Iterable[Item], seed: int, most: int, least: int) -> list[Item]:
    ordered = sorted(items, key=lambda item: digest([seed, item.benchmark, item.id]))
    seen: dict[str, int] = defaultdict(int)
    chosen = []
    for place, item in enumerate(ordered):
        seen[item.benchmark] += 1
        if place < most or seen[item.benchmark] <= least:
            chosen.append(item)
    return chosen


@dataclass(frozen=True, slots=True)
class _Tried:
    """What became of one item: by form whether it was found, None where it cannot be."""

    name: tuple[str, str]
    is_findable: bool
    found: Mapping[str, bool | None]


def _tried(
    index: Index, item: Item, prose: Sequence[str], seed: int, by_name: Mapping[tuple[str, str], Item]
) -> _Tried:
    name = (item.benchmark, item.id)
    its_parts = index.findable[name]
    around = prose[draw(len(prose), [seed, *name, "prose"])] if prose else ""
    found: dict[str, bool | None] = {}
    for form, text in forms(item, seed, around).items():
        can_be = NEEDS[form] in its_parts if form in NEEDS else bool(its_parts)
        found[form] = any(_is_of(hit, item, by_name) for hit in index.find(text)) if can_be else None
    return _Tried(name, bool(its_parts), found)


def _is_of(hit: Hit, item: Item, by_name: Mapping[tuple[str, str], Item]) -> bool:
    """Whether a hit is of the item, or of one with the very same part, which stands for both in the index."""
    if (hit.benchmark, hit.item) == (item.benchmark, item.id):
        return True
    its, own = (_looked_for(each, hit.part) for each in (by_name[hit.benchmark, hit.item], item))
    return len(own) > 0 and np.array_equal(its, own)


def _looked_for(item: Item, part: str) -> np.ndarray:
    """The words of a part, sorted; none where the item is not found by it."""
    asked = questions(item).get(part)
    run = parts(item).get(part) if asked is None else np.concatenate([asked.asked, asked.wanted])
    return np.empty(0, np.uint64) if run is None else np.sort(run)


def _measured(tried: Sequence[_Tried]) -> Measured:
    return Measured(
        len(tried), sum(not one.is_findable for one in tried), tuple(_recall(form, tried) for form in FORMS)
    )


def _recall(form: str, tried: Sequence[_Tried]) -> Recall:
    told = [(one.name, one.found[form]) for one in tried if form in one.found]
    missed = [name for name, is_found in told if is_found is False]
    caught, hopeless = (sum(found is wanted for _, found in told) for wanted in (True, None))
    return Recall(form, caught + len(missed), caught, hopeless, tuple(missed[:_MOST_MISSED]))


def _wanted(item: Item, part: str) -> str:
    texts = {"question": item.question, "passage": item.passage, "options": "\n".join(item.choices)}
    return texts.get(part, "\n".join((item.question, *item.choices, *([] if item.choices else [item.answer]))))


def _apart(hits: Sequence[Hit]) -> Iterator[Hit]:
    """Of hits that overlap, the first."""
    end = -1
    for hit in hits:
        if hit.start >= end:
            yield hit
        end = max(end, hit.end)
