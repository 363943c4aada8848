"""A curriculum end to end: packed by score and topic, ordered, held out, adapted over rounds, trained on again."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from curricula import rounds
from curricula.order import prefix_bound
from mixer.cli import app
from mixer.errors import RecipeError, SourceError
from mixer.ordering import scores_of
from mixer.realised import asked_by
from mixer.shard import index_of
from tests import toys
from tests.test_build import hashes, run_build

FIELDS = {
    "biology": [
        "cells",
        "genes",
        "leaf",
        "seed",
        "plants",
        "animals",
        "enzymes",
        "evolution",
        "species",
        "bacteria",
        "proteins",
        "membrane",
    ],
    "astronomy": [
        "stars",
        "galaxy",
        "planet",
        "orbit",
        "telescope",
        "nebula",
        "comet",
        "moon",
        "eclipse",
        "cosmology",
        "redshift",
        "supernova",
    ],
}
STAGES = [
    {
        "name": "learn",
        "token_budget": 64 * 60,
        "mixture": {"web": {"weight": 3, "topics": {"biology": 1, "rest": 1}}, "books": {"from": 3, "to": 1}},
        "order": {"web": {"by": "text.words"}},
        "adapt": {"rounds": 3},
    },
    {"name": "again", "resample": {"stage": "learn", "fraction": 0.5, "temperature": 0.1}},
    {"name": "last", "token_budget": 64 * 1200, "mixture": {"web": 1, "books": 1}},
]
MORE = {
    "stages": STAGES,
    "max_epochs": 8,
    "scores": {"text": {}, "topic": {"labels": list(FIELDS), "sources": ["web"]}},
    "validation": {"sequences": 2, "sources": ["web"]},
    "clean": {"dedup": {"near": None}},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """120 documents about cells or stars, of 10 to 60 words, and some without a topic."""
    folder = toys.corpus(tmp_path_factory.mktemp("corpus"))
    rng, rows = random.Random(5), []
    for number in range(120):
        words = FIELDS["biology" if number % 2 else "astronomy"]
        rows.append({"text": " ".join(rng.choice(words) for _ in range(rng.randint(10, 60))) + f" {number}"})
    (folder / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


SOURCES = {
    "web": {"kind": "jsonl", "path": "web.jsonl", "language": "en"},
    "books": {"kind": "text", "path": "books/*.txt", "language": "en"},
}


def build_in(corpus: Path, run: str, **changes):
    return run_build(corpus, run, **(MORE | {"sources": SOURCES} | changes))


@pytest.fixture(scope="module")
def built(corpus):
    made, said = build_in(corpus, "built")
    return corpus / "built", made, said


@pytest.fixture(scope="module")
def copied(corpus, built):
    """Makes a copy of the Run under another name, so that only what a test changes is built again."""

    def copy(name: str, **changes):
        shutil.copytree(built[0], corpus / name)
        return build_in(corpus, name, **changes)

    return copy


def order_of(run: Path, stage: str) -> np.ndarray:
    return np.load(run / "order" / f"{stage}.npy")


def test_case_1_a_sequence_holds_one_topic_and_what_is_held_out_is_never_drawn(built):
    run, _, _ = built
    parts = index_of(run / "shards/web")["parts"]
    assert [(part["topic"], part["held_out"]) for part in parts] == [
        ("biology", False),
        ("biology", True),
        ("rest", False),
        ("rest", True),
    ]
    topics = dict(pl.read_parquet(run / "scores/topic/web.parquet").select("id", "value").iter_rows())
    ids = pl.read_parquet(run / "documents/web/*.parquet")["id"].to_list()
    spans = pl.read_parquet(run / "shards/web/*.spans.parquet")
    seen = {}
    for part in parts:
        last = part["first_sequence"] + part["sequences"] - 1
        inside = spans.filter(pl.col("sequence").is_between(part["first_sequence"], last))
        names = {ids[row] for row in inside["document"]}
        assert {topics[name] for name in names} == {"biology" if part["topic"] == "biology" else "astronomy"}
        seen[part["topic"], part["held_out"]] = names
    assert not seen["biology", False] & seen["biology", True]
    drawn = np.concatenate([np.load(path) for path in (run / "order").glob("*.npy")])
    drawn = set(drawn[drawn[:, 0] == 0, 1].tolist())
    held = [part for part in parts if part["held_out"]]
    assert held
    for part in held:
        assert not drawn & set(range(part["first_sequence"], part["first_sequence"] + part["sequences"]))


def test_case_2_a_source_that_is_ordered_by_a_score_is_packed_in_its_order(built):
    run, made, _ = built
    scores = scores_of(run, "web", "text.words")
    for part in index_of(run / "shards/web")["parts"]:
        if not part["held_out"]:
            own = scores[part["first_sequence"] : part["first_sequence"] + part["sequences"]]
            assert len(own) > 5
            assert (np.diff(own) >= -1e-9).all()
    assert {"web/biology", "web/rest", "books"} == set(made.plan.available)


def test_case_3_a_stage_takes_what_it_draws_from_easy_to_hard_within_each_pass(built):
    run, made, _ = built
    stage, scores, rows = made.plan.stages[0], scores_of(run, "web", "text.words"), order_of(run, "learn-1")
    for part in index_of(run / "shards/web")["parts"]:
        first, last = part["first_sequence"], part["first_sequence"] + part["sequences"]
        own = rows[(rows[:, 0] == 0) & (rows[:, 1] >= first) & (rows[:, 1] < last), 1]
        if not part["held_out"]:
            assert len(own) == stage.sources[f"web/{part['topic']}"].sequences > 3
            assert (np.diff(scores[own]) >= -1e-9).all()


def test_case_4_shares_follow_the_ramp_at_every_prefix(built):
    run, made, _ = built
    for stage in made.plan.stages[:3]:
        rows = order_of(run, stage.name)
        books = np.cumsum(rows[:, 0] == 1)
        asked = np.array([asked_by(stage, "books", place) for place in range(1, len(rows) + 1)])
        assert np.abs(books - asked).max() <= prefix_bound(3) + 1e-9
    counts = [stage.sources["books"].sequences for stage in made.plan.stages[:3]]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]


def test_case_5_what_the_order_came_to_is_stored_and_drawn(built):
    run, made, _ = built
    table = pl.read_parquet(run / "realised/windows.parquet")
    assert set(table["stage"]) == {"learn-1", "learn-2", "learn-3", "last"}
    words = table.filter(
        (pl.col("stage") == "learn-1") & (pl.col("score") == "text.words") & (pl.col("pool") == "web/rest")
    )
    means = words.drop_nulls("mean")["mean"].to_list()
    assert len(means) > 3
    assert means == sorted(means)
    counts = (
        table.filter(pl.col("stage") == "last").unique(["window", "pool"]).group_by("pool").agg(pl.col("count").sum())
    )
    assert dict(counts.iter_rows()) == {n: s.sequences for n, s in made.plan.stages[-1].sources.items()}
    assert (run / "realised/learn-1.svg").read_text().count("web/biology") >= 1


def test_case_6_a_stage_that_waits_for_losses_says_so_and_a_control_does_not(corpus, built, copied):
    run, _, said = built
    assert not (run / "order/again.npy").exists()
    assert "stage `again` waits for the losses of `learn`: train it, then mixer adapt" in said
    stages = [STAGES[0], STAGES[1] | {"resample": {"stage": "learn", "by": "uniform"}}]
    made, _ = copied("control", stages=stages)
    rows = order_of(corpus / "control", "again")
    assert len(rows) == made.plan.stages[-1].sequences
    earlier = np.concatenate([order_of(corpus / "control", f"learn-{n}") for n in (1, 2, 3)])
    assert {tuple(row) for row in rows.tolist()} <= {tuple(row) for row in earlier.tolist()}


def test_case_7_rounds_adapt_and_leave_what_was_trained_on_as_it_is(corpus, copied):
    copied("adapted")
    run = corpus / "adapted"
    before = {name: order_of(run, name) for name in ("learn-1", "learn-2", "learn-3", "last")}
    shards = hashes(run, "shards")
    (corpus / "0.json").write_text('{"web/biology": 2.0, "web/rest": 3.0}')
    (corpus / "1.json").write_text('{"web": {"biology": 2.1, "rest": 2.7}}')
    done = CliRunner().invoke(
        app, ["adapt", str(run), "--before", str(corpus / "0.json"), "--after", str(corpus / "1.json"), "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    # Changes +0.1 and -0.3: factors 1.25 and 0.25, the latter clipped to 0.5; shares 1/2, 1/2 -> 0.714, 0.286.
    assert told["round"] == "learn-2"
    assert [round(topic["share_now"], 3) for topic in told["topics"]] == [0.714, 0.286]
    after = {name: order_of(run, name) for name in before}
    assert np.array_equal(before["learn-1"], after["learn-1"])
    assert not np.array_equal(before["learn-2"], after["learn-2"])
    plan = json.loads((run / "plan.json").read_text())
    for stage in plan["stages"][1:3]:
        web = {name: share["sequences"] for name, share in stage["sources"].items() if name != "books"}
        assert web["web/biology"] / sum(web.values()) == pytest.approx(0.714, abs=0.07)
    assert hashes(run, "shards") == shards
    assert (
        json.loads((run / "manifest.json").read_text())["files"]["order/learn-2.npy"]["sha256"]
        in hashes(run, "order").values()
    )
    rebuilt, _ = build_in(corpus, "adapted")
    assert np.array_equal(order_of(run, "learn-2"), after["learn-2"])
    nothing_repeats_before_exhaustion(run, rebuilt.plan)


def nothing_repeats_before_exhaustion(run: Path, plan) -> None:
    """Over all rounds and stages, each pool's draws are passes without repeats: cursors go on, whatever the weights."""
    parts = {part["topic"]: part for part in index_of(run / "shards/web")["parts"] if not part["held_out"]}
    rows = np.concatenate([order_of(run, stage.name) for stage in plan.stages if stage.resample is None])
    checked = 0
    for topic, part in parts.items():
        first, size = part["first_sequence"], plan.available[f"web/{topic}"]
        own = rows[(rows[:, 0] == 0) & (rows[:, 1] >= first) & (rows[:, 1] < first + size), 1]
        for begin in range(0, len(own), size):
            passed = own[begin : begin + size]
            assert len(set(passed.tolist())) == len(passed)
            checked += 1
    assert checked > 2


def test_case_8_losses_order_the_stage_that_waits(corpus, copied):
    made, _ = copied("losses")
    run, folder = corpus / "losses", corpus / "npy"
    folder.mkdir()
    for stage in made.plan.stages[:3]:
        np.save(folder / f"{stage.name}.npy", np.linspace(1, 2, stage.sequences, dtype=np.float32))
    assert rounds.resample(run, folder, say=lambda _: None) == ["again"]
    rows = order_of(run, "again")
    assert len(rows) == made.plan.stages[3].sequences
    with pytest.raises(RecipeError, match="got no stage that waits for losses"):
        rounds.resample(run, folder, only="last", say=lambda _: None)
    np.save(folder / "learn-2.npy", np.full(made.plan.stages[1].sequences, np.nan))
    with pytest.raises(SourceError, match=r"got 0 numbers in the shape \(20,\), expected 20, one a place"):
        rounds.resample(run, folder, say=lambda _: None)
    (folder / "learn-2.npy").unlink()
    with pytest.raises(SourceError, match="expected the losses of stage `learn-2`"):
        rounds.resample(run, folder, say=lambda _: None)


def test_another_order_packs_this_source_anew_and_no_other(corpus, copied):
    copied("repack")
    before = hashes(corpus / "repack", "shards")
    _, said = build_in(corpus, "repack", stages=[STAGES[0] | {"order": {}}, *STAGES[1:]])
    after = hashes(corpus / "repack", "shards")
    assert {name for name in before if before[name] != after.get(name)} <= {
        n for n in before if n.startswith("shards/web/")
    }
    assert before != after
    assert "skip shards books: nothing changed" in said


def test_rounds_of_another_plan_are_set_aside_not_applied(corpus, copied):
    copied("aside")
    run, losses = corpus / "aside", {"web/biology": 2.0, "web/rest": 3.0}
    rounds.adapt(run, losses, losses | {"web/rest": 4.0}, method="by hand", say=lambda _: None)
    stages = [STAGES[0] | {"token_budget": 64 * 90}, *STAGES[1:]]
    made, said = build_in(corpus, "aside", stages=stages)
    assert any("found for another plan; set aside as history-" in line for line in said)
    assert made.plan.stages[1].sources["web/rest"].fraction == pytest.approx(
        made.plan.stages[1].sources["web/biology"].fraction
    )


def test_adapt_names_the_topic_that_lacks_a_loss_and_says_when_no_round_is_left(corpus, copied):
    copied("lacks", stages=[STAGES[0] | {"adapt": {"rounds": 2}}])
    run, losses = corpus / "lacks", {"web/biology": 2.0}
    with pytest.raises(RecipeError, match="got no loss of web/rest, expected one of each topic"):
        rounds.adapt(run, losses, losses, method="by hand", say=lambda _: None)
    full = losses | {"web/rest": 1.0}
    rounds.adapt(run, full, full, method="by hand", say=lambda _: None)
    with pytest.raises(RecipeError, match="got no round that is still to be planned"):
        rounds.adapt(run, full, full, method="by hand", say=lambda _: None)
    with pytest.raises(RecipeError, match="got no stage that waits for losses"):
        rounds.resample(run, corpus, say=lambda _: None)


def test_losses_are_read_by_source_and_topic_or_refused(tmp_path):
    path = tmp_path / "l.json"
    path.write_text('{"physics": 2, "biology": 1.5}')
    assert rounds.read_losses(path, ["web"]) == {"web/physics": 2.0, "web/biology": 1.5}
    path.write_text("[1, 2]")
    with pytest.raises(RecipeError, match="expected a JSON object of losses by `source/topic`"):
        rounds.read_losses(path, ["web"])
