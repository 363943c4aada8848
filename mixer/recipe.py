"""The Recipe: every section as a frozen, typed model. The only place where a default is written.

`mixer schema` prints these models as JSON Schema for editors; `recipe_file.load` reads them from YAML.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictInt,
    StringConstraints,
    WithJsonSchema,
)

from mixer.types import Format

PACKAGED = "smollm2"
"""Name of the tokenizer of the packaged model."""

_SUFFIX = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_COUNT = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([KMBT]?)", re.IGNORECASE | re.ASCII)


def parse_count(value: Any) -> int:
    """A whole number from `1_000`, `1e9`, `"30M"` or `"92.5B"` (K, M, B, T are powers of 1000).

    Raises:
        ValueError: Not a count, or not a whole number (`"1.0005K"`).

    Example:
        >>> parse_count("92.5B")
        92500000000
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (match := _COUNT.fullmatch(value.strip().replace("_", ""))):
        digits, _, decimals = match[1].partition(".")
        scaled = int(digits + decimals) * _SUFFIX[match[2].upper()]
        unit: int = 10 ** len(decimals)
        number, rest = divmod(scaled, unit)
        if rest == 0:
            return number
    raise ValueError("a whole count such as 1_000_000, 30M or 92.5B")


Count = Annotated[
    int,
    BeforeValidator(parse_count),
    Field(gt=0, le=10**18),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "exclusiveMinimum": 0, "maximum": 10**18},
                {"type": "string", "pattern": r"^\d[\d_]*(\.\d+)?\s*[KMBTkmbt]?$"},
            ]
        }
    ),
]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}([-_][A-Za-z]+)*$")]
Share = Annotated[float, Strict(), Field(gt=0.0, le=1.0, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=False)


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


class Source(Section):
    """What every kind of source has."""

    path: str | tuple[str, ...]
    """File, glob (`**` is recursive) or list of them, relative to the recipe."""
    max_documents: Count | None = None
    """Read at most this many rows, from the start of the first file on."""
    language: Language | None = None
    """ISO 639 code such as `en` or `zh-Hans`, when known; else the row's own field, else identified from the text."""
    licence: str | None = None
    filters: tuple[FilterName, ...] | None = None
    """Replaces `clean.filters` for this source (`[]` for code and other non-prose)."""
    on_error: Literal["stop", "skip"] | None = None
    """Replaces the recipe's `on_error` for this source."""
    declared: Declared | None = None


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
    split: str = "train"
    revision: str | None = None
    """Commit, tag or branch. Pin a commit for a build that can be repeated."""
    columns: Columns = Columns()
    format: Format = "text"


AnySource = Annotated[
    HtmlSource | WarcSource | JsonlSource | ParquetSource | TextSource | HubSource,
    Field(discriminator="kind"),
]


class LanguageRule(Section):
    """Keep documents in these languages."""

    keep: tuple[Language, ...] = Field(min_length=1)
    """ISO 639 codes; `zh-Hans` counts as `zh`."""
    threshold: Annotated[float, Strict(), Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.5
    """Least probability of the identified language."""


class NearDedup(Section):
    """MinHash finds candidates; a document goes only if a longer kept one is shown to contain its n-grams."""

    threshold: Share = 0.8
    """Share of the removed document's n-grams that its kept witness must hold."""
    ngram: Annotated[StrictInt, Field(ge=2, le=32)] = 5
    """Words an n-gram (characters where the script has no spaces)."""
    bands: Annotated[StrictInt, Field(ge=1, le=256)] = 20
    rows: Annotated[StrictInt, Field(ge=1, le=32)] = 6
    """`bands` x `rows` MinHash values a document; candidates agree in a whole band."""


class Dedup(Section):
    """Duplicates are looked for across all sources; of two, the longer one stays, else the first."""

    exact: StrictBool = True
    """Same text after Unicode, case, punctuation and space are normalised; short texts too."""
    near: NearDedup | None = NearDedup()


class Clean(Section):
    """From pages to Documents. Each document that does not pass is kept in `dropped/` with its reason."""

    extract: Literal["trafilatura", "resiliparse"] = "trafilatura"
    """Main-text extraction from HTML. resiliparse is about ten times faster and less precise."""
    max_page_bytes: Count = 8_000_000
    """Longer HTML pages are dropped: extraction is bounded by work, never by the clock."""
    max_page_elements: Count = 100_000
    """HTML pages with more elements are dropped."""
    repair: StrictBool = True
    """Mend mojibake (ftfy) and remove control characters."""
    language: LanguageRule | None = None
    filters: tuple[FilterName, ...] = ()
    """datatrove's filters, in this order."""
    pii: Literal["keep", "mask"] = "keep"
    """`mask` replaces e-mail addresses and public IP addresses."""
    dedup: Dedup = Dedup()


class TokenizerSpec(Section):
    """Which tokenizer, and which tokens frame a document. `tokenizer: gpt2` is short for `{path: gpt2}`."""

    path: str
    """`smollm2` (the packaged model), a folder or `tokenizer.json`, or a hub id."""
    revision: str | None = None
    bos: StrictBool = False
    """Put the beginning-of-text token before each document."""
    eos: StrictBool = True
    """Put the end-of-text token after each document."""
    bos_token: str | None = None
    """Default: the tokenizer's own."""
    eos_token: str | None = None


def _spell_out_tokenizer(value: Any) -> Any:
    if isinstance(value, str):
        return {"path": value}
    if isinstance(value, dict | TokenizerSpec):
        return value
    raise ValueError("a path or hub id, or a mapping with `path`")


AnyTokenizer = Annotated[
    TokenizerSpec,
    BeforeValidator(_spell_out_tokenizer, json_schema_input_type=str | TokenizerSpec),
]


class Stage(Section):
    """A span of training with its own budget and mixture."""

    name: Name
    token_budget: Count
    """Tokens of this stage, such as 30M or 92.5B; whole sequences are used, rounded down."""
    mixture: dict[Name, Annotated[float, Strict(), Field(gt=0.0, allow_inf_nan=False)]] = Field(min_length=1)
    """Source name -> weight in tokens; any scale, 6:2:2 is 60%, 20%, 20%."""


class Recipe(Section):
    """All that a run needs."""

    name: Name
    seed: StrictInt = 0
    tokenizer: AnyTokenizer
    sequence_length: Annotated[StrictInt, Field(ge=2)] = 2048
    """Tokens a sequence."""
    packing: Literal["concat_and_chunk", "best_fit"] = "concat_and_chunk"
    """`best_fit` cuts only documents longer than a sequence, at the price of some padding."""
    sources: dict[Name, AnySource] = Field(min_length=1)
    clean: Clean = Clean()
    on_error: Literal["stop", "skip"] = "stop"
    """What to do when input cannot be read: stop the build, or count it, name it and go on."""
    max_epochs: Annotated[float, Strict(), Field(gt=0.0, allow_inf_nan=False)] = 4.0
    """Most passes over one source, over all stages."""
    on_shortfall: Literal["fail", "cap", "redistribute"] = "fail"
    """When a source would pass `max_epochs`: fail, shorten the stage, or give the rest to the others."""
    stages: tuple[Stage, ...] = Field(min_length=1)
