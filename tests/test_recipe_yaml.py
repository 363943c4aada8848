"""Strict YAML: what each scalar is read as, on which line it stands, and what is refused."""

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.recipe.yaml import MAX_DEPTH, Tree, dump, parse, printable, show


def told(text: str) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.text) for problem in parse(text).problems]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("1e9", 1e9),
        ("1.5e3", 1500.0),
        ("1e-3", 0.001),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("30M", "30M"),
        ("1.2.3", "1.2.3"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1e9'", "1e9"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
    ],
)
def test_scalars_are_read_as_in_yaml_1_2(written: str, value: Any) -> None:
    read = parse(f"key: {written}").value["key"]
    assert (read, type(read)) == (value, type(value))


def test_keys_are_text_whatever_they_look_like() -> None:
    keys = ["2024", "no", "1e3", "null", "<<"]
    assert list(parse("{2024: a, no: b, 1e3: c, null: d, '<<': e}").value) == keys


def test_lines_of_keys_and_of_values() -> None:
    tree = parse("a: 1\nb:\n  - x\n  - c:\n      2\n")
    assert tree.lines[("b",)] == (2, 3)
    assert tree.line_of(("b", 1)) == 4
    assert tree.line_of(("b", 1, "c")) == 5
    assert tree.line_of(("b", 1, "absent")) == 4
    assert tree.line_of(("a", "[key]")) == 1
    assert Tree().line_of(("a",)) == 1


def test_an_anchor_gives_each_user_a_copy_of_its_own() -> None:
    tree = parse("a: &shared {x: 1}\nb: *shared\n")
    assert tree.value == {"a": {"x": 1}, "b": {"x": 1}}
    assert tree.value["a"] is not tree.value["b"]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
TOO_BIG = "over 5 MB or 40 levels once its aliases are expanded"


@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]\n", f"a: &a {'x' * 10_000}\nb: [{'*a, ' * 1000}]\n"])
def test_an_alias_bomb_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    tree = parse(text)
    assert tree.value is None
    assert [problem.text for problem in tree.problems] == [TOO_BIG]
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{a: " * 100, "- " * 100 + "x"])
def test_deep_nesting_is_refused(text: str) -> None:
    assert told(text) == [(1, f"nested deeper than {MAX_DEPTH} levels")]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "duplicate key 'a', first on line 1"),
        ("1: a\n'1': b\n", 2, "duplicate key '1', first on line 1"),
        ("x: &x {a: 1}\ny: {<<: *x}\n", 2, "merge keys (`<<`) are not read; write the keys out"),
        ("? [a]\n: b\n", 1, "got a list or mapping as a key, expected text"),
        ("a: !!python/object:os.system x", 1, "got the tag '!!python/object:os.system', expected plain YAML"),
        ("a: !!set {b}", 1, "got the tag '!!set', expected plain YAML"),
        ("\na: !!int b", 2, "got 'b', which cannot be read as int; put text in quotes"),
        ("a: !!bool yes", 1, "got 'yes', which cannot be read as bool; put text in quotes"),
        ("a:\n\tb: 1", 2, "got a tab, expected spaces for indentation"),
        ("a: 1\nb: \x01", 2, "character U+0001 cannot stand in YAML"),
        ("a: \ud800", 1, "character U+D800 cannot stand in YAML"),
        ("a: *b", 1, "not valid YAML: found undefined alias 'b'"),
        ("a: @b", 1, "not valid YAML: found character '@' that cannot start any token"),
        ("a: 1\n---\nb: 2", 2, "not valid YAML: expected a single document in the stream, but found another"),
        (
            "a: [1,\n  2\nb: 3",
            3,
            "not valid YAML: expected ',' or ']', but got ':' (while parsing a flow seq",
        ),
    ],
)
def test_what_is_refused_says_where_and_why(text: str, line: int, message: str) -> None:
    [(found, problem)] = told(text)
    assert found == line
    assert problem.startswith(message)


def test_all_problems_of_readable_yaml_are_told_at_once() -> None:
    assert [line for line, _ in told("a: 1\na: 2\nb: !!set {c}\n? [d]\n: e\n")] == [2, 3, 4]


@pytest.mark.parametrize("text", ["no", "1e9", "1:30", "2024-01-01", "0o17", "~", "", "=", "<<", "1_0", ".inf"])
def test_text_that_some_reader_takes_for_something_else_is_dumped_in_quotes(text: str) -> None:
    assert dump([text]) == f"- '{text}'\n"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_any_plain_value_comes_back_from_its_dump(value: dict[str, Any]) -> None:
    tree = parse(dump(value))
    assert tree.problems == []
    assert tree.value == value


def test_values_are_shown_short_and_in_the_recipe_s_words() -> None:
    assert [show(value) for value in (None, True, "a'b", 5)] == ["null", "true", '"a\'b"', "5"]
    assert show("x" * 100) == "'" + "x" * 56 + "..."


def test_nothing_in_a_message_can_steer_a_terminal() -> None:
    assert printable("a\x1b[31m\n\u202e\ud800é") == r"a\x1b[31m\n\u202e\ud800é"
