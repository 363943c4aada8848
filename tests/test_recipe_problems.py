"""One row per kind of mistake in a recipe: what is changed, and the exact lines that come back."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest

from mixer.errors import RecipeError
from mixer.recipe import file as recipe_file
from mixer.recipe import yaml
from mixer.recipe.problems import find, known_keys, nearest

RECIPE = """\
name: science
seed: 7
tokenizer: gpt2
sources:
  web: {kind: html, path: "pages/*.html", language: en}
  qa:
    kind: jsonl
    path: [a.jsonl, b.jsonl]
clean:
  dedup: {near: {threshold: 0.8}}
stages:
  - {name: adapt, token_budget: 30M, mixture: {web: 6, qa: 4}}
  - name: anneal
    token_budget: 1e7
    mixture: {web: 5}
"""
KINDS = "html, warc, jsonl, parquet, text, hub, tokens, synth"
FILTERS = "gopher_repetition, gopher_quality, c4, fineweb"
COUNT = "a whole count such as 1_000_000, 30M or 92.5B"
NAME = "up to 64 letters, digits, `_`, `.`, `-`, with no mark first"


def lines_of(folder: Path, *changes: tuple[str, str]) -> list[str]:
    """What `load` says of the recipe above with the changes made, without the file's name."""
    text = RECIPE
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"x\.yaml:") as caught:
        recipe_file.load(path)
    assert caught.value.hint == (f"correct these, then run `mixer check {path}`; `mixer schema` describes every key")
    return str(caught.value).replace(f"{path}:", "").splitlines()


def test_1_every_mistake_is_told_at_once_by_line(tmp_path: Path) -> None:
    assert lines_of(
        tmp_path,
        ("tokenizer:", "tokeniser:"),
        ("kind: jsonl", "kind: jsnl"),
        ("30M", "lots"),
        ("{web: 5}", "{wbe: 5}"),
        ("name: anneal", "name: adapt"),
    ) == [
        "3: unknown key 'tokeniser'; did you mean `tokenizer`?",
        f"7: sources.qa.kind: got 'jsnl', expected one of {KINDS}; did you mean `jsonl`?",
        f"12: stages.0.token_budget: got 'lots', expected {COUNT}",
        "13: stages.1.name: got 'adapt', expected another name: stages.0 has it",
        "15: stages.1.mixture: unknown source 'wbe'; did you mean `web`?",
    ]


def test_2_a_good_recipe_has_no_problems(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    assert recipe_file.load(path).stages[1].token_budget == 10_000_000


ROWS = {
    "missing key": ("name: science\n", "", "1: missing key `name`"),
    "missing key of an item": ("    token_budget: 1e7\n", "", "13: stages.1: missing key `token_budget`"),
    "missing key of a source": (
        "    path: [a.jsonl, b.jsonl]\n",
        "",
        "6: sources.qa: missing key `path`",
    ),
    "missing kind": ("kind: html, ", "", f"5: sources.web: missing key `kind`, one of {KINDS}"),
    "unknown key": (
        "path: [a",
        "columns: {txt: a}\n    path: [a",
        "8: sources.qa.columns: unknown key 'txt'; did",
    ),
    "unknown key, none near": (
        "{threshold: 0.8}",
        "{zzzz: 0.8}",
        "10: clean.dedup.near: unknown key 'zzzz'; known keys: threshold, ngram, bands, rows",
    ),
    "unknown kind": (
        "html, path",
        "htm, path",
        f"5: sources.web.kind: got 'htm', expected one of {KINDS}; did",
    ),
    "kind of another type": ("kind: html", "kind: [html]", "5: sources.web.kind: got ['html'], expected one"),
    "unknown filter": (
        "clean:",
        "clean:\n  filters:\n    - c4\n    - fine_web",
        f"12: clean.filters.1: got 'fine_web', expected one of {FILTERS}; did you mean `fineweb`?",
    ),
    "unknown filter of a source": (
        "language: en",
        "filters: [goopher]",
        f"5: sources.web.filters.0: got 'goopher', expected one of {FILTERS}",
    ),
    "unknown choice in another case": (
        "clean:",
        "clean:\n  pii: MASK",
        "10: clean.pii: got 'MASK', expected one of",
    ),
    "not a count": ("30M", "1.5", f"12: stages.0.token_budget: got 1.5, expected {COUNT}"),
    "infinite count": ("1e7", ".inf", f"14: stages.1.token_budget: got inf, expected {COUNT}"),
    "zero count": ("30M", "0", "12: stages.0.token_budget: got 0, expected a number above 0"),
    "absurd count": ("1e7", "1e300", "14: stages.1.token_budget: got 1e+300, expected 1e+18 or less"),
    "negative weight": ("web: 6", "web: -6", "12: stages.0.mixture.web: got -6, expected a number above 0"),
    "infinite weight": ("web: 6", "web: .inf", "12: stages.0.mixture.web: got inf, expected a finite number"),
    "true as weight": ("web: 6", "web: true", "12: stages.0.mixture.web: got true, expected a number"),
    "share above one": ("0.8", "1.5", "10: clean.dedup.near.threshold: got 1.5, expected 1 or less"),
    "too small": ("seed: 7", "sequence_length: 1", "2: sequence_length: got 1, expected 2 or more"),
    "fraction as whole number": ("seed: 7", "seed: 1.5", "2: seed: got 1.5, expected a whole number"),
    "yes as boolean": (
        "clean:",
        "clean:\n  repair: yes",
        "10: clean.repair: got 'yes', expected true or false",
    ),
    "number as text": (
        "language: en",
        "language: 5",
        "5: sources.web.language: got 5, expected text in quotes",
    ),
    "list as text": ("language: en", "language: [en]", "5: sources.web.language: got ['en'], expected text"),
    "union": ("[a.jsonl, b.jsonl]", "{a: 1}", "8: sources.qa.path: got {'a': 1}, expected text or a list"),
    "item of a union": ("b.jsonl", "5", "8: sources.qa.path.1: got 5, expected text in quotes"),
    "lone surrogate": (
        "science",
        '"\\ud800"',
        r"1: name: got '\ud800', expected text without lone surrogates",
    ),
    "bad name": ("science", "sci ence", f"1: name: got 'sci ence', expected {NAME}"),
    "null section": (
        "clean:\n  dedup: {near: {threshold: 0.8}}",
        "clean:",
        "9: clean: got null, expected a mapping",
    ),
    "null source": (
        "\n    kind: jsonl\n    path: [a.jsonl, b.jsonl]",
        "",
        "6: sources.qa: got null, expected a",
    ),
    "list for a mapping": ("{web: 5}", "[web]", "15: stages.1.mixture: got ['web'], expected a mapping"),
    "empty mixture": ("{web: 5}", "{}", "15: stages.1.mixture: got {}, expected at least 1 entry"),
    "item of another type": (
        "- {name: adapt,",
        "- 5\n  - {name: adapt,",
        "12: stages.0: got 5, expected a mapping",
    ),
    "tokenizer": ("gpt2", "5", "3: tokenizer: got 5, expected a path or hub id, or a mapping with `path`"),
    "unused source": ("web: 6, qa: 4", "web: 6", "6: sources.qa: source `qa` is in no stage's mixture"),
    "bos token without bos": (
        "gpt2",
        "{path: gpt2, bos_token: x}",
        "3: tokenizer.bos_token: has no effect while `bos` is false; set `bos: true` or remove it",
    ),
    "eos token without eos": (
        "gpt2",
        "{path: gpt2, eos: false, eos_token: x}",
        "3: tokenizer.eos_token: has no effect while `eos` is false; set `eos: true` or remove it",
    ),
    "duplicate key": ("seed: 7", "seed: 7\nseed: 8", "3: duplicate key 'seed', first on line 2"),
    "tag": ("seed: 7", "seed: !!set {a}", "2: seed: got the tag '!!set', expected plain YAML"),
    "long value": ("science", "x" * 99, f"1: name: got '{'x' * 56}..., expected {NAME}"),
    "escape sequence": (
        "seed: 7",
        r'seed: "\e[31m\u202E"',
        r"2: seed: got '\x1b[31m\u202e', expected a whole",
    ),
    "line end in a key": ("seed: 7", r'"se\ned": 7', r"2: unknown key 'se\ned'; did you mean `seed`?"),
}


@pytest.mark.parametrize(("before", "after", "expected"), ROWS.values(), ids=ROWS)
def test_one_mistake_gives_one_line(tmp_path: Path, before: str, after: str, expected: str) -> None:
    [line] = lines_of(tmp_path, (before, after))
    assert line.startswith(expected)


def test_a_bad_source_name_does_not_hide_what_is_wrong_inside(tmp_path: Path) -> None:
    assert lines_of(tmp_path, ("  web: {kind: html, path", "  we b: {kind: html, pth"))[:2] == [
        f"5: sources.we b: got 'we b', expected {NAME}",
        "5: sources.we b: unknown key 'pth'; did you mean `path`?",
    ]


def test_a_source_that_a_misspelt_name_means_is_not_called_unused(tmp_path: Path) -> None:
    assert lines_of(tmp_path, ("qa: 4", "qaa: 4")) == ["12: stages.0.mixture: unknown source 'qaa'; did you mean `qa`?"]


def test_a_misspelt_key_beside_a_bad_value_hides_nothing(tmp_path: Path) -> None:
    assert lines_of(tmp_path, ("[a.jsonl, b.jsonl]", "5\n    pth: b")) == [
        "8: sources.qa.path: got 5, expected text or a list",
        "9: sources.qa: unknown key 'pth'; did you mean `path`?",
    ]


def test_a_key_named_like_its_kind_is_told_where_it_stands(tmp_path: Path) -> None:
    assert lines_of(tmp_path, ("language: en", "html: 1, filters: [c44]")) == [
        f"5: sources.web.filters.0: got 'c44', expected one of {FILTERS}; did you mean `c4`?",
        "5: sources.web: unknown key 'html'; known keys: path, max_documents, language, licence, on_error,"
        " declared, filters, where, kind, columns",
    ]


@pytest.mark.parametrize("value", [None, 5, "x", [], [{}]])
def test_a_recipe_is_a_mapping(value: object) -> None:
    [problem] = find(value)
    assert problem.text.endswith("expected a mapping with `name`, `sources`, `stages`")


@pytest.mark.parametrize("value", [{}, {"stages": 5, "sources": []}, {"stages": [None, {"mixture": 5, "name": 5}]}])
def test_checks_across_sections_survive_any_shape(value: dict[str, object]) -> None:
    assert "missing key `name`" in [problem.text for problem in find(value)]


WHOLE = """\
name: whole
tokenizer: smollm2
sources:
  web: {kind: html, path: a.html, where: "perplexity < 60 and topic == 'physics'"}
  rows: {kind: jsonl, path: rows.jsonl}
  ids: {kind: tokens, format: megatron, path: ids.bin, decontaminated: true}
  qa: {kind: synth, task: science_qa, from: web}
models: {teacher: {path: smollm2}}
synth: {science_qa: {model: teacher, verify: {votes: 5, agree: 4, thresholds: {grounded: 0.5}}}}
scores:
  perplexity: {model: smollm2, sources: [web, rows]}
  topic: {labels: [physics, chemistry], sources: [web], teacher: {model: teacher, sources: [web]}}
  quality: {positive: [rows], negative: [web]}
validation: {sequences: 8, sources: [web, rows]}
stages:
  - name: adapt
    token_budget: 30M
    mixture: {web: {weight: 4, topics: {physics: 2, rest: 1}}, group: {weight: 2, mixture: {qa: 1, ids: 1}}}
    replay: {share: 0.2, mixture: {temperature: 2, sources: [rows]}}
    order: {rows: {by: perplexity, keep: [0, 0.99]}}
    adapt: {rounds: 2, sources: [web], weights: {physics: 1}}
    learning_rate: {schedule: cosine}
  - {name: plain, token_budget: 30M, mixture: {rows: 1, qa: 1}, replay: {share: 0.1, mixture: {ids: 1}}}
  - {name: again, resample: {stage: adapt, fraction: 0.2}}
sweep: {stage: plain, vary: {kind: share, sources: replay, grid: [0.1, 0.2]}, tokens_per_run: 1M, targets: {rows: 1}}
train: {model: smollm2, learning_rate: 1.0e-3, schedule: wsd, decay: 0.1, instruct: {path: [chats.jsonl], schedule: wsd}}
exports: [{format: megatron}, {format: parquet, mode: premixed, content: tokens}]
retention:
  slices:
    general: {path: [held.txt, more.txt], split: blank_line, min_bytes: 20, max_bytes: 100}
    rows: {path: held.jsonl, field: [question, answer], stage: adapt}
    web: {source: web, topic: physics, kind: domain}
  tasks: [{template: arc, path: a.jsonl, name: arc}, {template: mine.yaml, path: b.jsonl}]
  least_gain: 0.1
  guard: {every: 1M, slices: [general, web], on_forgetting: warn, replay: [rows]}
"""


def spots_of(value: Any, spot: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([spot] if spot else []), *(found for key, each in inner for found in spots_of(each, (*spot, key)))]


@pytest.mark.parametrize("odd", [3, "x", [["x"]], {"a": ["x"]}, [3]], ids=str)
def test_no_value_at_any_spot_ends_the_check_in_a_traceback(odd: object) -> None:
    """Such as a list where a name is looked for in a set of names: it cannot be hashed."""
    whole = yaml.parse(WHOLE).value
    assert find(whole) == []
    spots = spots_of(whole)
    assert len(spots) > 150
    for spot in spots:
        tree = copy.deepcopy(whole)
        above = functools.reduce(lambda part, key: part[key], spot[:-1], tree)
        above[spot[-1]] = odd
        find(tree)


def test_a_schedule_that_is_a_list_is_told_by_line(tmp_path: Path) -> None:
    change = ("clean:\n", "train: {model: x, learning_rate: 1.0e-3, schedule: [wsd]}\nclean:\n")
    assert lines_of(tmp_path, change) == [
        "9: train.schedule: got ['wsd'], expected one of constant, wsd, cosine, infinite"
    ]


def test_rounds_without_end_are_refused_at_once(tmp_path: Path) -> None:
    [line] = lines_of(tmp_path, ("qa: 4}", "qa: 4}, adapt: {rounds: 1_000_000_000_000}"))[:1]
    assert line == "12: stages.0.adapt.rounds: got 1000000000000, expected 1000 or less"


def test_the_nearest_name_is_found_in_any_case() -> None:
    assert nearest("HTML", ["text", "html"]) == "html"
    assert nearest("zzz", ["text", "html"]) is None


def test_known_keys_follow_the_kind_of_a_source() -> None:
    tree = {"sources": {"a": {"kind": "text"}, "b": {}}}
    assert "columns" not in known_keys(("sources", "a"), tree)
    assert "columns" in known_keys(("sources", "b"), tree)
    assert known_keys(("sources",), tree) == []
    assert known_keys(("clean", "dedup", "near"), tree) == ["threshold", "ngram", "bands", "rows"]
