"""Pages cut into windows at sentence ends."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.windows import Window, choose, passages, sentences, windows


def parts(text, found):
    return [text[part.start : part.end] for part in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cats purr. Dogs bark.", ["Cats purr.", "Dogs bark."]),
        ("It weighs 3.5 kg. Really?", ["It weighs 3.5 kg.", "Really?"]),
        ("See Fig. 3 and Smith et al. 2001 for it.", ["See Fig. 3 and Smith et al. 2001 for it."]),
        ("水在一百度沸腾。冰在零度融化！", ["水在一百度沸腾。", "冰在零度融化！"]),
        ("A heading\nThen text.", ["A heading", "Then text."]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences(text, expected):
    assert parts(text, sentences(text)) == expected


def test_windows_are_filled_up_to_the_limit_and_cut_between_sentences():
    text = "Cats purr a lot. Dogs bark at them. Cows moo."
    assert parts(text, windows(text, 36)) == ["Cats purr a lot. Dogs bark at them.", "Cows moo."]


def test_a_sentence_longer_than_the_limit_is_cut_inside():
    assert parts("x" * 25, windows("x" * 25, 10)) == ["x" * 10, "x" * 10, "x" * 5]


@given(st.text(alphabet="ab .!?。\nAB1", max_size=300), st.integers(5, 50))
def test_windows_lose_nothing_but_space(text, limit):
    found = windows(text, limit)
    assert all(0 < part.end - part.start <= limit for part in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    kept = "".join(parts(text, found))
    assert "".join(kept.split()) == "".join(text.split())


def test_passages_are_sentences_that_say_something():
    text = "Contents\nThe mitochondrion makes most of the energy that a cell uses.\n1 2 3 4 5 6 7 8 9\nHome | Next"
    found = passages(text, Window(0, len(text)))
    assert parts(text, found) == ["The mitochondrion makes most of the energy that a cell uses."]
    asked = "What does the outer membrane of a mitochondrion let pass on most days? It is as shown in Fig. 3 of this book here."
    assert passages(asked, Window(0, len(asked))) == []
    chinese = "目录。线粒体为细胞提供所需要的大部分能量。"
    assert parts(chinese, passages(chinese, Window(0, len(chinese)))) == ["线粒体为细胞提供所需要的大部分能量。"]


def test_the_choice_depends_on_names_alone_and_keeps_page_order():
    items = [Window(i, i + 1) for i in range(50)]
    chosen = choose(items, 5, 7, "page")
    assert chosen == choose(list(reversed(items)), 5, 7, "page")
    assert chosen == sorted(chosen, key=lambda w: w.start)
    assert chosen != choose(items, 5, 8, "page")
    assert len(choose(items, 99, 7)) == 50
