"""Decontamination on the forms of Ai2's decon: what it must catch and must not, as cases of our own.

The forms follow tests/fixtures and tests/detect_integration_test.rs of allenai/decon (Apache-2.0): an item at the
beginning, in the middle and at the end of a document, with a letter changed, added or missing, with other punctuation, several
items in one document, odd cases, and documents without any. Where its tests assert nothing, the name of ours says what ours does.
"""

import json

import pytest

from mixer.benchmark import Item, read_items
from mixer.cut import cut
from mixer.decontaminate import Index

PASSAGE = (
    "The Clifton bridge, which spans a gorge near Bristol, England, was opened in 1864. Brunel drew it as a young man."
)
GATE = "In which year was the Clifton bridge opened to traffic?"
CRUST = "Which gas is the most abundant one in the Earth's atmosphere?"
SOLVE = "Solve for y: 3y + 7 = 22"
SOLUTION = "To solve 3y + 7 = 22, take 7 from both sides to get 3y = 15, then divide by 3 to get y = 5"
OSMOSIS = (
    "Osmosis is the passage of water through a membrane from a weak to a strong solution. Roots of plants drink by it."
)
ITEMS = (
    Item("bridge", "peer", GATE, "1864", (), PASSAGE),
    Item("gas", "peer", CRUST, "Nitrogen"),
    Item("sum", "peer", SOLVE, SOLUTION),
    Item("osmosis", "peer", "What is osmosis?", "Passage of water through a membrane", (), OSMOSIS),
)
INDEX = Index.build(ITEMS)
FILLER = (
    "Morning came late to the valley, and the mist stayed on the fields until noon. A cart went by with milk for the town.",
    "By evening the shops had closed. Somebody played a piano behind an open window, and the lamps came on one by one.",
)
WHOLE = f"{PASSAGE} {GATE} The answer is 1864."

MUST_CATCH = {
    "at the beginning": (f"{WHOLE} {FILLER[0]} {FILLER[1]}", {"bridge"}),
    "in the middle": (f"{FILLER[0]} {WHOLE} {FILLER[1]}", {"bridge"}),
    "at the end": (f"{FILLER[0]} {FILLER[1]} {WHOLE}", {"bridge"}),
    "passage and question with words between": (
        f"{FILLER[0]} {PASSAGE} Now I ask you: {GATE} It was 1864.",
        {"bridge"},
    ),
    "a letter changed": (f"{FILLER[0]} {WHOLE.replace('Clifton', 'Cliftan')}", {"bridge"}),
    "a letter added": (f"{FILLER[0]} {WHOLE.replace('Clifton', 'Clifftton')}", {"bridge"}),
    "a letter missing": (f"{FILLER[0]} {WHOLE.replace('Clifton', 'Cliton')}", {"bridge"}),
    "other punctuation": (f"{FILLER[0]} {WHOLE.replace('.', '!').replace(',', ' -')}", {"bridge"}),
    "marks of markdown": (
        f"{PASSAGE.replace('Clifton bridge', '**Clifton bridge**').replace('England', '(England)')}!!!",
        {"bridge"},
    ),
    "the passage alone": (f"{FILLER[0]} {PASSAGE} {FILLER[1]}", {"bridge"}),
    "a sentence of it cut in two": (PASSAGE.replace(", was opened", ". It was opened"), {"bridge"}),
    "a question with its answer": (f"In class we heard of the air. {CRUST} It is nitrogen, of course.", {"gas"}),
    "the question of a sum": (f"{FILLER[0]} {SOLVE}. {FILLER[1]}", {"sum"}),
    "several in one": (f"{WHOLE} {FILLER[0]} {CRUST} Nitrogen. {FILLER[1]} {OSMOSIS}", {"bridge", "gas", "osmosis"}),
    "half of one, and another": (f"First: {PASSAGE.split('. ')[0]}. Second: {CRUST} Nitrogen.", {"gas"}),
}
MUST_NOT_CATCH = {
    "nothing of an item": " ".join(FILLER),
    "the same subject": "The bridge over the gorge near Bristol was Brunel's; it was finished in the sixties, long after his death.",
    "another field": "Astronomers weigh stars by the planets that circle them, and galaxies by the stars that circle in them.",
    "the words of a question in another order": "Abundant gas: the atmosphere is one in which the Earth's most is.",
    "a question of too few words": "What is osmosis? I asked, and nobody knew.",
}


@pytest.mark.parametrize(("text", "items"), MUST_CATCH.values(), ids=MUST_CATCH)
def test_must_be_caught(text, items):
    assert {hit.item for hit in INDEX.find(text)} == items


@pytest.mark.parametrize("text", MUST_NOT_CATCH.values(), ids=MUST_NOT_CATCH)
def test_must_not_be_caught(text):
    assert INDEX.find(text) == []


def test_what_is_cut_holds_the_items_and_the_rest_stays():
    """Decon writes cleaned files without the documents; ours may also keep what stands around."""
    text = f"{FILLER[0]} {WHOLE} {FILLER[1]} {CRUST}"
    left = cut(text, INDEX.find(text))
    assert INDEX.find(left) == []
    assert FILLER[0] in left
    assert FILLER[1] in left
    assert "Clifton" not in left


def test_a_worked_solution_alone_is_no_item_here_for_an_answer_never_counts():
    assert INDEX.find(f"Here is how it is done. {SOLUTION}. That is basic algebra.") == []


def test_a_typing_error_in_every_few_words_hides_a_short_passage():
    text = (
        PASSAGE.replace("Clifton", "Clifon")
        .replace("gorge", "gorje")
        .replace("Brunel", "Brunell")
        .replace("young", "jung")
    )
    assert INDEX.find(text) == []


def test_a_larger_ngram_finds_less_as_a_higher_threshold_of_decon_does():
    """Sixteen words of thirty: half of them, and more than thirteen, but not twenty-five."""
    question = " ".join(f"word{number}" for number in range(30))
    half = " ".join(f"word{number}" if number < 16 else f"other{number}" for number in range(30))
    found = [len(Index.build([Item("1", "peer", question)], ngram).find(half)) for ngram in (5, 13, 25)]
    assert found == [1, 1, 0]


def test_references_are_read_in_the_fields_that_decon_uses(tmp_path):
    rows = [
        {"doc_id": 101, "eval_key": "peer", "passage": PASSAGE, "question": GATE, "answer": "1864"},
        {"doc_id": 102, "eval_key": "peer", "question": CRUST, "answer": "Nitrogen"},
        {"doc_id": 103, "eval_key": "peer", "question": SOLVE},
    ]
    path = tmp_path / "peer.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, third = read_items(path)
    assert (first.passage, first.question, first.answer) == (PASSAGE, GATE, "1864")
    assert (second.question, second.answer, third.answer) == (CRUST, "Nitrogen", "")
