"""Losses of runs: files that others recorded, and the table that survives a kill."""

import json
import re

import pytest

from curricula.search.results import Result, Table, key_of, read
from mixer.errors import SourceError

SOURCES = ("web", "qa")
LINES = """\
{"tokens": 0, "losses": {"general": 2.86}}
{"mixture": {"web": 7, "qa": 3}, "tokens": 2000, "seed": 1, "losses": {"general": 2.9, "extra": 1}}

{"mixture": {"qa": 0.5, "web": 0.5}, "losses": {"general": 3}}
"""
TABLE = """\
mixture.web,mixture.qa,tokens,seed,loss.general,loss.extra
,,0,,2.86,
7,3,2000,1,2.9,1
0.5,0.5,,,3,
"""


def load(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return read(tmp_path / name, sources=SOURCES, slices=["general"], tokens=5000)


def test_case_1_json_lines_with_weights_on_any_scale(tmp_path):
    base, run, short = load(tmp_path, "l.jsonl", LINES)
    assert base == Result({}, 0, 0, {"general": 2.86})
    assert run == Result({"web": 0.7, "qa": 0.3}, 2000, 1, {"general": 2.9, "extra": 1.0})
    assert short == Result({"web": 0.5, "qa": 0.5}, 5000, 0, {"general": 3.0})


def test_case_2_the_same_as_csv(tmp_path):
    assert load(tmp_path, "l.csv", TABLE) == load(tmp_path, "l.jsonl", LINES)


def test_case_3_an_absent_source_has_no_weight(tmp_path):
    (found,) = load(tmp_path, "l.jsonl", '{"mixture": {"web": 2}, "losses": {"general": 3}}')
    assert found.mixture == {"web": 1.0, "qa": 0.0}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nonsense", "got no run, expected `mixture` and `losses`"),
        ('{"mixture": {"web": 1}}', "got no run, expected `mixture` and `losses`"),
        ('{"losses": {"general": 3}}', "mixture: got none, expected weights by source"),
        ('{"mixture": {"web": 0}, "losses": {"general": 3}}', "mixture: got only zeros, expected weights by source"),
        (
            '{"mixture": {"wbe": 1}, "losses": {"general": 3}}',
            "mixture: got `wbe`, expected sources of the stage: web, qa",
        ),
        ('{"mixture": {"web": -1}, "losses": {"general": 3}}', "web: got -1, expected a number above 0"),
        (
            '{"mixture": {"web": 1}, "losses": {"general": NaN}}',
            "loss of `general`: got nan, expected a number above 0",
        ),
        ('{"mixture": {"web": 1}, "losses": {"other": 3}}', "got losses of other, expected `general` too"),
        ('{"mixture": {"web": 1}, "losses": {"general": 3}, "seed": -1}', "tokens, seed: got 5000, -1, expected whole"),
        (
            '{"mixture": {"web": 1}, "losses": {"general": 3}, "loss": 1}',
            "got loss, expected mixture, tokens, seed and",
        ),
    ],
)
def test_a_line_that_is_no_run_is_named(tmp_path, line, told):
    with pytest.raises(SourceError, match=re.escape(f"l.jsonl:2: {told}")) as caught:
        load(tmp_path, "l.jsonl", LINES.splitlines()[1] + "\n" + line + "\n")
    assert "JSON lines" in caught.value.hint


def test_a_csv_column_that_nobody_knows_is_named(tmp_path):
    with pytest.raises(SourceError, match=re.escape("l.csv:2: got web, expected mixture, tokens, seed and losses")):
        load(tmp_path, "l.csv", "web,loss.general\n1,3\n")
    with pytest.raises(SourceError, match="loss of `general`: got 'high', expected a number above 0"):
        load(tmp_path, "l.csv", "mixture.web,loss.general\n1,high\n")


def test_a_file_without_runs_or_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(SourceError, match="got no runs, expected one a line"):
        load(tmp_path, "l.jsonl", "\n")
    with pytest.raises(SourceError, match="No such file"):
        read(tmp_path / "none.jsonl", sources=SOURCES, slices=[], tokens=1)


def test_at_most_ten_mistakes_are_told(tmp_path):
    with pytest.raises(SourceError) as caught:
        load(tmp_path, "l.jsonl", "x\n" * 30)
    assert len(str(caught.value).splitlines()) == 10


def opened(path, made_by="m"):
    return Table(path, made_by=made_by, sources=SOURCES, slices=["general"])


ONE = Result({"web": 0.7, "qa": 0.3}, 2000, 0, {"general": 2.9})
TWO = Result({"web": 0.5, "qa": 0.5}, 2000, 0, {"general": 3.0})
BASE = Result({}, 0, 0, {"general": 2.86})


def test_case_4_what_was_added_is_there_when_the_table_is_opened_again(tmp_path):
    table = opened(tmp_path / "sweep" / "results.jsonl")
    for result in (BASE, ONE, TWO):
        table.add(result)
    assert list(opened(tmp_path / "sweep" / "results.jsonl").results.values()) == [BASE, ONE, TWO]


def test_a_table_is_also_a_file_of_recorded_losses(tmp_path):
    table = opened(tmp_path / "results.jsonl")
    table.add(BASE)
    table.add(ONE)
    assert read(tmp_path / "results.jsonl", sources=SOURCES, slices=["general"], tokens=1) == (BASE, ONE)


def test_a_line_torn_by_a_kill_is_written_anew(tmp_path):
    path = tmp_path / "results.jsonl"
    whole = opened(path)
    whole.add(ONE)
    whole.add(TWO)
    content = path.read_bytes()
    for cut in (len(content) - 1, len(content) - 40):
        path.write_bytes(content[:cut])
        table = opened(path)
        assert list(table.results.values()) == [ONE]
        table.add(TWO)
        assert path.read_bytes() == content


def test_a_slice_that_is_asked_for_later_makes_the_run_due_again(tmp_path):
    path = tmp_path / "results.jsonl"
    opened(path).add(ONE)
    table = Table(path, made_by="m", sources=SOURCES, slices=["general", "maths"])
    assert not table.results
    both = Result(ONE.mixture, ONE.tokens, ONE.seed, {"general": 2.9, "maths": 1.5})
    table.add(both)
    assert list(Table(path, made_by="m", sources=SOURCES, slices=["maths"]).results.values()) == [both]


def test_results_of_two_models_are_not_read_as_one(tmp_path):
    path = tmp_path / "results.jsonl"
    opened(path, "one").add(ONE)
    opened(path, "other").add(TWO)
    with pytest.raises(SourceError, match="got results of 2 models or settings, expected those of one"):
        read(path, sources=SOURCES, slices=["general"], tokens=1)


def test_results_of_another_model_stay_and_do_not_count(tmp_path):
    path = tmp_path / "results.jsonl"
    opened(path, "old model").add(ONE)
    table = opened(path, "new model")
    assert not table.results
    table.add(TWO)
    assert list(opened(path, "old model").results.values()) == [ONE]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"made_by": "m"}', json.dumps({"made_by": "m", "losses": {"general": -1}})]
)
def test_a_damaged_line_is_an_error_with_its_place(tmp_path, line):
    path = tmp_path / "results.jsonl"
    opened(path).add(ONE)
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(SourceError, match=r"results\.jsonl:1: got a damaged line") as caught:
        opened(path)
    assert caught.value.hint == "remove the line; its run is trained again"


def test_a_key_stands_for_the_mixture_in_any_order_and_for_nothing_finer_than_it_shows():
    assert key_of({"a": 0.3, "b": 0.7}, 10, 0) == key_of({"b": 0.7, "a": 0.30000000004, "c": 0.0}, 10, 0)
    assert len({key_of({"a": 0.3, "b": 0.7}, *rest) for rest in ((10, 0), (11, 0), (10, 1))}) == 3
    assert key_of({}, 0, 0) == key_of({"a": 1.0}, 0, 5)
