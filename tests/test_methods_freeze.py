"""Freeze and the choice of a method: patterns over names of parameters, and what a recipe may not say."""

from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from curricula.methods.base import Method
from curricula.methods.choose import method_of
from curricula.methods.freeze import Freeze
from mixer.errors import RecipeError
from mixer.recipe.methods import AnyMethod, FreezeMethod
from tests.tiny_families import family, train

SECTIONS = TypeAdapter(AnyMethod)


def freeze(**keys):
    return Freeze(FreezeMethod(kind="freeze", **keys))


def test_only_what_matches_trains():
    method = freeze(train=("model.layers.[23].*",), freeze=("*norm*",))
    model = method.prepare(family("llama"))
    names = [name for name, _ in method.trainable(model)]
    assert len(names) == 2 * 14
    assert all(name.startswith(("model.layers.2.", "model.layers.3.")) and "norm" not in name for name in names)


def test_frozen_tensors_stay_as_they_are_to_the_last_bit():
    method = freeze(freeze=("model.embed_tokens.*", "model.layers.[012].*"))
    model = method.prepare(family("qwen2"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, method, 3, weight_decay=0.1)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith(("model.layers.3.", "model.norm"))}


@pytest.mark.parametrize(
    ("keys", "what", "hint"),
    [
        ({"train": ("layers.3.*",)}, "train: got 'layers.3.\\*'", "names look like `model.norm.weight`"),
        ({"freeze": ("lm_head.*",)}, "freeze: got 'lm_head", "`lm_head.weight` is tied to `model.embed_tokens.weight`"),
        ({}, "got 50 of 50 parameters", "kind: plain"),
        ({"freeze": ("*",)}, "got 0 of 50 parameters", "name fewer in `freeze`"),
    ],
)
def test_patterns_without_effect_are_refused(keys, what, hint):
    with pytest.raises(RecipeError, match=what) as caught:
        freeze(**keys).prepare(family("qwen2"))
    assert hint in caught.value.hint


def test_each_kind_names_its_method():
    kinds = {"plain": "Method", "freeze": "Freeze", "block_expansion": "BlockExpansion", "osft": "Osft", "lora": "Lora"}
    for kind, name in kinds.items():
        method = method_of(SECTIONS.validate_python({"kind": kind}), base=Path(), seed=7)
        assert type(method).__name__ == name
        assert isinstance(method, Method)
        assert not method.needs_calibration


def test_plain_training_trains_everything_and_changes_nothing_else():
    method, model = Method(), family("llama")
    assert method.prepare(model) is model
    assert [name for name, _ in method.trainable(model)] == [name for name, _ in model.named_parameters()]
    assert method.export(model) is model
    assert method.state() == {}
    assert method.figures(model) == {}


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"rank": "importance", "share": 0.3}, "`share` only with `rank: fixed`"),
        ({"target_retention": 0.9}, "`target_retention` only with `rank: importance`"),
        ({"rank": "importance", "min_retention": 0.9}, "`min_retention` of at most `target_retention`"),
    ],
)
def test_keys_of_osft_without_effect_are_refused(keys, what):
    with pytest.raises(ValidationError, match=what):
        SECTIONS.validate_python({"kind": "osft", **keys})
    written_out = SECTIONS.validate_python({"kind": "osft"}).model_dump()
    assert SECTIONS.validate_python(written_out).share == 0.5
