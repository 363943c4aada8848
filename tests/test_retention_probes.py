"""Early signs: what a model's own settings and its table of positions must not change."""

import json

import numpy as np
import torch

from curricula.retention.measure import Subject
from curricula.retention.probes import encode, token_shift
from curricula.retention.slices import Texts
from tests import toys
from tests.tiny_model import tiny_model

TEXTS = Texts("prose", "general", ("a", "b"), (toys.sentences(1, 9), toys.sentences(2, 9)))


def test_documents_are_cut_at_what_the_model_takes(tmp_path):
    """Windows of 1,024 on a model of 48 positions, as the slices are read; one more has no place in a table."""
    subject = Subject(tiny_model(tmp_path / "model", max_position_embeddings=48), store=tmp_path, device="cpu")
    assert [len(ids) for ids in encode(subject, TEXTS, 1024)] == [48, 48]
    assert [len(ids) for ids in encode(subject, TEXTS, 20)] == [21, 21]


def test_a_model_writes_what_it_ranks_first_whatever_its_own_settings_say(tmp_path):
    folder = tiny_model(tmp_path / "model", max_position_embeddings=256)
    (folder / "generation_config.json").write_text(json.dumps({"repetition_penalty": 9.0, "do_sample": True}))
    subject = Subject(folder, store=tmp_path, device="cpu")
    rows = [np.array(ids) for ids in encode(subject, TEXTS, 64)]
    with torch.inference_mode():
        assert token_shift(subject, subject, rows)["unshifted"] > 0.98
