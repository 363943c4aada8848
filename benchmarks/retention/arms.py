"""What `arms.yaml` says: texts, recipes, and the ways to train that are compared."""

from pydantic import Field

from mixer.recipe.section import Name, Section, Share


class Split(Section):
    """A file cut in two: rows to train on, and rows that no training sees."""

    path: str
    by: str
    """Field whose values go to one side as a whole: rows of one package are no independent evidence."""
    held: Share = 0.1
    """Share of the values that is held out, chosen by hash."""


class Pairs(Section):
    """Question-answer pairs from the exercises of textbooks."""

    paths: tuple[str, ...]
    swapped: Share | None = None
    """Share of the pairs that get another one's answer."""


class Arm(Section):
    """One way to train."""

    data: Name
    """Which Run it trains on."""
    method: Name = "plain"
    rates: tuple[float, ...] = ()
    """Learning rates; with the first seed all of them, with others the best alone. Default: the reference's best."""
    seeds: tuple[int, ...] = (1,)
    mix: tuple[float, ...] = ()
    """Shares of the base that trained weights are mixed with (WiSE-FT); one that is added later is measured alone."""
    set: tuple[str, ...] = ()
    """More overrides of the recipe, for the training alone."""


class Arms(Section):
    """The whole comparison; paths are relative to the file."""

    out: str
    split: dict[Name, Split] = Field(default_factory=dict)
    pairs: dict[Name, Pairs] = Field(default_factory=dict)
    heal: str
    """Recipe of the broad training that makes the base."""
    flat: float = 0.003
    """The base is healed when no slice moves by more bits per byte between the last two measurements."""
    recipe: str
    """Recipe of the arms."""
    data: dict[Name, tuple[str, ...]]
    """Name -> overrides of the recipe, for the build; `{base}` in one is the base's folder."""
    reference: Name = "plain"
    """The arm whose gain and forgetting are the measure."""
    control: Name | None = None
    """The arm that trains as long on general text alone."""
    arms: dict[Name, Arm]
