"""What only the whole recipe shows to be wrong with scores and filters, each told with its line."""

import pytest

from mixer.errors import RecipeError
from mixer.recipe.file import load
from tests import toys

TOPIC = {"topic": {"labels": {"physics": "waves", "biology": "cells"}}}
PERPLEXITY = {"perplexity": {"model": "tiny", "sources": ["books"]}}
QA = {
    "sources": {**toys.sources(), "qa": {"kind": "synth", "task": "science_qa", "from": "web"}},
    "models": {"t": {"endpoint": "http://127.0.0.1:1", "name": "x", "revision": "1"}},
    "synth": {"science_qa": {"model": "t"}},
    "stages": [{"name": "only", "token_budget": 640, "mixture": {"web": 1, "books": 1, "pages": 1, "qa": 1}}],
}
READ = "got 'qa', expected a source that is read, not one that is written"
LABELS = "expected at least two labels, none of them `unknown`"


def told(folder, **changes):
    with pytest.raises(RecipeError) as caught:
        load(toys.recipe(folder, **changes))
    return str(caught.value)


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ({"topic": {"labels": ["physics"]}}, f"scores.topic.labels: got physics, {LABELS}"),
        ({"topic": {"labels": []}}, f"scores.topic.labels: got none, {LABELS}"),
        ({"topic": {"labels": {}}}, f"scores.topic.labels: got none, {LABELS}"),
        ({"topic": {"labels": ["unknown", "x"]}}, f"scores.topic.labels: got unknown, x, {LABELS}"),
        ({"topic": {"labels": ["a", "b", "a"]}}, "scores.topic.labels: got 'a' twice, expected each label once"),
        (
            {"quality": {"positive": ["web", "books"], "negative": ["books"]}},
            "scores.quality.negative.0: got 'books', which `positive` names too, expected another source",
        ),
        ({"perplexity": {"model": "tiny", "sources": []}}, "scores.perplexity.sources: "),
        ({"text": {"sources": ["web", "web"]}}, "scores.text.sources.1: got 'web' twice, expected each once"),
        (
            {"quality": {"positive": ["web", "web"], "negative": ["books"]}},
            "scores.quality.positive.1: got 'web' twice, expected each once",
        ),
    ],
)
def test_scores_that_say_nothing_are_told_with_their_line(tmp_path, scores, problem):
    found = told(tmp_path, scores=scores)
    assert problem in found
    assert "toy.yaml:" in found.split(problem)[0].splitlines()[-1]


@pytest.mark.parametrize(
    ("scores", "spot"),
    [
        ({"quality": {"positive": ["qa"], "negative": ["web"]}}, "scores.quality.positive.0"),
        ({"quality": {"positive": ["books"], "negative": ["web", "qa"]}}, "scores.quality.negative.1"),
        ({"topic": {"seeds": {"sources": ["qa"], "field": "subject"}}}, "scores.topic.seeds.sources.0"),
        ({"topic": {"teacher": {"model": "t", "sources": ["qa"]}}}, "scores.topic.teacher.sources.0"),
    ],
)
def test_what_is_written_later_teaches_no_score(tmp_path, scores, spot):
    assert f"{spot}: {READ}" in told(tmp_path, scores=scores, **QA)
    load(toys.recipe(tmp_path, scores={"text": {"sources": ["qa"]}}, **QA))


@pytest.mark.parametrize(
    ("scores", "where", "problem"),
    [
        (TOPIC, "topic == 'phsyics'", "got `'phsyics'`, expected `'physics'`, at character 10"),
        (TOPIC, "'phsyics' == topic", "got `topic`, expected `'physics'`"),
        (TOPIC, "topic in ['biology', 'art']", "got `'art'`, expected one of 'physics', 'biology', 'unknown'"),
        ({"topic": {}}, "topic == 'Physics'", "expected `'physics'`"),
        (TOPIC, "topic == physics", "got `physics`, expected text in quotes, `'physics'`, at character 10"),
        (
            PERPLEXITY,
            "perplexity < 60",
            "expected a score of this source: scores.perplexity.sources does not name `web`",
        ),
        (TOPIC, "perplexity.loss < 3", "add `scores: {perplexity: ...}` to the recipe"),
    ],
)
def test_a_filter_that_nothing_passes_is_told(tmp_path, scores, where, problem):
    assert problem in told(tmp_path, scores=scores, sources=toys.sources(web={"where": where}))


@pytest.mark.parametrize("where", ["topic = 'education'", "topic == 'physics' andd"])
def test_a_score_is_offered_only_where_it_was_asked_for(tmp_path, where):
    found = told(tmp_path, scores=TOPIC, sources=toys.sources(web={"where": where}))
    assert "to the recipe" not in found.split("sources.web.where")[1]


@pytest.mark.parametrize("where", ["topic == 'unknown'", "topic != 'physics'", "topic in ('biology', 'physics')"])
def test_labels_that_there_are_pass(tmp_path, where):
    load(toys.recipe(tmp_path, scores=TOPIC, sources=toys.sources(web={"where": where})))


def test_labels_of_seeds_are_not_known_beforehand(tmp_path):
    web = {"where": "topic == 'anything'", "columns": {"keep": ["subject"]}}
    scores = {"topic": {"seeds": {"sources": ["web"], "field": "subject"}}}
    load(toys.recipe(tmp_path, scores=scores, sources=toys.sources(web=web)))
