"""Block expansion: the stack by hand, identities to the last bit in every family, and what trains."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, Glm4Config, Glm4ForCausalLM, GPT2Config, GPT2LMHeadModel

from curricula.methods.block_expansion import BlockExpansion, interleaved, least_critical
from mixer.errors import RecipeError
from mixer.recipe.methods import BlockExpansionMethod
from tests.tiny_families import FAMILIES, family, ids, logits, train


def method(**keys):
    return BlockExpansion(BlockExpansionMethod(kind="block_expansion", **{"groups": 2, **keys}))


def new_of(stack):
    return [index for index, block in enumerate(stack) if block.is_new]


def test_thirty_two_blocks_in_eight_groups_are_those_of_the_paper():
    assert new_of(interleaved(32, groups=8, per_group=1)) == [4, 9, 14, 19, 24, 29, 34, 39]


def test_copies_are_those_of_the_last_blocks_of_a_group():
    stack = interleaved(6, groups=2, per_group=2)
    assert [block.source for block in stack] == [0, 1, 2, 1, 2, 3, 4, 5, 4, 5]
    assert new_of(stack) == [3, 4, 8, 9]


def test_groups_that_do_not_divide_the_depth_are_as_equal_as_can_be():
    stack = interleaved(30, groups=8, per_group=1)
    ends = [stack[index].source + 1 for index in new_of(stack)]
    assert [end - start for start, end in zip([0, *ends], ends, strict=False)] == [4, 4, 4, 4, 4, 4, 3, 3]


@pytest.mark.parametrize(
    ("groups", "per_group", "hint"), [(5, 1, "groups is at most 4"), (2, 3, "per_group is at most 2")]
)
def test_more_groups_or_copies_than_blocks_are_refused(groups, per_group, hint):
    with pytest.raises(RecipeError, match=f"groups {groups} and per_group {per_group} for 4 blocks") as caught:
        interleaved(4, groups=groups, per_group=per_group)
    assert hint in caught.value.hint


def test_the_least_critical_blocks_are_followed_by_their_copies():
    stack = least_critical([0.9, 0.2, 0.3, 0.2], groups=2, per_group=2)
    assert [block.source for block in stack] == [0, 1, 1, 1, 2, 3, 3, 3]
    assert new_of(stack) == [2, 3, 6, 7]


def test_more_least_critical_blocks_than_there_are_blocks_are_refused():
    with pytest.raises(RecipeError, match="groups: got 3 for 2 blocks"):
        least_critical([0.1, 0.2], groups=3, per_group=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_expanded_model_gives_the_same_logits_to_the_last_bit(name, dtype):
    model = family(name, dtype=dtype)
    before = logits(model)
    model = method().prepare(model)
    assert len(model.model.layers) == 6
    assert (logits(model) - before).abs().max() == 0.0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trained_model_is_read_back_by_transformers_as_the_same(name, tmp_path):
    expansion, model = method(), family(name)
    tied, types = model.config.tie_word_embeddings, getattr(model.config, "layer_types", None)
    before = logits(model)
    model = expansion.prepare(model)
    train(model, expansion, 5)
    expansion.export(model).save_pretrained(tmp_path)
    back = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(back), logits(model))
    assert (logits(back) - before).abs().max() > 1e-3
    assert back.config.num_hidden_layers == 6
    assert (back.lm_head.weight is back.model.embed_tokens.weight) is tied
    if types is not None:
        assert len(set(types)) == 2
        assert back.config.layer_types == [types[i] for i in (0, 1, 1, 2, 3, 3)]
    assert back.config.block_expansion["blocks"] == [2, 5]


@pytest.mark.parametrize("name", FAMILIES)
def test_generation_with_a_cache_equals_generation_without(name):
    expansion = method()
    model = expansion.prepare(family(name))
    train(model, expansion, 5)
    options = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    tokens = ids(2, 9)
    cached = model.generate(tokens, attention_mask=torch.ones_like(tokens), use_cache=True, **options)
    plain = model.generate(tokens, attention_mask=torch.ones_like(tokens), use_cache=False, **options)
    assert cached.shape == (2, 25)
    assert torch.equal(cached, plain)
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(6))


@pytest.mark.parametrize("name", FAMILIES)
def test_only_new_blocks_change_and_shut_tensors_open_first(name):
    expansion = method()
    model = expansion.prepare(family(name))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    shut = {f"model.layers.{index}.{key}" for index in (2, 5) for key in expansion._shut}
    optimizer = train(model, expansion, 1)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == shut
    train(model, expansion, 1, start=1, optimizer=optimizer)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert all(key.startswith(("model.layers.2.", "model.layers.5.")) for key in changed)
    assert {f"model.layers.2.{path}.weight" for path in ("mlp.up_proj", "self_attn.q_proj")} <= changed


def test_weight_decay_of_the_first_step_does_not_touch_frozen_blocks():
    expansion = method()
    model = expansion.prepare(family("llama"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train(model, expansion, 1, weight_decay=0.1)
    frozen = [key for key in before if not key.startswith(("model.layers.2.", "model.layers.5."))]
    assert len(frozen) > 40
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in frozen)


def first_gradients(model, *, shut):
    """Largest gradient in the new block, when it is shut at the given tensors."""
    model.zero_grad()
    block = model.model.layers[2]
    with torch.no_grad():
        for key, value in shut.items():
            block.get_parameter(key).fill_(value)
    tokens = ids(2, 12)
    model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    return max(float(weight.grad.abs().max()) for weight in block.parameters())


def test_behind_a_norm_the_gain_is_shut_because_zeroed_matrices_have_huge_gradients():
    base = family("gemma3")
    largest = first_gradients(copy.deepcopy(base), shut={})
    expansion = method()
    model = expansion.prepare(base)
    assert expansion._shut == {"post_attention_layernorm.weight": -1.0, "post_feedforward_layernorm.weight": -1.0}
    gains = first_gradients(model, shut={})
    opened = dict.fromkeys(expansion._shut, 0.0)
    matrices = first_gradients(model, shut={**opened, "self_attn.o_proj.weight": 0.0, "mlp.down_proj.weight": 0.0})
    assert gains < 3 * largest
    assert matrices > 100 * gains


def test_the_norms_of_glm_have_other_names():
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    config = Glm4Config(**sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, eos_token_id=2)
    model = Glm4ForCausalLM(config).eval()
    before = logits(model)
    expansion = method(groups=1)
    assert torch.equal(logits(expansion.prepare(model)), before)
    assert expansion._shut == {"post_self_attn_layernorm.weight": 0.0, "post_mlp_layernorm.weight": 0.0}
    train(model, expansion, 2)
    assert min(expansion.figures(model).values()) > 0


def test_with_train_all_the_old_blocks_train_too():
    expansion = method(train="all")
    model = expansion.prepare(family("llama"))
    assert len(list(expansion.trainable(model))) == len(list(model.parameters()))


def test_figures_rise_from_zero_as_blocks_open():
    expansion = method()
    model = expansion.prepare(family("qwen3"))
    assert expansion.figures(model) == {"new_attention": 0.0, "new_mlp": 0.0}
    train(model, expansion, 10)
    figures = expansion.figures(model)
    assert 0 < figures["new_attention"] < 1
    assert 0 < figures["new_mlp"] < 1
    with torch.no_grad():
        for new, source in ((2, 1), (5, 4)):
            for key in expansion._shut:
                model.get_parameter(f"model.layers.{new}.{key}").copy_(
                    model.get_parameter(f"model.layers.{source}.{key}")
                )
    assert expansion.figures(model) == pytest.approx({"new_attention": 1.0, "new_mlp": 1.0})


def test_the_least_critical_block_is_found_by_what_it_changes():
    model = family("llama")
    with torch.no_grad():
        for key in ("self_attn.o_proj", "mlp.down_proj"):
            for weight in model.model.layers[2].get_submodule(key).parameters():
                weight.zero_()
    expansion = method(placement="least_critical", groups=1)
    assert expansion.needs_calibration
    before = logits(model)
    expansion.calibrate(model, [ids(2, 12), ids(1, 9)])
    assert not model.training
    assert expansion._changed[2] == pytest.approx(0.0, abs=1e-6)
    assert min(change for index, change in enumerate(expansion._changed) if index != 2) > 0.01
    model = expansion.prepare(model)
    assert [block.source for block in expansion._stack] == [0, 1, 2, 2, 3]
    assert torch.equal(logits(model), before)


def test_a_checkpoint_with_blocks_elsewhere_is_refused():
    first, second = method(groups=2), method(groups=1)
    first.prepare(family("llama"))
    second.prepare(family("llama"))
    first.load_state(first.state())
    with pytest.raises(RecipeError, match=r"got new blocks behind \[0, 1, 2, 3, 3\], expected those of the checkpoint"):
        second.load_state(first.state())


def test_a_model_without_such_blocks_is_refused():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=8, n_layer=2, n_head=2))
    with pytest.raises(RecipeError, match="got GPT2LMHeadModel with no decoder") as caught:
        method().prepare(model)
    assert caught.value.hint.startswith("use `kind: plain` or `freeze`; ")
    assert "linear modules" in caught.value.hint, "GPT-2 has none in its blocks"


def test_a_family_whose_config_does_not_follow_is_refused(monkeypatch):
    monkeypatch.setattr("curricula.methods.block_expansion._PER_BLOCK", ())
    with pytest.raises(RecipeError, match=r"layer_types.*expected a decoder like Llama"):
        method().prepare(family("gemma3"))


def test_a_block_that_is_no_identity_is_refused(monkeypatch):
    monkeypatch.setattr("curricula.methods.block_expansion._shut", lambda block: {"mlp.down_proj.weight": 0.0})
    with pytest.raises(RecipeError, match="logits that change"):
        method().prepare(family("llama"))
