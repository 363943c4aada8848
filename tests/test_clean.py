"""Cleaning, a step at a time: what is mended, what is dropped and why, and that no page depends on another."""

import json
import random

import polars as pl
import pytest
from datatrove.utils.word_tokenizers import load_word_tokenizer

from mixer import clean, language
from mixer.clean import Draft, Tally, Task, WriteUnit, steps_of
from mixer.recipe.recipe import Clean
from mixer.types import Page, Unit
from tests import toys

PROSE = (
    "The river carries sand and silt from the hills to the sea. There the water slows, and what it carried settles in "
    "layers that have formed over thousands of years. Each layer is a page of a long book that geologists learn to "
    "read with care. A thick layer of coarse sand tells of a flood, and a thin layer of clay tells of a quiet season. "
    "Shells and leaves that lie between the layers show what lived in the water and what grew on the banks."
)


def cleaned(text: str, filters=(), label="en", **rules) -> Draft:
    """One text, in the language of its label, through the steps that these rules ask for."""
    metadata = {"language": label} if label else {}
    draft = Draft("toy#0", page=Page("toy#0", text, "text"), metadata=metadata)
    for step in steps_of(Clean(**rules), filters):
        if not draft.step:
            step(draft)
    return draft


def test_case_1_a_good_text_passes_unchanged():
    draft = cleaned(PROSE, filters=("gopher_repetition", "gopher_quality", "c4", "fineweb"))
    assert (draft.step, draft.text) == ("", PROSE)


def test_case_2_mojibake_is_mended_and_control_characters_go():
    assert cleaned("The cellâ€™s wall\x00 is\x1b thin.\ufeff").text == "The cell’s wall is thin."


def test_case_3_mending_can_be_switched_off():
    assert cleaned("cellâ€™s", repair=False).text == "cellâ€™s"


def test_case_4_each_filter_names_its_reason():
    assert (cleaned("Too short.", ("gopher_quality",)).step, cleaned("Too short.", ("gopher_quality",)).reason) == (
        "gopher_quality",
        "gopher_short_doc",
    )
    repeated = cleaned("The same line again and again.\n" * 40, ("gopher_repetition",))
    assert (repeated.step, repeated.reason) == ("gopher_repetition", "dup_line_frac")
    curly = cleaned(PROSE + "\nif (a) { return b; } is what it says here.", ("c4",))
    assert (curly.step, curly.reason) == ("c4", "curly_bracket")
    menu = cleaned("Home\nAbout\nContact\n" * 9, ("fineweb",))
    assert (menu.step, menu.reason) == ("fineweb", "line_punct_ratio")


def test_a_filter_that_answers_with_a_tuple_is_not_taken_for_a_yes():
    # datatrove's verdict (False, "reason") is truthy.
    assert cleaned("Too short.", ("gopher_quality",)).step == "gopher_quality"


def test_mail_and_public_addresses_are_masked_the_same_way_each_time():
    # datatrove takes its replacements in turn, across documents; what a page becomes would depend on the pages before.
    texts = [f"Write to someone{n}@mail.org or ping 8.8.8.{n}, not 192.168.0.1." for n in range(1, 4)]
    masked = {cleaned(text, pii="mask").text for text in texts}
    assert masked == {"Write to email@example.com or ping 192.0.2.1, not 192.168.0.1."}


def test_a_language_that_is_not_kept_is_named():
    german = "Der Fluss trägt Sand und Schlamm von den Hügeln zum Meer, wo sich alles in Schichten ablagert."
    draft = cleaned(german, label=None, language={"keep": ["en"]})
    assert (draft.step, draft.reason) == ("language", "not kept: de")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (PROSE, "en"),
        ("水分子由两个氢原子和一个氧原子组成,它在常温下是液体。", "zh"),
        ("Der Fluss trägt Sand und Schlamm von den Hügeln zum Meer.", "de"),
        ("La rivière porte le sable et la vase des collines à la mer.", "fr"),
        ("12 + 30 = 42", "und"),
    ],
)
def test_languages_are_told_apart_offline(text, code):
    assert language.identify(text)[0] == code


def test_a_rows_label_counts_only_when_it_is_a_language():
    assert language.is_code("zh-Hans")
    assert language.is_code("en")
    assert not language.is_code("python")
    assert language.short("zh-Hans") == "zh"


def test_chinese_prose_passes_the_filters_that_english_thresholds_would_end():
    text = "水分子由两个氢原子和一个氧原子组成。它在常温常压下是无色透明的液体，也是地球上最常见的物质之一。"
    text += "冰的密度比水小，所以冰浮在水面上。湖泊因此从表面开始结冰，水下的生物得以过冬。河流把泥沙从山上带到海里，一层一层地沉积下来。"
    draft = cleaned(text, ("gopher_repetition", "gopher_quality", "c4", "fineweb"), label="zh")
    assert (draft.step, draft.reason) == ("", "")


@pytest.mark.parametrize("code", ["en", "zh_Hani", "de"])
def test_words_are_those_that_datatrove_finds(code):
    texts = [PROSE, "Don't e.g. U.S. $3.50, x=y; IS_ALPHA 水分子 H2O\n\n naïve—co-op", "", "  \n "]
    for text in texts:
        assert language.word_tokenizer(code).word_tokenize(text) == load_word_tokenizer(code).word_tokenize(text)


def test_chinese_words_are_words_and_not_sentences():
    # datatrove's own answer for a bare `zh` is to split at spaces.
    assert language.word_tokenizer("zh").word_tokenize("水分子由两个氢原子组成。") == [
        "水分子",
        "由",
        "两个",
        "氢原子",
        "组成",
        "。",
    ]


def test_every_language_that_can_be_identified_has_words():
    for code in ("th", "ja", "ko", "hi", "vi", "km", "my", "bo", "lo", "ur", "ar", "ru", "tr", "sw", "und", "xx"):
        assert language.word_tokenizer(code).word_tokenize("one two three.") != []


def test_the_vocabulary_does_not_grow_without_end(monkeypatch):
    monkeypatch.setattr(language, "_MOST_WORDS", 2000)
    words = language.word_tokenizer("en")
    for n in range(5):
        words.word_tokenize(" ".join(f"w{n}x{k}" for k in range(3000)))
    assert words._tokenizer is None or len(words.tokenizer.vocab) < 3000


def test_no_page_depends_on_the_pages_before_it():
    texts = [toys.sentences(n, 12) + f" mail{n}@site.org" for n in range(12)]
    filters = ("gopher_repetition", "gopher_quality", "fineweb")
    in_order = {text: cleaned(text, filters, pii="mask").text for text in texts}
    random.Random(1).shuffle(texts)
    assert {text: cleaned(text, filters, pii="mask").text for text in texts} == in_order


def write(tmp_path, drafts, read):
    unit = Unit("toy", ("x",), ("x",), "digest")
    tally = Tally(read)
    task = Task(unit, None, tmp_path / "unit", ())
    WriteUnit([task], Clean(), tally).run(iter(drafts))


def test_the_writer_keeps_and_drops_by_the_verdict(tmp_path):
    gone = Draft("b", url="https://example.org/b")
    gone.drop("fineweb", "list_ratio")
    write(tmp_path, [Draft("a", text=PROSE, metadata={"language": "en"}), gone], read=2)
    kept = pl.read_parquet(tmp_path / "unit" / "documents.parquet")
    assert kept.rows() == [("a", PROSE, None, "toy", '{"language": "en"}')]
    dropped = pl.read_parquet(tmp_path / "unit" / "dropped.parquet")
    assert dropped.rows() == [("b", "fineweb", "list_ratio", "https://example.org/b")]
    assert json.loads((tmp_path / "unit" / "ledger.json").read_text()) == {"read": 2}
    assert clean.progress_of([tmp_path / "unit"]) == (1, 2)


def test_a_page_lost_between_reader_and_writer_fails_the_unit(tmp_path):
    with pytest.raises(RuntimeError, match="read 2 rows, 1 reached the end"):
        write(tmp_path, [Draft("a", text=PROSE)], read=2)
    assert not (tmp_path / "unit").exists()
