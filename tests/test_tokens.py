"""Token ids: the frame, control tokens in text, long texts, and the packaged tokenizer."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from mixer.errors import RecipeError
from mixer.recipe.recipe import TokenizerSpec
from mixer.tokens import _pieces, load
from tests.toys import byte_tokenizer


@pytest.fixture(scope="session")
def byte_folder(tmp_path_factory):
    """The byte tokenizer, as a folder."""
    return byte_tokenizer(tmp_path_factory.mktemp("bytes"))


def encoder(folder, **spec):
    return load(TokenizerSpec(path=str(folder), **spec), folder, folder)


def test_case_1_eos_after_each_document(byte_folder):
    ids = encoder(byte_folder).encode(["ab", ""])
    assert [len(i) for i in ids] == [3, 1]
    assert [int(i[-1]) for i in ids] == [257, 257]


def test_case_2_bos_before_each_document_when_asked(byte_folder):
    ids = encoder(byte_folder, bos=True, eos=False).encode(["ab"])[0]
    assert (len(ids), int(ids[0])) == (3, 256)


def test_case_3_a_page_cannot_write_a_control_token(byte_folder):
    ids = encoder(byte_folder).encode(["<eos>"])[0]
    assert (ids[:-1] < 256).all()
    assert len(ids) == len("<eos>") + 1


def test_a_frame_token_that_its_file_does_not_protect_is_protected_here(tmp_path):
    backend = Tokenizer.from_file(str(byte_tokenizer(tmp_path / "plain") / "tokenizer.json"))
    content = json.loads(backend.to_str())
    for token in content["added_tokens"]:
        token["special"] = False
    (tmp_path / "plain" / "tokenizer.json").write_text(json.dumps(content))
    ids = encoder(tmp_path / "plain").encode(["a<eos>b"])[0]
    assert (ids[:-1] < 256).all()


def test_the_unknown_token_is_ordinary_text(tmp_path):
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1, "a": 7}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<unk>", "<eos>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    found = encoder(tmp_path, eos_token="<eos>")
    assert found.encode(["a b"])[0].tolist() == [7, 0, 1]
    assert found.special == {1}
    assert found.vocab_size == 8


def test_ids_are_uint16_where_they_fit(byte_folder):
    assert encoder(byte_folder).dtype == np.uint16


def test_a_missing_frame_token_is_named(byte_folder):
    with pytest.raises(RecipeError, match=r"tokenizer.eos_token: got '<end>', expected a token of this tokenizer"):
        encoder(byte_folder, eos_token="<end>")


def test_a_tokenizer_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    with pytest.raises(RecipeError, match=r"tokenizer.path: got 'no/such', expected `smollm2`, a folder"):
        load(TokenizerSpec(path="no/such"), tmp_path, tmp_path)


@given(st.lists(st.text(), max_size=5))
def test_decoding_gives_the_text_back(byte_folder, texts):
    found = encoder(byte_folder)
    for text, ids in zip(texts, found.encode(texts), strict=True):
        assert found.backend.decode(ids.tolist()) == text


@given(st.text("ab \n.", max_size=200), st.integers(1, 50))
def test_pieces_join_to_the_text(text, limit):
    assert "".join(_pieces(text, limit)) == text


def test_a_long_text_tokenizes_in_pieces_as_it_does_whole(store):
    found = load(TokenizerSpec(path="smollm2"), store, store)
    text = "The cell's wall (see 3.2) is 0.1 mm thick;\n\n it  holds 20% water. " * 3000
    pieces = _pieces(text, 5000)
    assert len(pieces) > 30
    in_pieces = np.concatenate([found.encode([piece])[0][:-1] for piece in pieces])
    assert np.array_equal(in_pieces, found.encode([text])[0][:-1])


def test_the_packaged_tokenizer_splits_digits_and_ends_documents_with_endoftext(store):
    found = load(TokenizerSpec(path="smollm2"), store, store)
    assert found.vocab_size == 49152
    assert found.backend.decode([found.eos], skip_special_tokens=False) == "<|endoftext|>"
    assert found.backend.encode("in  1984", add_special_tokens=False).tokens == [
        "in",
        "ĠĠ",
        "1",
        "9",
        "8",
        "4",
    ]
    assert len(found.special) == 17
