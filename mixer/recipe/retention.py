"""What a recipe says of retention: the texts and tasks measured before and after, and how much may be forgotten."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, StrictBool, StrictInt, StringConstraints

from mixer.recipe.section import Count, Name, Section, Several
from mixer.types import Format

NotNegative = Annotated[float, Strict(), Field(ge=0.0, allow_inf_nan=False)]
Inside = Annotated[float, Strict(), Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
Label = Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f]{1,64}$")]
OneOrMore = str | Annotated[tuple[str, ...], Field(min_length=1)]
MOST_REPLAY = 0.9
"""Share of replay that `raise_replay` goes no higher than: training is to teach something too."""
TASK_FILES = (".yaml", ".yml")
"""Endings of a template that is a file of the user's; others are names of shipped ones."""


class Slice(Section):
    """Held-out text of one kind: files, or what `validation` holds out of a source. Measured document by document."""

    path: OneOrMore | None = None
    """Files or globs, relative to the recipe: `.jsonl`, `.parquet`, `.txt`, `.md` (also `.gz`, `.zst`). No source may
    read them too."""
    source: Name | None = None
    """Instead of files: the documents that are held out of this source of the recipe, cleaned as for training."""
    topic: Label | None = None
    """Of a source that is mixed by topic: the documents of this topic alone."""
    kind: Literal["general", "domain"] = "general"
    """`general` must be kept, `domain` is what training should teach."""
    field: OneOrMore = "text"
    """Field of a row with the text, or several, joined by a blank line: `[question, answer]`."""
    format: Format = "text"
    """Mark-up of the files: `text`, `markdown`, `html`, or `jats` (article XML)."""
    split: Literal["file", "blank_line", "line"] = "file"
    """Of text files: one document a file, a paragraph between blank lines, or a line."""
    min_bytes: Annotated[StrictInt, Field(ge=1)] = 200
    """Shorter documents are left out: headings, stubs."""
    max_bytes: Count = 4000
    """Of longer documents the beginning is read. Documents are what intervals are drawn over: many beat long ones."""
    max_documents: Several = 200
    """So many documents at most, chosen by hash from all of them; two at least."""
    stage: Name | None = None
    """Which stage teaches this, for what later stages take away from it (backward transfer)."""


class Task(Section):
    """Questions with known answers, asked through lm-eval; items are paired before and after."""

    template: str
    """A shipped template (`mmlu`, `arc`, ..., see docs/retention.md), or a task file of lm-eval (`.yaml`), relative to
    the recipe."""
    path: str
    """The items: `.jsonl`, `.csv` (also `.gz`, `.zst`), or a `.tar` of these, relative to the recipe."""
    name: Name | None = None
    """Default: the template's name, without folder and ending."""
    shots: Annotated[StrictInt, Field(ge=0, le=64)] = 0
    """Solved examples before each item, from the same file and never among the items."""
    max_items: Several = 200
    """So many items at most, chosen by hash from all of them; two at least."""


def _spelled_out(value: Any) -> Any:
    if isinstance(value, dict | Task):
        return value
    raise ValueError("a mapping such as `{template: sciq, path: FILE}`")


AnyTask = Annotated[Task, BeforeValidator(_spelled_out)]


class Guard(Section):
    """Measures slices while training, paired with the first model, and acts when too much is forgotten."""

    slices: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """Default: all."""
    every: Count
    """Tokens between measurements."""
    first_steps: tuple[Annotated[StrictInt, Field(ge=1)], ...] = (100, 300, 1000)
    """Steps after which it measures too: much is lost, and some of it comes back, in the first thousand."""
    max_documents: Annotated[StrictInt, Field(ge=2)] = 32
    """Of each slice: enough to see a loss, few enough to be cheap."""
    on_forgetting: Literal["warn", "stop", "raise_replay"] = "warn"
    """When a general slice may have lost more than `max_forgetting`: say so, stop, or train the rest of the budget with
    more replay, over the same shards."""
    replay: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """`raise_replay`: the sources that are replay. Default: those of the stages' own `replay`."""
    raise_by: Inside = 0.1
    """`raise_replay`: what is added to their share of the tokens each time."""
    keep_best: StrictBool = True
    """Keep the model with the greatest gain on domain slices among those that forgot no more than allowed."""


class Retention(Section):
    """What training must keep, and how that is measured (`mixer retention RUN`)."""

    slices: dict[Name, Slice] = Field(min_length=1)
    tasks: tuple[AnyTask, ...] = ()
    window: Annotated[StrictInt, Field(ge=16)] = 1024
    """Tokens read at once; longer documents are read in windows that share one token, as lm-eval does."""
    max_forgetting: NotNegative = 0.02
    """Bits per byte that each general slice may lose."""
    max_drop: Annotated[NotNegative, Field(le=1.0)] = 0.03
    """Share of its items that each task may lose: 0.03 is three points."""
    least_gain: NotNegative | None = None
    """Bits per byte that each domain slice must gain. Default: nothing is asked for."""
    confidence: Annotated[float, Strict(), Field(ge=0.5, lt=1.0)] = 0.95
    """Of intervals and verdicts."""
    replicates: Annotated[StrictInt, Field(ge=100)] = 2000
    """How often documents and items are redrawn for the intervals; so often that five draws lie beyond each bound (500
    at a confidence of 0.99)."""
    unclear: Literal["fail", "pass"] = "fail"
    """What the gate makes of a slice or task of which the data show neither that it is kept nor that it is lost."""
    probes: StrictBool = True
    """Measure signs that need no labels: shifted tokens, divergence from the base, change of weights, copying."""
    guard: Guard | None = None
