"""The papers' recipes plan offline, to the papers' own numbers."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixer.cli import app
from mixer.shipped import folder

PAPERS = ["llama3-syne", "llama-pro", "me-llama", "pangu-pro", "replay-basics"]


def planned(name: str, *options: str) -> dict:
    done = CliRunner().invoke(app, ["plan", name, "--json", *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No Run of ours, and no hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


def billions(plan: dict, stage: int) -> dict[str, float]:
    return {name: share["tokens"] / 1e9 for name, share in plan["stages"][stage]["sources"].items()}


SYNE = {
    "web": (12.950, 29.600, 0.5250, 2.1000),
    "encyclopedia": (0.925, 3.700, 0.0375, 0.2625),
    "book": (3.700, 11.100, 0.1500, 0.7875),
    "qa": (0.925, 3.700, 0.0375, 0.2625),
    "paper": (0, 7.400, 0, 0.5250),
    "math": (0, 7.400, 0, 0.5250),
    "code": (0, 11.100, 0, 0.7875),
    "synthetic": (0, 0, 0, 1.5),
}
"""Stage I zh, en, stage II zh, en: volumes in billions of tokens, as the paper's repository gives their shares."""


def test_case_1_llama_3_syne_is_its_table_within_one_sequence():
    plan = planned("llama3-syne")
    one, two = billions(plan, 0), billions(plan, 1)
    sequence, seen = 8192 / 1e9, 0
    for name, (zh_one, en_one, zh_two, en_two) in SYNE.items():
        for found, expected in (
            (one.get(f"{name}_zh", 0), zh_one),
            (one.get(name, 0), en_one),
            (two.get(f"{name}_zh", 0), zh_two),
            (two.get(name, 0), en_two),
        ):
            assert abs(found - expected) <= sequence
            seen += expected > 0
    assert seen == 11 + 12
    assert sum(one.values()) + sum(two.values()) == pytest.approx(100, abs=2 * sequence)
    assert one["web"] + one["web_zh"] + two["web"] + two["web_zh"] == pytest.approx(45.175, abs=4 * sequence)


def test_case_2_me_llama_is_15_to_1_to_4():
    found = billions(planned("me-llama"), 0)
    assert [round(found[name], 2) for name in ("papers", "clinical", "general")] == [96.75, 6.45, 25.80]


def test_case_3_llama_pro_takes_python_one_and_a_half_times():
    found = billions(planned("llama-pro"), 0)
    assert sum(found.values()) == pytest.approx(15_900 * 1024 * 4096 / 1e9, abs=1e-5)
    assert found["python"] / found["web"] == pytest.approx(1.5 * 22 / 15, abs=1e-6)


def test_case_4_pangu_pro_trains_half_of_its_first_round_again():
    one, two = planned("pangu-pro")["stages"]
    assert two["sequences"] == one["sequences"] // 2
    assert two["resample"] == "first"


def test_case_5_replay_is_five_percent_of_every_stage():
    for share in (0.05, 0.25):
        found = planned("replay-basics", "--set", f"stages.new.replay.share={share}")
        assert found["stages"]
        for number in range(len(found["stages"])):
            own = billions(found, number)
            assert own["old"] / sum(own.values()) == pytest.approx(share, abs=1e-7)


def test_declared_sizes_alone_tell_no_time():
    done = CliRunner().invoke(app, ["plan", "me-llama"])
    assert done.exit_code == 0, done.output
    assert "disk: about " in done.stdout
    assert "time: about" not in done.stdout


@pytest.mark.parametrize("name", PAPERS)
def test_each_opens_with_its_command_and_states_its_cost(name):
    lines = (folder() / f"{name}.yaml").read_text("utf-8").splitlines()
    assert lines[0] == f"# mixer plan {name}"
    assert any(line.startswith("# Cost: ") for line in lines)
    assert "arXiv" in lines[1]


def test_every_shipped_paper_is_tested_here():
    assert {path.stem for path in Path(folder()).glob("*.yaml")} == {*PAPERS, "quickstart"}
