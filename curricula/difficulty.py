"""How hard a document is for a language model: loss a token and bits a byte, by any causal model, on CPU or CUDA.

Every token is predicted, the first from a frame token alone. Documents longer than the model's context are read in
windows that share some context; windows of like length share a batch, so that almost nothing is padding, and only the
wanted rows of the hidden states are turned into logits, a bounded number at a time (a model that scales or caps its
logits is run whole, in smaller batches).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curricula.causal import device as found_device
from curricula.causal import frame_token, load_model
from mixer.errors import RecipeError
from mixer.recipe.recipe import TokenizerSpec
from mixer.tokens import load

VERSION = 2
"""Raise it when the same model would give the same text another value."""

_CONTEXT = 2048
_OVERLAP = 0.25
"""Share of a window that only gives context to the rest."""
_TAIL = 0.95
_CHUNK_TOKENS = 500_000
"""Tokens sorted by length at a time; bounds what is held beside the texts."""
_BATCH_TOKENS = {"cpu": 4096, "cuda": 65_536}
_LOGITS = {"cpu": 2**26, "cuda": 2**29}
"""Logits held at a time, in numbers: a quarter of a GB, two GB in float32."""
_PROBE = 8
_CHARS_A_TOKEN = 32
"""More than tokens of any ordinary text have."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What a model finds in one document.

    Args:
        loss: Mean negative log-likelihood, nats a token.
        bits_per_byte: The same in bits, over the UTF-8 bytes of what was read; compares across tokenizers.
        tail: The loss that 95% of its tokens stay below: high where a part of the text is noise.
        tokens: Tokens that were predicted.
    """

    loss: float
    bits_per_byte: float
    tail: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a framed document that is read at once: `ids[start:end]`, of which those from `first` on are scored."""

    document: int
    start: int
    end: int
    first: int


def windows_of(document: int, length: int, size: int, overlap: int, *, is_last_filled: bool = False) -> list[Window]:
    """Windows that score each of `ids[1:length]` once.

    With `is_last_filled` the last one, too, reaches as far back as it has room: dearer, and what lm-eval does.

    Example:
        >>> [(w.start, w.end, w.first) for w in windows_of(0, 10, size=6, overlap=2)]
        [(0, 6, 1), (4, 10, 6)]
    """
    found = [Window(document, 0, min(size, length), 1)]
    while found[-1].end < length:
        done = found[-1].end
        end = min(done - overlap + size, length)
        found.append(Window(document, end - size if is_last_filled else done - overlap, end, done))
    return found


def batches_of(windows: Sequence[Window], tokens: int) -> Iterator[list[Window]]:
    """Yield windows, longest first, as many at a time as `tokens` places hold when all are as wide as the widest."""
    ordered = sorted(windows, key=lambda window: (window.start - window.end, window.document, window.start))
    batch: list[Window] = []
    for window in ordered:
        width = batch[0].end - batch[0].start if batch else 0
        if batch and width * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


class DifficultyScorer:
    """Scores texts with one model.

    Args:
        folder: The model in Hugging Face format.
        dtype: `auto` is bfloat16 where the device has its arithmetic, else float32.
        max_length: Tokens read at once. Default: the model's context, at most 2,048.
        overlap: Tokens of a window that only give context to the rest, at least 1. Default: a quarter of it.
        is_last_filled: Whether a text's last window has as much context as there is room for (see `windows_of`).
        max_tokens: Read only so many tokens from each text's beginning.
        batch_tokens: Tokens a batch. Default by device.
        device: `cuda` or `cpu`. Default: CUDA where there is one.
        model: The folder's model, where it is in memory already, on its device.

    Raises:
        RecipeError: The model cannot be read, or has no token to begin a text with; or, of a text, its loss is none.
        ValueError: Windows would share nothing, or never move on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str = "auto",
        max_length: int | None = None,
        overlap: int | None = None,
        is_last_filled: bool = False,
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        device: str | None = None,
        model: Any = None,
    ) -> None:
        self.device = device or found_device()
        self._model = load_model(folder, dtype=dtype, device=self.device) if model is None else model
        config = self._model.config
        most = getattr(config, "max_position_embeddings", None) or _CONTEXT
        self._size = min(max_length or _CONTEXT, most)
        self._overlap = max(1, int(self._size * _OVERLAP)) if overlap is None else overlap
        if not 1 <= self._overlap < self._size:
            raise ValueError(f"overlap: got {self._overlap}, expected 1 to {self._size - 1}, less than a window")
        self._is_last_filled, self._max_tokens = is_last_filled, max_tokens
        self._batch_tokens = max(batch_tokens or _BATCH_TOKENS[self.device], self._size)
        self._encoder = load(TokenizerSpec(path=str(folder.absolute()), bos=False, eos=False), folder, folder)
        self._frame = frame_token(config, folder)
        self._body, self._head = self._model.base_model, self._model.get_output_embeddings()
        self._is_plain = self._has_plain_head()
        rows = max(1, _LOGITS[self.device] // int(config.get_text_config().vocab_size))
        self._logit_rows = rows
        if not self._is_plain:
            # The whole model turns every place into logits.
            self._batch_tokens = max(self._size, min(self._batch_tokens, rows))

    def __call__(self, texts: Sequence[str]) -> list[Difficulty]:
        """One Difficulty a text; an empty text has loss 0 and no tokens."""
        found: list[Difficulty] = []
        for part in self._chunks(self._encoder.encode(texts)):
            found += self._scored(texts[len(found) : len(found) + len(part)], part)
        return found

    def _chunks(self, encoded: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Framed ids of as many texts as make up a chunk."""
        part: list[np.ndarray] = []
        held = 0
        for ids in encoded:
            kept = ids if self._max_tokens is None else ids[: self._max_tokens]
            part.append(np.concatenate([[self._frame], kept]).astype(np.int64))
            held += len(kept)
            if held >= _CHUNK_TOKENS:
                yield part
                part, held = [], 0
        if part:
            yield part

    def _scored(self, texts: Sequence[str], part: Sequence[np.ndarray]) -> list[Difficulty]:
        windows = [
            window
            for number, ids in enumerate(part)
            if len(ids) > 1
            for window in windows_of(number, len(ids), self._size, self._overlap, is_last_filled=self._is_last_filled)
        ]
        losses = [np.zeros(len(ids) - 1, np.float32) for ids in part]
        for batch in batches_of(windows, self._batch_tokens):
            flat = self._losses([part[window.document][window.start : window.end] for window in batch], batch)
            for window in batch:
                count = window.end - window.first
                losses[window.document][window.first - 1 : window.end - 1] = flat[:count]
                flat = flat[count:]
        return [self._told(text, ids, its) for text, ids, its in zip(texts, part, losses, strict=True)]

    def _told(self, text: str, ids: np.ndarray, losses: np.ndarray) -> Difficulty:
        if not len(losses):
            return Difficulty(0.0, 0.0, 0.0, 0)
        total = float(losses.sum(dtype=np.float64))
        if not math.isfinite(total):
            raise RecipeError(
                f"scores: got a loss of {total} for a text that begins {text[:40]!r}, expected a number",
                hint="the model's weights are damaged, or too large for `dtype: float16`; try float32",
            )
        is_whole = self._max_tokens is None or len(losses) < self._max_tokens
        size = len(text.encode("utf-8", "replace")) if is_whole else bytes_of(self._encoder.backend, text, len(losses))
        return Difficulty(
            loss=total / len(losses),
            bits_per_byte=total / math.log(2) / max(1.0, size),
            tail=float(np.quantile(losses, _TAIL)),
            tokens=len(losses),
        )

    def _losses(self, rows: Sequence[np.ndarray], windows: Sequence[Window]) -> np.ndarray:
        """The loss of every scored token of the batch, row by row, as float32."""
        import torch

        width = len(rows[0])
        ids = np.full((len(rows), width), self._frame, np.int64)
        wanted = np.zeros((len(rows), width - 1), bool)
        for number, (row, window) in enumerate(zip(rows, windows, strict=True)):
            ids[number, : len(row)] = row
            # Position p predicts token p + 1; padding stands to the right, where a causal model never looks.
            wanted[number, window.first - window.start - 1 : len(row) - 1] = True
        with torch.inference_mode():
            inputs = torch.from_numpy(ids).to(self.device)
            mask = torch.from_numpy(wanted).to(self.device)
            targets = inputs[:, 1:][mask]
            if not self._is_plain:
                picked = self._model(input_ids=inputs, use_cache=False).logits[:, :-1][mask]
                return self._cross_entropy(picked, targets, head=None)
            hidden = self._body(input_ids=inputs, use_cache=False).last_hidden_state[:, :-1][mask]
            return self._cross_entropy(hidden, targets, head=self._head)

    def _cross_entropy(self, rows: Any, targets: Any, head: Any) -> np.ndarray:
        """Losses of rows of hidden states (or of logits, without a head), in float32, a bounded number at a time."""
        import torch
        from torch.nn.functional import cross_entropy

        step = self._logit_rows
        parts = [
            cross_entropy(
                (rows[i : i + step] if head is None else head(rows[i : i + step])).float(),
                targets[i : i + step],
                reduction="none",
            )
            for i in range(0, len(rows), step)
        ]
        found: np.ndarray = torch.cat(parts).cpu().numpy()
        return found

    def _has_plain_head(self) -> bool:
        """Whether the output layer alone turns hidden states into logits; some models scale or cap them afterwards."""
        import torch

        with torch.inference_mode():
            ids = torch.arange(_PROBE, device=self.device).unsqueeze(0)
            whole = self._model(input_ids=ids, use_cache=False).logits.float()
            alone = self._head(self._body(input_ids=ids, use_cache=False).last_hidden_state).float()
            return bool(torch.allclose(whole, alone, rtol=1e-3, atol=1e-3))


def bytes_of(tokenizer: Any, text: str, count: int) -> float:
    """UTF-8 bytes that the first tokens of a text stand for; of a character that they end in, their share.

    Args:
        tokenizer: A `tokenizers.Tokenizer`.
        text: Of at least so many tokens.
        count: Tokens, at least 1.
    """
    room = _CHARS_A_TOKEN * (count + 1)
    spans = tokenizer.encode(text[:room], add_special_tokens=False).offsets
    if len(spans) <= count and room < len(text):
        spans = tokenizer.encode(text, add_special_tokens=False).offsets
    start, end = spans[count - 1]
    alike = [number for number, span in enumerate(spans[: count + _CHARS_A_TOKEN]) if span == (start, end)]
    read = sum(number < count for number in alike) / len(alike)
    whole, last = (len(part.encode("utf-8", "replace")) for part in (text[:start], text[start:end]))
    return whole + last * read
