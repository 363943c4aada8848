"""An n-gram model's perplexity: by hand on a model of three words, against KenLM's own, and through a build."""

import gzip
import math
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.scores.kenlm import FamiliarityScorer, normalized
from curricula.scores.score import open_score
from mixer.context import Context
from mixer.errors import RecipeError
from mixer.recipe.file import load
from tests import toys
from tests.test_build import run_build

kenlm = pytest.importorskip("kenlm", reason="the extra `kenlm` is not installed: its scores are NOT tested here")

BIGRAMS = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.3
-0.5\t</s>
-0.6\trock\t-0.2
-0.9\tgranite\t-0.4

\\2-grams:
-0.1\t<s> granite
-0.3\tgranite rock
-0.2\trock </s>

\\end\\
"""
"""Log10 probabilities, and what a word costs when the one after it is not listed behind it."""


def arpa(folder, text=BIGRAMS, name="tiny.arpa"):
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def unigrams(folder, words, name="flat.arpa"):
    """A model to which each of its words and the end of a line are equally likely."""
    each = -math.log10(len(words) + 1)
    rows = "".join(f"{each}\t{word}\t0\n" for word in words)
    return arpa(
        folder,
        f"\\data\\\nngram 1={len(words) + 3}\nngram 2=1\n\n"
        f"\\1-grams:\n-9\t<unk>\n-99\t<s>\t0\n{each}\t</s>\n{rows}\n"
        f"\\2-grams:\n{each}\t<s> </s>\n\n\\end\\\n",
        name,
    )


def test_case_1_a_line_that_the_model_lists(tmp_path):
    """0.1 for granite after the beginning, 0.3 for rock, 0.2 for the end: 10 ** (0.6 / 3)."""
    [found] = FamiliarityScorer(arpa(tmp_path))(["granite rock"])
    assert found.tokens == 3
    assert found.unknown == 0
    assert found.perplexity == pytest.approx(10**0.2, rel=1e-6)
    assert found.loss == pytest.approx(math.log(found.perplexity))
    assert found.bits_per_byte == pytest.approx(0.6 * math.log2(10) / len("granite rock\n"), rel=1e-6)


def test_case_2_what_is_not_listed_is_backed_off(tmp_path):
    """Rock after the beginning 0.3 + 0.6, granite after rock 0.2 + 0.9, the end after granite 0.4 + 0.5."""
    [found] = FamiliarityScorer(arpa(tmp_path))(["rock granite"])
    assert found.perplexity == pytest.approx(10 ** (2.9 / 3), rel=1e-6)


def test_case_3_an_unknown_word_is_counted_and_leaves_no_bits(tmp_path):
    """0.3 + 1.0 for the unknown word, which costs nothing to back off from, 0.5 for the end."""
    [found] = FamiliarityScorer(arpa(tmp_path))(["basalt"])
    assert found.perplexity == pytest.approx(10 ** (1.8 / 2), rel=1e-6)
    assert (found.unknown, found.bits_per_byte) == (0.5, None)


def test_case_4_lines_are_scored_each_and_their_tokens_counted_together(tmp_path):
    scorer = FamiliarityScorer(arpa(tmp_path))
    [both] = scorer(["granite rock\n\n \nrock granite"])
    assert both.tokens == 6
    assert both.perplexity == pytest.approx(10 ** ((0.6 + 2.9) / 6), rel=1e-6)


def test_case_5_a_text_without_words_has_no_value(tmp_path):
    for found in FamiliarityScorer(arpa(tmp_path))(["", " \n\t\n"]):
        assert (found.perplexity, found.loss, found.bits_per_byte, found.unknown, found.tokens) == (*[None] * 4, 0)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=9), min_size=1, max_size=5))
def test_a_uniform_models_perplexity_is_the_number_of_its_words(tmp_path_factory, lines):
    scorer = FamiliarityScorer(unigrams(tmp_path_factory.getbasetemp(), "abc"))
    [found] = scorer(["\n".join(" ".join(line) for line in lines)])
    assert found.perplexity == pytest.approx(4, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(2 * found.tokens / sum(2 * len(line) for line in lines), rel=1e-5)


@given(st.lists(st.sampled_from(["rock", "granite", "basalt", "sand"]), min_size=1, max_size=12))
def test_one_line_has_the_perplexity_that_kenlm_gives_it(tmp_path_factory, words):
    path, line = arpa(tmp_path_factory.getbasetemp()), " ".join(words)
    [found] = FamiliarityScorer(path)([line])
    assert found.perplexity == pytest.approx(kenlm.Model(str(path)).perplexity(line), rel=1e-5)


WORDS = st.sampled_from(["Rock", "GRANITE", "basalt", "sand,", "１９", "«eau»"])


@given(st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=6))
def test_a_document_without_empty_lines_has_the_perplexity_that_cc_nets_loop_gives_it(tmp_path_factory, lines):
    """A loop as in cc_net's DocLM: scores and lengths of lines add up, and the power of ten is taken once."""
    path = arpa(tmp_path_factory.getbasetemp())
    model, score, length = kenlm.Model(str(path)), 0.0, 0
    for line in map(normalized, lines):
        score += model.score(line)
        length += len(line.split()) + 1
    [found] = FamiliarityScorer(path, None, normalized)(["\n".join(lines)])
    assert found.perplexity == pytest.approx(10.0 ** (-score / length), rel=1e-6)


@pytest.mark.parametrize("line", ["a <s> b", "</s>", "a </s>"])
def test_a_text_cannot_name_the_frame_of_a_line(tmp_path, line):
    """The beginning of a line has a log probability of -99, which would drown a whole book."""
    [found] = FamiliarityScorer(unigrams(tmp_path, "ab"))([line])
    [unknown] = FamiliarityScorer(unigrams(tmp_path, "ab"))([line.replace("</s>", "?").replace("<s>", "?")])
    assert found == unknown
    assert found.unknown > 0


def test_a_no_break_space_divides_words_too(tmp_path):
    one, other = FamiliarityScorer(arpa(tmp_path))(["granite\u00a0rock", "granite\u3000rock"])
    assert one.perplexity == other.perplexity == pytest.approx(10**0.2, rel=1e-6)


def test_a_compressed_model_is_read(tmp_path):
    plain, packed = (FamiliarityScorer(arpa(tmp_path, name=name)) for name in ("a.arpa", "a.arpa.gz"))
    assert plain(["granite rock"]) == packed(["granite rock"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # After cc_net's tests/test_normalizer.py.
        ("，。、„”“«»」「《》´∶：？！（）；–—．～’…━〈〉【】％", ',.,"""""""""\'::?!();- - . ~\'...-<>[]%'),
        ("０２３４５６７８９ | 0123456789", "000000000 | 0000000000"),
        ("０２３´∶：\x10 | ;012 hèllo", "000':: | ;000 hello"),
        # And what else it does.
        ("  TabS\tand\x7f bells\x07\x9f  ", "tabsand bells"),
        ("1 ½ 三 ٣ ①", "0 ½ 三 0 ①"),
        ("Ünïcödé ► ÉTÉ", "unicode - ete"),
        (" \n ", ""),
    ],
)
def test_the_normaliser_is_that_of_cc_net(text, wanted):
    assert normalized(text) == wanted


def test_pieces_of_a_sentencepiece_tokenizer_are_what_the_model_counts(tmp_path):
    trainer = pytest.importorskip("sentencepiece", reason="pieces are NOT tested: no sentencepiece here")
    text = "granite and basalt are rocks and sand is not a rock\n" * 20
    (tmp_path / "corpus.txt").write_text(text)
    trainer.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"), model_prefix=str(tmp_path / "sp"), vocab_size=22, minloglevel=2
    )
    processor = trainer.SentencePieceProcessor(model_file=str(tmp_path / "sp.model"))
    known = sorted({piece for line in text.splitlines() for piece in processor.encode(line, out_type=str)})
    scorer = FamiliarityScorer(unigrams(tmp_path, known), tmp_path / "sp.model", normalized)
    [found] = scorer(["Granite and BASALT\nsand is not a rock"])
    pieces = sum(len(processor.encode(line)) for line in ("granite and basalt", "sand is not a rock"))
    assert found.tokens == pieces + 2
    assert found.perplexity == pytest.approx(len(known) + 1, rel=1e-5)


def test_a_build_takes_the_score_filters_by_it_and_takes_it_anew_for_a_new_model(tmp_path):
    folder = toys.corpus(tmp_path)
    unigrams(folder, ["the", "of", "and"], "words.arpa")
    stages = [{"name": "only", "token_budget": 640, "mixture": {"web": 5, "books": 3, "pages": 2}}]
    sources = toys.sources(web={"where": "kenlm.unknown < 0.9 and kenlm > 1"})
    options = {"scores": {"kenlm": {"model": "words.arpa"}}, "stages": stages, "sources": sources}
    run_build(folder, **options)
    table = pl.read_parquet(folder / "run/scores/kenlm/books.parquet")
    assert table.columns == ["id", "value", "loss", "bits_per_byte", "unknown", "tokens"]
    text = pl.read_parquet(folder / "run/documents/books/*.parquet")["text"][0]
    [expected] = FamiliarityScorer(folder / "words.arpa", None, normalized)([text])
    assert table["value"][0] == pytest.approx(expected.perplexity, rel=1e-4)
    assert table["tokens"][0] == expected.tokens
    _, said = run_build(folder, **options)
    assert "skip score kenlm: nothing changed" in said
    unigrams(folder, ["the", "of", "and", "with"], "words.arpa")
    _, said = run_build(folder, **options)
    assert "make score kenlm: 3 of 3 units" in said
    assert pl.read_parquet(folder / "run/scores/kenlm/books.parquet")["value"][0] != table["value"][0]


def context(folder, **score):
    toys.corpus(folder)
    recipe = load(toys.recipe(folder, scores={"kenlm": score}))
    return Context(recipe, folder, folder / "run", folder / "store", 1, None, print)


@pytest.mark.parametrize(
    ("key", "files"), [("model", {"model": "none.arpa"}), ("tokenizer", {"model": "tiny.arpa", "tokenizer": "none"})]
)
def test_a_missing_file_is_an_error(tmp_path, key, files):
    arpa(tmp_path)
    with pytest.raises(RecipeError, match=rf"scores\.kenlm\.{key}: got no file 'none") as caught:
        open_score(context(tmp_path, **files), "kenlm", {})
    assert caught.value.hint.startswith("a path is relative to the recipe")


@pytest.mark.parametrize("library", ["kenlm", "sentencepiece"])
def test_a_missing_library_is_an_error_that_names_the_extra(tmp_path, monkeypatch, library):
    arpa(tmp_path)
    there = context(tmp_path, model="tiny.arpa", tokenizer="tiny.arpa")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == library else object())
    with pytest.raises(RecipeError, match=f"got no library `{library}`") as caught:
        open_score(there, "kenlm", {})
    assert "pip install 'curriculum-mixer[kenlm]'" in caught.value.hint


def test_what_is_no_model_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match=r"scores\.kenlm\.model: got .*expected an n-gram model") as caught:
        FamiliarityScorer(arpa(tmp_path, "hello"))
    assert "build_binary" in caught.value.hint


def test_what_is_no_tokenizer_is_an_error(tmp_path):
    pytest.importorskip("sentencepiece", reason="pieces are NOT tested: no sentencepiece here")
    with pytest.raises(RecipeError, match=r"scores\.kenlm\.tokenizer: got .*expected a SentencePiece model") as caught:
        FamiliarityScorer(arpa(tmp_path), Path(__file__))
    assert "en.sp.model" in caught.value.hint
