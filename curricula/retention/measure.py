"""A model on slices: bits of every document, kept under what decides them, so that a base model is read once.

Windows follow one another and share a single token, but for the last, which reaches back as far as it has room: those
of lm-eval's rolling likelihood. `curricula.difficulty` reads them; the first token is predicted from the frame token.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curricula.causal import dtype_of, load_model
from curricula.difficulty import VERSION, DifficultyScorer
from curricula.model import fingerprint
from curricula.retention.slices import Texts
from mixer.run import digest, write_bytes

_VERSION = 1
"""Raise it when windows change; what a model makes of them has a number of its own."""
_LOG_2 = float(np.log(2))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model needs for a slice.

    Args:
        texts: The slice.
        bits: (documents,) float64, of each whole document.
        tokens: (documents,) int64 that were predicted.
    """

    texts: Texts
    bits: np.ndarray
    tokens: np.ndarray

    @property
    def bits_per_byte(self) -> float:
        """All bits over all bytes."""
        return float(self.bits.sum() / self.texts.sizes.sum())


class Subject:
    """A model that is measured; it is loaded when something has to be asked, and not before.

    Args:
        folder: In Hugging Face format.
        store: Where fingerprints of files are remembered.
        device: `cuda` or `cpu`. Default: CUDA where there is one.
    """

    def __init__(self, folder: Path, *, store: Path, device: str | None = None) -> None:
        import torch

        self.folder, self.device = folder, device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.fingerprint = fingerprint(folder, store)

    @property
    def told(self) -> list[str]:
        """What decides its answers: weights, device, and number type, which is not the same on every CPU."""
        return [self.fingerprint, self.device, dtype_of("auto", self.device)]

    @cached_property
    def model(self) -> Any:
        """The model in memory."""
        return load_model(self.folder, device=self.device)

    def scorer(self, window: int) -> DifficultyScorer:
        """What reads texts by windows of so many tokens, each predicted once."""
        return DifficultyScorer(
            self.folder,
            max_length=window + 1,
            overlap=1,
            is_last_filled=True,
            device=self.device,
            model=self.model,
        )

    def release(self) -> None:
        """Give the model's memory back."""
        self.__dict__.pop("model", None)


def read_slices(subject: Subject, slices: Sequence[Texts], *, window: int, cache: Path) -> dict[str, Reading]:
    """What a model needs for each slice, from the cache where it was measured before.

    Args:
        subject: The model.
        slices: What to read.
        window: Tokens read at once.
        cache: Folder of earlier readings, a file for a model and a slice.

    Raises:
        RecipeError: The model cannot be read.
    """
    found: dict[str, Reading] = {}
    for texts in slices:
        path = cache / f"{digest([*subject.told, texts.fingerprint, window, VERSION, _VERSION])}.parquet"
        if not path.is_file():
            _write(path, texts, subject.scorer(window))
        table = pl.read_parquet(path, glob=False)
        found[texts.name] = Reading(texts, table["bits"].to_numpy(), table["tokens"].to_numpy())
    return found


def _write(path: Path, texts: Texts, scorer: DifficultyScorer) -> None:
    scores = scorer(texts.texts)
    table = pl.DataFrame(
        {
            "id": texts.ids,
            "bytes": texts.sizes,
            "bits": np.array([score.loss * score.tokens for score in scores], np.float64) / _LOG_2,
            "tokens": np.array([score.tokens for score in scores], np.int64),
        }
    )
    write_table(path, table)


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a small Parquet file, whole or not at all, whoever else writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())
