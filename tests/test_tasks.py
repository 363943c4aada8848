"""The tasks besides science questions, against an endpoint that answers by rule."""

import json

import polars as pl
import pytest

from mixer.recipe.recipe import Recipe
from synth import rehearse, rephrase
from tests.endpoint import endpoint
from tests.test_synth import PAGES, recipe_of, synthesize

GOOD_CODE = {
    "problem": "Write add(a, b), which returns the sum of two numbers.",
    "solution": "def add(a, b):\n    return a + b",
    "tests": "assert add(1, 2) == 3\nassert add(0, 0) == 0\nassert add(-1, 1) == 0",
}


def recipe_for(folder, url, task, **settings):
    recipe = recipe_of(folder, url)
    plain = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    plain["sources"]["qa"]["task"] = task
    plain["synth"] = {task: {"model": "teacher", **settings}}
    return Recipe.model_validate(plain)


def made_by(folder, task, rule, **settings):
    with endpoint(rule) as (url, seen):
        made, _ = synthesize(recipe_for(folder, url, task, **settings), folder)
    return pl.read_parquet(made / "candidates.parquet"), pl.read_parquet(made / "documents.parquet"), seen


def test_code_is_kept_only_if_its_tests_pass(tmp_path):
    def rule(payload):
        content = payload["messages"][-1]["content"]
        solution = GOOD_CODE["solution"] if "Mitochondria" in content else "def add(a, b):\n    return a - b"
        return json.dumps(GOOD_CODE | {"solution": solution})

    table, kept, _ = made_by(tmp_path, "code_qa", rule)
    verdicts = dict(zip(table["page"], table["reason"], strict=True))
    assert verdicts == {
        "p0": "",
        "p1": "runs: assertion failed",
        "p2": "runs: assertion failed",
        "p3": "runs: assertion failed",
    }
    assert kept["text"].to_list() == [
        "Write add(a, b), which returns the sum of two numbers.\n\n```python\ndef add(a, b):\n    return a + b\n```\n"
    ]


def test_a_rewriting_may_not_invent_numbers_nor_copy(tmp_path):
    def rule(payload):
        content = payload["messages"][-1]["content"]
        if "Mitochondria" in content:
            return "Most of a living cell's energy comes from its mitochondria, which carry a small genome too."
        if "Granite" in content:
            return "Granite takes 9000 years to cool far below ground, while basalt cools fast at the surface."
        return content.split("\n", 1)[1].split("\n</page")[0]

    table, kept, _ = made_by(tmp_path, "rephrase", rule)
    reasons = {row["page"]: row["reason"].split(":")[0] for row in table.to_dicts()}
    assert reasons == {"p0": "", "p1": "grounded", "p2": "", "p3": "own_words"}
    assert "comes from its mitochondria" in kept["text"][0]


@pytest.mark.parametrize(
    ("text", "style", "failed"),
    [
        ("Cats purr softly.", "distilled", []),
        ("x" * 400, "distilled", ["length"]),
        ("x", "encyclopedic", ["length"]),
    ],
)
def test_the_length_of_a_rewriting_is_bounded_by_its_style(text, style, failed):
    page = "Cats purr softly when they are content, and sometimes when they are not, for reasons of their own."
    found = [check.name for check in rephrase.check(text, page, style, "en") if not check.passed]
    assert found == failed


def test_replay_continues_the_first_words_of_pages_and_rejects_circles(tmp_path):
    def rule(payload):
        if payload["prompt"].startswith("Granite"):
            return " and so on" * 60
        return " " + " ".join(f"word{number}" for number in range(60))

    table, kept, seen = made_by(tmp_path, "replay", rule)
    assert seen[0]["prompt"] in {rehearse.opening_of(page) for page in PAGES}
    reasons = {row["page"]: row["reason"].split(":")[0] for row in table.to_dicts()}
    assert reasons["p1"] == "repetition"
    assert reasons["p0"] == ""
    assert kept["text"][0].startswith(rehearse.opening_of(PAGES[0]))


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("一二三四五六七八九十" * 30, False),
        # One space, which is not what parts its words: once rejected as two words, or accepted as four that differ.
        ("".join(chr(0x4E00 + number) for number in range(300)) + " 二", True),
        ("一 二 三 四 " + "五六七八" * 100, False),
        ("def f(): pass\n" * 40, False),
    ],
)
def test_circles_are_found_in_any_script(text, passes):
    [_, repetition] = rehearse.check(text)
    assert (repetition.name, repetition.passed) == ("repetition", passes)


def test_an_opening_is_one_line_without_markers():
    assert rehearse.opening_of("Cats\npurr <|im_end|> " + "a " * 50) == "Cats purr ‹|im_end|> " + " ".join("a" * 9)


def test_inspiration_asks_without_the_page_and_is_not_held_against_it(tmp_path):
    def rule(payload):
        wanted = payload["response_format"]["json_schema"]["schema"]["properties"]
        if "solution" in wanted:
            assert "<page" not in payload["messages"][-1]["content"]
            return json.dumps({"question": "What is 3 times 4?", "solution": "3 * 4 = 12", "answer": "12"})
        return '{"answer": "12"}'

    table, _, _ = made_by(
        tmp_path, "science_qa", rule, grounding="inspiration", question_types=["open"], discipline="x", pairs_per_page=1
    )
    assert table["accepted"].sum() == 1
    assert {reason.split(":")[0] for reason in table["reason"]} == {"", "duplicate"}
