"""Exports as the trainers' own libraries read them: token by token, blends count by count.

Needs interpreters that have them, which no set-up of ours installs: MIXER_VERIFY_PYTHONS, separated by colons. See
docs/exports.md for two venvs that have all of them.
"""

import os
import subprocess

import pytest

from mixer.exports import realised, theirs
from mixer.exports.asked import interpreter_for
from mixer.exports.export import export
from mixer.exports.verify import verify
from mixer.recipe.exports import Export
from tests import toy_run

NO_BLEND = ("arrow", "blended")
PYTHONS = [path for path in os.environ.get("MIXER_VERIFY_PYTHONS", "").split(":") if path]

MODES = [(name, mode) for name in theirs.LIBRARIES for mode in ("premixed", "blended") if (name, mode) != NO_BLEND]


def interpreter_with(name: str) -> str:
    found = interpreter_for(name, PYTHONS)
    if found is None:
        pytest.skip(f"{theirs.LIBRARIES[name][0]} NOT CHECKED: no interpreter in MIXER_VERIFY_PYTHONS has it")
    return found


@pytest.mark.parametrize("packing", ["concat_and_chunk", "best_fit"])
@pytest.mark.parametrize(("name", "mode"), MODES)
def test_the_trainers_own_library_reads_what_was_meant(tmp_path, name, mode, packing):
    python = interpreter_with(name)
    recipe = toy_run.make(tmp_path / "run", packing=packing)
    wanted = Export(format=name, mode=mode)
    export(tmp_path / "run", recipe, wanted, tmp_path / "out", say=print)
    found = verify(tmp_path / "run", recipe, tmp_path / "out", python=python)
    with_theirs = [each for each in found if each.reader.startswith(theirs.LIBRARIES[name][0])]
    assert len(with_theirs) * 2 == len(found)


SMALL_AND_LARGE = {"small": [[5, 6, 7, 0]] * 10, "large": [[8, 9, 10, 0]] * 300}
MIXED = {
    # Each prints how many rows of the small and of the large source its engine hands out, by its own configuration.
    "litdata": """
from itertools import islice
rows = islice(config["train_dataset"]("a"), config["MAX_TOKENS"]["a"] // config["MAX_SEQ_LENGTH"])
firsts = [int(row[0]) for row in rows]
""",
    "parquet": """
firsts = [row[0] for row in config["train_dataset"]("a")["input_ids"]]
""",
    "webdataset": """
firsts = [int(ids[0]) for ids, _ in config["train_dataset"]("a")]
""",
    "olmo": """
import numpy as np
built = config["mixture"]("a").build(npdtype=getattr(np, config["DTYPE"].value), sequence_length=4)
firsts = [{"small": 5, "large": 8}[its.name] for its in built.sources for path in its.path_tokens for _ in range(path.tokens // 4)]
""",
}


@pytest.mark.parametrize("planned", [(100, 100), (10, 200)])
@pytest.mark.parametrize("name", MIXED)
def test_a_blends_configuration_makes_its_engine_mix_what_was_predicted(tmp_path, name, planned):
    """Of a source that is used up ten times, and of one that is used up exactly."""
    python = interpreter_with(name)
    order = [(0, i % 10) for i in range(planned[0])] + [(1, i) for i in range(planned[1])]
    recipe = toy_run.make(tmp_path / "run", documents=SMALL_AND_LARGE, orders={"a": order}, length=4)
    steps = {"batch_sequences": 64} if name == "olmo" else {}
    wanted = Export(format=name, mode="blended", **steps)
    record = export(tmp_path / "run", recipe, wanted, tmp_path / "out", say=print)
    [path] = (tmp_path / "out" / "config").glob("*.py")
    script = f"config = {{'__file__': {str(path)!r}, '__name__': 'config'}}; exec(open({str(path)!r}).read(), config)"
    count = "print('COUNTS', firsts.count(5), firsts.count(8))"
    code = "\n".join([script, MIXED[name], count])
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("COUNTS")]
    found = [int(word) for word in line.split()[1:]]
    predicted = [share["predicted"] for share in record["blend"]["stages"]["a"].values()]
    if name == "webdataset":  # it draws without a seed
        assert sum(found) == sum(predicted)
        assert abs(found[0] - planned[0]) < 6 * (planned[0] * planned[1] / sum(planned)) ** 0.5
    else:
        assert found == predicted


def test_grain_mixes_torchtitans_sources_as_predicted(tmp_path):
    """torchtitan itself is not released; its configuration hands Grain sources of these lengths and weights."""
    python = interpreter_with("torchtitan")
    for planned in ((100, 100), (10, 200), (7, 1000)):
        predicted = realised.grain(planned, sum(planned))
        code = f"""
import grain
parts = [grain.MapDataset.source(range(count + 2)).map(lambda _, n=n: n) for n, count in enumerate({predicted})]
mix = grain.MapDataset.mix(parts, [count / {sum(planned)} for count in {planned}])
picked = [mix[i] for i in range({sum(planned)})]
print(len(mix), picked.count(0), picked.count(1))
"""
        done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
        length, *found = map(int, done.stdout.split())
        assert found == predicted
        assert sum(planned) <= length <= sum(planned) + 10
