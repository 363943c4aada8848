"""Interpolated weights: by hand, exact at both ends, block-expanded models, and models that cannot be mixed."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from curricula.interpolate import interpolate, rounded, sweep
from curricula.methods.block_expansion import BlockExpansion
from mixer.errors import SourceError
from mixer.recipe.methods import BlockExpansionMethod
from tests.tiny_families import FAMILIES, family, logits, train


def saved(model, folder):
    model.save_pretrained(folder)
    return folder


def noisy(model, *, by=0.1):
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * by)
    return model


def read(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture
def pair(tmp_path):
    """A base model in bfloat16 and a trained one in float32."""
    base = saved(family("qwen2", depth=2, dtype=torch.bfloat16), tmp_path / "base")
    return base, saved(noisy(read(base).float()), tmp_path / "trained")


def test_a_mix_by_hand(tmp_path):
    for name, value in (("base", 1.0), ("trained", 3.0)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.tensor([value, 2.0])}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text("{}")
    out = interpolate(tmp_path / "base", tmp_path / "trained", tmp_path / "out", share=0.25)
    assert load_file(out / "model.safetensors")["w"].tolist() == [2.5, 2.0]


def test_the_ends_of_a_sweep_are_the_two_models_to_the_last_bit(pair, tmp_path):
    base, trained = pair
    paths = sweep(base, trained, tmp_path / "sweep", shares=(0.0, 0.3, 1.0))
    assert [path.name for path in paths] == ["share-0.00", "share-0.30", "share-1.00"]
    assert torch.equal(logits(read(paths[0])), logits(read(trained)))
    assert torch.equal(logits(read(paths[2])), logits(read(base).float()))
    start, end, between = (read(path).state_dict() for path in (base, trained, paths[1]))
    for name, value in between.items():
        torch.testing.assert_close(value, 0.7 * end[name] + 0.3 * start[name].float())
        assert value.dtype == torch.float32


def half_pair(folder):
    """Two models in bfloat16 whose weights lie 0, 1, 2 or 3 steps of the number type apart."""
    start = torch.ones(4000, dtype=torch.bfloat16)
    ends = {"base": start, "trained": start + torch.arange(4000) % 4 * 2**-7}
    for name, value in ends.items():
        (folder / name).mkdir(parents=True)
        save_file({"w": value.to(torch.bfloat16)}, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text("{}")
    return folder / "base", folder / "trained"


def steps(folder):
    """How many steps the weights lie from 1, by how many they lay in the trained model."""
    value = load_file(folder / "model.safetensors")["w"]
    assert value.dtype == torch.bfloat16
    return ((value.float() - 1) * 2**7).reshape(-1, 4).T


def test_in_two_bytes_a_mix_lies_in_the_middle_on_average(tmp_path):
    """To the nearest, one step would stay whole at a share of .45, and be none at one of .55."""
    for share in (0.3, 0.45, 0.55):
        found = steps(interpolate(*half_pair(folder := tmp_path / str(share)), folder / "out", share=share))
        for apart in range(4):
            wanted = (1 - share) * apart
            assert found[apart].mean().item() == pytest.approx(wanted, abs=0.05)
            assert {*found[apart].tolist()} <= {np.floor(wanted), np.ceil(wanted)}


def test_a_weight_goes_from_one_model_to_the_other_and_never_back(tmp_path):
    base, trained = half_pair(tmp_path)
    shares = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    found = [steps(path) for path in sweep(base, trained, tmp_path / "sweep", shares=shares)]
    assert torch.equal(found[0], steps(trained))
    assert torch.equal(found[-1], steps(base))
    assert all((later <= earlier).all() for earlier, later in pairwise(found))
    again = interpolate(base, trained, tmp_path / "again", share=0.4)
    assert (again / "model.safetensors").read_bytes() == (
        tmp_path / "sweep" / "share-0.40" / "model.safetensors"
    ).read_bytes()


SIZES = st.just(0.0) | st.floats(2.0**-60, 2.0**13, width=32)
NUMBERS = st.lists(SIZES | SIZES.map(lambda size: -size), min_size=1, max_size=20)


@given(NUMBERS, st.sampled_from([torch.bfloat16, torch.half]))
def test_a_number_is_rounded_to_one_of_its_neighbours(values, dtype):
    given_values = torch.tensor(values)
    found = rounded(given_values, dtype, torch.Generator().manual_seed(1)).float()
    near = given_values.to(dtype).float()
    assert torch.isfinite(found).all()
    assert (found[near == given_values] == given_values[near == given_values]).all()
    assert ((found == near) | ((found - given_values).sign() == -(near - given_values).sign())).all()
    spacing = 2.0 ** (torch.frexp(given_values).exponent - (8 if dtype == torch.bfloat16 else 11))
    assert ((found - given_values).abs() <= spacing.clamp_min(2.0**-24)).all()


def test_small_shards_hold_the_same_model(pair, tmp_path):
    whole = interpolate(*pair, tmp_path / "whole", share=0.5)
    parts = interpolate(*pair, tmp_path / "parts", share=0.5, shard_bytes=8_000)
    files = sorted(parts.glob("*.safetensors"))
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) < 10_000
    assert torch.equal(logits(read(parts)), logits(read(whole)))
    again = interpolate(parts, pair[1], tmp_path / "again", share=0.0)
    assert torch.equal(logits(read(again)), logits(read(pair[1])))


@pytest.mark.parametrize("name", FAMILIES)
def test_new_blocks_are_shut_again_as_the_share_rises(name, tmp_path):
    base = saved(family(name), tmp_path / "base")
    method = BlockExpansion(BlockExpansionMethod(kind="block_expansion", groups=2))
    model = method.prepare(read(base))
    train(model, method, 10)
    trained = saved(method.export(model), tmp_path / "trained")
    paths = sweep(base, trained, tmp_path / "sweep", shares=(0.0, 0.5, 1.0))
    assert torch.equal(logits(read(paths[0])), logits(read(trained)))
    assert torch.equal(logits(read(paths[2])), logits(read(base)))
    half = read(paths[1])
    for key, value in method._shut.items():
        opened = model.get_parameter(f"model.layers.2.{key}") - value
        torch.testing.assert_close(half.get_parameter(f"model.layers.2.{key}") - value, opened / 2)


def test_old_blocks_that_were_trained_too_are_mixed_with_their_own(tmp_path):
    base = saved(family("llama"), tmp_path / "base")
    method = BlockExpansion(BlockExpansionMethod(kind="block_expansion", groups=2, train="all"))
    model = noisy(method.prepare(read(base)))
    trained = saved(model, tmp_path / "trained")
    assert torch.equal(logits(read(interpolate(base, trained, tmp_path / "end", share=1.0))), logits(read(base)))
    half = read(interpolate(base, trained, tmp_path / "half", share=0.5))
    key = "self_attn.q_proj.weight"
    expected = (model.get_parameter(f"model.layers.5.{key}"), read(base).get_parameter(f"model.layers.3.{key}"))
    assert torch.equal(half.get_parameter(f"model.layers.5.{key}"), model.get_parameter(f"model.layers.5.{key}"))
    old = (model.get_parameter(f"model.layers.4.{key}") + expected[1]) / 2
    torch.testing.assert_close(half.get_parameter(f"model.layers.4.{key}"), old)


def test_two_expanded_models_mix_tensor_by_tensor(tmp_path):
    method = BlockExpansion(BlockExpansionMethod(kind="block_expansion", groups=2))
    model = method.prepare(family("llama"))
    first = saved(model, tmp_path / "first")
    second = saved(noisy(model), tmp_path / "second")
    out = read(interpolate(first, second, tmp_path / "out", share=1.0))
    assert torch.equal(logits(out), logits(read(first)))


def test_models_of_other_tensors_are_refused(pair, tmp_path):
    base, trained = pair
    deeper = saved(family("qwen2", depth=3), tmp_path / "deeper")
    with pytest.raises(
        SourceError, match=r"got tensors that differ from those of .*deeper by `model.layers.2"
    ) as caught:
        interpolate(base, deeper, tmp_path / "out", share=0.5)
    assert "block_expansion" in caught.value.hint
    tensors = load_file(trained / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:5]
    save_file(tensors, trained / "model.safetensors")
    with pytest.raises(SourceError, match=r"`model.norm.weight` of shape \(5,\) \(F32\) for a base of shape \(32,\)"):
        interpolate(base, trained, tmp_path / "out", share=0.5)
    tensors["model.norm.weight"] = torch.ones(32, dtype=torch.int8)
    save_file(tensors, trained / "model.safetensors")
    with pytest.raises(SourceError, match=r"\(I8\).*expected floating-point") as caught:
        interpolate(base, trained, tmp_path / "out", share=0.5)
    assert "quantised" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_and_a_share_out_of_range_are_refused(pair, tmp_path):
    with pytest.raises(SourceError, match=r"got no config.json and safetensors"):
        interpolate(tmp_path, pair[1], tmp_path / "out", share=0.5)
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 1.5"):
        interpolate(*pair, tmp_path / "out", share=1.5)


def test_the_config_goes_with_the_weights(pair, tmp_path):
    (pair[1] / "tokenizer.json").write_text("{}")
    out = interpolate(*pair, tmp_path / "out", share=0.5)
    assert json.loads((out / "config.json").read_text())["model_type"] == "qwen2"
    assert (out / "tokenizer.json").is_file()


def test_shares_that_are_close_have_folders_of_their_own(pair, tmp_path):
    paths = sweep(*pair, tmp_path / "sweep", shares=(0.301, 0.304, 0.3))
    assert [path.name for path in paths] == ["share-0.301", "share-0.304", "share-0.30"]
    tensors = [load_file(path / "model.safetensors")["model.norm.weight"] for path in paths]
    assert not torch.equal(tensors[0], tensors[1])


def test_a_mix_does_not_replace_what_it_is_made_of(pair, tmp_path):
    before = (pair[1] / "model.safetensors").read_bytes()
    for out in (*pair, tmp_path):
        with pytest.raises(SourceError, match="got the folder of a model that is to be mixed") as caught:
            interpolate(*pair, out, share=0.5)
        assert "beside" in caught.value.hint
    assert (pair[1] / "model.safetensors").read_bytes() == before
