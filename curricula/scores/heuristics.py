"""Figures of a text that need no model and no training."""

import unicodedata
import zlib
from collections import Counter

from mixer.dedup import words

VERSION = 1
"""Raise it when the same text would give other figures."""
DIVERSITY_WORDS = 2000


def heuristics(text: str) -> dict[str, float]:
    """Figures of a text that need no training, by name.

    characters, words: How many.
    compression: Bytes after zlib at level 6 over bytes before; low for repetition. 1.0 for an empty text.
    diversity: Distinct words over words, among the first `DIVERSITY_WORDS` only: in longer texts the same words come
        back, and the share would measure length. Shorter texts still have the higher shares.
    symbols: Share of characters that are neither letters (with their accents), digits nor space.
    """
    raw = text.encode("utf-8", "surrogatepass")
    tokens = words(text)
    head = tokens[:DIVERSITY_WORDS]
    symbols = sum(count for character, count in Counter(text).items() if _is_symbol(character))
    return {
        "characters": float(len(text)),
        "words": float(len(tokens)),
        "compression": len(zlib.compress(raw, 6)) / len(raw) if raw else 1.0,
        "diversity": len(set(head)) / len(head) if head else 0.0,
        "symbols": symbols / len(text) if text else 0.0,
    }


def _is_symbol(character: str) -> bool:
    return not (character.isalnum() or character.isspace() or unicodedata.category(character).startswith("M"))
