"""One row per kind of mistake in stages: what is changed, and the exact line that comes back."""

from pathlib import Path

import pytest

from mixer.errors import RecipeError
from mixer.recipe import file as recipe_file

RECIPE = """\
name: science
tokenizer: gpt2
scores:
  perplexity: {model: smollm2, sources: [web]}
  topic: {labels: [physics, biology], sources: [web]}
sources:
  web: {kind: html, path: "pages/*.html"}
  books: {kind: text, path: "*.txt"}
  qa: {kind: jsonl, path: "qa.jsonl"}
stages:
  - name: adapt
    token_budget: 30M
    mixture: {en: {weight: 8, mixture: {web: {weight: 3, topics: {physics: 2, rest: 1}}, books: 1}}, qa: {from: 0, to: 2}}
    order: {web: {by: perplexity, keep: [0, 0.99]}}
    adapt: {rounds: 3, weights: {physics: 2}}
  - {name: again, resample: {stage: adapt, fraction: 0.5}}
  - name: last
    token_budget: 10M
    mixture: natural
    order: {web: {by: perplexity, buckets: 10, keep: [0, 0.99]}}
validation: {sources: [web]}
"""


def lines_of(folder: Path, *changes: tuple[str, str]) -> list[str]:
    text = RECIPE
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        recipe_file.load(path)
    return str(caught.value).replace(f"{path}:", "").splitlines()


def test_1_a_good_recipe_has_no_problems_and_comes_back_from_its_dump(tmp_path):
    (tmp_path / "x.yaml").write_text(RECIPE)
    loaded = recipe_file.load(tmp_path / "x.yaml")
    (tmp_path / "y.yaml").write_text(recipe_file.dump(loaded))
    assert recipe_file.load(tmp_path / "y.yaml") == loaded


LAST = "    order: {web: {by: perplexity, buckets: 10, keep: [0, 0.99]}}"
ROWS = {
    "unknown source in a group": ("books: 1}}", "boks: 1}}", "13: stages.0.mixture.en.mixture: unknown source 'boks'; did you mean `books`?"),
    "a source twice": ("qa: {from: 0, to: 2}", "web: 1", "13: stages.0.mixture: got source `web` twice in one stage, expected it once"),
    "a preset inside that holds all": ("mixture: natural", "mixture: {all: {weight: 1, mixture: natural}, web: 1}", "19: stages.2.mixture: got source `web` twice in one stage"),
    "misspelt key of a part": ("mixture: natural", "mixture: {web: {weight: 1, topic: {physics: 1}}}", "19: stages.2.mixture.web: unknown key 'topic'; did you mean `topics`?"),
    "misspelt key of a preset": ("mixture: natural", "mixture: {temperature: 2, source: [web]}", "19: stages.2.mixture: unknown key 'source'; did you mean `sources`?"),
    "two presets": ("mixture: natural", "mixture: {temperature: 2, unimax: 4}", "19: stages.2.mixture: got {'temperature': 2, 'unimax': 4}, expected one of `temperature` and `unimax`"),
    "unknown preset": ("mixture: natural", "mixture: naturl", "19: stages.2.mixture: got 'naturl', expected a mapping"),
    "a ramp of two kinds": ("{from: 0, to: 2}", "{from: 0, to: 2, at: 0.5, between: [0, 1]}", "13: stages.0.mixture.qa: got {'from': 0, 'to': 2, 'at': 0.5, 'between': [0, 1]}, expected either `at` or `between`"),
    "a ramp backwards": ("{from: 0, to: 2}", "{from: 0, to: 2, between: [1, 0.5]}", "13: stages.0.mixture.qa: got {'from': 0, 'to': 2, 'between': [1, 0.5]}, expected `between` with its first part"),
    "a group and topics": ("books: 1}}", "books: 1}, topics: {a: 1}}", "13: stages.0.mixture.en: got {'weight': 8,"),
    "unknown topic": ("mixture: natural", "mixture: {web: {weight: 1, topics: {phisics: 1, rest: 1}}}", "19: stages.2.mixture.web.topics: unknown topic 'phisics'; did you mean `physics`?"),
    "topics without their score": ("  topic: {labels: [physics, biology], sources: [web]}\n", "", "12: stages.0.mixture.en.mixture.web.topics: has no effect without the score `topic`"),
    "topics of a source that is not labelled": ("biology], sources: [web]}", "biology], sources: [qa]}", "13: stages.0.mixture.en.mixture.web.topics: has no effect: scores.topic.sources does not name `web`"),
    "other topics in another stage": ("mixture: natural", "mixture: {web: {weight: 1, topics: {biology: 1}}}", "19: stages.2.mixture.web.topics: got other topics of `web` than stages.0, expected physics, rest"),
    "order of a source that is not drawn": ("mixture: natural", "mixture: {qa: 1}", "20: stages.2.order: unknown source 'web'; known sources of this stage: qa"),
    "order by a label": (LAST, "    order: {books: {by: topic}}", "20: stages.2.order.books.by: got 'topic', expected a number of a score that is taken: perplexity, perplexity.loss"),
    "order by a score of other sources": (LAST, "    order: {books: {by: perplexity}}", "20: stages.2.order.books.by: got 'perplexity', expected a score of this source: scores.perplexity.sources does not name `books`"),
    "buckets and pacing": ("buckets: 10", "buckets: 10, pacing: {}", "20: stages.2.order.web: got {'by': 'perplexity', 'buckets': 10, 'pacing': {}, 'ke"),
    "other quantiles in another stage": ("buckets: 10, keep: [0, 0.99]", "buckets: 10, keep: [0, 0.9]", "20: stages.2.order.web.keep: got [0, 0.9], expected [0, 0.99] by the same score, as in stages.0"),
    "quantiles backwards": ("buckets: 10, keep: [0, 0.99]", "keep: [0.9, 0.1]", "20: stages.2.order.web: got {'by': 'perplexity', 'keep': [0.9, 0.1]}, expected `keep` with its first quantile"),
    "adapt without topics": ("web: {weight: 3, topics: {physics: 2, rest: 1}}", "web: 3", "15: stages.0.adapt: has no effect: no source of this stage is mixed by `topics`"),
    "adapt of a source without topics": ("adapt: {rounds: 3,", "adapt: {rounds: 3, sources: [books],", "15: stages.0.adapt.sources.0: unknown source 'books'; known sources that this stage mixes by topic: web"),
    "a weight of no topic": ("weights: {physics: 2}", "weights: {physic: 2}", "15: stages.0.adapt.weights: unknown topic 'physic'; did you mean `physics`?"),
    "a ramp of a topic that rounds set": ("physics: 2, rest: 1}}", "physics: {from: 1, to: 9}, rest: 1}}", "13: stages.0.mixture.en.mixture.web.topics.physics: got {'from': 1, 'to': 9}, expected a number: `adapt` sets it"),
    "a temperature of a control": ("fraction: 0.5}}", "by: uniform, temperature: 0.1}}", "16: stages.1.resample: got {'stage': 'adapt', 'by': 'uniform', 'temperature': 0.1}, expected no `temperature` with `by: uniform`"),
    "a round's name": ("name: last", "name: adapt-2", "17: stages.2.name: got 'adapt-2', expected another name: stages.0 has it"),
    "again of a later stage": ("resample: {stage: adapt,", "resample: {stage: last,", "16: stages.1.resample.stage: unknown earlier stage 'last'; known earlier stages with a mixture: adapt"),
    "again with a mixture": ("fraction: 0.5}}", "fraction: 0.5}, mixture: {web: 1}}", "16: stages.1: unknown key 'mixture'; known keys: name, resample"),
    "unknown source of validation": ("validation: {sources: [web]}", "validation: {sources: [wbe]}", "21: validation.sources.0: unknown source 'wbe'; did you mean `web`?"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), ROWS.values(), ids=ROWS)
def test_one_mistake_gives_one_line(tmp_path, before, after, expected):
    [line] = lines_of(tmp_path, (before, after))
    assert line.startswith(expected)


def test_a_source_that_only_a_group_or_replay_uses_is_used(tmp_path):
    changes = ("mixture: natural", "mixture: {web: 1}"), (", qa: {from: 0, to: 2}", "")
    assert lines_of(tmp_path, *changes) == ["9: sources.qa: source `qa` is in no stage's mixture"]
    text = (
        RECIPE.replace(*changes[0])
        .replace(*changes[1])
        .replace("    adapt: {rounds", "    replay: {share: 0.1, mixture: {qa: 1}}\n    adapt: {rounds")
    )
    (tmp_path / "x.yaml").write_text(text)
    assert recipe_file.load(tmp_path / "x.yaml").mixed_stages[0].replay


def test_a_source_may_not_have_the_name_of_a_preset(tmp_path):
    found = lines_of(tmp_path, ("  qa: {kind", "  unimax: {kind"), ("qa: {from: 0, to: 2}", "unimax: 1"))
    assert any("got 'unimax', expected another name: a mixture reads it as a preset" in line for line in found)
