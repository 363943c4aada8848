"""What a recipe says of scores: numbers and labels beside documents, keyed by their ids, that sources filter by."""

from typing import Annotated, Literal

from pydantic import Field, Strict, StrictBool, StrictInt

from mixer.recipe.section import Count, Name, Section

COLUMNS: dict[str, dict[str, type]] = {
    "perplexity": {"value": float, "loss": float, "bits_per_byte": float, "tail": float, "tokens": float},
    "kenlm": {"value": float, "loss": float, "bits_per_byte": float, "unknown": float, "tokens": float},
    "topic": {"value": str, "probability": float},
    "education": {"value": float},
    "quality": {"value": float},
    "text": {"value": float, "words": float, "compression": float, "diversity": float, "symbols": float},
}
"""Score -> what its side file holds beside the id; `where` says `perplexity` for its value, else `perplexity.loss`."""


class Score(Section):
    """What every score has."""

    sources: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """Score these sources alone. Default: all that have text."""


class Perplexity(Score):
    """How hard each document is for a language model: perplexity, loss, bits a byte, and the loss of its worst part."""

    model: str
    """`smollm2` (the packaged model), a folder (such as a checkpoint, to score anew in a later round), or a hub id."""
    revision: str | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """`auto`: bfloat16 where the device has its arithmetic, else float32."""
    max_length: Annotated[StrictInt, Field(ge=16)] | None = None
    """Tokens read at once. Default: the model's context, at most 2,048."""
    max_tokens: Count | None = None
    """Read only so many tokens from a document's beginning."""


class KenLM(Score):
    """How unlike an n-gram model's corpus each document is: KenLM's perplexity (after CCNet, arXiv 1911.00359)."""

    model: str
    """An n-gram model, `.arpa` (also gzip), `.bin` or `.klm`, relative to the recipe."""
    tokenizer: str | None = None
    """The SentencePiece model (`.model`) whose pieces its n-grams are made of. Default: words, divided by spaces."""
    normalizer: Literal["cc_net", "none"] = "cc_net"
    """`cc_net`: lower case, no accents, digits 0, ASCII punctuation. It must be what the model was trained on."""


Probability = Annotated[float, Strict(), Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class Seeds(Section):
    """Labelled documents to learn from."""

    sources: tuple[Name, ...] = Field(min_length=1)
    field: str
    """Metadata field with the label; carry it by the source's `columns: {keep: [...]}`."""
    group: str | None = None
    """Metadata field with the site or book, whole ones of which are held out. Default: the site of the url."""


class Teacher(Section):
    """A language model that labels a sample; a small model learns from its labels and scores all documents."""

    model: Name
    """One of `models`."""
    documents: Count = 500
    """Documents that it is asked about, chosen by hash; it sees the beginning of each."""
    sources: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """Sources that the sample is drawn from. Default: those that are scored and read, not written."""


class Topic(Score):
    """What each document is about: a label and its probability, by sentence embeddings; offline."""

    labels: dict[str, str] | tuple[str, ...] | None = None
    """Labels, best with a description each (`physics: "mechanics, energy, waves"`). Default: the nine disciplines."""
    seeds: Seeds | None = None
    """Learn from labelled documents instead; accuracy on held-out groups is printed and stored."""
    teacher: Teacher | None = None
    """Learn from the labels that a language model gives a sample (after Llama-3-SynE, arXiv 2407.18743)."""
    threshold: Probability = 0.3
    """Below this probability the label is `unknown`."""
    by_site: StrictBool = True
    """Pages of one site that lie together lend each other what they seem to be about; `false` judges each alone."""


class Education(Score):
    """How much each document teaches, 0 to 5: the grade to expect of its teacher (FineWeb-Edu, arXiv 2406.17557)."""

    teacher: Teacher
    """Grades a sample, from which a small model learns."""


class Quality(Score):
    """How much each document is like good ones and unlike poor ones: a linear model on hashed words (after DCLM)."""

    positive: tuple[Name, ...] = Field(min_length=1)
    """Sources that are good."""
    negative: tuple[Name, ...] = Field(min_length=1)
    """Sources that are poor."""
    group: str | None = None
    """Metadata field with the site or book, whole ones of which are held out. Default: the site of the url."""


class Text(Score):
    """Cheap measures: characters, words, compression, share of distinct words, share of symbols."""


class Scores(Section):
    """Which scores to take. Each adds side files; no document changes."""

    perplexity: Perplexity | None = None
    kenlm: KenLM | None = None
    topic: Topic | None = None
    education: Education | None = None
    quality: Quality | None = None
    text: Text | None = None

    @property
    def taken(self) -> dict[str, Score]:
        """The scores that the recipe asks for, by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: score for name, score in found.items() if score is not None}

    @property
    def teachers(self) -> dict[str, Teacher]:
        """The teachers that scores ask, by the score's name."""
        found = {name: getattr(score, "teacher", None) for name, score in self.taken.items()}
        return {name: teacher for name, teacher in found.items() if teacher is not None}
