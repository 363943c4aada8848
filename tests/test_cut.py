"""What is cut out of a document with a benchmark item, and that all else stays as it is."""

import pytest

from mixer.benchmark import Item
from mixer.cut import cut
from mixer.decontaminate import Index

GAS = Item(
    "gas",
    "toy",
    "Which of these gases makes up most of the air that surrounds the planet Earth near the oceans?",
    "nitrogen",
    ("nitrogen", "oxygen", "argon", "helium"),
)
GOATS = Item(
    "goats",
    "toy",
    "A farmer keeps seventeen goats behind the old stone barn and sells four of them at the market in Ulm. "
    "How many goats are left behind the barn?",
    "He has 17 goats and sells 4, so 17 - 4 = 13 goats are left. #### 13",
)
OWLS = Item(
    "owls", "toy", "What do owls eat?", "small birds", ("small birds and mice", "green leaves", "stones of a river")
)
ITEMS = {(item.benchmark, item.id): item for item in (GAS, GOATS, OWLS)}
INDEX = Index.build(ITEMS.values())
BEFORE, AFTER = "Tides rise and fall twice a day.", "The moon draws the water towards itself, as Newton showed."


def left(text):
    return cut(text, INDEX.find(text), ITEMS)


@pytest.mark.parametrize(
    "asked",
    [
        f"{GAS.question}\nA. Nitrogen\nB. Oxygen\nC. Argon\nD. Helium\nAnswer: A",
        f"Question: {GAS.question}\n(1) oxygen\n(2) nitrogen\n(3) helium\n(4) argon\n\nThe correct answer is (2).",
        f"{GAS.question} Nitrogen.",
        f"{GAS.question}\nAnswer:\nA",
        f"{GOATS.question}\nSolution: {GOATS.answer}",
        f"{GOATS.question}\nHe sells 4, so 17 - 4 = 13 goats are left.\n#### 13",
        "What do owls eat?\n- green leaves\n- small birds and mice\n- stones of a river\nAnswer: small birds",
    ],
)
def test_case_1_choices_answer_and_solution_go_with_the_question(asked):
    assert left(f"{BEFORE}\n{asked}\n{AFTER}") == f"{BEFORE}\n{AFTER}"


def test_case_2_what_stands_before_the_choices_goes_too():
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABC", OWLS.choices[::-1], strict=True))
    assert [hit.part for hit in INDEX.find(listed)] == ["options"]
    assert left(f"{BEFORE}\nSo, what do owls eat?\n{listed}\n{AFTER}") == f"{BEFORE}\n{AFTER}"


def test_case_3_a_pair_leaves_nothing():
    assert left(f"Question: {GOATS.question}\n\nAnswer: {GOATS.answer}") == ""


def test_case_4_away_from_the_cut_nothing_changes():
    code = "  def f():\n      return 1\n\n\n\n\n  class X:\n      pass\n"
    text = f"{code}\n{GAS.question}\n\n\nAnd so on.\n\n\n\nThe end.  \n"
    assert left(text) == f"{code}\nAnd so on.\n\n\n\nThe end.  \n"


def test_without_the_items_the_hits_alone_are_cut():
    text = f"{BEFORE}\n{GAS.question}\nA. Nitrogen\n{AFTER}"
    assert cut(text, INDEX.find(text)) == f"{BEFORE}\nA. Nitrogen\n{AFTER}"
