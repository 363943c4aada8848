"""LoRA: what trains, what is saved, and that saving does not disturb the training."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from curricula.methods.lora import Lora
from mixer.errors import RecipeError
from mixer.recipe.methods import LoraMethod
from tests.tiny_families import FAMILIES, family, logits, train


def lora(*, seed=7, **keys):
    return Lora(LoraMethod(kind="lora", **{"rank": 4, "alpha": 8.0, **keys}), seed=seed)


def test_at_the_start_nothing_is_changed_and_only_adapters_train():
    model = family("llama")
    before = logits(model)
    method = lora()
    adapted = method.prepare(model)
    assert type(adapted).__name__ == "LlamaForCausalLM"
    assert torch.equal(logits(adapted), before)
    assert method.figures(adapted) == {"update": 0.0}
    names = [name for name, _ in method.trainable(adapted)]
    assert len(names) == 4 * 7 * 2
    assert all("lora_" in name for name in names)


def test_adapters_are_drawn_by_the_seed_and_nothing_else():
    def drawn(seed, noise):
        model = family("llama")
        torch.rand(noise)
        state = torch.get_rng_state()
        method = lora(seed=seed)
        found = dict(method.trainable(method.prepare(model)))
        assert torch.equal(torch.get_rng_state(), state)
        return found["model.layers.0.self_attn.q_proj.lora_A.default.weight"]

    assert torch.equal(drawn(7, 1), drawn(7, 5))
    assert not torch.equal(drawn(7, 1), drawn(8, 1))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_is_a_plain_model_of_the_same_class(name, tmp_path):
    model = family(name)
    names, tied = list(model.state_dict()), model.config.tie_word_embeddings
    method = lora()
    model = method.prepare(model)
    train(model, method, 10, lr=1e-2)
    method.export(model).save_pretrained(tmp_path)
    back = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(back) is type(model)
    assert list(back.state_dict()) == names
    assert (back.lm_head.weight is back.model.embed_tokens.weight) is tied
    assert not list(tmp_path.glob("adapter*"))
    torch.testing.assert_close(logits(back), logits(model), rtol=1e-4, atol=1e-4)


def test_what_is_saved_equals_what_peft_merges():
    method = lora(rslora=True)
    model = method.prepare(family("qwen2"))
    train(model, method, 5)
    ours = method.export(model).state_dict()
    for module in [module for module in model.modules() if isinstance(module, LoraLayer)]:
        module.merge()
    theirs = {
        name.replace(".base_layer", ""): value for name, value in model.state_dict().items() if "lora_" not in name
    }
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6)


def test_training_goes_on_after_saving_to_the_last_bit():
    def run(*, save):
        method = lora(dropout=0.1)
        model = method.prepare(family("llama"))
        torch.manual_seed(3)
        optimizer = train(model, method, 3)
        if save:
            merged = method.export(model)
            with torch.no_grad():
                merged.model.layers[0].self_attn.q_proj.weight.zero_()
        train(model, method, 3, start=3, optimizer=optimizer)
        return model.state_dict()

    plain, saved = run(save=False), run(save=True)
    assert plain.keys() == saved.keys()
    assert all(torch.equal(plain[key], saved[key]) for key in plain)


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 4.0)])
def test_the_figure_is_the_norm_of_what_is_added(rslora, scale):
    method = lora(rslora=rslora, targets=("q_proj",))
    model = method.prepare(family("llama"))
    train(model, method, 5)
    squares = [0.0, 0.0]
    for layer in model.model.layers:
        q = layer.self_attn.q_proj
        down, up = q.lora_A.default.weight.detach(), q.lora_B.default.weight.detach()
        squares[0] += float((scale * up @ down).square().sum())
        squares[1] += float(q.base_layer.weight.square().sum())
    assert squares[0] > 0
    assert method.figures(model)["update"] == pytest.approx((squares[0] / squares[1]) ** 0.5, rel=1e-4)


def test_a_target_that_the_model_lacks_is_refused():
    with pytest.raises(RecipeError, match="got 'c_attn', expected a linear module of LlamaForCausalLM") as caught:
        lora(targets=("q_proj", "c_attn")).prepare(family("llama"))
    assert "gate_proj" in caught.value.hint


def test_a_target_that_is_tied_is_refused():
    """Only one of the two would be trained, and the model that is saved has one weight for both."""
    with pytest.raises(RecipeError, match="got 'lm_head', which shares its weight with another module") as caught:
        lora(targets=("lm_head", "q_proj")).prepare(family("qwen2"))
    assert "kind: plain" in caught.value.hint
    lora(targets=("lm_head", "q_proj")).prepare(family("llama"))
