"""Loss of a document: by hand, against a plain loop over one document at a time, and through a build."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM

from curricula.difficulty import DifficultyScorer, Window, batches_of, bytes_of, windows_of
from mixer.errors import RecipeError
from tests.tiny_model import tiny_model

TEXTS = ["Granite is a rock.", "", "Cats purr. " * 40, "水在一百度沸腾。", "x" * 127, "y" * 128, "z" * 700]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def byte_tokenizer(model):
    return Tokenizer.from_file(str(model / "tokenizer.json"))


def plain_loss(folder, text, size=128, overlap=32):
    """Mean loss of one document in float32, a token at a time in windows, as one would write it down first."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = [256, *Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids]
    losses, done = [], 1
    while done < len(ids):
        start = max(0, done - overlap) if done > 1 else 0
        with torch.no_grad():
            logits = model(torch.tensor([ids[start : start + size]])).logits[0]
        for place in range(done, min(start + size, len(ids))):
            row = torch.log_softmax(logits[place - start - 1].double(), -1)
            losses.append(-row[ids[place]].item())
        done = min(start + size, len(ids))
    return np.array(losses)


def test_windows_by_hand():
    """Ten tokens in windows of six, two of which only give context: 1-5, then 6-9 with 4 and 5 read again."""
    assert windows_of(3, 10, size=6, overlap=2) == [Window(3, 0, 6, 1), Window(3, 4, 10, 6)]
    assert windows_of(0, 6, size=6, overlap=2) == [Window(0, 0, 6, 1)]
    assert windows_of(0, 11, size=6, overlap=1)[-1] == Window(0, 5, 11, 6)
    assert windows_of(0, 13, size=6, overlap=1)[-1] == Window(0, 10, 13, 11)
    assert windows_of(0, 13, size=6, overlap=1, is_last_filled=True)[-1] == Window(0, 7, 13, 11)


@given(st.integers(2, 300), st.integers(2, 64), st.booleans(), st.data())
def test_every_token_but_the_frame_is_scored_once(length, size, is_last_filled, data):
    overlap = data.draw(st.integers(0, size - 1))
    found = windows_of(0, length, size, overlap, is_last_filled=is_last_filled)
    assert not is_last_filled or all(window.end - window.start == min(size, length) for window in found)
    scored = [place for window in found for place in range(window.first, window.end)]
    assert scored == list(range(1, length))
    assert all(window.end - window.start <= size for window in found)
    assert all(window.first - window.start >= min(overlap, window.first - 1, 1) for window in found)


@given(st.lists(st.integers(2, 60), max_size=40), st.integers(60, 400))
def test_batches_hold_every_window_once_within_their_places(lengths, tokens):
    windows = [Window(number, 0, length, 1) for number, length in enumerate(lengths)]
    found = list(batches_of(windows, tokens))
    assert sorted(window.document for batch in found for window in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(window.end for window in batch) <= tokens for batch in found)


def test_the_loss_is_that_of_a_plain_loop(model):
    scorer = DifficultyScorer(model, dtype="float32", device="cpu")
    for text, found in zip(TEXTS, scorer(TEXTS), strict=True):
        expected = plain_loss(model, text)
        assert found.tokens == len(expected) == len(text.encode())
        if text:
            assert found.loss == pytest.approx(expected.mean(), abs=1e-4)
            assert found.tail == pytest.approx(np.quantile(expected, 0.95), abs=1e-3)
            assert found.bits_per_byte == pytest.approx(expected.mean() / math.log(2), abs=1e-4)
            assert found.perplexity == pytest.approx(math.exp(found.loss))


@pytest.mark.parametrize("batch_tokens", [128, 300, 5000])
def test_how_texts_are_batched_does_not_matter(model, batch_tokens):
    whole = DifficultyScorer(model, dtype="float32", device="cpu")(TEXTS)
    found = DifficultyScorer(model, dtype="float32", device="cpu", batch_tokens=batch_tokens)(TEXTS)
    alone = [DifficultyScorer(model, dtype="float32", device="cpu")([text])[0] for text in TEXTS]
    for one, other, third in zip(whole, found, alone, strict=True):
        assert one.loss == pytest.approx(other.loss, abs=1e-5)
        assert one.loss == pytest.approx(third.loss, abs=1e-5)


def test_a_model_that_guesses_evenly_needs_the_logarithm_of_its_vocabulary(tmp_path):
    folder = tiny_model(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight.data.zero_()
    model.save_pretrained(folder)
    found = DifficultyScorer(folder, dtype="float32", device="cpu")(["水 is water"])[0]
    assert found.loss == pytest.approx(math.log(258), abs=1e-5)
    assert found.tokens == len("水 is water".encode()) == 12
    assert found.bits_per_byte == pytest.approx(math.log2(258), abs=1e-4)


def test_a_model_that_caps_its_logits_is_read_whole(tmp_path):
    folder = tiny_model(tmp_path, capped=True)
    scorer = DifficultyScorer(folder, dtype="float32", device="cpu")
    assert not scorer._is_plain
    assert scorer(["Granite is a rock."])[0].loss == pytest.approx(
        plain_loss(folder, "Granite is a rock.").mean(), abs=1e-4
    )


def test_bfloat16_is_close(model):
    one = DifficultyScorer(model, dtype="bfloat16", device="cpu")(TEXTS[:1])[0]
    other = DifficultyScorer(model, dtype="float32", device="cpu")(TEXTS[:1])[0]
    assert one.loss == pytest.approx(other.loss, rel=0.01)
    assert one.loss != other.loss


def test_only_the_beginning_is_read_where_the_recipe_says_so(model):
    found = DifficultyScorer(model, dtype="float32", device="cpu", max_tokens=5)(["Granite is a rock.", "Cat"])
    assert [each.tokens for each in found] == [5, 3]
    assert found[0].loss == pytest.approx(plain_loss(model, "Grani").mean(), abs=1e-4)
    assert found[0].bits_per_byte == pytest.approx(found[0].loss / math.log(2), abs=1e-4)


def test_what_is_no_model_is_told(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(RecipeError, match="expected a causal language model"):
        DifficultyScorer(tmp_path)
    folder = tiny_model(tmp_path / "frameless")
    config = (folder / "config.json").read_text().replace('"bos_token_id": 256', '"bos_token_id": null')
    (folder / "config.json").write_text(config.replace('"eos_token_id": 257', '"eos_token_id": null'))
    with pytest.raises(RecipeError, match="without bos_token_id and eos_token_id"):
        DifficultyScorer(folder)


def test_bytes_are_those_that_the_tokens_read_even_in_the_middle_of_a_character(model):
    """Four byte tokens of a character of three bytes: one character, and a third of the next."""
    scorer = DifficultyScorer(model, dtype="float32", device="cpu", max_tokens=4)
    found = scorer(["水水水水"])[0]
    assert found.tokens == 4
    assert found.bits_per_byte == pytest.approx(found.loss / math.log(2), abs=1e-5)


@given(st.text(min_size=1, max_size=80), st.data())
def test_bytes_of_a_beginning_are_its_tokens_where_a_token_is_a_byte(byte_tokenizer, text, data):
    size = len(text.encode("utf-8", "replace"))
    count = data.draw(st.integers(1, size))
    assert bytes_of(byte_tokenizer, text, count) == pytest.approx(count)


def test_bytes_are_found_behind_tokens_of_many_characters(tmp_path):
    tokenizer = Tokenizer(WordLevel({"a" * 200: 0, "b": 1}, unk_token="b"))
    tokenizer.pre_tokenizer = Whitespace()
    assert bytes_of(tokenizer, " ".join(["a" * 200] * 5), 3) == 602


def test_a_model_that_gives_no_number_is_told(tmp_path):
    folder = tiny_model(tmp_path)
    broken = AutoModelForCausalLM.from_pretrained(folder)
    broken.lm_head.weight.data[3, 0] = float("nan")
    broken.save_pretrained(folder)
    with pytest.raises(RecipeError, match="got a loss of nan for a text that begins 'Granite', expected a number"):
        DifficultyScorer(folder, dtype="float32", device="cpu")(["Granite"])


@pytest.mark.parametrize("overlap", [0, 16, 20])
def test_windows_must_share_something_and_move_on(model, overlap):
    with pytest.raises(ValueError, match=f"overlap: got {overlap}, expected 1 to 15"):
        DifficultyScorer(model, dtype="float32", device="cpu", max_length=16, overlap=overlap)
