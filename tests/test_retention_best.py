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


@pytest.mark.parametrize("lines", [[], [KEPT | {"action": "warn"}], [KEPT | {"step": 10, "gain": 0.2}]])
def test_a_best_of_no_line_or_of_a_later_step_goes_and_the_next_one_counts_anew(tmp_path, lines):
    assert opened(tmp_path, lines).gain == 0.0
    assert not list(tmp_path.iterdir())
