"""Exports as the trainers' own libraries read them: token by token, blends count by count.

Needs interpreters that have them, which no set-up of ours installs: MIXER_VERIFY_PYTHONS, separated by colons. See
docs/exports.md for two venvs that have all of them.
"""

import os

import pytest

from mixer.exports import theirs
from mixer.exports.export import export
from mixer.exports.verify import interpreter_for, verify
from mixer.recipe_exports import Export
from tests import toy_run

PYTHONS = [path for path in os.environ.get("MIXER_VERIFY_PYTHONS", "").split(":") if path]


def interpreter_with(name: str) -> str:
    found = interpreter_for(name, PYTHONS)
    if found is None:
        pytest.skip(f"{theirs.LIBRARIES[name][0]} NOT CHECKED: no interpreter in MIXER_VERIFY_PYTHONS has it")
    return found


@pytest.mark.parametrize("packing", ["concat_and_chunk", "best_fit"])
@pytest.mark.parametrize("mode", ["premixed", "blended"])
@pytest.mark.parametrize("name", theirs.LIBRARIES)
def test_the_trainers_own_library_reads_what_was_meant(tmp_path, name, mode, packing):
    python = interpreter_with(name)
    recipe = toy_run.make(tmp_path / "run", packing=packing)
    wanted = Export(format=name, mode=mode)
    export(tmp_path / "run", recipe, wanted, tmp_path / "out", say=print)
    found = verify(tmp_path / "run", recipe, tmp_path / "out", python=python)
    with_theirs = [each for each in found if each.reader.startswith(theirs.LIBRARIES[name][0])]
    assert len(with_theirs) * 2 == len(found)
