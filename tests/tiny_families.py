"""Tiny random models of the families that methods must fit, and the smallest training loop."""

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 61
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_SLIDING = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}
_FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 6}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True, **_SLIDING}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 8, "tie_word_embeddings": True, **_SLIDING}),
    "gemma3": (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6, "sliding_window_pattern": 2},
    ),
}
FAMILIES = tuple(_FAMILIES)


def family(name, *, depth=4, dtype=torch.float32):
    """A random model of a family with weights, biases and gains that are not at their defaults."""
    torch.manual_seed(0)
    kind, config, extra = _FAMILIES[name]
    model = kind(config(**_SIZES, num_hidden_layers=depth, **extra))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model.to(dtype).eval()


def ids(*shape, seed=1):
    return torch.randint(3, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def logits(model, tokens=None):
    with torch.no_grad():
        return model(input_ids=ids(2, 20) if tokens is None else tokens, use_cache=False).logits


def train(model, method, steps, *, start=0, optimizer=None, autocast=False, **settings):
    """Train on random tokens as the trainer does: freeze the rest, step, then let the method act. The optimizer."""
    names = {name for name, _ in method.trainable(model)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    chosen = [parameter for name, parameter in model.named_parameters() if name in names]
    optimizer = optimizer or torch.optim.AdamW(chosen, **{"lr": 1e-3, "weight_decay": 0.0, **settings})
    model.train()
    for step in range(start, start + steps):
        tokens = ids(2, 12, seed=100 + step)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        method.before_step(model)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(model)
    model.eval()
    return optimizer
