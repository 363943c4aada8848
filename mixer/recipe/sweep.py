"""What a recipe says of the search for a mixture (`mixer sweep`)."""

from typing import Annotated, Literal

from pydantic import Field, Strict, StrictInt, StringConstraints

from mixer.recipe.methods import Positive, Rate
from mixer.recipe.section import Count, Name, Section

Slice = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,130}$")]
NonNegative = Annotated[float, Strict(), Field(ge=0.0, allow_inf_nan=False)]


class ShareVary(Section):
    """One share is tried at several values, such as that of replay or of synthetic text."""

    kind: Literal["share"]
    sources: Literal["replay"] | Annotated[tuple[Name, ...], Field(min_length=1)]
    """Sources of the stage whose share together varies; these, and the others, keep their proportions. `replay` is all
    that the stage replays, and `--out` writes its `replay.share` then."""
    grid: tuple[Rate, ...] = Field(default=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7), min_length=2)
    """Shares to try. 5 fit a curve that only rises or falls, 8 one with a best share inside; nothing is recommended
    beyond the ends."""


class WeightsVary(Section):
    """All weights of the stage vary at once; mixtures are drawn around a prior (as in RegMix and Olmix)."""

    kind: Literal["weights"]
    mixtures: Annotated[StrictInt, Field(ge=2)] = 24
    """Mixtures to try, uniform, natural, UniMax and the stage's own among them; three more than sources at least."""
    prior: Literal["natural", "stage"] = "natural"
    """What mixtures are drawn around and held near: the sources' sizes, or the stage's own mixture."""
    strengths: tuple[Positive, Positive] = (0.1, 5.0)
    """Weakest and strongest pull of the prior on a draw (the sum of the Dirichlet's parameters); 15 values between."""
    minimum: Rate = 0.002
    """Smaller weights are drawn as 0; no source is recommended with less."""
    kl: NonNegative = 0.05
    """Price of leaving the prior: added to the loss is `kl` times the Kullback-Leibler divergence from it, in nats."""
    repetition: Literal["discount", "free"] = "discount"
    """Whether repeated tokens count for less in what is recommended (arXiv 2305.16264); `max_epochs` holds anyway."""


AnyVary = Annotated[ShareVary | WeightsVary, Field(discriminator="kind")]


class Sweep(Section):
    """Short trainings of a small model, or their recorded losses, that say which mixture a stage should have."""

    stage: Name
    """The stage whose mixture is searched."""
    vary: AnyVary
    tokens_per_run: Count
    """Tokens that each run trains on."""
    model: str | None = None
    """A small model to train, with the recipe's tokenizer. Default: `train.model`. What else a run is, `train` says."""
    seeds: Annotated[StrictInt, Field(ge=1)] = 1
    """Runs of every mixture."""
    max_runs: Annotated[StrictInt, Field(ge=1)] | None = None
    """Most runs in all; every mixture is run once before any is run again."""
    max_tokens: Count | None = None
    """Most tokens over all runs."""
    targets: dict[Slice, Positive] = Field(default_factory=dict)
    """Evaluation slice -> how much its loss counts, any scale; own runs know `source` and `source/topic`.
    Without: the largest share within `keep` is sought."""
    keep: dict[Slice, NonNegative] = Field(default_factory=dict)
    """Evaluation slice -> how far its loss may rise above the base model's: 0.03 is 3%."""
    widest: Positive = 0.2
    """Widest 95% interval of a recommended share, from end to end; beyond it there is no answer."""
    replicates: Annotated[StrictInt, Field(ge=20)] = 200
    """How often the runs are redrawn for the intervals."""
