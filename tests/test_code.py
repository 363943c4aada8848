"""Code answers: what is read from a model's text, which pairs are kept, and how they are written."""

import json

import jsonschema
import pytest

from synth import code
from synth.code import CodePair, parse, training_text, verify
from synth.request import NoAnswerError

ADD = "def add(a, b):\n    return a + b\n"
TESTS = "assert add(1, 2) == 3\n"
GOOD = CodePair("Add two numbers.", ADD, TESTS)


def answer(**changes) -> str:
    return json.dumps({"problem": "Add two numbers.", "solution": ADD, "tests": TESTS} | changes)


def seen(pair: CodePair) -> list[tuple[str, bool, str]]:
    return [(check.name, check.passed, check.detail.splitlines()[0] if check.detail else "") for check in verify(pair)]


# Reading


def test_an_answer_meets_the_schema_and_is_read():
    jsonschema.validate(json.loads(answer()), code.SCHEMA)
    assert parse(answer()) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{answer()}\n```",
        f"\n~~~\n{answer()}\n~~~\n",
        answer(solution=f"```python\n{ADD}```", tests=f"````py\n{TESTS}\n````"),
    ],
)
def test_fences_are_stripped(text):
    pair = parse(text)
    assert (pair.solution.strip(), pair.tests.strip()) == (ADD.strip(), TESTS.strip())


def test_a_fence_inside_the_code_stays():
    solution = 'def f():\n    return """\n```\nx\n```\n"""\n'
    assert parse(answer(solution=solution)).solution == solution


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Here you are:", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an object"),
        (json.dumps({"problem": "p", "solution": ADD}), "no tests"),
        (answer(solution=["x"]), "solution is not text"),
        (answer(problem=" \n"), "problem is empty"),
        (answer(tests="```python\n\n```"), "tests is empty"),
        (answer(problem="x" * 4_001), "problem is too long"),
        (answer(solution="x" * 10_001), "solution is too long"),
    ],
)
def test_an_answer_that_is_none_says_so_in_words_that_can_be_counted(text, reason):
    with pytest.raises(NoAnswerError, match=f"^{reason}$"):
        parse(text)


@pytest.mark.parametrize("changes", [{"problem": "x" * 4_001}, {"tests": ""}, {"more": "x"}])
def test_the_schema_refuses_what_is_too_long_empty_or_unknown(changes):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(answer(**changes)), code.SCHEMA)


# Checks


def test_a_good_pair_passes_every_check():
    assert seen(GOOD) == [("format", True, ""), ("runs", True, "passed"), ("meaningful", True, "")]
    assert [check.score for check in verify(GOOD)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("solution", "tests", "detail"),
    [
        ("def add(a, b:", TESTS, "does not parse: SyntaxError"),
        (ADD, "assert add(1, 2) ==", "does not parse: SyntaxError"),
        (ADD, "assert '\ud800'", "does not parse: UnicodeEncodeError"),
        (ADD, "assert add(1, 2) == 3" + " + 0" * 4_000, "does not parse: RecursionError"),
        ("total = 1 + 2", "assert total == 3", "solution defines no function and no class"),
        (ADD, "assert 1 + 2 == 3", "tests call nothing that the solution defines"),
        (ADD, "assert {1}.add(2) is None", "tests call nothing that the solution defines"),
        (ADD, "assert add", "tests call nothing that the solution defines"),
        (ADD, ADD + TESTS, "tests define the solution again"),
        (ADD, "def add(x, y):\n    return x + y\n" + TESTS, "tests define the solution again"),
        (ADD, ADD.replace("add", "plus") + "assert add(1, 2) == plus(1, 2)", "tests define the solution again"),
    ],
)
def test_a_pair_of_the_wrong_form_is_not_run(solution, tests, detail):
    assert seen(CodePair("p", solution, tests)) == [("format", False, detail)]


@pytest.mark.parametrize(
    ("solution", "tests"),
    [
        ("class Stack:\n    def __init__(self):\n        self.items = []", "assert Stack().items == []"),
        (ADD, "import solution\nassert solution.add(1, 2) == 3"),
        (
            ADD,
            "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertRaises(TypeError, add, 1, '2')",
        ),
        ("async def one():\n    return 1", "import asyncio\nassert asyncio.run(one()) == 1"),
    ],
)
def test_a_solution_may_be_called_in_any_way(solution, tests):
    assert all(check.passed for check in verify(CodePair("p", solution, tests)))


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("assert add(1, 2) == 4", "assertion failed"),
        ("assert add(1, '2')", "error: TypeError"),
        ("open('/etc/passwd')\nassert add(1, 2) == 3", "not allowed"),
        ("add(1, 2)", "no test ran"),
    ],
)
def test_a_pair_that_does_not_run_says_why_first(tests, reason):
    assert seen(CodePair("p", ADD, tests)) == [("format", True, ""), ("runs", False, reason)]


def test_tests_that_prove_nothing_are_found():
    pair = CodePair("p", ADD, "add(1, 2)\nassert True")
    assert seen(pair)[-1] == ("meaningful", False, "tests prove nothing")


# Writing


def test_the_training_text_is_the_problem_and_the_fenced_solution():
    assert training_text(GOOD) == "Add two numbers.\n\n```python\ndef add(a, b):\n    return a + b\n```\n"


def test_a_fence_in_the_solution_makes_the_outer_one_longer():
    text = training_text(CodePair("p", 'FENCE = "````"', TESTS))
    assert text == 'p\n\n`````python\nFENCE = "````"\n`````\n'
