"""The guard's best model and the line that it is of: a resume and a new training keep no model that no line names."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from curricula.parallel import world
from curricula.retention.best import Best
from mixer.run import write_json

KEPT = {"step": 20, "gain": 0.3, "action": "best"}


def opened(folder: Path, lines: list[dict]) -> Best:
    (folder / "best").mkdir()
    (folder / "best/model.safetensors").write_bytes(b"weights")
    write_json(folder / "best.json", {"step": 20, "gain": 0.3})
    with world(device="cpu") as here:
        return Best(SimpleNamespace(folder=folder), lines, here)


def test_the_best_that_the_last_line_names_stays(tmp_path):
    lines = [{"step": 0, "gain": None, "action": "on"}, KEPT, {"step": 30, "gain": 0.1, "action": "warn"}]
    assert opened(tmp_path, lines).gain == 0.3
    assert (tmp_path / "best/model.safetensors").is_file()


def held(folder: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in folder.glob("best*/model.safetensors")}


def test_a_resume_between_two_best_models_finds_the_first_of_them_again(tmp_path, monkeypatch):
    """Checkpoint at 15; best at 10, 20, 30. What was best at 15 is that of 10, whatever came later."""
    told = []

    def export(folder, **_):
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_text(str(told[-1]))

    monkeypatch.setattr("curricula.checkpoint.export", export)
    monkeypatch.setattr("curricula.checkpoint.latest", lambda _: Path("step") if told[-1] > 15 else None)
    monkeypatch.setattr("curricula.checkpoint.read", lambda _: (SimpleNamespace(step=15), None))
    job, bench = SimpleNamespace(folder=tmp_path, method=None, base=None), SimpleNamespace(model=None)
    lines = []
    with world(device="cpu") as here:
        best = Best(job, lines, here)
        for step in (10, 20, 30):
            told.append(step)
            best.keep(bench, step=step, gain=step / 100)
            lines.append({"step": step, "gain": step / 100, "action": "best"})
        assert held(tmp_path) == {"best": "30", "best-before": "10"}
        assert Best(job, lines, here).gain == 0.3
        assert Best(job, lines[:1], here).gain == 0.1
        assert held(tmp_path) == {"best": "10"}
        assert Best(job, [], here).gain == 0.0
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lines", [[], [KEPT | {"action": "warn"}], [KEPT | {"step": 10, "gain": 0.2}]])
def test_a_best_of_no_line_or_of_a_later_step_goes_and_the_next_one_counts_anew(tmp_path, lines):
    assert opened(tmp_path, lines).gain == 0.0
    assert not list(tmp_path.iterdir())
