"""The sample of removed duplicates in a Run: who went, for whom, and how much of it the witness holds."""

import polars as pl
import pytest

from mixer.audit import audit
from mixer.run import read_json
from tests import toys
from tests.test_build import run_build


def unit(folder, texts):
    folder.mkdir()
    table = pl.DataFrame(
        {"id": [f"{folder.name}{i}" for i in range(len(texts))], "source": [folder.name] * len(texts), "text": texts}
    )
    table.write_parquet(folder / "documents.parquet")
    return folder


def test_a_pair_is_shown_with_its_containment_counted_anew(tmp_path):
    """The removed text has eight words, so four runs of five; the witness holds three of them."""
    units = [unit(tmp_path / "a", ["x", "a b c d e f g z"]), unit(tmp_path / "b", ["a b c d e f g h i j"])]
    removed = pl.DataFrame({"document": [1], "witness": [2], "step": ["near_dedup"], "containment": [0.75]})
    found = audit(removed, units, 5, 0)
    assert found["removed"] == {"near_dedup": 1}
    pair = found["pairs"][0]
    assert pair["contained"] == pytest.approx(3 / 4)
    assert (pair["removed"]["id"], pair["kept"]["id"]) == ("a1", "b0")
    assert pair["kept"]["text"] == "a b c d e f g h i j"


def test_at_most_so_many_pairs_of_each_step_are_shown(tmp_path):
    units = [unit(tmp_path / "a", [f"text {i}" for i in range(50)])]
    steps = ["near_dedup"] * 30 + ["exact_dedup"] * 10
    removed = pl.DataFrame(
        {"document": list(range(1, 41)), "witness": [0] * 40, "step": steps, "containment": [1.0] * 40}
    )
    found = audit(removed, units, 5, 7, most=12)
    assert found["removed"] == {"exact_dedup": 10, "near_dedup": 30}
    assert [pair["step"] for pair in found["pairs"]] == ["exact_dedup"] * 10 + ["near_dedup"] * 12
    assert found == audit(removed.sample(fraction=1.0, shuffle=True, seed=1), units, 5, 7, most=12)


def test_a_build_writes_it(tmp_path):
    folder = toys.corpus(tmp_path)
    built, _ = run_build(folder)
    found = read_json(folder / "run/dedup/audit.json")
    gone = sum(count for step, count in built.ledgers["web"].dropped.items() if "dedup" in step)
    assert sum(found["removed"].values()) == gone > 0
    assert all(pair["contained"] > 0.5 for pair in found["pairs"])
