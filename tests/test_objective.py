"""A model with its loss: rounded copies, frozen weights, heads that do more than multiply."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from curricula.masking import register
from curricula.objective import Objective, blocks_of, compact, has_plain_head, rounded
from curricula.rows import Row, batch_of, starts_of, weights_of
from curricula.validation import on_device
from tests.tiny_model import tiny_model

OFFSETS, LENGTHS = np.array([0, 7, 12]), np.array([7, 5, 4])


def batch(rows=2, length=16):
    draw = np.random.default_rng(0)
    row = [
        Row(
            draw.integers(0, 256, length), starts_of(length, OFFSETS, LENGTHS), weights_of(length, OFFSETS, LENGTHS), 16
        )
        for _ in range(rows)
    ]
    found = batch_of(row, list(range(rows)))
    return found, on_device(found, torch.device("cpu"), scale=1 / len(found.places))


def model_in(folder, *, attention="varlen", **keys):
    register()
    tiny_model(folder, **keys)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)


def plain_loss(model, found):
    """The mean loss of each document of its own, weighted by what it predicts."""
    losses = []
    for ids in found.ids:
        for offset, length in zip(OFFSETS, LENGTHS, strict=True):
            part = torch.from_numpy(ids[offset : offset + length]).unsqueeze(0)
            logits = model(input_ids=part, use_cache=False).logits[0, :-1].float()
            losses.append(torch.nn.functional.cross_entropy(logits, part[0, 1:], reduction="none"))
    return torch.cat(losses).mean()


@pytest.mark.parametrize(("keys", "attention"), [({}, "varlen"), ({"capped": True}, "eager")], ids=["plain", "capped"])
def test_the_loss_is_that_of_each_document_alone(tmp_path, keys, attention):
    """Gemma 2 caps its logits after the output layer: taking hidden states times the layer would be another model."""
    model = model_in(tmp_path, attention=attention, **keys)
    assert has_plain_head(model) is not keys.get("capped", False)
    found, inputs = batch()
    objective = Objective(model, dtype=torch.float32, is_sharded=False).train()
    with objective.computing():
        loss, nats = objective(inputs)
        loss.backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    expected = plain_loss(model, found)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(nats.mean(), expected, rtol=1e-4, atol=1e-5)
    for name, value in model.named_parameters():
        torch.testing.assert_close(gradients[name], value.grad, rtol=2e-3, atol=1e-5)


def test_it_computes_with_rounded_copies_and_keeps_what_it_rounds(tmp_path):
    model = model_in(tmp_path)
    before = {name: value.clone() for name, value in model.named_parameters()}
    _, inputs = batch()
    objective = Objective(model, dtype=torch.bfloat16, is_sharded=False).train()
    with objective.computing():
        assert model.lm_head.weight.dtype == torch.bfloat16
        loss, _ = objective(inputs)
        loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert all(value.grad.dtype == torch.float32 for value in model.parameters())
    exact = model_in(tmp_path)
    whole = Objective(exact, dtype=torch.float32, is_sharded=False).train()
    with whole.computing():
        expected, _ = whole(inputs)
        expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=0.02)
    one, other = model.lm_head.weight.grad, exact.lm_head.weight.grad
    assert float((one - other).norm() / other.norm()) < 0.05


def test_tied_weights_stay_tied_in_the_copy():
    config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, tie_word_embeddings=True)  # fmt: skip
    model = LlamaForCausalLM(config)
    owner = model.lm_head.weight
    with rounded(model, torch.bfloat16) as copies:
        assert model.lm_head.weight is model.model.embed_tokens.weight is not owner
        assert copies[model.lm_head.weight] is owner
    assert model.lm_head.weight is model.model.embed_tokens.weight is owner


def test_checkpointing_a_block_computes_the_same_with_rounded_copies(tmp_path):
    """A block that is computed again in the backward pass must find the copies that it was computed with."""
    found = []
    for again in (False, True):
        model = model_in(tmp_path)
        if again:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        objective = Objective(model, dtype=torch.bfloat16, is_sharded=False).train()
        with objective.computing():
            objective(batch()[1])[0].backward()
        found.append([value.grad for value in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_frozen_weights_that_bfloat16_holds_are_kept_in_it_and_others_are_not(tmp_path):
    model = model_in(tmp_path)
    short = model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        short.copy_(short.to(torch.bfloat16))
    for name, value in model.named_parameters():
        value.requires_grad_("lm_head" in name)
    before = {name: value.clone() for name, value in model.named_parameters()}
    compact(model)
    kept = {name for name, value in model.named_parameters() if value.dtype == torch.bfloat16}
    assert "model.layers.0.mlp.up_proj.weight" in kept
    assert not {"model.layers.0.mlp.down_proj.weight", "lm_head.weight"} & kept
    assert all(torch.equal(value.float(), before[name]) for name, value in model.named_parameters())


def test_blocks_are_those_that_the_model_names(tmp_path):
    assert len(blocks_of(model_in(tmp_path))) == 2
    assert blocks_of(torch.nn.Linear(2, 2)) == []
