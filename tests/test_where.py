"""Which Documents an expression keeps: worked cases on five of them, every error with its place, then the laws."""

import math
import operator
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.where import MAX_DEPTH, parse
from mixer.where_tokens import MAX_WORDS, WhereError

TYPES = {"perplexity": float, "topic": str, "topic.probability": float, "good": bool}
SCHEMA = {"perplexity": pl.Float64, "topic": pl.String, "topic.probability": pl.Float64, "good": pl.Boolean}
FIVE = pl.DataFrame(
    [
        ("a", 10.0, "physics", 0.9, True),
        ("b", 60.0, "biology", 0.5, False),
        ("c", 1000.0, "物理", 0.2, None),
        ("d", None, "physics", None, True),
        ("e", math.nan, None, 0.9, False),
    ],
    schema={"id": pl.String, **SCHEMA},
    orient="row",
)


def kept(text: str, frame: pl.DataFrame = FIVE) -> str:
    return "".join(frame.filter(parse(text, TYPES).expression())["id"])


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("perplexity < 60 and topic == 'physics'", "a"),
        ("perplexity <= 60", "ab"),
        ("60 >= perplexity", "ab"),
        ("1 < perplexity <= 60", "ab"),
        ("10 < perplexity < 1_000", "b"),
        ("perplexity >= 1e3", "c"),
        ("perplexity > -2.5", "abc"),
        ("perplexity == 60.0", "b"),
        ("perplexity in (10, 1e3)", "ac"),
        ("topic.probability > .5", "ae"),
        ("topic.probability < perplexity", "abc"),
        ("topic == '物理'", "c"),
        ("""topic in ('physics', "物理")""", "acd"),
        ("topic in ['biology']", "b"),
        ("good", "ad"),
        ("not good", "be"),
        ("good == false", "be"),
        ("good in [true, false]", "abde"),
        ("not not good", "ad"),
        # `and` binds before `or`, `not` before both.
        ("topic == '物理' or good and perplexity == 10", "ac"),
        ("(topic == '物理' or good) and perplexity == 10", "a"),
        ("not good or perplexity == 10", "abe"),
        # `in` and comparisons bind before `not`.
        ("not topic in ('physics')", "bc"),
        ("not perplexity < 60", "bc"),
    ],
)
def test_worked_cases(text, ids):
    assert kept(text) == ids


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("perplexity < 60", "a"),
        ("not (perplexity < 60)", "bc"),
        ("perplexity != 60", "ac"),
        ("not (perplexity == 60)", "ac"),
        ("perplexity not in (60)", "ac"),
        ("not (perplexity in (60))", "ac"),
        ("not (10 <= perplexity <= 60)", "c"),
        ("topic != 'physics'", "bc"),
        ("topic not in ['physics']", "bc"),
        ("good != false", "ad"),
        ("not (good == true)", "be"),
        # What is known can settle it: true or unknown, false and unknown.
        ("perplexity < 60 or topic == 'physics'", "ad"),
        ("not (perplexity < 60 and good)", "bce"),
        ("not (perplexity < 60 and topic == 'physics')", "bc"),
        ("not (perplexity < 60 or good)", "b"),
    ],
)
def test_a_missing_value_passes_neither_a_comparison_nor_its_opposite(text, ids):
    assert kept(text) == ids


def test_the_answer_is_true_or_false_for_every_row():
    answers = FIVE.select(keep=parse("not perplexity < 60", TYPES).expression())["keep"]
    assert answers.to_list() == [False, True, True, False, False]
    assert answers.dtype == pl.Boolean


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (' perplexity<60\n and\t(topic=="physics") ', "perplexity < 60 and topic == 'physics'"),
        ("((1<perplexity<=6e1))", "1 < perplexity <= 60"),
        ("perplexity < 1_000.50", "perplexity < 1000.5"),
        ("perplexity < -0", "perplexity < 0"),
        ("perplexity < 1e15", "perplexity < 1000000000000000"),
        ("perplexity < 1E16", "perplexity < 1e+16"),
        ("topic in ('b', 'a', 'b',)", "topic in ['a', 'b']"),
        ("perplexity not in(10,9)", "perplexity not in [9, 10]"),
        ("(good and good) and (good)", "good and good and good"),
        ("good or (good and good)", "good or good and good"),
        ("(good or good) and good", "(good or good) and good"),
        ("not (good)", "not good"),
        ("not (good and good)", "not (good and good)"),
        ("not (perplexity < 1)", "not perplexity < 1"),
        ("topic == 'it''s'", '''topic == "it's"'''),
        ('topic == "say ""x"""', """topic == 'say "x"'"""),
        ('topic == "it\'s ""x"""', """topic == 'it''s "x"'"""),
        ("topic == ''", "topic == ''"),
        ("topic == '  and  '", "topic == '  and  '"),
    ],
)
def test_the_canonical_text(text, canonical):
    where = parse(text, TYPES)
    assert where.canonical() == canonical
    assert parse(canonical, TYPES).canonical() == canonical
    assert where.text == text


def test_names_are_the_columns_in_use():
    assert parse("topic == 'a' and (good or 1 < topic.probability) and topic != 'b'", TYPES).names == (
        "good",
        "topic",
        "topic.probability",
    )


def test_names_may_hold_what_names_in_a_recipe_may():
    types = {"5-gram": float, "q.v2_a-b": float, "主题": str}
    where = parse("5-gram<5 and q.v2_a-b>-1 and 主题=='物理'", types)
    assert where.canonical() == "5-gram < 5 and q.v2_a-b > -1 and 主题 == '物理'"
    assert where.names == ("5-gram", "q.v2_a-b", "主题")


COLUMNS = "a column (good, perplexity, topic, topic.probability), or text in quotes"
NUMBER = "a number such as 1_000, -2.5 or 1e3"
GO_ON = "`and`, `or` or the end"
OPERAND = "a column or a value"
ORDER = "only numbers have an order"


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 0, f"got the end, expected {OPERAND}"),
        ("  ", 2, f"got the end, expected {OPERAND}"),
        ("good and", 8, f"got the end, expected {OPERAND}"),
        ("not", 3, f"got the end, expected {OPERAND}"),
        ("()", 1, f"got `)`, expected {OPERAND}"),
        ("perplexity < < 5", 13, f"got `<`, expected {OPERAND}"),
        ("perplexity < (5)", 13, f"got `(`, expected {OPERAND}"),
        ("perplexity < -", 13, f"got `-`, expected {OPERAND}"),
        ("good or and good", 8, f"got `and`, expected {OPERAND}"),
        # A comparison is missing.
        ("perplexity", 10, "got the end, expected a comparison after `perplexity`"),
        ("perplexity and good", 11, "got `and`, expected a comparison after `perplexity`"),
        ("(topic) == 'a'", 6, "got `)`, expected a comparison after `topic`"),
        ("perplexity is null", 11, "got `is`, expected a comparison after `perplexity`"),
        ("perplexity + 1 < 5", 11, "got `+`, expected a comparison after `perplexity`"),
        ("true", 4, "got the end, expected a comparison after `true`"),
        ("5 in (5, 6)", 2, "got `in`, expected a comparison after `5`"),
        # Too much.
        ("good good", 5, f"got `good`, expected {GO_ON}"),
        ("good)", 4, f"got `)`, expected {GO_ON}"),
        ("good AND good", 5, f"got `AND`, expected {GO_ON}"),
        ("good == (perplexity < 5)", 8, f"got `(`, expected {OPERAND}"),
        (r"topic == 'it\'s'", 14, f"got `s`, expected {GO_ON}"),
        ("1 < perplexity in (5)", 15, f"got `in`, expected {GO_ON}"),
        ("(good", 5, "got the end, expected `and`, `or` or `)`"),
        ("(good good", 6, "got `good`, expected `and`, `or` or `)`"),
        # Columns that nobody knows.
        ("perplexty < 60", 0, "got `perplexty`, expected `perplexity`"),
        ("good and topic.probabilty > 1", 9, "got `topic.probabilty`, expected `topic.probability`"),
        ("Topic == 'a'", 0, "got `Topic`, expected `topic`"),
        ("NOT good", 0, "got `NOT`, expected `not`"),
        ("good == True", 8, "got `True`, expected `true`"),
        ("notes == 'a'", 0, f"got `notes`, expected {COLUMNS}"),
        ("topic == chemistry", 9, "got `chemistry`, expected text in quotes, `'chemistry'`"),
        ("__import__('os')", 0, f"got `__import__`, expected {COLUMNS}"),
        # Kinds.
        ("perplexity < 'a'", 13, "got `'a'`, expected a number, as `perplexity` is"),
        ("topic == 5", 9, "got `5`, expected text, as `topic` is"),
        ("5 == topic", 5, "got `topic`, expected a number, as `5` is"),
        ("topic == perplexity", 9, "got `perplexity`, expected text, as `topic` is"),
        ("good == 1", 8, "got `1`, expected true or false, as `good` is"),
        ("topic in ('a', 5)", 15, "got `5`, expected text, as `topic` is"),
        ("topic < 'b'", 6, f"got `<`, expected `==`, `!=` or `in` after `topic`: {ORDER}"),
        ("'a' <= topic", 4, f"got `<=`, expected `==`, `!=` or `in` after `'a'`: {ORDER}"),
        ("good >= true", 5, f"got `>=`, expected `==`, `!=` or `in` after `good`: {ORDER}"),
        ("1 < 2", 4, "got `2`, expected a column, as `1` is a value too"),
        ("perplexity < 5 < 6", 17, "got `6`, expected a column, as `5` is a value too"),
        # Lists.
        ("perplexity not 5", 15, "got `5`, expected `in`"),
        ("topic in 'a'", 9, "got `'a'`, expected a list in `(...)` or `[...]`"),
        ("topic in ()", 10, "got `)`, expected a value (text in quotes)"),
        ("topic in (,)", 10, "got `,`, expected a value (text in quotes)"),
        ("topic in [physics]", 10, "got `physics`, expected text in quotes, `'physics'`"),
        ("topic in ('a' 'b')", 14, "got `'b'`, expected `,` or `)`"),
        ("topic in ['a')", 13, "got `)`, expected `,` or `]`"),
        ("topic in ['a',", 14, "got the end, expected a value (text in quotes)"),
        # Numbers.
        ("perplexity < 60abc", 13, f"got `60abc`, expected {NUMBER}"),
        ("perplexity < 1__0", 13, f"got `1__0`, expected {NUMBER}"),
        ("perplexity < 1.5.2", 13, f"got `1.5.2`, expected {NUMBER}"),
        ("perplexity < 5.", 13, f"got `5.`, expected {NUMBER}"),
        ("perplexity < ６０", 13, f"got `６０`, expected {NUMBER}"),
        ("perplexity < 1e999", 13, "got `1e999`, expected a number below 1.8e308"),
        ("perplexity > -1e999", 13, "got `-1e999`, expected a number below 1.8e308"),
        # Signs of other languages.
        ("perplexity = 60", 11, "got `=`, expected `==`"),
        ("perplexity =< 60", 11, "got `=`, expected `==`"),
        ("good && good", 5, "got `&`, expected `and`"),
        ("good || good", 5, "got `|`, expected `or`"),
        ("!good", 0, "got `!`, expected `not`"),
        ("topic == “物理”", 9, 'got `“`, expected `"`'),
        ("topic == ‘物理’", 9, "got `‘`, expected `'`"),
        ("perplexity ＜ 60", 11, "got `＜`, expected `<`"),
        ("perplexity ≤ 60", 11, "got `≤`, expected `<=`"),
        ("（good）", 0, "got `（`, expected `(`"),
        ("good; good", 4, f"got `;`, expected {GO_ON}"),
        ("good\0", 4, f"got ` `, expected {GO_ON}"),
        # Text without an end.
        ("topic == 'physics", 9, "got `'`, expected another `'` to end the text (inside it, a quote is written twice)"),
        ("topic == \"it's", 9, 'got `"`, expected another `"` to end the text (inside it, a quote is written twice)'),
        (
            "topic == '\ud800'",
            9,
            "got `'`, expected another `'` to end the text (inside it, a quote is written twice)",
        ),
    ],
)
def test_errors_say_what_was_got_what_was_expected_and_where(text, position, message):
    with pytest.raises(WhereError, match=r"^got .*, expected ") as caught:
        parse(text, TYPES)
    assert (caught.value.position, caught.value.message) == (position, message)


def test_without_scores_no_column_is_known():
    with pytest.raises(WhereError, match=r"expected a column \(none is known\), or text in quotes"):
        parse("perplexity < 5", {})


def shown(text: str) -> list[str]:
    with pytest.raises(WhereError, match="got ") as caught:
        parse(text, TYPES)
    return str(caught.value).splitlines()


def test_the_error_points_with_a_caret():
    assert shown("good and topic < 'b'") == [
        "got `<`, expected `==`, `!=` or `in` after `topic`: only numbers have an order",
        "good and topic < 'b'",
        "               ^",
    ]


def test_the_caret_stands_under_the_place_after_chinese_text_and_line_ends():
    assert shown("topic == '物理'\nand topic < 'b'")[1:] == [
        "topic == '物理' and topic < 'b'",
        "          \u3000\u3000            ^",
    ]


def test_of_a_long_expression_the_error_shows_the_neighbourhood():
    _, line, caret = shown("good or " * 100 + "topc == 'a'" + " or good" * 100)
    assert line.startswith("...")
    assert line[caret.index("^") :].startswith("topc == 'a' or good")
    assert len(line) < 130


def test_a_long_word_is_cut_in_the_message():
    assert len(shown("topic == " + "x" * 1000)[0]) < 200


def test_an_error_is_a_value_error_and_survives_another_process():
    with pytest.raises(ValueError, match="got `!`, expected `not`") as caught:
        parse("!good", TYPES)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.position) == (str(caught.value), 0)


def test_a_where_survives_another_process():
    where = parse("perplexity < 60", TYPES)
    copy = pickle.loads(pickle.dumps(where))
    assert copy == where
    assert "".join(FIVE.filter(copy.expression())["id"]) == "a"


@pytest.mark.parametrize(
    ("level", "end", "deepest"),
    [("(", ")", MAX_DEPTH), ("not ", "", MAX_DEPTH), ("not(", ")", MAX_DEPTH // 2)],
)
def test_depth_is_bounded(level, end, deepest):
    where = parse(level * deepest + "good" + end * deepest, TYPES)
    assert kept(where.canonical()) == kept(where.text)
    with pytest.raises(WhereError, match="expected at most 50 levels of parentheses and `not`") as caught:
        parse(level * (deepest + 1) + "good" + end * (deepest + 1), TYPES)
    assert caught.value.position == deepest * len(level)


def test_length_is_bounded_and_the_longest_still_works():
    terms = MAX_WORDS // 2
    longest = " or ".join(["good"] * terms)
    assert kept(longest) == "ad"
    with pytest.raises(WhereError, match="expected at most 2000 words and signs") as caught:
        parse(f"{longest} or good", TYPES)
    assert caught.value.position == len(f"{longest} or ")


def test_ten_thousand_parentheses_are_an_error():
    with pytest.raises(WhereError, match=r"got `\(`, expected at most 2000 words and signs"):
        parse("(" * 10_000 + "good" + ")" * 10_000, TYPES)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 60, None], pl.Int64),
        ([1, 60, None], pl.Int8),
        ([1, 60, None], pl.UInt32),
        ([1.0, 60.0, math.nan], pl.Float32),
    ],
)
def test_every_kind_of_number_compares(values, dtype):
    frame = pl.DataFrame({"id": list("abc"), "perplexity": pl.Series(values, dtype=dtype)})
    assert kept("perplexity < 2.5", frame) == "a"
    assert kept("not perplexity < 2.5", frame) == "b"
    assert kept("perplexity in (1, 2.5)", frame) == "a"
    assert kept("perplexity > -1e3", frame) == "ab"


def test_a_number_in_32_bits_is_the_number_that_was_stored():
    frame = pl.DataFrame({"id": ["a"], "perplexity": pl.Series([0.1], dtype=pl.Float32)})
    assert kept("perplexity == 0.1 and perplexity in [0.1] and perplexity <= 0.1", frame) == "a"


def test_a_column_that_is_missing_throughout_keeps_nothing():
    for dtype in (pl.Null, pl.Float64):
        frame = pl.DataFrame({"id": ["a"], "perplexity": pl.Series([None], dtype=dtype)})
        assert kept("perplexity < 5 or not perplexity < 5", frame) == ""


def test_topics_may_be_categories():
    frame = FIVE.with_columns(pl.col("topic").cast(pl.Categorical))
    assert kept("topic in ['physics'] or topic == '物理'", frame) == "acd"


def test_a_lazy_frame_filters_the_same():
    where = parse("1 < perplexity <= 60 and not topic == '物理'", TYPES)
    assert "".join(FIVE.lazy().filter(where.expression()).collect()["id"]) == "ab"


def test_reading_an_expression_loads_no_polars():
    code = "import sys, mixer.where; mixer.where.parse('x < 5', {'x': float}); print('polars' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=root).stdout == b"False\n"


# The laws. A tree is ("and" | "or", [trees]), ("not", tree), ("flag", column), ("chain", operands, signs) or
# ("in" | "not in", column, values); an operand is (is it a column?, name or value).

SPELLINGS = {
    0.0: ["0", "-0", "0.00"],
    0.5: [".5", "0.5", "5E-1"],
    -2.5: ["-2.5", "-25e-1"],
    60.0: ["60", "6_0", "6e1"],
    1000.0: ["1000", "1_000", "1e+3", "1_000.0"],
    1e300: ["1e300"],
}
TOPICS = ["", "a", "and", "it's", 'say "x"', 'it\'s "x"', "物 理", "x < 5", "\\", "'"]
PYTHON = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
NUMBERS = st.sampled_from(["perplexity", "topic.probability"])


@st.composite
def chains(draw):
    values = st.sampled_from(list(SPELLINGS))
    operands, signs = [draw(st.tuples(st.just(True), NUMBERS) | st.tuples(st.just(False), values))], []
    for _ in range(draw(st.integers(1, 3))):
        columns = st.tuples(st.just(True), NUMBERS)
        operands.append(draw(columns | st.tuples(st.just(False), values) if operands[-1][0] else columns))
        signs.append(draw(st.sampled_from(list(PYTHON))))
    return "chain", operands, signs


def equalities(column, values):
    sides = st.tuples(st.just((True, column)), st.tuples(st.just(False), st.sampled_from(values)))
    return st.tuples(
        st.just("chain"),
        sides.flatmap(st.permutations),
        st.lists(st.sampled_from(["==", "!="]), min_size=1, max_size=1),
    )


def members(columns, values):
    lists = st.lists(st.sampled_from(values), min_size=1, max_size=4)
    return st.tuples(st.sampled_from(["in", "not in"]), columns, lists)


LEAVES = st.one_of(
    st.just(("flag", "good")),
    chains(),
    equalities("topic", TOPICS),
    equalities("good", [True, False]),
    members(NUMBERS, list(SPELLINGS)),
    members(st.just("topic"), TOPICS),
    members(st.just("good"), [True, False]),
)
TREES = st.recursive(
    LEAVES,
    lambda trees: (
        st.tuples(st.just("not"), trees)
        | st.tuples(st.sampled_from(["and", "or"]), st.lists(trees, min_size=2, max_size=3))
    ),
    max_leaves=8,
)
MEASURES = st.none() | st.sampled_from([*SPELLINGS, -0.0, math.nan, math.inf, -math.inf]) | st.floats()
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "perplexity": MEASURES,
            "topic": st.none() | st.sampled_from(TOPICS),
            "topic.probability": MEASURES,
            "good": st.sampled_from([None, True, False]),
        }
    ),
    min_size=1,
    max_size=8,
)


def spelt(value, rng):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return rng.choice(SPELLINGS[value])
    quote = rng.choice("'\"")
    return quote + value.replace(quote, quote * 2) + quote


def words(tree, rng, above=0):
    """The words of a tree, with parentheses where they are needed and some where they are not."""
    kind, binds = tree[0], 3
    if kind in ("and", "or"):
        binds = {"or": 1, "and": 2}[kind]
        out = [word for part in tree[1] for word in (kind, *words(part, rng, binds))][1:]
    elif kind == "not":
        out = ["not", *words(tree[1], rng, 3)]
    elif kind == "flag":
        out = [tree[1]]
    elif kind == "chain":
        sides = [value if is_column else spelt(value, rng) for is_column, value in tree[1]]
        out = [sides[0], *(word for pair in zip(tree[2], sides[1:], strict=True) for word in pair)]
    else:
        opening, closing = rng.choice(["()", "[]"])
        values = [word for value in tree[2] for word in (",", spelt(value, rng))][1:]
        out = [tree[1], *kind.split(), opening, *values, *rng.choice([[], [","]]), closing]
    return ["(", *out, ")"] if binds < above or rng.random() < 0.2 else out


def written(tree, rng):
    """A text of the tree; signs may touch their neighbours, words may not."""
    signs = {*PYTHON, *"()[],"}
    text = ""
    for word, after in pairwise([*words(tree, rng), ")"]):
        touches = after in signs or word in signs
        text += word + rng.choice(["" if touches else " ", " ", "\n ", "\u3000"])
    return text


def truth(tree, row):
    """What SQL would answer: true, false or None."""
    kind = tree[0]
    if kind == "not":
        inner = truth(tree[1], row)
        return None if inner is None else not inner
    if kind == "flag":
        return row["good"]
    if kind in ("in", "not in"):
        value = known(row[tree[1]])
        return None if value is None else (value in tree[2]) == (kind == "in")
    if kind == "chain":
        sides = [known(row[value]) if is_column else value for is_column, value in tree[1]]
        answers = [
            None if None in pair else PYTHON[sign](*pair) for sign, pair in zip(tree[2], pairwise(sides), strict=True)
        ]
    else:
        answers = [truth(part, row) for part in tree[1]]
    settles = kind == "or"
    return settles if settles in answers else None if None in answers else not settles


def known(value):
    return None if isinstance(value, float) and math.isnan(value) else value


@settings(max_examples=300, deadline=None)
@given(TREES, ROWS, st.integers(0, 2**32))
def test_polars_answers_as_three_valued_logic_does(tree, rows, seed):
    where = parse(written(tree, Random(seed)), TYPES)
    frame = pl.DataFrame(rows, schema=SCHEMA)
    expected = [truth(tree, row) is True for row in rows]
    assert frame.select(keep=where.expression())["keep"].to_list() == expected
    again = parse(where.canonical(), TYPES)
    assert frame.select(keep=again.expression())["keep"].to_list() == expected


@settings(max_examples=300, deadline=None)
@given(TREES, st.integers(0, 2**32), st.integers(0, 2**32))
def test_however_it_is_written_the_canonical_text_is_one(tree, seed, other):
    where = parse(written(tree, Random(seed)), TYPES)
    assert parse(where.canonical(), TYPES).canonical() == where.canonical()
    assert parse(written(tree, Random(other)), TYPES).canonical() == where.canonical()
    assert parse(where.canonical(), TYPES).names == where.names


PIECES = [
    *"()[],<>=!&'\" \n.-_5物\0",
    "==",
    "in",
    "not",
    "and",
    "or",
    "true",
    "good",
    "topic",
    "perplexity",
    "1e9",
    "'a'",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30))
def test_any_text_is_read_or_refused_at_a_place_in_it(text):
    refused = None
    try:
        where = parse(text, TYPES)
    except WhereError as error:
        refused = error
    if refused is None:
        assert kept(where.canonical()) == kept(text)
    else:
        assert 0 <= refused.position <= len(text)
        assert len(str(refused).split("\n")) == 3
