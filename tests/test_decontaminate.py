"""Benchmark text in a corpus: what must be caught, what must not, and where exactly it stands.

The forms that must be caught are those of the fixtures of Ai2's decon (github.com/allenai/decon, Apache-2.0), in
other words.
"""

import pickle
import re
import unicodedata
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mixer import decontaminate
from mixer.benchmark import Item
from mixer.cut import cut
from mixer.decontaminate import Hit, Index
from mixer.dedup import words
from mixer.errors import SourceError
from mixer.ngrams import offsets, tokens

TOWER = (
    "The lighthouse of Cordouan, which stands in the mouth of the Gironde, was first lit in 1611. "
    "It is older than any other that still shines in France. In which year was the lighthouse of Cordouan first lit?"
)
CRUST = "Which element is most abundant in the Earth's crust?"
WHOLE = "Predators of snakes include mongooses"
ZH = "在大气层中，臭氧主要分布于平流层，它吸收太阳辐射里的紫外线，从而保护地面生物。下列哪种气体会破坏臭氧？"
CHOICES = ("small birds and mice", "the leaves of oak trees", "fallen branches", "stones from a river")
PASSAGE = " ".join(f"word{i}" for i in range(70))
ITEMS = [
    Item("tower", "toy", TOWER, "1611"),
    Item("crust", "toy", CRUST, "Oxygen", ("Oxygen", "Iron", "Gold", "Silicon")),
    Item("whole", "toy", WHOLE),
    Item("zh", "toy", ZH),
    Item("owls", "toy", "Owls eat", CHOICES[0], CHOICES),
    Item("passage", "toy", "Is it so?", "yes", (), PASSAGE),
]
PROSE = "The harbour was quiet in the morning and boats lay upon the sand. People slept in their houses."
INDEX = Index.build(ITEMS)

LISTED = re.compile(r"[\divx][)\].:、]", re.IGNORECASE)
CIRCLED = re.compile("[①-⑳❶-❿➀-➓]")
"""Where a text may mark entries of a list."""


def found(text, index=INDEX):
    return [(hit.item, hit.part) for hit in index.find(text)]


def lettered(choices):
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=False))


@pytest.mark.parametrize(
    "text",
    [
        TOWER,
        f"{TOWER} {PROSE}",
        f"{PROSE} {TOWER} {PROSE}",
        f"{PROSE} {TOWER}",
        f"{PROSE}\n\n{TOWER}\n\nAnswer: 1611. {PROSE}",
        TOWER.replace(",", "").replace(".", "!").replace("?", " ..."),
        TOWER.replace("Cordouan", "**Cordouan**").replace("1611", "(1611)"),
        TOWER.replace("lighthouse", "lighthoouse", 1),
        TOWER.replace("lighthouse of", "tall lighthouse of", 1),
        TOWER.replace("which stands ", "", 1),
        TOWER.replace("Cordouan", "Cordovan").replace("older", "oldr"),
        TOWER.upper(),
        "\n".join(TOWER.split()),
        TOWER.replace(" ", "\u00a0\t"),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in TOWER),
        TOWER.replace("lighthouse", "light\u00adhouse").replace("older", "old\u200ber"),
    ],
)
def test_case_1_must_be_caught(text):
    assert ("tower", "question") in found(text)


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "1611",
        "Oxygen",
        "small birds and mice",
        f"{PROSE} It was first lit in 1611, they say, and it still shines. {PROSE}",
        "The lighthouse of Cordouan is a lighthouse in France.",
        "Which element is most abundant in the human body?",
        "Which of the following statements is true about the most abundant element?",
        "Predators of snakes include eagles and mongooses.",
        "Predators of snakes included mongooses.",
        "臭氧主要分布于平流层，其浓度随季节变化，与纬度也有关系，这是气象学里的常识。",
        lettered(CHOICES[:3]),
        "",
        "a",
    ],
)
def test_case_2_must_not_be_caught(text):
    assert found(text) == []


def test_case_3_several_items_in_one_text_each_in_its_place():
    text = f"{PROSE} {CRUST} Iron, or not? {TOWER} {PROSE} {CRUST}"
    hits = INDEX.find(text)
    assert [hit.item for hit in hits] == ["crust", "tower", "crust"]
    assert [text[hit.start : hit.end] for hit in hits] == [CRUST[:-1], TOWER[:-1], CRUST[:-1]]
    assert hits[0] == Hit(len(PROSE) + 1, len(PROSE) + len(CRUST), "crust", "toy", 1.0, "question")


def test_case_4_a_question_of_25_words_is_caught_whichever_word_is_changed_added_or_missing():
    question = "how many hours does a freight train need from Lisbon to Warsaw if its mean speed over the whole route stays at sixty kilometres"
    split = question.split()
    assert len(split) == 23 + 1
    index = Index.build([Item("train", "toy", question)])
    for i in range(len(split)):
        for middle in (["piano"], [split[i], "piano"], []):
            edited = " ".join([*split[:i], *middle, *split[i + 1 :]])
            assert found(f"{PROSE} {edited} {PROSE}", index) == [("train", "question")], edited


def test_case_5_a_short_question_must_be_there_word_for_word():
    assert found(f"{PROSE} predators of snakes\ninclude Mongooses! {PROSE}") == [("whole", "question")]
    for wrong in (
        "predators of snakes include big mongooses",
        "predators of snakes include",
        "superpredators of snakes include mongooses",
    ):
        assert found(f"{PROSE} {wrong} {PROSE}") == []


def test_case_6_chinese_is_compared_by_characters():
    assert found(ZH) == [("zh", "question")]
    assert found("\n".join(ZH[i : i + 7] for i in range(0, len(ZH), 7))) == [("zh", "question")]
    for i in range(0, len(ZH) - 1, 2):
        assert found(f"前文。{ZH[:i]}山水{ZH[i + 2 :]}后文。") == [("zh", "question")]


def test_case_7_choices_count_together_and_in_any_order():
    for order in permutations(CHOICES):
        assert ("owls", "options") in found(f"{PROSE}\n{lettered(order)}\n{PROSE}")
        assert ("owls", "options") in found(
            f"{PROSE} (a) {order[0]}; (b) {order[1]}; (c) {order[2]}; (d) {order[3]}. {PROSE}"
        )
    assert found(f"Owls eat {CHOICES[0]}.") == []
    assert ("owls", "item") in found(f"Owls eat\n{lettered(CHOICES)}")


MARKS = {
    "A.": "ABCD",
    "A)": "ABCD",
    "(a)": "abcd",
    "1.": "1234",
    "2)": "1234",
    "(3)": "1234",
    "[4]": "1234",
    "5、": "1234",
    "iv.": ("i", "ii", "iii", "iv"),
    "(ii)": ("i", "ii", "iii", "iv"),
    "①": ("①", "②", "③", "④"),
    "Option A:": ("Option A", "Option B", "Option C", "Option D"),
    "-": "----",
}


@pytest.mark.parametrize("mark", MARKS)
def test_case_7_whatever_marks_the_choices(mark):
    before, after = re.fullmatch(r"([(\[]?)\w[\w ]*?([)\].:、]?)|.", mark, re.DOTALL).groups(default="")
    listed = "\n".join(f"{before}{own}{after} {choice}" for own, choice in zip(MARKS[mark], CHOICES[::-1], strict=True))
    assert found(f"{PROSE}\n{listed}\n{PROSE}") == [("owls", "options")]
    question = Item("long", "toy", "What happens?", "", tuple(f"{choice} {PROSE}" for choice in CHOICES[::-1]))
    text = "\n".join(f"{before}{own}{after}{c}" for own, c in zip(MARKS[mark], question.choices, strict=True))
    assert ("long", "item") in found(f"What happens?\n{text}", Index.build([question]))


def test_case_7_a_question_that_tells_nothing_is_found_with_its_choices_in_any_order():
    metals = ("gold", "iron", "silver", "zinc")
    index = Index.build([Item("metal", "toy", "Which one is correct?", "gold", metals)])
    for order in permutations(metals):
        for shown in (lettered(order), ", ".join(order), " ".join(f"{i}) {each}" for i, each in enumerate(order, 1))):
            text = f"{PROSE} Which one is correct? {shown}. {PROSE}"
            assert [text[hit.start :].startswith("Which one") for hit in index.find(text)] == [True]
    # All but a word must be there, and near.
    assert found(f"Which one is correct? {lettered(metals[:2])}", index) == []
    assert found(f"Which one is correct? Gold and iron. {PROSE} Silver and zinc too.", index) == []
    longer = Index.build([Item("owls", "toy", "Owls eat", "", CHOICES)])
    assert found(f"Owls eat {', '.join(CHOICES[::-1]).replace('stones', 'bricks')}", longer) == [("owls", "item")]
    assert found(f"Owls eat {', '.join(CHOICES[::-1]).replace('stones from', 'bricks of')}", longer) == []


def test_case_7_a_short_question_without_choices_is_found_with_its_answer():
    quiz = [("Who wrote Hamlet?", "Shakespeare"), ("Capital of France?", "Paris"), ("谁写了红楼梦？", "曹雪芹")]
    index = Index.build([Item(str(i), "toy", *pair) for i, pair in enumerate(quiz)])
    for i, (question, answer) in enumerate(quiz):
        for text in (
            f"{PROSE} {question} {answer}.",
            f"Q: {question.upper()}\nA: {answer}",
            f"{question} It was {answer}",
        ):
            assert found(text, index) == [(str(i), "answered")]
        assert found(f"{PROSE} {question} {PROSE}", index) == []
        assert found(f"{question} {PROSE} {answer}", index) == []
    told = Index.build([Item("1", "toy", "What is it?", "that"), Item("2", "toy", "The capital of France is", "Paris")])
    assert set(told.findable.values()) == {()}


def test_case_8_a_long_choice_alone_is_no_item():
    long = " ".join(f"telling{i}" for i in range(60))
    index = Index.build([Item("long", "toy", "What happens?", "", (long, "nothing at all"))])
    assert found(long, index) == []
    assert ("long", "item") in found(f"What happens?\nA. {long}\nB. nothing at all", index)


def test_choices_that_are_long_and_much_alike_hide_no_item():
    long = " ".join(f"telling{i}" for i in range(90))
    item = Item("alike", "toy", "What happens?", "", (f"{long} first", f"{long} second"))
    assert found(f"What happens?\n{lettered(item.choices)}", Index.build([item])) == [("alike", "item")]


def test_case_9_a_passage_needs_fifty_words():
    split = PASSAGE.split()
    assert found(" ".join(split[10:60])) == [("passage", "passage")]
    assert found(" ".join(split[10:59])) == []
    assert found(" ".join([*split[5:30], "other", *split[31:57]])) == [("passage", "passage")]


def test_case_10_ngram_is_what_a_longer_question_must_share():
    question = " ".join(f"word{i}" for i in range(24))
    item = Item("long", "toy", question)
    for ngram, least in ((5, 12), (13, 13), (20, 20)):
        index = Index.build([item], ngram)
        assert found(" ".join(question.split()[:least]), index) == [("long", "question")]
        assert found(" ".join(question.split()[: least - 1]), index) == []


def test_an_ngram_below_the_length_of_a_seed_is_refused():
    with pytest.raises(ValueError, match="ngram: got 4, expected at least 5"):
        Index.build(ITEMS, 4)


def test_a_template_that_many_items_have_points_at_none():
    frame = "Consider the given diagram of electric circuits and compute total resistance between terminals"
    items = [Item(str(i), "toy", f"{frame} for resistor model zx{i} ohm{i}") for i in range(17)]
    assert found(f"{PROSE} {frame} of anything. {PROSE}", Index.build(items)) == []
    assert len(found(f"{PROSE} {frame} of anything. {PROSE}", Index.build(items[:16]))) == 16
    assert ("3", "question") in found(items[3].question, Index.build(items))


def test_items_with_the_same_question_are_one():
    index = Index.build([ITEMS[1], Item("again", "other", CRUST.upper())])
    assert found(CRUST, index) == [("crust", "question")]
    assert index.findable == {("toy", "crust"): ("question",), ("other", "again"): ("question",)}


def test_what_can_be_found_is_told_by_item():
    told = Index.build([*ITEMS, Item("none", "toy", "What is it?")]).findable
    assert {own: parts for (_, own), parts in told.items()} == {
        "tower": ("question",),
        "crust": ("question",),
        "whole": ("question",),
        "zh": ("question",),
        "owls": ("item", "options"),
        "passage": ("passage",),
        "none": (),
    }


def test_choices_that_three_items_share_say_nothing():
    items = [Item(str(i), "toy", "Owls eat", "", CHOICES) for i in range(3)]
    assert found(lettered(CHOICES), Index.build(items[:2])) != []
    assert ("0", "options") not in found(lettered(CHOICES[::-1]), Index.build(items))


def test_an_index_of_nothing_finds_nothing():
    assert found(TOWER, Index.build([])) == []
    assert Index.build([]).findable == {}


def test_case_11_save_load_and_pickle_keep_everything(tmp_path):
    INDEX.save(tmp_path / "index")
    for other in (Index.load(tmp_path / "index"), pickle.loads(pickle.dumps(INDEX))):
        assert other.fingerprint == INDEX.fingerprint
        assert other.find(f"{PROSE} {TOWER}\n{lettered(CHOICES)}") == INDEX.find(
            f"{PROSE} {TOWER}\n{lettered(CHOICES)}"
        )


def test_the_fingerprint_follows_what_decides():
    assert Index.build(ITEMS).fingerprint == INDEX.fingerprint
    others = [Index.build(ITEMS, 14), Index.build(ITEMS[1:]), Index.build([*ITEMS[1:], ITEMS[0]])]
    assert len({INDEX.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_folder_without_a_whole_index_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(SourceError, match="index: got no whole index"):
        Index.load(tmp_path / "index")
    INDEX.save(tmp_path / "index")
    monkeypatch.setattr(decontaminate, "VERSION", 99)
    with pytest.raises(SourceError, match="index: got version 2, expected 99"):
        Index.load(tmp_path / "index")
    for broken in ("{", "[]", '{"version": 99}'):
        (tmp_path / "index" / "index.json").write_text(broken)
        with pytest.raises(SourceError, match="index: got no whole index"):
            Index.load(tmp_path / "index")


def test_a_damaged_index_is_an_error(tmp_path):
    INDEX.save(tmp_path / "index")
    file = tmp_path / "index" / "arrays.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(SourceError, match="index: got no whole index"):
        Index.load(tmp_path / "index")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"First one. {CRUST} Last one.", "First one. Last one."),
        (f"First one. So tell me, {CRUST} Last one.", "First one. Last one."),
        (f"A line\nQ: {CRUST} Oxygen, I say\nA line", "A line\nOxygen, I say\nA line"),
        (f"Dr. A. Smith asked: {CRUST}\n\n\nNothing more.", "Dr. \n\nNothing more."),
        (f"前一句。{ZH}后一句。", "前一句。后一句。"),
        (f"Before:\n{lettered(CHOICES[::-1])}\nAfter", "Before:\nAfter"),
        (CRUST, ""),
    ],
)
def test_case_12_whole_sentences_and_lines_are_cut(text, left):
    assert cut(text, INDEX.find(text)) == left


def test_without_hits_nothing_is_cut():
    assert cut(" As it is.\n\n\n\n ", []) == " As it is.\n\n\n\n "


@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from([TOWER, CRUST, ZH]))
def test_an_item_is_found_between_any_texts_and_gone_after_the_cut(before, after, question):
    text = f"{before}\n{question}\n{after}"
    hits = INDEX.find(text)
    assert len(hits) == 1
    assert words(text[hits[0].start : hits[0].end])[-3:] == words(question)[-3:]
    assert INDEX.find(cut(text, hits)) == []


@given(
    st.text(
        alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n.aé臭ﬁΣ\u0301\u00ad")),
        max_size=80,
    )
)
def test_tokens_are_the_words_of_dedup_and_lie_where_they_are_said_to(text):
    visible = "".join(c for c in text if c not in "\u00ad\u200b\u200c\u200d\u2060\ufeff")
    assume(not LISTED.search(unicodedata.normalize("NFKC", visible)) and not CIRCLED.search(visible))
    kept = [word for word in words(visible) if not (len(word) == 1 and "a" <= word <= "j")]
    run, spans = tokens(text), offsets(text)
    assert np.array_equal(run[run > 0], tokens(" ".join(kept)))
    assert len(spans) == len(run)
    assert all(0 <= a < b <= len(text) for a, b in spans)
    assert (np.diff(spans[:, 0]) >= 0).all()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("Zz yy", [(0, 2), (3, 5)]),
        ("ﬁne \u00bd x", [(0, 3), (4, 5), (4, 5), (6, 7)]),
        ("e\u0301te\u0301 zz", [(0, 5), (6, 8)]),
        ("li\u00adght zz", [(0, 6), (7, 9)]),
        ("臭氧\nzz", [(0, 1), (1, 2), (2, 3), (3, 5)]),
    ],
)
def test_offsets_count_the_characters_of_the_text_as_it_is(text, where):
    assert [tuple(span) for span in offsets(text).tolist()] == where


def test_a_text_in_many_blocks_gives_the_same_tokens(monkeypatch):
    text = f"{PROSE} {ZH}\n{TOWER} " * 3
    whole = tokens(text)
    monkeypatch.setattr("mixer.ngrams._BLOCK", 50)
    assert np.array_equal(tokens(text), whole)
