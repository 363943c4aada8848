"""What an export of a Run must hold, read from the Run: ids, documents, and what else a row says of itself."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mixer.exports.arrow import IGNORED
from mixer.exports.nanotron import place
from mixer.exports.rows import Rows
from mixer.exports.target import document_lengths, without_padding
from mixer.recipe.exports import Export

_MERGED = ("megatron", "olmo", "nanotron", "torchtitan")
"""Formats whose blended documents are whole though a sequence ended in them."""


@dataclass(frozen=True, slots=True)
class Verified:
    """One thing that was read back: with what, how many tokens, and whether documents were compared too."""

    set: str
    reader: str
    tokens: int
    documents: int | None


def tokens_of(wanted: Export, rows: Rows) -> Iterator[np.ndarray]:
    """The ids that a set must hold."""
    return without_padding(rows) if (wanted.format, wanted.mode) == ("megatron", "blended") else rows.tokens()


def documents_of(wanted: Export, rows: Rows) -> Iterator[np.ndarray]:
    """The lengths that a set's documents must have."""
    merge = wanted.mode == "blended" and wanted.format in _MERGED
    if wanted.format == "nanotron" and not merge:
        rows = rows.ordered(place(len(rows), wanted.shuffle_seed))
    return document_lengths(rows, merge=merge, padding=wanted.format != "megatron")


def column_of(rows: Rows, name: str) -> Iterator[np.ndarray]:
    """Yield what a column must say of rows.

    Args:
        rows: The rows.
        name: `source` and `sequence`, one a row; `padding`, one a document; `attention_mask` and `labels`, one a token.
    """
    names = np.array(rows.shards.names, object)
    for pairs, ids, found in zip(rows.pairs(), rows.tokens(), rows.pieces(), strict=True):
        real = np.repeat(~found.padding, found.length)
        yield {
            "source": names[pairs[:, 0]],
            "sequence": pairs[:, 1],
            "padding": found.padding,
            "attention_mask": real,
            "labels": np.where(real, ids.reshape(-1).astype(np.int64), IGNORED),
        }[name]
