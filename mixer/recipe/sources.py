"""The kinds of source that a recipe may name."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, model_validator

from mixer.recipe.section import Count, Language, Name, Section
from mixer.types import Format


class Declared(Section):
    """A size taken on trust, so that `mixer plan` can answer before the data is here."""

    tokens: Count
    """Tokens of the source after cleaning. `mixer build` measures instead and warns when it differs by over 5%."""


class Columns(Section):
    """Which fields of a row hold what. A dotted path reaches into nested rows; a list on the way fans out."""

    text: str | tuple[str, ...] = "text"
    """Field with the text, or several, joined by a blank line: `[question, answer]`, `[html, answers.html]`."""
    id: str | None = None
    """Field with a unique id. Default: `file#row`."""
    url: str = "url"
    licence: str = "licence"
    language: str = "lang"
    keep: tuple[str, ...] = ()
    """Further fields to carry in each document's metadata."""


class HtmlColumns(Columns):
    """The same for rows of pages, whose text is a field `html`."""

    text: str | tuple[str, ...] = "html"


FilterName = Literal["gopher_repetition", "gopher_quality", "c4", "fineweb"]


class Files(Section):
    """What every kind of source that is read has."""

    path: str | tuple[str, ...]
    """File, glob (`**` is recursive) or list of them, relative to the recipe."""
    max_documents: Count | None = None
    """Read at most this many rows, from the start of the first file on."""
    language: Language | None = None
    """ISO 639 code such as `en` or `zh-Hans`, when known; else the row's own field, else identified from the text."""
    licence: str | None = None
    on_error: Literal["stop", "skip"] | None = None
    """Replaces the recipe's `on_error` for this source."""
    declared: Declared | None = None


class Source(Files):
    """What every kind of source of text has."""

    filters: tuple[FilterName, ...] | None = None
    """Replaces `clean.filters` for this source (`[]` for code and other non-prose)."""
    where: str | None = None
    """Keep documents whose scores pass, such as `perplexity < 60 and topic == 'physics'`; see `scores`."""


class HtmlSource(Source):
    """HTML pages: files, a `.tar` (`.gz`, `.zst`) of them, or `.jsonl` (`.gz`, `.zst`) rows with an `html` field."""

    kind: Literal["html"]
    columns: HtmlColumns = HtmlColumns()


class WarcSource(Source):
    """Web archives: `.warc`, `.warc.gz`, `.arc`, `.arc.gz`; HTML responses are read, other records are counted."""

    kind: Literal["warc"]


class JsonlSource(Source):
    """One JSON object a line: `.jsonl`, `.jsonl.gz`, `.jsonl.zst`."""

    kind: Literal["jsonl"]
    columns: Columns = Columns()
    format: Format = "text"
    """Mark-up of the text field: `text`, `markdown`, `html`, or `jats` (article XML)."""


class ParquetSource(Source):
    """Parquet files."""

    kind: Literal["parquet"]
    columns: Columns = Columns()
    format: Format = "text"


class TextSource(Source):
    """Plain text files: `.txt`, `.md`, `.gz`, `.zst`."""

    kind: Literal["text"]
    format: Format = "text"
    split: Literal["file", "blank_line", "line"] = "file"
    """One document a file, a paragraph between blank lines, or a line."""


class HubSource(Source):
    """A Hugging Face data set, streamed; `path` is its hub id, or a local folder in the same layout."""

    kind: Literal["hub"]
    path: str
    config: str | None = None
    folder: str | None = None
    """Read this folder of the data set alone."""
    split: str = "train"
    revision: str | None = None
    """Commit, tag or branch. Pin a commit for a build that can be repeated."""
    columns: Columns = Columns()
    format: Format = "text"


class TokensSource(Files):
    """Documents that are token ids already, by the recipe's tokenizer: mixed, ordered and exported as they are.

    Each gets the recipe's frame (`tokenizer.eos`, `tokenizer.bos`) where it lacks it. There is no text to clean, to
    look for duplicates or benchmarks in, or to score.
    """

    kind: Literal["tokens"]
    format: Literal["megatron", "nanotron", "olmo", "torchtitan", "llmc", "flat", "parquet", "arrow"]
    """As exports are called; `path` names the files with the ids: `.bin` with `.idx` beside it (`megatron`), `.ds` with
    `.index` (`nanotron`, datatrove), `.npy` with `.csv.gz` (`olmo`), `tokens.bin` with `document_offsets.npy`
    (`torchtitan`), shards with a header (`llmc`), plain ids (`flat`), tables with a list a row (`parquet`, `arrow`)."""
    boundaries: Literal["index", "eos"] | None = None
    """Where documents end: where the index beside the ids says, or a row of a table ends; or after each end-of-text
    token. Default: `index`, but `eos` where there is none (`llmc`, `flat`)."""
    dtype: Literal["uint8", "uint16", "uint32", "int32", "int64"] | None = None
    """Of `olmo` and `flat`, whose files do not say. Default: the smallest of uint8, uint16 and uint32 that holds
    every id."""
    column: str | None = None
    """Of tables: the column with the ids. Default: `input_ids`."""
    tokenizer: str | None = None
    """What the files' metadata calls the recipe's tokenizer (a name, or the digest of an export of ours), where that is
    not what the recipe calls it."""
    decontaminated: StrictBool = False
    """Say that its text was held against the recipe's benchmarks before it was tokenized: ids cannot be searched, so
    `clean.decontaminate` asks for this."""

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        if self.boundaries == "index" and self.is_bare:
            raise ValueError(f"`boundaries: eos`: {self.format} has no index")
        if self.dtype is not None and self.format not in _UNTYPED:
            raise ValueError(f"no `dtype`: the files of {self.format} say it")
        if self.column is not None and not self.is_table:
            raise ValueError(f"no `column`: {self.format} has none")
        return self

    @property
    def is_bare(self) -> bool:
        """Whether nothing beside the ids says where documents end."""
        return self.format in _BARE

    @property
    def is_table(self) -> bool:
        """Whether a row is a list of ids."""
        return self.format in _TABLES

    @property
    def is_cut_at_eos(self) -> bool:
        """Whether documents end after each end-of-text token."""
        return self.boundaries == "eos" or self.is_bare


_BARE = ("llmc", "flat")
_UNTYPED = ("olmo", "flat")
_TABLES = ("parquet", "arrow")

TaskName = Literal["science_qa", "code_qa", "rephrase", "replay"]


class SynthSource(Section):
    """Text that a model writes from the pages of another source, verified; settings stand in `synth`."""

    kind: Literal["synth"]
    task: TaskName
    source: Name = Field(alias="from")
    """The source whose pages are read; if no stage mixes it too, nothing trains on the pages themselves."""
    declared: Declared | None = None
    where: str | None = None
    """Keep documents whose scores pass, such as `perplexity < 60`; see `scores`."""


PageSource = Annotated[
    HtmlSource | WarcSource | JsonlSource | ParquetSource | TextSource | HubSource,
    Field(discriminator="kind"),
]
AnySource = Annotated[
    HtmlSource | WarcSource | JsonlSource | ParquetSource | TextSource | HubSource | TokensSource | SynthSource,
    Field(discriminator="kind"),
]
