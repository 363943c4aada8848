"""Documents that share a packed sequence do not see each other, whatever computes attention.

transformers masks documents by positions that begin anew, but only with `use_cache=False` and no attention mask; any
other call lets them attend to each other (measured: logits differ by 0.2 to 0.6). So every call of ours goes through
`inputs_of`, and `check_isolation` tries the very model that is to be trained before anything is.

`varlen` is our own attention function for transformers: no mask at all, each document alone. On CUDA it is torch's
`varlen_attn`, on a CPU `curricula.attention`; what neither can do is one call of `scaled_dot_product_attention` a
document.
"""

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from curricula.attention import packed_attention
from mixer.errors import RecipeError

_NAMES = {"sdpa": "sdpa", "flex": "flex_attention", "varlen": "varlen", "eager": "eager"}
_PROBE = 24
_TOLERANCE = 1e-3
"""Of the largest hidden state: a kernel may round differently, a leak changes a state by tens of percent."""


def attention_of(wanted: str, config: Any, *, device: str, is_compiled: bool, is_half: bool) -> str:
    """The name of the attention implementation to load a model with.

    Args:
        wanted: `train.attention`.
        config: The model's; one that caps attention logits needs `eager` or `flex`.
        device: `cpu` or `cuda`.
        is_compiled: A loop over documents would be compiled anew for every batch.
        is_half: Whether the arithmetic is bfloat16, which torch's `varlen_attn` needs.

    Raises:
        RecipeError: The model caps its attention logits and what is wanted does not.
    """
    register()
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    fitting = "flex" if device == "cuda" else "eager"
    if capped and wanted in ("sdpa", "varlen"):
        # transformers would drop the cap without a word, and train another model.
        raise RecipeError(
            f"train.attention: got `{wanted}` for a {config.model_type}, which caps its attention logits at {capped:g},"
            f" expected `{fitting}`",
            hint="leave `attention` out: `auto` takes what the model needs",
        )
    if wanted == "flex" and device == "cpu":
        raise RecipeError(
            "train.attention: got `flex` on a CPU, which has no backward pass of it, expected another one",
            hint="leave `attention` out",
        )
    if wanted != "auto":
        return _NAMES[wanted]
    if capped:
        return _NAMES[fitting]
    if not _supports(config, "_supports_sdpa"):
        return _NAMES["flex" if device == "cuda" and _supports(config, "_supports_flex_attn") else "eager"]
    fits = is_half if device == "cuda" else not is_compiled
    return _NAMES["varlen" if fits and _supports(config, "_supports_attention_backend") else "sdpa"]


def _supports(config: Any, what: str) -> bool:
    """What a class says of itself: models with sinks compute no `sdpa`, old ones take no function of ours."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return bool(getattr(kind, what, False))


def register() -> None:
    """Make `varlen` known to transformers; no mask is made for it."""
    from transformers import AttentionInterface

    AttentionInterface.register("varlen", document_attention)


def inputs_of(ids: Tensor, positions: Tensor, bounds: Tensor, longest: int) -> Mapping[str, Any]:
    """What a transformers model is called with, so that documents stay apart.

    Args:
        ids: (rows, length) int64.
        positions: (rows, length) int64, which begin at 0 with each document.
        bounds: (documents + 1,) int32, where documents begin in the flattened ids, and the end.
        longest: Tokens of the longest document.
    """
    return {
        "input_ids": ids,
        "position_ids": positions,
        "use_cache": False,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def taken(module: torch.nn.Module, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of the inputs that a model's forward takes; without positions `check_isolation` will refuse it."""
    known = signature(module.forward).parameters.values()
    if any(each.kind is Parameter.VAR_KEYWORD for each in known):
        return inputs
    names = {each.name for each in known}
    return {name: value for name, value in inputs.items() if name in names}


def document_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each document; the signature is that of transformers' attention functions.

    `query` is (rows, heads, length, width), `key` and `value` may have fewer heads; `cu_seq_lens_q` says where
    documents begin in the flattened batch, and the end (default: a document a row). The result is (rows, length, heads,
    width).

    Raises:
        RecipeError: The model asks for what this cannot do.
    """
    if softcap is not None or s_aux is not None or attention_mask is not None or (query.is_cuda and dropout):
        # Silence here would train another model than the one that is loaded.
        raise RecipeError(
            f"train.attention: got `varlen` for {type(module).__name__}, expected attention without caps, sinks, masks"
            " (and on CUDA dropout)",
            hint="use `attention: flex` on CUDA, else `attention: eager`",
        )
    rows, _heads, length, _width = query.shape
    flat = [part.transpose(1, 2).flatten(0, 1) for part in (query, key, value)]
    shared = key.shape[1] != query.shape[1]
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        from torch.nn.attention.varlen import varlen_attn

        bounds = cu_seq_lens_q
        if bounds is None or max_length_q is None:
            bounds = torch.arange(0, (rows + 1) * length, length, dtype=torch.int32, device=query.device)
            max_length_q = length
        # torch counts the keys to the left of the query, transformers the query too.
        window = (-1 if sliding_window is None else sliding_window - 1, 0)
        longest = max_length_q
        out: Any = varlen_attn(
            flat[0], flat[1], flat[2], bounds, bounds, longest, longest,
            scale=scaling, window_size=window, enable_gqa=shared,
        )  # fmt: skip
        return out.unflatten(0, (rows, length)), None
    bounds = torch.arange(0, (rows + 1) * length, length) if cu_seq_lens_q is None else cu_seq_lens_q
    if query.is_cuda or dropout:
        lengths = bounds.diff().tolist()
        out = _one_by_one(flat, lengths, scaling=scaling, dropout=dropout, window=sliding_window, shared=shared)
    else:
        factor = query.shape[-1] ** -0.5 if scaling is None else scaling
        out = packed_attention(flat[0], flat[1], flat[2], bounds, scaling=factor, window=sliding_window)
    return out.unflatten(0, (rows, length)), None


def _one_by_one(
    flat: Sequence[Tensor],
    lengths: Sequence[int],
    *,
    scaling: float | None,
    dropout: float,
    window: int | None,
    shared: bool,
) -> Tensor:
    """Attention a document at a time; (tokens, heads, width) each, as the result."""
    # split, not slices: the gradient of a split is one concatenation, that of a slice a whole tensor of zeros.
    pieces = zip(*(torch.split(part, list(lengths)) for part in flat), strict=True)
    found = []
    for document in pieces:
        query, key, value = (part.transpose(0, 1).unsqueeze(0) for part in document)
        size = query.shape[2]
        mask = None if window is None or size <= window else _band(size, window, query.device)
        out = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=shared,
        )
        found.append(out.squeeze(0).transpose(0, 1))
    return torch.cat(found)


def _band(size: int, window: int, device: torch.device) -> Tensor:
    places = torch.arange(size, device=device)
    distance = places.unsqueeze(1) - places
    return (distance >= 0) & (distance < window)


@torch.no_grad()
def check_isolation(body: Any, *, vocabulary: int) -> None:
    """Try that a document's hidden states do not depend on the document before it in the same sequence.

    Args:
        body: The model below its output layer, as it is going to be trained.
        vocabulary: Ids that may be tried.

    Raises:
        RecipeError: They do: the model has some state that runs on, or attention that heeds no positions.
    """
    device = next(body.parameters()).device
    first = torch.arange(_PROBE, device=device) % vocabulary
    rows = torch.stack([first, torch.cat([first[: _PROBE // 2].flip(0), first[_PROBE // 2 :]])])
    half = torch.arange(_PROBE // 2, device=device)
    bounds = torch.arange(0, 2 * _PROBE + 1, _PROBE // 2, dtype=torch.int32, device=device)
    was_training = body.training
    positions = torch.cat([half, half]).expand(2, -1)
    inputs = taken(body, inputs_of(rows, positions, bounds, _PROBE // 2))
    hidden = body.eval()(**inputs).last_hidden_state.float()
    body.train(was_training)
    one, other = hidden[:, _PROBE // 2 :]
    difference, size = float((one - other).abs().max()), float(one.abs().max())
    if not difference <= _TOLERANCE * size:
        raise RecipeError(
            f"train.document_mask: got {type(body).__name__}, in which one document changes the next by"
            f" {difference / size:.0%}, expected documents that do not see each other",
            hint="try another `attention`, or set `document_mask: false`",
        )
