"""Documents that share a sequence do not see each other: whatever the model, whatever computes its attention."""

import pytest
import torch
from transformers import (
    FalconConfig,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MptConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from curricula.masking import attention_of, check_isolation, document_attention, inputs_of, register, taken
from mixer.errors import RecipeError

_SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**_SIZES)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**_SIZES, use_sliding_window=True, sliding_window=5, max_window_layers=1)),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(**_SIZES, head_dim=8, sliding_window=5, sliding_window_pattern=2)),
}
LENGTHS = [[9, 1, 14], [24]]
"""Documents of two rows of 24 tokens."""


def model_of(family, attention):
    register()
    kind, config = FAMILIES[family]
    torch.manual_seed(0)
    config._attn_implementation = attention
    model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def inputs(ids, lengths=LENGTHS):
    flat = [length for row in lengths for length in row]
    positions = torch.cat([torch.arange(length) for length in flat]).view(ids.shape)
    bounds = torch.tensor([0, *flat]).cumsum(0).to(torch.int32)
    return inputs_of(ids, positions, bounds, max(flat))


def two_batches():
    """The same ids but for the first document of the first row."""
    ids = torch.randint(0, 97, (2, 24), generator=torch.Generator().manual_seed(1))
    other = ids.clone()
    other[0, :9] = ids[0, :9].flip(0)
    return ids, other


@pytest.mark.parametrize("attention", ["varlen", "sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_changing_a_document_leaves_the_logits_of_the_next_unchanged(family, attention, mode):
    """transformers leaks here when `use_cache` is left to its default; a change of 0.2 and more was measured."""
    model = getattr(model_of(family, attention), mode)()
    with torch.no_grad():
        one, other = (model(**inputs(ids)).logits for ids in two_batches())
    assert float((one - other)[0, :9].abs().max()) > 0.1
    torch.testing.assert_close(one[0, 9:], other[0, 9:], rtol=0, atol=1e-6)
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_in_a_pack_has_the_logits_that_it_has_alone(family):
    ids, _ = two_batches()
    for attention in ("varlen", "sdpa"):
        model = model_of(family, attention).eval()
        with torch.no_grad():
            packed = model(**inputs(ids)).logits
            alone = model(input_ids=ids[:1, 10:24], use_cache=False).logits
        torch.testing.assert_close(packed[:1, 10:24], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_at_a_time_gives_the_gradients_of_a_mask(family):
    """Sliding windows are shorter than the documents here, and keys have fewer heads than queries."""
    ids, _ = two_batches()
    found = []
    for attention in ("varlen", "sdpa"):
        model = model_of(family, attention).train()
        model(**inputs(ids)).logits.square().mean().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_model_whose_documents_see_each_other_is_refused():
    """A state-space model runs on across documents; a call without restarted positions would too."""
    config = MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=2, state_size=4)
    torch.manual_seed(0)
    model = MambaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)

    class Body(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model.backbone

        def forward(self, input_ids, **_):
            return self.inner(input_ids=input_ids, use_cache=False)

    with pytest.raises(RecipeError, match=r"in which one document changes the next by \d+%") as caught:
        check_isolation(Body(), vocabulary=97)
    assert "document_mask: false" in caught.value.hint
    check_isolation(model_of("llama", "varlen").base_model, vocabulary=97)


def test_attention_that_caps_its_logits_is_not_computed_without_the_cap():
    config = Gemma2Config(**_SIZES, head_dim=8)
    assert attention_of("auto", config, device="cpu", is_compiled=False, is_half=False) == "eager"
    assert attention_of("auto", config, device="cuda", is_compiled=False, is_half=True) == "flex_attention"
    assert attention_of("auto", FAMILIES["llama"][1], device="cuda", is_compiled=True, is_half=True) == "varlen"
    assert attention_of("auto", FAMILIES["llama"][1], device="cpu", is_compiled=True, is_half=True) == "sdpa"
    for wanted in ("sdpa", "varlen"):
        with pytest.raises(RecipeError, match=f"got `{wanted}` for a gemma2, which caps its attention logits at 50"):
            attention_of(wanted, config, device="cpu", is_compiled=False, is_half=False)
    register()
    config._attn_implementation = "varlen"
    with pytest.raises(RecipeError, match="expected attention without caps, sinks, masks"):
        Gemma2ForCausalLM(config)(input_ids=torch.arange(4).unsqueeze(0))


def test_torchs_kernel_for_cuda_is_called_as_it_wants_to_be():
    """Shapes and types alone, without a device: this suite runs where there is no GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        query = torch.empty(2, 4, 24, 8, dtype=torch.bfloat16, device="cuda")
        key = torch.empty(2, 2, 24, 8, dtype=torch.bfloat16, device="cuda")
        bounds = torch.empty(5, dtype=torch.int32, device="cuda")
        for window in (None, 5):
            out, _ = document_attention(
                torch.nn.Identity(), query, key, key, None,
                scaling=0.3, sliding_window=window, cu_seq_lens_q=bounds, max_length_q=24,
            )  # fmt: skip
            assert out.shape == (2, 24, 4, 8)


def test_flex_is_refused_where_it_cannot_train():
    with pytest.raises(RecipeError, match="got `flex` on a CPU, which has no backward pass of it"):
        attention_of("flex", FAMILIES["llama"][1], device="cpu", is_compiled=False, is_half=False)
    assert (
        attention_of("flex", FAMILIES["llama"][1], device="cuda", is_compiled=False, is_half=True) == "flex_attention"
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GptOssConfig(**_SIZES, head_dim=8, num_local_experts=2, num_experts_per_tok=2), ("eager", "flex_attention")),
        (FalconConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4), ("sdpa", "sdpa")),
        (GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4), ("varlen", "varlen")),
        (MptConfig(vocab_size=97, d_model=32, n_layers=2, n_heads=4), ("eager", "eager")),
    ],
    ids=["sinks", "no function of ours", "old and open", "neither"],
)
def test_auto_takes_what_a_class_can_do(config, expected):
    found = [attention_of("auto", config, device=device, is_compiled=False, is_half=True) for device in ("cpu", "cuda")]
    assert tuple(found) == expected


def test_a_model_gets_the_inputs_that_it_takes():
    class Body(torch.nn.Module):
        def forward(self, input_ids, use_cache=True):
            return input_ids

    class Open(torch.nn.Module):
        def forward(self, input_ids, **kwargs):
            return input_ids

    every = inputs(two_batches()[0])
    assert set(taken(Body(), every)) == {"input_ids", "use_cache"}
    assert taken(Open(), every) == every
