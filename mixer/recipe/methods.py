"""The training methods that a recipe may name."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, StrictBool, StrictInt, model_validator

from mixer.recipe.section import Section, Share

Positive = Annotated[float, Strict(), Field(gt=0.0, allow_inf_nan=False)]
Rate = Annotated[float, Strict(), Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class PlainMethod(Section):
    """Every parameter trains."""

    kind: Literal["plain"]


class FreezeMethod(Section):
    """Only some parameters train."""

    kind: Literal["freeze"]
    train: tuple[str, ...] = ("*",)
    """Names of parameters that train, as shell patterns such as `model.layers.2[0-9].*`."""
    freeze: tuple[str, ...] = ()
    """Names that stay frozen though `train` matches them."""


class BlockExpansionMethod(Section):
    """New blocks, identities at first, between the frozen old ones (LLaMA Pro, arXiv 2401.02415)."""

    kind: Literal["block_expansion"]
    groups: Annotated[StrictInt, Field(ge=1)] = 8
    """The model's blocks are cut into so many groups, as equal as can be."""
    per_group: Annotated[StrictInt, Field(ge=1)] = 1
    """New blocks after each group, copies of its last ones."""
    placement: Literal["interleaved", "least_critical"] = "interleaved"
    """`least_critical` takes as many single blocks instead of groups, those that change the residual stream least on
    the first sequences (after ADEPT, arXiv 2510.10071)."""
    train: Literal["new", "all"] = "new"
    """`all` trains the old blocks too, as an instruction stage does."""


class OsftMethod(Section):
    """Updates stay out of the subspace of each matrix's large singular directions (arXiv 2504.07097)."""

    kind: Literal["osft"]
    rank: Literal["importance", "fixed"] = "fixed"
    """How much of each matrix is protected: by its importance on the first sequences (the paper), or one share."""
    share: Share = 0.5
    """Share of the singular directions that are protected, with `rank: fixed`."""
    min_retention: Share = 0.1
    """The paper's mrr, with `rank: importance`."""
    target_retention: Share = 0.8
    """The paper's trr, with `rank: importance`."""
    protect: Literal["block", "left", "right", "both"] = "block"
    """What an update may not touch: the paper's block, the left or the right directions, or either (mini_trainer)."""
    targets: tuple[str, ...] = ("*_proj",)
    """Modules whose matrices are protected, by the last part of their names, as shell patterns."""
    others: Literal["train", "freeze"] = "train"
    """Parameters of no target (embeddings, head, norms, biases) train unprotected, or stay as they are."""
    every: Annotated[StrictInt, Field(ge=1)] = 1
    """Steps between projections; the constraint is exact after each of them."""
    continues: str | None = None
    """The method's state from an earlier training (`method.safetensors` of its last checkpoint), relative to the
    recipe: what it protected stays protected, and so do the directions that it used."""

    @model_validator(mode="after")
    def _no_idle_key(self) -> Self:
        idle = ("min_retention", "target_retention") if self.rank == "fixed" else ("share",)
        for key in idle:
            if getattr(self, key) != type(self).model_fields[key].default:
                wanted = "importance" if self.rank == "fixed" else "fixed"
                raise ValueError(f"`{key}` only with `rank: {wanted}`")
        if self.min_retention > self.target_retention:
            raise ValueError("`min_retention` of at most `target_retention`")
        return self


class LoraMethod(Section):
    """Low-rank adapters (peft), merged when the model is saved."""

    kind: Literal["lora"]
    rank: Annotated[StrictInt, Field(ge=1)] = 128
    alpha: Positive = 128.0
    dropout: Annotated[float, Strict(), Field(ge=0.0, lt=1.0, allow_inf_nan=False)] = 0.0
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Modules that get an adapter, by the last part of their names."""
    rslora: StrictBool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)."""


AnyMethod = Annotated[
    PlainMethod | FreezeMethod | BlockExpansionMethod | OsftMethod | LoraMethod,
    Field(discriminator="kind"),
]
