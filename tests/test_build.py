"""`mixer build` end to end on a small corpus: conservation, budgets, skipping, and the same bytes come what may."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curricula.order import prefix_bound
from curricula.scheduler import Scheduler
from curricula.scores.score import open_score
from mixer.build import build
from mixer.errors import PlanError, SourceError
from mixer.recipe.file import load
from mixer.shard import Sequences, index_of
from tests import toys


@pytest.fixture
def folder(tmp_path):
    return toys.corpus(tmp_path)


def run_build(folder: Path, run: str = "run", workers: int = 1, **changes):
    """Build the toy recipe; returns what it made and what it said."""
    said: list[str] = []
    loaded = load(toys.recipe(folder, **changes))
    built = build(
        loaded,
        base=folder,
        run=folder / run,
        store=folder / "store",
        workers=workers,
        scheduler=Scheduler(),
        synthesize=toys.no_synthesis,
        open_score=open_score,
        say=said.append,
    )
    return built, said


def hashes(run: Path, *folders: str) -> dict[str, str]:
    """Relative name -> SHA-256 of every file below the folders of a Run."""
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in folders or ("documents", "dropped", "shards", "order", "realised", "plan.json")
        for path in sorted([run / name] if (run / name).is_file() else (run / name).rglob("*"))
        if path.is_file()
    }


def test_case_1_every_document_is_kept_or_dropped_with_its_reason(folder):
    built, _ = run_build(folder)
    assert {name: (led.read, led.kept, led.dropped, led.failed) for name, led in built.ledgers.items()} == {
        "web": (30, 28, {"exact_dedup": 2}, 0),
        "books": (6, 6, {}, 0),
        "pages": (8, 8, {}, 0),
    }
    dropped = pl.read_parquet(folder / "run" / "dropped" / "web" / "*.parquet")
    assert dropped.select("id", "step", "reason").rows() == [
        ("web.jsonl#28", "exact_dedup", "same text as web/web.jsonl#5"),
        ("web.jsonl#29", "exact_dedup", "same text as web/web.jsonl#5"),
    ]


def test_case_2_the_order_holds_the_plan_exactly_and_within_the_bound(folder):
    run_build(folder)
    plan = json.loads((folder / "run" / "plan.json").read_text())
    names = ["web", "books", "pages"]
    for stage in plan["stages"]:
        ordered = np.load(folder / "run" / "order" / f"{stage['name']}.npy")
        assert ordered.shape == (stage["token_budget"] // 64, 2)
        places = np.arange(1, len(ordered) + 1)
        for name, share in stage["sources"].items():
            taken = np.cumsum(ordered[:, 0] == names.index(name))
            assert taken[-1] == share["sequences"]
            assert np.abs(taken - places * share["sequences"] / len(ordered)).max() <= prefix_bound(3) + 1e-9


def test_case_3_no_sequence_repeats_before_its_source_is_used_up(folder):
    built, _ = run_build(folder)
    drawn = np.concatenate([np.load(folder / "run" / "order" / f"{s.name}.npy") for s in built.plan.stages])
    for number, name in enumerate(("web", "books", "pages")):
        taken = drawn[drawn[:, 0] == number, 1]
        available = built.plan.available[name]
        for first in range(0, len(taken), available):
            epoch = taken[first : first + available]
            assert len(set(epoch.tolist())) == len(epoch)


def test_case_4_a_sequence_holds_the_documents_its_spans_name(folder):
    run_build(folder)
    run = folder / "run"
    encoded = {}
    for name in ("web", "books", "pages"):
        texts = pl.read_parquet(run / "documents" / name / "*.parquet")["text"].to_list()
        encoded[name] = [[*text.encode(), 257] for text in texts]
        spans = pl.read_parquet(run / "shards" / name / "*.spans.parquet")
        sequences = Sequences(run / "shards" / name)
        covered = 0
        for sequence, offset, length, document, start in spans.iter_rows():
            ids = sequences[sequence][offset : offset + length]
            assert len(ids) == length
            assert (ids[-1] == 257) == (start + length == len(encoded[name][document]))
            covered += length
        assert covered == len(sequences) * 64
        index = index_of(run / "shards" / name)
        assert covered + index["left_out_tokens"] == sum(map(len, encoded[name]))


def test_a_second_build_does_nothing_and_says_so(folder):
    run_build(folder)
    before = hashes(folder / "run")
    _, said = run_build(folder)
    assert all(line.startswith("skip") for line in said)
    assert len(said) >= 3 + 1 + 1 + 6 + 3 + 1
    assert hashes(folder / "run") == before


def test_another_mixture_keeps_every_shard_and_says_why_the_order_is_redone(folder):
    run_build(folder)
    before = hashes(folder / "run", "documents", "shards")
    stages = [{"name": "adapt", "token_budget": 9600, "mixture": {"web": 1, "books": 1, "pages": 1}}]
    _, said = run_build(folder, stages=stages)
    redone = ["redo order: stages changed", "redo realised: orders changed"]
    assert [line for line in said if not line.startswith("skip")] == redone
    assert hashes(folder / "run", "documents", "shards") == before


def test_another_sequence_length_packs_again_and_cleans_nothing(folder):
    run_build(folder)
    _, said = run_build(folder, sequence_length=32)
    redone = [line for line in said if not line.startswith("skip")]
    assert redone[:3] == [f"redo shards {name}: sequence_length 64 -> 32" for name in ("web", "books", "pages")]
    assert redone[3].startswith("redo order")


def test_a_new_file_redoes_its_own_unit_and_no_other_source(folder):
    run_build(folder)
    (folder / "pages" / "99.html").write_text((folder / "pages" / "1.html").read_text().replace("Page 1", "Page 99"))
    built, said = run_build(folder)
    assert [line for line in said if "clean" in line] == [
        "skip clean web: nothing changed (1 units)",
        "skip clean books: nothing changed (1 units)",
        "redo clean pages: input changed (1 of 1 units)",
    ]
    assert built.ledgers["pages"].dropped == {"exact_dedup": 1}


def test_the_number_of_workers_changes_no_byte(folder):
    run_build(folder, "one", workers=1)
    run_build(folder, "two", workers=2)
    one = hashes(folder / "one")
    assert len(one) > 10
    assert hashes(folder / "two") == one


def test_adding_a_source_leaves_the_others_shards_and_draws_unchanged(folder):
    mixture = {"web": 1, "books": 1}
    sources = yaml_sources(folder)
    two = {name: sources[name] for name in ("web", "books")}
    run_build(folder, "two", sources=two, stages=[{"name": "s", "token_budget": 6400, "mixture": mixture}])
    both = {**mixture, "pages": 1}
    run_build(folder, "three", sources=sources, stages=[{"name": "s", "token_budget": 9600, "mixture": both}])
    assert hashes(folder / "two", "shards").items() <= hashes(folder / "three", "shards").items()
    small, large = (np.load(folder / run / "order" / "s.npy") for run in ("two", "three"))
    assert np.array_equal(small[small[:, 0] == 0, 1], large[large[:, 0] == 0, 1])


def yaml_sources(folder: Path) -> dict[str, object]:
    import yaml

    return yaml.safe_load(toys.recipe(folder).read_text())["sources"]


def test_unreadable_input_stops_the_build_and_is_named(folder):
    with (folder / "web.jsonl").open("a") as file:
        file.write('{"text": "cut off\n[]\n')
    with pytest.raises(SourceError) as caught:
        run_build(folder)
    text = str(caught.value)
    assert "source `web`: got 2 unreadable, expected none" in text
    assert "web.jsonl#30" in text
    assert "on_error: skip" in caught.value.hint


def test_unreadable_input_is_counted_when_the_recipe_says_skip(folder):
    with (folder / "web.jsonl").open("a") as file:
        file.write('{"text": "cut off\n[]\n')
    built, said = run_build(folder, on_error="skip")
    ledger = built.ledgers["web"]
    assert (ledger.read, ledger.kept, ledger.failed) == (32, 28, 2)
    assert any("web.jsonl#31" in line for line in said)


def test_ids_that_repeat_are_refused(folder):
    sources = yaml_sources(folder)
    sources["web"]["columns"] = {"id": "text", "text": "text"}
    with pytest.raises(SourceError, match="source `web`: got ids that repeat"):
        run_build(folder, sources=sources, clean={"dedup": {"exact": False, "near": None}})


def test_a_budget_beyond_max_epochs_fails_with_the_shards_kept(folder):
    stages = [{"name": "s", "token_budget": "10M", "mixture": {"web": 1, "books": 1, "pages": 1}}]
    with pytest.raises(PlanError, match="epochs, max_epochs is 4"):
        run_build(folder, stages=stages)
    _, said = run_build(folder)
    assert "skip shards web: nothing changed" in said


def test_filters_and_their_reasons_reach_the_ledger(folder):
    (folder / "books" / "short.txt").write_text("The end of the book.")
    built, _ = run_build(folder, clean={"filters": ["gopher_quality", "fineweb"]})
    assert built.ledgers["books"].dropped == {"gopher_quality: gopher_short_doc": 1}
    assert built.ledgers["books"].kept == 6


def test_the_manifest_holds_the_hash_of_every_file(folder):
    built, _ = run_build(folder)
    found = hashes(folder / "run", "documents", "dropped", "shards", "order", "realised", "dedup")
    assert {name: entry["sha256"] for name, entry in built.manifest["files"].items()} == found


def test_other_order_of_sources_is_another_order_file(folder):
    # The file counts sources by their place in the recipe.
    run_build(folder)
    sources = yaml_sources(folder)
    _, said = run_build(folder, sources=dict(reversed(sources.items())))
    assert "redo order: sources changed" in said
    plan = json.loads((folder / "run" / "plan.json").read_text())["stages"][0]
    ordered = np.load(folder / "run" / "order" / "adapt.npy")
    found = np.bincount(ordered[:, 0]).tolist()
    assert found == [plan["sources"][name]["sequences"] for name in reversed(sources)]


def test_a_stage_may_have_any_name(folder):
    for weight in (1, 2):
        stages = [{"name": "seed", "token_budget": 3200, "mixture": {"web": weight, "books": 1, "pages": 1}}]
        built, _ = run_build(folder, stages=stages)
        ordered = np.load(folder / "run" / "order" / "seed.npy")
        assert (ordered[:, 0] == 0).sum() == built.plan.stages[0].sources["web"].sequences


def test_a_build_that_fails_leaves_no_manifest(folder):
    run_build(folder)
    stages = [{"name": "s", "token_budget": "10M", "mixture": {"web": 1, "books": 1, "pages": 1}}]
    with pytest.raises(PlanError):
        run_build(folder, stages=stages)
    assert not (folder / "run" / "manifest.json").exists()


def test_a_source_that_left_the_recipe_leaves_the_run(folder):
    run_build(folder)
    sources = yaml_sources(folder)
    del sources["pages"]
    run_build(folder, sources=sources, stages=[{"name": "s", "token_budget": 3200, "mixture": {"web": 1, "books": 1}}])
    for kind in ("documents", "dropped", "shards"):
        assert sorted(path.name for path in (folder / "run" / kind).iterdir()) == ["books", "web"]


def test_a_run_may_lie_under_any_name(folder):
    built, _ = run_build(folder, "r[1]*?")
    assert built.ledgers["web"].kept == 28


def test_a_page_in_a_language_without_a_word_library_ends_no_build(folder):
    with (folder / "web.jsonl").open("a") as file:
        for text in ("ประเทศไทยเป็นประเทศที่ตั้งอยู่ในเอเชียตะวันออกเฉียงใต้", "日本語の文章です。", "한국어 문장입니다."):
            file.write(json.dumps({"text": text}) + "\n")
    sources = yaml_sources(folder)
    del sources["web"]["language"]
    built, _ = run_build(folder, sources=sources, clean={"filters": ["gopher_repetition", "gopher_quality"]})
    assert built.ledgers["web"].read == 33


def test_documents_that_do_not_add_up_fail_the_build(folder):
    from mixer.ledger import conserve

    run_build(folder)
    run = folder / "run"
    cleaned = [path for path in (run / ".cache" / "clean").iterdir() if path.is_dir()]
    with pytest.raises(SourceError, match=r"source `web`: got 28 kept and 2 dropped, expected 44 in all"):
        conserve(run, "web", cleaned)


def files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_and_built_again_gives_the_same_bytes(folder, seed):
    path = toys.recipe(folder)
    begin = [sys.executable, "-m", "mixer.cli", "build", str(path), "--workers", "2", "--run"]
    command = [*begin, str(folder / "hit")]
    rng, landed = random.Random(seed), 0
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([*begin, str(folder / "calm")], env=env, check=True, capture_output=True)
    most = int(0.8 * files(folder / "calm"))
    for _ in range(2):
        # By what is written and not by a clock: how fast a build is depends on what else runs.
        until = rng.randint(files(folder / "hit"), max(most, files(folder / "hit")))
        process = subprocess.Popen(
            command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and files(folder / "hit") < until:
            time.sleep(0.005)
        landed += process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert landed
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert hashes(folder / "hit") == hashes(folder / "calm")
