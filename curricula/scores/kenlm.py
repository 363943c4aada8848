"""How unlike an n-gram model's corpus a document is: KenLM's perplexity, with the text prepared as CCNet prepares it.

A second opinion to `curricula.difficulty` that costs microseconds a word and no GPU. Price: it sees six words at most,
and nothing in an unknown one, which may even cost less than a known: `unknown` says how much of a text that is.
The formula, with an end-of-line token a line, and the normaliser are those of cc_net (Wenzek et al., arXiv 1911.00359).
Two things differ on purpose: a line without words is left out, and with a SentencePiece tokenizer lines stay lines,
where cc_net removes the line ends as control characters and joins the words beside them.
"""

import importlib.util
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricula.model import fingerprint
from mixer.context import Context
from mixer.errors import RecipeError
from mixer.recipe.scores import KenLM
from mixer.score import Scorer, Scoring

VERSION = 1
"""Raise it when the same model would give the same text another value."""

_PLAIN = {
    '"': "„”“«»」「《》",
    "'": "´’",
    "-": "–━►",
    ",": "，、",
    ".": "。",
    ":": "∶：",
    "?": "？",
    "!": "！",
    "(": "（",
    ")": "）",
    ";": "；",
    "~": "～",
    "<": "〈",
    ">": "〉",
    "[": "【",
    "]": "】",
    "%": "％",
    " - ": "—",
    ". ": "．",
    "...": "…",
}
"""ASCII punctuation, and what cc_net writes so."""
_TABLE = {ord(mark): plain for plain, marks in _PLAIN.items() for mark in marks}
_TABLE |= dict.fromkeys([*range(32), *range(127, 160)])
_DIGIT = re.compile(r"\d")
_UNKNOWN = "<unk>"
_FRAMES = {"<s>", "</s>"}
"""Words of a text that a model would take for its own frame of a line, at a probability of nothing."""


@dataclass(frozen=True, slots=True)
class Familiarity:
    """What a model finds in one document; missing values where the document has no word.

    Args:
        perplexity: 10 ** (-log10 of its probability / tokens).
        loss: The same in nats a token.
        bits_per_byte: The same in bits, over the UTF-8 bytes of the prepared lines, each with its line end. Missing
            where a token is unknown: its probability is that of any unknown token, and does not spell it.
        unknown: Share of the tokens that the model does not know.
        tokens: Words or pieces, and an end of each line.
    """

    perplexity: float | None
    loss: float | None
    bits_per_byte: float | None
    unknown: float | None
    tokens: int


def normalized(line: str) -> str:
    """The line as cc_net's models were trained on it: lower case, no accents, digits 0, ASCII marks, no control.

    Example:
        >>> normalized("  «Évry» had 53,829 people… ")
        '"evry" had 00,000 people...'
    """
    plain = line.strip().lower()
    if not plain.isascii():
        plain = "".join(char for char in unicodedata.normalize("NFD", plain) if unicodedata.category(char) != "Mn")
    return _DIGIT.sub("0", plain).translate(_TABLE)


class FamiliarityScorer:
    """Scores texts with one n-gram model.

    Args:
        model: `.arpa`, or a binary that KenLM made of one.
        tokenizer: SentencePiece model whose pieces the n-grams are made of. Default: words between spaces.
        normalize: What is done to each line first.

    Raises:
        RecipeError: A file cannot be read as what it should be.
    """

    def __init__(self, model: Path, tokenizer: Path | None = None, normalize: Callable[[str], str] = str) -> None:
        self._model = _opened(model)
        self._pieces = str.split if tokenizer is None else _tokenizer(tokenizer)
        self._normalize = normalize

    def __call__(self, texts: Sequence[str]) -> list[Familiarity]:
        """One Familiarity a text."""
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> Familiarity:
        log10, tokens, unknown, size = 0.0, 0, 0, 0
        for words in map(self._words, text.split("\n")):
            if words:
                line = " ".join(words)
                log10 += self._model.score(line)
                tokens += len(words) + 1
                unknown += sum(word not in self._model for word in words)
                size += len(line.encode()) + 1
        if not tokens:
            return Familiarity(None, None, None, None, 0)
        return Familiarity(
            perplexity=10.0 ** (-log10 / tokens),
            loss=-log10 * math.log(10) / tokens,
            bits_per_byte=None if unknown else -log10 * math.log2(10) / size,
            unknown=unknown / tokens,
            tokens=tokens,
        )

    def _words(self, line: str) -> list[str]:
        pieces = self._pieces(self._normalize(line))
        # KenLM divides at ASCII spaces alone; a piece may hold another.
        return [_UNKNOWN if word in _FRAMES else word for piece in pieces for word in piece.split()]


@dataclass(frozen=True, slots=True)
class OpenFamiliarity:
    """Opens an n-gram model."""

    model: Path
    tokenizer: Path | None
    normalizer: str

    def __call__(self) -> Scorer:
        scorer = FamiliarityScorer(self.model, self.tokenizer, normalized if self.normalizer == "cc_net" else str)

        def score(texts: Sequence[str], urls: Sequence[str | None]) -> dict[str, list[Any]]:
            found = scorer(texts)
            values = {"value": [each.perplexity for each in found]}
            names = ("loss", "bits_per_byte", "unknown", "tokens")
            return values | {key: [getattr(each, key) for each in found] for key in names}

        return score


def ready(context: Context, settings: KenLM, *_: Any) -> Scoring:
    """The score, ready to be taken.

    Raises:
        RecipeError: A library or a file is not there.
    """
    model = _found(context, "model", settings.model)
    _check_installed("kenlm")
    tokenizer = None
    if settings.tokenizer is not None:
        tokenizer = _found(context, "tokenizer", settings.tokenizer)
        _check_installed("sentencepiece")
    inputs = {
        "model": fingerprint(model, context.store),
        "tokenizer": tokenizer and fingerprint(tokenizer, context.store),
        "normalizer": settings.normalizer,
        "version": ["kenlm", VERSION],
    }
    return Scoring(inputs, OpenFamiliarity(model, tokenizer, settings.normalizer))


def _found(context: Context, key: str, path: str) -> Path:
    file = context.base / Path(path).expanduser()
    if not file.is_file():
        raise RecipeError(
            f"scores.kenlm.{key}: got no file {path!r} in {context.base.absolute()}, expected one",
            hint="a path is relative to the recipe; `.arpa`, `.bin` and `.klm` are models, `.model` is a tokenizer",
        )
    return file


def _check_installed(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise RecipeError(
            f"scores.kenlm: got no library `{library}`, expected it to be installed",
            hint="pip install 'curriculum-mixer[kenlm]'; `kenlm` is built on the spot and needs a C++ compiler",
        )


def _opened(path: Path) -> Any:
    import kenlm

    config = kenlm.Config()
    config.show_progress, config.arpa_complain = False, kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(str(path), config)
    except (OSError, RuntimeError) as error:
        raise RecipeError(
            f"scores.kenlm.model: got {path}, expected an n-gram model: {str(error).rpartition('Exception. ')[2]}",
            hint="`.arpa` as text (plain or gzip), `.bin` or `.klm` as KenLM's build_binary writes them",
        ) from error


def _tokenizer(path: Path) -> Callable[[str], list[str]]:
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise RecipeError(
            f"scores.kenlm.tokenizer: got {path}, expected a SentencePiece model: {error}",
            hint="a model of cc_net comes with one, such as `en.sp.model` beside `en.arpa.bin`",
        ) from error

    def pieces(line: str) -> list[str]:
        found: list[str] = processor.encode(line, out_type=str)
        return found

    return pieces
