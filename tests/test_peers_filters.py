"""Verdicts of the cleaning pipeline beside those of datatrove, whose filters it runs in its own steps and languages.

The table follows tests/pipeline/filters/test_filters.py of huggingface/datatrove (Apache-2.0), with texts of our own, long
enough for the thresholds that a recipe gets.
"""

import json
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

from mixer import language
from mixer.clean import Draft, steps_of
from mixer.recipe.recipe import Clean
from mixer.run import digest
from mixer.types import Page
from tests.test_clean import PROSE, cleaned

DATA = Path(__file__).parents[2] / "shared" / "data"
PEERS = {
    "gopher_repetition": GopherRepetitionFilter,
    "gopher_quality": GopherQualityFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}
LINES = PROSE.replace(". ", ".\n")
"""Five sentences, a line each."""
TWICE = (
    "Once marine basalt cooled above an old harbour wall; twice, said the guide, marine basalt cooled under deep mud "
    "far from every coast. Nobody who walks along that shore today would guess it."
)

CASES = [
    ("gopher_repetition", PROSE, ""),
    ("gopher_repetition", "Granite is hard.\n" * 4, "dup_line_frac"),
    ("gopher_repetition", "Granite is hard.\n\n" * 4, "dup_para_frac"),
    ("gopher_repetition", f"One.\n\nTwo.\n\nThree.\n\nFour.\n\n{'z' * 40}.\n\n{'z' * 40}.", "dup_para_char_frac"),
    ("gopher_repetition", f"One.\nTwo.\nThree.\nFour.\n{'z' * 40}.\n{'z' * 40}.", "dup_line_char_frac"),
    ("gopher_repetition", "salt water, salt water, salt water", "top_2_gram"),
    ("gopher_repetition", TWICE, "top_3_gram"),
    ("gopher_repetition", f"{'it is a big stratovolcano ' * 4}{PROSE[:230]}", "duplicated_5_n_grams"),
    ("gopher_quality", PROSE, ""),
    ("gopher_quality", "Too little to say...", "gopher_short_doc"),
    ("gopher_quality", "it is " * 40, "gopher_below_avg_threshold"),
    ("gopher_quality", "sedimentation " * 60, "gopher_above_avg_threshold"),
    ("gopher_quality", "# heading " * 60, "gopher_too_many_hashes"),
    ("gopher_quality", "... ellipsis " * 60, "gopher_too_many_ellipsis"),
    ("gopher_quality", "- the list of things\n" * 20, "gopher_too_many_bullets"),
    ("gopher_quality", PROSE.replace(". ", " ...\n"), "gopher_too_many_end_ellipsis"),
    ("gopher_quality", "the ./!*?<><> of <?////> rocks  ++ sediments !<>??? with" * 20, "gopher_below_alpha_threshold"),
    ("gopher_quality", "granite basalt gneiss marble quartz slate " * 12, "gopher_enough_stop_words"),
    ("c4", LINES, ""),
    ("c4", LINES + "\nHere lorem ipsum dolor sit amet.", "lorem_ipsum"),
    ("c4", LINES + "\nHere a { stands in a sentence.", "curly_bracket"),
    ("c4", "One sentence is not enough.", "too_few_sentences"),
    ("fineweb", LINES, ""),
    ("fineweb", "No mark ends this line of text\nnor is there one behind this\nand none here", "line_punct_ratio"),
    ("fineweb", "Yes.\nNo.\nRight.\nWrong.\nLeft.", "short_line_ratio"),
    ("fineweb", "This very line of text stands here twice.\n" * 2 + LINES, "char_dup_ratio"),
    ("fineweb", "A line of six words, not more.\n\nThis-other-one-is-a-single-word-of-many-pieces.", ""),
    ("fineweb", "A line of so many words that none is short.\n\n\n\n\n\n\n\n\nUnquestioningly.", "list_ratio"),
]


def theirs(name, text, **options):
    """Whether datatrove's filter passes the text, with which reason, and what it makes of it."""
    document = Document(text=text, id="0")
    verdict = PEERS[name](**options).filter(document)
    passed, reason = verdict if isinstance(verdict, tuple) else (verdict, "")
    return passed, reason, document.text


@pytest.mark.parametrize(("name", "text", "reason"), CASES, ids=[f"{n}-{r or 'keep'}" for n, _, r in CASES])
def test_each_case_has_the_verdict_and_the_reason_of_datatrove(name, text, reason):
    passed, told, _ = theirs(name, text)
    assert (passed, told) == (not reason, reason)
    found = cleaned(text, (name,))
    assert (found.step, found.reason) == ((name, reason) if reason else ("", ""))


def test_every_kind_of_reason_is_in_the_table():
    told = Counter(name for name, _, reason in CASES if reason)
    assert told == {"gopher_repetition": 7, "gopher_quality": 9, "c4": 3, "fineweb": 4}


def test_a_line_about_cookies_goes_and_the_rest_stays_as_datatrove_has_it():
    text = LINES + "\nThis site uses cookies to remember you."
    passed, _, left = theirs("c4", text)
    assert passed
    assert cleaned(text, ("c4",)).text == left == LINES


@pytest.mark.parametrize("text", ["", "   \n  \n"])
def test_an_empty_text_ends_before_the_filters_one_of_which_lets_white_space_pass(text):
    assert [name for name in PEERS if theirs(name, text)[0]] == (["gopher_repetition"] if text else [])
    for name in PEERS:
        assert cleaned(text, (name,)).step == "extract"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("The end of a journey is seldom where the map said that it would be.", True),
        ("La fin d'un voyage est rarement là où la carte disait qu'elle serait.", False),
        ("O fim de uma viagem raramente fica onde o mapa dizia que ficaria.", False),
        ("La fine di un viaggio è raramente là dove la carta diceva che sarebbe stata.", True),
    ],
)
def test_of_four_languages_the_two_wanted_are_kept(text, kept):
    assert (cleaned(text, label=None, language={"keep": ["en", "it"]}).step == "") == kept


def documents(pattern, most, field="text"):
    """Real texts by hash, the beginning of each."""
    found = []
    for path in sorted(DATA.glob(pattern)):
        rows = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().decode().strip().split("\n")
        found += [json.loads(row)[field][:6000] for row in sorted(rows, key=digest)[:most]]
    return found


needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="no shared data here: verdicts on real documents are NOT held against datatrove"
)


def as_filters_get_it(text, code):
    """The text as our steps hand it to the filters: white space at its ends is taken off behind them."""
    draft = Draft("toy#0", page=Page("toy#0", text, "text"), metadata={"language": code})
    for step in steps_of(Clean(), ())[:-1]:
        if not draft.step:
            step(draft)
    return draft.text


def agreeing(texts, code, options):
    """How our steps and a chain of datatrove's own filters end each text; they must agree in all of it."""
    ours: Counter[str] = Counter()
    for text in texts:
        ready = as_filters_get_it(text, code)
        if not ready.strip():
            continue
        found = cleaned(text, tuple(PEERS), label=code)
        step = reason = ""
        for name in PEERS:
            passed, reason, ready = theirs(name, ready, **options.get(name, {}))
            if not passed:
                step = name
                break
        assert (found.step, found.reason) == (step, reason)
        assert step or found.text == ready.strip()
        ours[f"{step}: {reason}" if step else "kept"] += 1
    return ours


@needs_data
def test_real_english_documents_end_as_datatroves_own_filters_end_them():
    texts = [*documents("science_text/openstax-*", 6), *documents("qa_forum/*redpajama*", 20)]
    texts += [*documents("code/*", 10), *documents("qa_gold/xquad-en*", 60, "context")]
    found = agreeing(texts, "en", {})
    assert found["kept"] >= 20
    assert len(found) >= 8


@needs_data
def test_real_chinese_documents_end_as_datatroves_own_filters_end_them_with_the_thresholds_of_fineweb_2():
    """With English ones, at spaces for words, they would end nearly all that is kept here."""
    thresholds = {
        "gopher_repetition": {
            "dup_line_frac": 0.287,
            "top_n_grams": ((2, 0.256), (3, 0.201), (4, 0.171)),
            "dup_n_grams": ((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.14), (10, 0.127)),
        },
        "gopher_quality": {
            "min_avg_word_length": 1,
            "max_avg_word_length": 5,
            "max_non_alpha_words_ratio": 0.735,
            "min_stop_words": 0,
        },
        "c4": {"filter_no_terminal_punct": False, "min_words_per_line": -1},
        "fineweb": {"short_line_length": 10, "line_punct_thr": 0.106, "new_line_ratio": 0.178},
    }
    texts = documents("chinese/cmrc*", 60) + documents("chinese/oi-wiki*", 15)
    found = agreeing(texts, "zh", {name: its | {"language": "zh_Hani"} for name, its in thresholds.items()})
    assert found["kept"] >= 30
    kept = [text for text in texts if not cleaned(text, tuple(PEERS), label="zh").step]
    ended = [text for text in kept if not all(theirs(name, text)[0] for name in PEERS)]
    assert len(ended) >= 0.9 * len(kept)


def test_a_mark_in_four_words_is_ordinary_chinese():
    """Gopher's limit is a fifth, of words between spaces, which hold their marks; a Chinese mark is a word by itself."""
    text = "《论语》、《孟子》和《大学》是古人读书的起点，其中的话后人至今还在引用。"
    text += "水从山上流到海里，一路带着泥沙，到了平原泥沙沉下来，一层一层地堆着成了今天我们看见的河岸。"
    text += "《诗经》、《楚辞》里也有这样的山和水。石头变成沙子，要走很远的路；沙子变成石头，要等很久的时间。"
    words = language.word_tokenizer("zh").word_tokenize(text)
    marks = sum(not any(map(str.isalpha, word)) for word in words) / len(words)
    assert 0.2 < marks < 0.265, marks
    assert cleaned(text, ("gopher_quality",), label="zh").step == "", len(words)


def test_filters_of_our_steps_are_datatroves_own_with_its_english_thresholds():
    from mixer.clean import _datatrove_filter

    for name, kind in PEERS.items():
        found, default = _datatrove_filter(name, "en"), kind()
        assert type(found) is kind
        plain = {key for key, value in vars(default).items() if isinstance(value, int | float | str | tuple | list)}
        assert len(plain) > 5
        assert {key: vars(found)[key] for key in plain - {"language"}} == {
            key: vars(default)[key] for key in plain - {"language"}
        }
