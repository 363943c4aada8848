"""What a recipe says of training: the model, the method, and the learning rate as a function of tokens seen."""

from typing import Annotated, Literal

from pydantic import Field, Strict, StrictBool, StrictInt

from mixer.recipe.methods import AnyMethod, PlainMethod, Positive, Rate
from mixer.recipe.section import Count, Section

Amount = Rate | Count
"""Tokens, or a number from 0.0 to 1.0 that is a share of the segment's tokens."""


Beta = Annotated[float, Strict(), Field(ge=0.0, lt=1.0, allow_inf_nan=False)]


class Segment(Section):
    """How the learning rate runs over a span of training, in tokens seen; rates are shares of the peak."""

    schedule: Literal["constant", "wsd", "cosine", "infinite"] = "wsd"
    """After the warm-up: hold; hold, then fall in a line; fall by a cosine; or cool down, hold, then anneal."""
    warmup: Amount = 0.01
    """The rate rises in a line from `start` to the peak over these first tokens."""
    start: Rate = 0.0
    """The rate at the first token, as a share of the peak; re-warming begins where the segment before has ended."""
    cooldown: Amount | None = None
    """`infinite`: the cosine from the peak down to `hold`. Default: 0.3."""
    hold: Rate | None = None
    """`infinite`: the rate that is held, as a share of the peak; any later stage can go on from it. Default: 0.5."""
    decay: Amount | None = None
    """`wsd`, `infinite`: the last tokens, over which the rate falls to `final`. Default: 0.1."""
    final: Rate | None = None
    """The rate at the last token, as a share of the peak, of every schedule but `constant`. Default: 0.1."""


class LearningRate(Segment):
    """A stage's own segment: it begins at the stage's first token and ends at its last."""

    peak: Positive | None = None
    """Default: `train.learning_rate`."""


class Instruct(Segment):
    """A stage of conversations after all others: chat template, loss on answers alone (LLaMA Pro, Me-LLaMA)."""

    path: str | tuple[str, ...]
    """Files of conversations, `.jsonl` or `.parquet`, or globs, relative to the recipe."""
    learning_rate: Positive = 2e-5
    warmup: Amount = 0.03
    epochs: Annotated[StrictInt, Field(ge=1)] = 1
    train: tuple[str, ...] = ("*",)
    """Names of parameters that train, as shell patterns such as `model.layers.2[0-9].*`."""
    template: str | None = None
    """File of a chat template (Jinja). Default: the model's own."""
    sequence_length: Annotated[StrictInt, Field(ge=16)] | None = None
    """Default: the recipe's."""
    tokens_per_step: Count | None = None
    """Default: `train.tokens_per_step`."""


class Train(Segment):
    """How `mixer train` trains. The keys of the schedule hold over all stages that have no `learning_rate`.

    Stages without one that follow each other share one segment, so a recipe without any has one schedule in all.
    """

    model: str
    """`smollm2` (the packaged model), a folder in Hugging Face format, or a hub id; any causal language model."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    method: AnyMethod = PlainMethod(kind="plain")
    learning_rate: Positive
    """The peak."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """Of AdamW."""
    weight_decay: Annotated[float, Strict(), Field(ge=0.0, allow_inf_nan=False)] = 0.1
    """For matrices; vectors (norms, biases) have none."""
    clip: Positive | None = 1.0
    """Largest norm of the gradient; `null` does not clip."""
    tokens_per_step: Count = 131_072
    """Tokens of an optimizer step, over all devices; whole sequences are used, rounded down."""
    micro_batch: Annotated[StrictInt, Field(ge=1)] | None = None
    """Sequences a device takes at once. Default: as many as hold 2,048 tokens on a CPU, 16,384 on a GPU."""
    document_mask: StrictBool = True
    """Documents that share a sequence do not see each other. Either way no token is predicted across a seam."""
    attention: Literal["auto", "sdpa", "flex", "varlen", "eager"] = "auto"
    """What computes attention. `varlen` reads each document alone, on any device; `flex` needs a GPU."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the arithmetic; what trains is kept in float32. `auto`: bfloat16 where the device has it."""
    activation_checkpointing: StrictBool = False
    """Compute each block twice instead of keeping what it computed."""
    compile: StrictBool = False
    """Compile each block with torch."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: each holds the whole model, or a part of it (FSDP2). Without effect on one process."""
    checkpoint_every: Count | None = None
    """Tokens between checkpoints. Default: at the end of each stage alone, and when told to stop."""
    keep: Annotated[StrictInt, Field(ge=1)] = 2
    """So many checkpoints are kept, the newest ones."""
    log_every: Annotated[StrictInt, Field(ge=1)] = 1
    """Steps between lines in `metrics.jsonl`."""
    validate_every: Count | None = None
    """Tokens between validations. Default: at the beginning and at the end of each stage alone."""
    tensorboard: StrictBool = False
    """Write the metrics for TensorBoard too (its package must be installed)."""
    instruct: Instruct | None = None
