"""A causal model of a few thousand random weights, in a folder as transformers writes it, with the byte tokenizer."""

import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.toys import byte_tokenizer

_SIZES = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 257,
}


def tiny_model(folder, *, capped=False, **changes):
    """The folder of a random Llama, or of a Gemma 2, which caps its logits after the output layer."""
    torch.manual_seed(0)
    if capped:
        config = Gemma2Config(**_SIZES, head_dim=8, final_logit_softcapping=1.0, attn_logit_softcapping=1.0, **changes)
        model = Gemma2ForCausalLM(config)
    else:
        model = LlamaForCausalLM(LlamaConfig(**(_SIZES | {"tie_word_embeddings": False} | changes)))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5.0)
    model.save_pretrained(folder, safe_serialization=True)
    return byte_tokenizer(folder)
