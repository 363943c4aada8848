"""Signs of forgetting that need no labels and cost a few forward passes; they warn, and decide nothing.

- Shifted tokens (LLaMA Pro, after URIAL): the trained model writes on greedily; where would the base rank each token?
  First is unshifted, second and third marginal, beyond that shifted.
- Divergence: KL(base || trained) in nats a token on general text; it moves before losses do.
- Change of weights: ||W' - W|| / ||W|| a layer.
- In context: random tokens come twice, and pairs of them several times in another order. Weights cannot know them, so
  what is predicted the second time is read from the context. Its loss shows in no perplexity (arXiv 2506.00288).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curricula.causal import frame_token
from curricula.interpolate import Weights, origins_of
from curricula.order import seed_of
from curricula.retention.measure import Subject
from curricula.retention.slices import Texts
from mixer.errors import SourceError
from mixer.recipe.recipe import TokenizerSpec
from mixer.tokens import load

_DOCUMENTS = 16
"""Of each general slice."""
_PROMPT, _WRITTEN = 32, 32
_ROWS = 128
"""Places whose logits are compared at a time, in float32."""
_COPIES, _COPIED = 16, 32
_PAIRS, _PASSES = 8, 3


def probe(base: Subject, trained: Subject, slices: Sequence[Texts], *, window: int, seed: int) -> dict[str, Any]:
    """All probes of a trained model against its base; both are in memory at once.

    Args:
        base: The model that training began with.
        trained: The model that it ended with.
        slices: Of which the general ones give the text.
        window: Tokens of each document that are read.
        seed: Decides random tokens.
    """
    general = [texts for texts in slices if texts.kind == "general"]
    encoded = {texts.name: encode(base, texts.most(_DOCUMENTS), window) for texts in general}
    tokens = np.unique(np.concatenate([ids[1:] for rows in encoded.values() for ids in rows]))
    with torch.inference_mode():
        return {
            "token_shift": token_shift(base, trained, [ids for rows in encoded.values() for ids in rows]),
            "divergence": {name: divergence(base, trained, rows) for name, rows in encoded.items()},
            "weight_change": weight_change(base.folder, trained.folder),
            "in_context": {
                "base": in_context(base, tokens, seed=seed),
                "trained": in_context(trained, tokens, seed=seed),
            },
        }


def encode(subject: Subject, texts: Texts, window: int) -> list[np.ndarray]:
    """Each document's first tokens behind the frame token, (at most window + 1, or what the model takes,) int64."""
    folder = subject.folder
    encoder = load(TokenizerSpec(path=str(folder.absolute()), bos=False, eos=False), folder, folder)
    frame = frame_token(subject.model.config, folder)
    most = min(window + 1, getattr(subject.model.config, "max_position_embeddings", None) or window + 1)
    return [np.concatenate([[frame], ids[: most - 1]]).astype(np.int64) for ids in encoder.encode(texts.texts)]


def token_shift(base: Subject, trained: Subject, rows: Sequence[np.ndarray]) -> dict[str, float]:
    """Shares of greedily written tokens that the base ranks first, second or third, and later.

    Args:
        base: The model that ranks.
        trained: The model that writes, after the beginning of each row that is long enough.
        rows: Documents in tokens.
    """
    prompts = [row[:_PROMPT] for row in rows if len(row) >= _PROMPT]
    if not prompts:
        return {}
    ids = torch.from_numpy(np.stack(prompts)).to(trained.device)
    parts = [ids[first : first + _DOCUMENTS] for first in range(0, len(ids), _DOCUMENTS)]
    written = torch.cat([_written(trained.model, part) for part in parts])
    ranks = []
    for row in written:
        logits = base.model(input_ids=row[None], use_cache=False).logits[0, _PROMPT - 1 : -1].float()
        chosen = logits.gather(1, row[_PROMPT:, None])
        ranks.append((logits > chosen).sum(dim=1) + 1)
    found = torch.cat(ranks).cpu().numpy()
    shares = {"unshifted": found == 1, "marginal": (found == 2) | (found == 3), "shifted": found > 3}
    return {name: float(mask.mean()) for name, mask in shares.items()}


def _written(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Prompts and what follows them greedily; `generate` would heed penalties in the model's own settings."""
    found, step, past = [ids], ids, None
    for _ in range(_WRITTEN):
        out = model(input_ids=step, past_key_values=past, use_cache=True)
        past, step = out.past_key_values, out.logits[:, -1:].argmax(-1)
        found.append(step)
    return torch.cat(found, dim=1)


def divergence(base: Subject, trained: Subject, rows: Sequence[np.ndarray]) -> float:
    """KL(base || trained), the mean over all places, nats a token."""
    total, places = 0.0, 0
    for row in rows:
        ids = torch.from_numpy(row[None]).to(base.device)
        pair = [subject.model(input_ids=ids, use_cache=False).logits[0, :-1] for subject in (base, trained)]
        for first in range(0, len(row) - 1, _ROWS):
            ours, theirs = (logits[first : first + _ROWS].float().log_softmax(-1) for logits in pair)
            total += float((ours.exp() * (ours - theirs)).sum())
        places += len(row) - 1
    return total / max(1, places)


def weight_change(base: Path, trained: Path) -> dict[str, float]:
    """Layer, or other parameter -> ||W' - W|| / ||W|| over its tensors; new blocks have no W and are left out.

    Empty where the two models have not the same tensors.
    """
    ours, theirs = Weights(trained), Weights(base)
    try:
        origins = origins_of(ours, theirs, trained)
    except SourceError:
        return {}
    sums: dict[str, np.ndarray] = {}
    for name, origin in origins.items():
        if isinstance(origin, str):
            other = theirs.read(origin).float()
            parts = [float((ours.read(name).float() - other).square().sum()), float(other.square().sum())]
            sums[_layer(name)] = sums.get(_layer(name), np.zeros(2)) + parts
    return {name: float(np.sqrt(change / max(size, 1e-30))) for name, (change, size) in sums.items()}


def _layer(name: str) -> str:
    """`layers.3` of `model.layers.3.mlp.up_proj.weight`; other names as they are."""
    head, found, rest = name.partition("layers.")
    return f"layers.{rest.split('.')[0]}" if found else head.removesuffix(".weight")


def in_context(subject: Subject, tokens: np.ndarray, *, seed: int) -> dict[str, float]:
    """How often a random token is predicted that stood in the context: by place (`copy`), by its partner (`pattern`).

    Args:
        subject: The model.
        tokens: Ids to draw from.
        seed: Decides the draws.
    """
    frame = frame_token(subject.model.config, subject.folder)
    found = {}
    for kind, rows in (("copy", _copies(tokens, seed)), ("pattern", _patterns(tokens, seed))):
        hits = []
        for ids, is_asked in rows:
            framed = torch.from_numpy(np.concatenate([[frame], ids])).to(subject.device)
            predicted = subject.model(input_ids=framed[None], use_cache=False).logits[0, :-1].argmax(-1)
            hits.append((predicted == framed[1:]).cpu().numpy()[is_asked])
        found[kind] = float(np.concatenate(hits).mean())
    return found


def _copies(tokens: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and which of them are asked for: a random text twice, its second time but for the first token."""
    for number in range(_COPIES):
        generator = np.random.default_rng(seed_of(seed, "copy", number))
        once = generator.choice(tokens, _COPIED)
        yield np.tile(once, 2).astype(np.int64), np.arange(2 * _COPIED) > _COPIED


def _patterns(tokens: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same of pairs that come several times, each time in another order: the second of each in the last pass."""
    for number in range(_COPIES):
        generator = np.random.default_rng(seed_of(seed, "pattern", number))
        pairs = generator.choice(tokens, (_PAIRS, 2), replace=len(tokens) < 2 * _PAIRS)
        ids = np.concatenate([generator.permutation(pairs) for _ in range(_PASSES)]).ravel().astype(np.int64)
        places = np.arange(len(ids))
        yield ids, (places >= 2 * _PAIRS * (_PASSES - 1)) & (places % 2 == 1)
