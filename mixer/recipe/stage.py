"""What a recipe says of stages: budgets, mixtures nested as deep as needed, ramps, order, and later rounds."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Strict, StrictInt, StringConstraints, Tag, model_validator

from mixer.recipe.section import Count, Name, Section
from mixer.recipe.train import LearningRate

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Positive = Annotated[float, Strict(), Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Strict(), Field(ge=0.0, allow_inf_nan=False)]
Fraction = Annotated[float, Strict(), Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Inside = Annotated[float, Strict(), Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
Label = Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f]{1,64}$")]

REST = "rest"
"""Of a source's topics: all labels that the recipe does not name, `unknown` among them."""


class Ramp(Section):
    """A weight that changes within the stage; shares at its ends follow the weights there and move straight between."""

    start: NotNegative = Field(alias="from")
    end: NotNegative = Field(alias="to")
    at: Inside | None = None
    """Change at once, at this part of the stage (0.5: half-way)."""
    between: tuple[Fraction, Fraction] | None = None
    """Change along a straight line between these parts of the stage. Default: from its start to its end."""

    @model_validator(mode="after")
    def _one_way(self) -> "Ramp":
        if self.at is not None and self.between is not None:
            raise ValueError("either `at` or `between`, not both")
        if self.between is not None and not self.between[0] < self.between[1]:
            raise ValueError("`between` with its first part before its second")
        return self

    @property
    def knots(self) -> tuple[float, ...]:
        """The parts of the stage where it begins or ends to change."""
        return (self.at,) if self.at is not None else self.between or (0.0, 1.0)


class Preset(Section):
    """Weights computed from the sizes of sources: `natural`, `{temperature: 3.3}`, `{unimax: 4}`."""

    temperature: Positive | None = None
    """Weights are sizes to the power 1/temperature: 1 is natural, a large one is uniform."""
    unimax: Positive | None = None
    """As uniform as sizes allow, each at most so many epochs of this stage (UniMax, arXiv 2304.09151)."""
    sources: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """Default: all sources of the recipe; among topics, all of the source's."""

    @model_validator(mode="after")
    def _one_rule(self) -> "Preset":
        if (self.temperature is None) == (self.unimax is None):
            raise ValueError("one of `temperature` and `unimax`")
        return self


def _spell_out_preset(value: Any) -> Any:
    return {"temperature": 1.0} if value == "natural" else value


# Tags stand in pydantic's locations beside keys; no key of a recipe begins with a number sign.
def _weight_kind(value: Any) -> str:
    return "#ramp" if isinstance(value, dict | Ramp) else "#number"


def _entry_kind(value: Any) -> str:
    if isinstance(value, Part) or (isinstance(value, dict) and not {"from", "to"} & set(value)):
        return "#part"
    return _weight_kind(value)


def _mixture_kind(value: Any) -> str:
    is_preset = value == "natural" or (isinstance(value, dict) and bool({"temperature", "unimax"} & set(value)))
    return "#preset" if is_preset or isinstance(value, Preset) else "#weights"


AnyPreset = Annotated[Preset, BeforeValidator(_spell_out_preset, json_schema_input_type=Literal["natural"] | Preset)]
Weight = Annotated[
    Annotated[Positive, Tag("#number")] | Annotated[Ramp, Tag("#ramp")],
    Discriminator(_weight_kind),
]
Topics = Annotated[
    Annotated[dict[Label, Weight], Field(min_length=1), Tag("#weights")] | Annotated[AnyPreset, Tag("#preset")],
    Discriminator(_mixture_kind),
]


class Part(Section):
    """A group of sources with a mixture of its own, or a source that is mixed by topic."""

    weight: Weight
    """Weight among its neighbours."""
    mixture: "Mixture | None" = None
    """The group's members, with weights among themselves; any scale, and groups again where needed."""
    topics: Topics | None = None
    """Topic -> weight, with labels of the score `topic`; `rest` is all labels not named here. The source is packed by
    topic then, so that a sequence holds one topic; a stage that names none takes them as they come."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Part":
        if self.mixture is not None and self.topics is not None:
            raise ValueError("either `mixture` (a group) or `topics` (a source), not both")
        return self


Entry = Annotated[
    Annotated[Positive, Tag("#number")] | Annotated[Ramp, Tag("#ramp")] | Annotated[Part, Tag("#part")],
    Discriminator(_entry_kind),
]
Mixture = Annotated[
    Annotated[dict[Name, Entry], Field(min_length=1), Tag("#weights")] | Annotated[AnyPreset, Tag("#preset")],
    Discriminator(_mixture_kind),
]


class Replay(Section):
    """Text like that which the base model was trained on, so that it forgets less; a constant share from step 0 on.

    How much (reported shares; `mixer sweep` measures your own): 1-5% where the new text is of the same language and
    like the old (Ibrahim et al., arXiv 2403.08763: the first percent helps most); 10-20% for a new domain of the same
    language (Me-LLaMA 20%, arXiv 2402.12749); 20-30% for a new language or script (Ibrahim et al. 25%); 80% and more
    where the architecture is changed or a pruned model recovers (by the logic of such work, not measured). Mirror the
    base's abilities, web, code, mathematics and dialogue, not web alone; where its corpus is closed take a public one
    like it, or `task: replay`.
    """

    share: Inside
    """Share of the stage's tokens; the rest follows `mixture`."""
    mixture: Mixture


class Pacing(Section):
    """How much of the easiest may come: from `start` of it at first to all of it at `end`.

    Progress is counted in the sequences of this source, in each pass through it and each of `cycles` anew, not in those
    of the stage: what comes first of a source that begins at half-way is easy, too.
    """

    shape: Literal["linear", "root", "geometric"] = "linear"
    """`root`: as the square root of progress (Platanios et al., arXiv 1903.09848). `geometric`: slow, then fast."""
    start: Inside = 0.1
    """Share of the easiest sequences that may come first."""
    end: Annotated[float, Strict(), Field(gt=0.0, le=1.0)] = 1.0
    """Part of the source's sequences in the stage (of one pass or cycle) after which all may come."""


class Order(Section):
    """In which order a stage takes the sequences that it draws from a source. Default: random.

    What is drawn is not what is ordered: a stage draws where the last one stopped, at random and without repeats, and
    orders what it drew. Where it draws more than once through the source, each pass is ordered on its own.
    """

    by: str
    """A score's number: `perplexity`, `perplexity.bits_per_byte`, `education`, `text.compression`. The source is packed
    in this order, so that a sequence is of one difficulty."""
    direction: Literal["ascending", "descending"] = "ascending"
    buckets: Annotated[StrictInt, Field(ge=2)] | None = None
    """Cut into so many quantiles, from one end to the other, each shuffled (Llama-3-SynE orders by perplexity so)."""
    cycles: Annotated[StrictInt, Field(ge=1)] = 1
    """Go through so many times from one end to the other, with a part of each difficulty every time (interleaved)."""
    pacing: Pacing | None = None
    """Random among the easiest so far, instead of one after the other."""
    keep: tuple[Fraction, Fraction] = (0.0, 1.0)
    """Quantiles of the score that are drawn from: `[0, 0.99]` leaves out the highest hundredth, often noise. The
    same in every stage that orders this source. With `packing: best_fit`, documents are sorted within ten quantiles
    alone, so that near a cut some sequences are left out whose score lies below that of some that are kept."""

    @model_validator(mode="after")
    def _one_way(self) -> "Order":
        if self.buckets is not None and self.pacing is not None:
            raise ValueError("either `buckets` or `pacing`, not both")
        if not self.keep[0] < self.keep[1]:
            raise ValueError("`keep` with its first quantile below its second")
        return self


class Adapt(Section):
    """Cut the stage in rounds; each next one follows the losses of the last (Llama-3-SynE, arXiv 2407.18743).

    A topic whose validation loss rose gets more: its share is multiplied by 1 + alpha * w * d, with d its change
    over the sum of all absolute changes; then come clip, floor and what is there to draw from.
    """

    rounds: Annotated[StrictInt, Field(ge=2, le=1000)]
    """Equal parts of the stage; the first follows `mixture`."""
    sources: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """Sources whose topics change. Default: all that this stage mixes by topic."""
    alpha: Positive = 1.0
    weights: dict[Label, Positive] = Field(default_factory=dict)
    """Topic -> w, how much its change counts. Default: 1."""
    clip: tuple[Positive, Positive] = (0.5, 2.0)
    """Least and greatest factor of one round."""
    floor: Fraction = 0.2
    """A topic keeps at least this part of its natural share."""


class Resample(Section):
    """Train again on a part of an earlier stage, hard sequences first to be chosen (PanGu-pi Pro, arXiv 2402.02791).

    Sequences are drawn without replacement with probability in proportion to exp(loss / temperature), source by source,
    so that shares stay those of the earlier stage. Losses are those that training recorded.
    """

    stage: Name
    """The earlier stage."""
    fraction: Inside = 0.5
    """Part of its sequences that come again."""
    by: Literal["loss", "uniform"] = "loss"
    """`uniform` chooses among the same sequences at random: the control that tells whether choosing by loss helps."""
    temperature: Positive = 1.0
    """In nats, of `by: loss`. Losses of sequences differ little: at 1.0 the choice is nearly uniform, at 0.1 sharp."""
    exclude_top: Annotated[float, Strict(), Field(ge=0.0, lt=1.0)] = 0.02
    """Part with the highest losses, often noise, that does not come again; not with `uniform` either. At 0 a `uniform`
    stage needs no losses, and is ordered at once."""

    @model_validator(mode="after")
    def _no_idle_temperature(self) -> "Resample":
        if self.by == "uniform" and self.temperature != 1.0:
            raise ValueError("no `temperature` with `by: uniform`, where it has no effect")
        return self

    @property
    def needs_losses(self) -> bool:
        """Whether recorded losses decide what comes again."""
        return self.by == "loss" or self.exclude_top > 0


class Stage(Section):
    """A span of training with its own budget and mixture."""

    name: Name
    token_budget: Count
    """Tokens of this stage, such as 30M or 92.5B; whole sequences are used, rounded down."""
    mixture: Mixture
    """Source -> weight in tokens; any scale, 6:2:2 is 60%, 20%, 20%. A weight may be a ramp (`{from: 1, to: 3}`), a
    group (`{weight: 8, mixture: {...}}`) or a source mixed by topic (`{weight: 4, topics: {physics: 2, rest: 1}}`)."""
    replay: Replay | None = None
    order: dict[Name, Order] = Field(default_factory=dict)
    """Source -> order of what is drawn from it."""
    adapt: Adapt | None = None
    learning_rate: LearningRate | None = None
    """This stage's own segment. Default: the schedule of `train`."""


class ResampleStage(Section):
    """A span of training on sequences of an earlier one."""

    name: Name
    resample: Resample
    learning_rate: LearningRate | None = None
    """This stage's own segment. Default: the schedule of `train`."""


def _stage_kind(value: Any) -> str:
    is_resample = isinstance(value, ResampleStage) or (isinstance(value, dict) and "resample" in value)
    return "#resample" if is_resample else "#stage"


AnyStage = Annotated[
    Annotated[Stage, Tag("#stage")] | Annotated[ResampleStage, Tag("#resample")], Discriminator(_stage_kind)
]


class Validation(Section):
    """Documents kept out of training, chosen by hash, on which the trainer measures losses by source and topic."""

    sequences: Count = 16
    """About so many sequences of each source and topic, as far as they have twenty times as many."""
    sources: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """Default: all."""
