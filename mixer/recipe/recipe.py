"""The Recipe: every section as a frozen, typed model; defaults are written here and in the files beside it.

`mixer schema` prints these models as JSON Schema for editors; `mixer.recipe.file.load` reads them from YAML.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, StrictBool, StrictInt

from mixer.recipe.exports import Export
from mixer.recipe.retention import Retention
from mixer.recipe.scores import Scores
from mixer.recipe.section import Count, Language, Name, Section, Share
from mixer.recipe.sources import AnySource, FilterName, PageSource, SynthSource, TokensSource
from mixer.recipe.stage import AnyStage, Stage, Validation
from mixer.recipe.sweep import Sweep
from mixer.recipe.synth import Model, Synth
from mixer.recipe.train import Train


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


class BenchmarkFields(Section):
    """Where a benchmark's rows hold what: dotted paths, a list on the way fans out. Default: common names are tried."""

    question: str | None = None
    answer: str | None = None
    choices: str | None = None
    passage: str | None = None


class BenchmarkFiles(Section):
    """Benchmark files. `evals/*.jsonl` is short for `{path: "evals/*.jsonl"}`."""

    path: str
    """A file or glob, relative to the recipe: `.jsonl`, `.csv` (also `.gz`, `.zst`), or a `.tar` of these."""
    fields: BenchmarkFields | None = None
    """Where their rows hold what. Default: the `fields` of all."""


def _spell_out_files(value: Any) -> Any:
    if isinstance(value, str):
        return {"path": value}
    if isinstance(value, dict | BenchmarkFiles):
        return value
    raise ValueError("a file or glob, or a mapping with `path`")


AnyFiles = Annotated[BenchmarkFiles, BeforeValidator(_spell_out_files, json_schema_input_type=str | BenchmarkFiles)]


class Decontaminate(Section):
    """Take benchmark text out of the corpus, and of what models wrote from it; each build measures its own recall."""

    against: tuple[AnyFiles, ...] = Field(min_length=1)
    """Benchmark files or globs; of entries that name one file the last counts."""
    fields: BenchmarkFields = BenchmarkFields()
    """Where rows hold what, of files that do not say so themselves."""
    ngram: Annotated[StrictInt, Field(ge=5, le=50)] = 13
    """Words of an item that must stand together, with room for an edit; all of a shorter one."""
    action: Literal["drop", "cut"] = "drop"
    """`drop` removes the document; `cut` the sentences and lines that hold the item, with its choices, answer and
    solution beside them. What a model wrote is dropped in any case."""
    floor: Annotated[float, Strict(), Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.95
    """Least recall, of each benchmark, of items injected verbatim, re-wrapped, embedded in prose, and with choices in
    another order; below it the build fails."""


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
    """datatrove's filters, in this order; Chinese is held to the thresholds that FineWeb-2 found for it."""
    pii: Literal["keep", "mask"] = "keep"
    """`mask` replaces e-mail addresses and public IP addresses."""
    dedup: Dedup = Dedup()
    decontaminate: Decontaminate | None = None


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
    scores: Scores = Scores()
    """Numbers and labels beside documents, for filters and order."""
    models: dict[Name, Model] = Field(default_factory=dict)
    """Language models, by the name that tasks use."""
    synth: Synth = Synth()
    on_error: Literal["stop", "skip"] = "stop"
    """What to do when input cannot be read: stop the build, or count it, name it and go on."""
    max_epochs: Annotated[float, Strict(), Field(gt=0.0, allow_inf_nan=False)] = 4.0
    """Most passes over one source, over all stages."""
    on_shortfall: Literal["fail", "cap", "redistribute"] = "fail"
    """When a source would pass `max_epochs`: fail, shorten the stage, or give the rest to the others."""
    validation: Validation | None = None
    stages: tuple[AnyStage, ...] = Field(min_length=1)
    sweep: Sweep | None = None
    train: Train | None = None
    """How `mixer train` trains on what was built."""
    exports: tuple[Export, ...] = ()
    """What to write for other trainers, below `exports/` of the Run."""
    retention: Retention | None = None
    """What training must keep, measured before and after."""

    @property
    def read_sources(self) -> dict[str, PageSource | TokensSource]:
        """The sources that are read, pages or token ids, by name."""
        return {name: source for name, source in self.sources.items() if not isinstance(source, SynthSource)}

    @property
    def page_sources(self) -> dict[str, PageSource]:
        """The sources of text that are read, by name."""
        return {name: source for name, source in self.read_sources.items() if not isinstance(source, TokensSource)}

    @property
    def token_sources(self) -> dict[str, TokensSource]:
        """The sources that are token ids already, by name."""
        return {name: source for name, source in self.sources.items() if isinstance(source, TokensSource)}

    @property
    def synth_sources(self) -> dict[str, SynthSource]:
        """The sources that are written by a model, by name."""
        return {name: source for name, source in self.sources.items() if isinstance(source, SynthSource)}

    @property
    def filters(self) -> dict[str, str | None]:
        """What `where` says of each source of text."""
        return {name: each.where for name, each in self.sources.items() if not isinstance(each, TokensSource)}

    @property
    def mixed_stages(self) -> tuple[Stage, ...]:
        """The stages with a mixture of their own."""
        return tuple(stage for stage in self.stages if isinstance(stage, Stage))
