"""Prompts: pages enter as values, lose every marker, and cannot end the part that is theirs."""

import re

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.tokens import packaged_tokenizer
from synth import prompt
from tests.hostile_pages import PAGES

VALUES = {"question": "Who purrs?", "choices": (), "has_page": True}


def user(page, **values):
    return prompt.messages("vote.en", page=page, values={**VALUES, **values})[1]["content"]


def test_a_prompt_is_the_page_between_marks_and_then_the_question():
    assert user("Cats purr.").splitlines() == [
        "<page 7f04fba1>",
        "Cats purr.",
        "</page 7f04fba1>",
        "",
        "Question: Who purrs?",
        "",
        'Answer from the page, in as few words as possible. If the page does not say, answer "not answerable".'
        " Give JSON with `answer`.",
    ]


def test_all_prompts_about_a_page_begin_alike():
    science = {
        "discipline": "biology",
        "passage": "Cats purr.",
        "wanted": "one question",
        "answer": "a few words",
        "choices": False,
        "demonstrations": (),
    }
    one = prompt.messages("science_qa.en", page="Cats purr.", values=science)
    two = prompt.messages("vote.en", page="Cats purr.", values=VALUES)
    three = prompt.messages("support.en", page="Cats purr.", values={"context": "", "sentence": "Cats purr."})
    assert one[0] == two[0] == three[0]
    end = one[1]["content"].index("</page")
    assert one[1]["content"][:end] == two[1]["content"][:end] == three[1]["content"][:end]


def test_a_missing_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'choices' is undefined"):
        prompt.messages("vote.en", page="x", values={"question": "Who?", "has_page": True})


def test_the_version_changes_with_the_file(tmp_path, monkeypatch):
    before = prompt.version("vote.en")
    copy = tmp_path / "prompts"
    copy.mkdir()
    for path in prompt._FOLDER.glob("*.jinja"):
        (copy / path.name).write_text(path.read_text("utf-8") + ("\nMore." if path.name == "vote.en.jinja" else ""))
    monkeypatch.setattr(prompt, "_FOLDER", copy)
    prompt.version.cache_clear()
    assert prompt.version("vote.en") != before
    monkeypatch.undo()
    prompt.version.cache_clear()
    assert prompt.version("vote.en") == before


def test_every_prompt_exists_in_both_languages():
    names = {name.rsplit(".", 1)[0] for name in prompt.tasks()}
    assert names
    for name in names:
        assert {f"{name}.en", f"{name}.zh"} <= set(prompt.tasks()), name


@pytest.mark.parametrize("number", range(len(PAGES)))
def test_a_hostile_page_changes_nothing_of_the_structure(number, control_tokens):
    page = PAGES[number][:100_000]
    content = user(page)
    mark = re.match(r"<page (\w{8})>\n", content)[1]
    assert content.count(f"</page {mark}>") == 1
    assert content.endswith("Give JSON with `answer`.")
    assert control_tokens(content) == 0


@given(st.text(alphabet=st.sampled_from("<|>im_startend[]/INST\n{}% ｜page"), max_size=60))
def test_no_text_becomes_a_control_token(text):
    assert not re.search(r"<\|?\w+\|?>|\[/?[A-Z_]{3,24}\]", prompt.neutral(text))


@given(st.text(max_size=200))
def test_neutral_text_stays_neutral(text):
    assert prompt.neutral(prompt.neutral(text)) == prompt.neutral(text)


def test_ordinary_text_is_left_alone():
    text = "If a < b and b > c (see [12]), then f(x) = {x | x > 0}; E = mc², 水。\nNext line."
    assert prompt.neutral(text) == text


@pytest.fixture(scope="module")
def control_tokens(tmp_path_factory):
    """Counts the control tokens that the packaged tokenizer finds in a text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(packaged_tokenizer(tmp_path_factory.mktemp("store"))))
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    count = lambda text: sum(i in special for i in tokenizer.encode(text, add_special_tokens=False).ids)  # noqa: E731
    assert count("a<|im_end|>b") == 1
    return count
