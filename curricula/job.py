"""What one training is made of: a Run's stages, a model, a method and a schedule, all resolved."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curricula import checkpoint as checkpoints
from curricula.held import fingerprints
from curricula.loader import Loader, Track
from curricula.methods.base import Method
from curricula.methods.choose import method_of
from curricula.model import fingerprint, model_folder
from curricula.order import seed_of
from curricula.retention.raised import restore
from curricula.schedule import Schedule, schedule_of
from curricula.shards import Shards
from mixer.errors import PlanError, RecipeError, ShardError
from mixer.recipe.recipe import Recipe, TokenizerSpec
from mixer.recipe.train import Train
from mixer.run import digest, read_json
from mixer.tokens import load as load_encoder

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_WITHOUT_EFFECT = {
    *("checkpoint_every", "keep", "log_every", "validate_every", "tensorboard", "instruct"),
    *("micro_batch", "attention", "activation_checkpointing", "compile", "parallel"),
}
"""Keys of `train` that change no result, or rounding alone; a resume may change them, `micro_batch` without dropout."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training.

    Args:
        folder: Where its checkpoints and metrics go.
        base: The model to begin with, a folder in Hugging Face format.
        settings: How to train.
        method: Which parameters train, and what happens around a step.
        schedule: The learning rate by tokens seen.
        loader: What is read.
        held_out: Source and number of sequences to validate on.
        identity: What a checkpoint must agree with, beside the orders of its stages.
        seed: The recipe's.
    """

    folder: Path
    base: Path
    settings: Train
    method: Method
    schedule: Schedule
    loader: Loader
    held_out: Sequence[tuple[int, int]]
    identity: Mapping[str, Any]
    seed: int

    @property
    def tokens(self) -> int:
        """Tokens of all stages."""
        return self.loader.sequences * self.loader.rows.sequence_length


def settings_of(recipe: Recipe) -> Train:
    """The recipe's `train`.

    Raises:
        RecipeError: It has none.
    """
    if recipe.train is None:
        raise RecipeError(
            f"recipe `{recipe.name}`: got no `train`, expected one",
            hint="add `train: {model: smollm2, learning_rate: 2.0e-5}` and build again, which takes seconds",
        )
    return recipe.train


def job_of(run: Path, recipe: Recipe, *, name: str, base: Path, store: Path) -> Job:
    """The training of a Run's stages.

    Args:
        run: The Run folder, built.
        recipe: As it is in the Run, with overrides.
        name: Folder of this training below `RUN/checkpoints`.
        base: Folder that the recipe's relative paths start from.
        store: Where converted models are kept.

    Raises:
        PlanError: The Run has no plan, or another one than the recipe.
        RecipeError: No model can be trained as the recipe says, or the name is that of no folder.
        ShardError: The Run lacks shards.
    """
    check_name(name)
    settings = settings_of(recipe)
    plan = read_json(run / "plan.json")
    lengths = _stage_lengths(plan["stages"] if plan else [])
    if list(lengths) != [stage.name for stage in recipe.stages]:
        got = "no plan.json" if plan is None else "a plan of other stages than its recipe's"
        raise PlanError(f"{run}: got {got}, expected a Run that was built", hint="run mixer build")
    rows = Shards(run, list(recipe.sources), document_mask=settings.document_mask)
    folder = model_folder(settings.model, base=base, store=store, revision=settings.revision)
    check_tokenizer(recipe, folder, base=base, store=store, encoded=rows.tokenizers)
    tracks = [
        Track(stage["name"], stage["sequences"], order_file(run, stage["name"]), is_open=_is_open(stage))
        for stage in plan["stages"]
    ]
    if not any(track.sequences for track in tracks):
        raise PlanError(
            f"{run}: got stages without any sequence, expected some", hint="raise token_budget, build again"
        )
    schedule = schedule_of(recipe, [sequences * rows.sequence_length for sequences in lengths.values()])
    loader = Loader(rows, tracks, per_step=settings.tokens_per_step // rows.sequence_length)
    if checkpoint := checkpoints.latest(run / "checkpoints" / name):
        restore(loader, checkpoint.parent, checkpoints.read(checkpoint)[0].position)
    return Job(
        folder=run / "checkpoints" / name,
        base=folder,
        settings=settings,
        method=method_of(settings.method, base=base, seed=seed_of(recipe.seed, "method")),
        schedule=schedule,
        loader=loader,
        held_out=list(rows.held_out()),
        identity=identity_of(
            settings,
            schedule,
            seed=recipe.seed,
            model=fingerprint(folder, store),
            held_out=fingerprints(run, recipe.sources),
            sequence_length=rows.sequence_length,
            tokenizer=digest(sorted(rows.tokenizers)),
            **{f"stage {track.name}": track.sequences for track in tracks},
            **{f"shares of {stage['name']}": _counts(stage) for stage in plan["stages"] if not _is_open(stage)},
        ),
        seed=recipe.seed,
    )


def _is_open(stage: Mapping[str, Any]) -> bool:
    """Whether a training decides what a planned stage reads."""
    return (stage.get("round") or 1) > 1 or stage.get("resample") is not None


def _counts(stage: Mapping[str, Any]) -> dict[str, int]:
    return {source: share["sequences"] for source, share in stage["sources"].items()}


def check_name(name: str) -> None:
    """Refuse what would be a folder elsewhere, or one that a Run removes as left half-written.

    Raises:
        RecipeError: The name is not one of letters, digits, `.`, `_` and `-`, the first no point.
    """
    if not _NAME.fullmatch(name):
        raise RecipeError(
            f"--name: got {name!r}, expected letters, digits, `.`, `_` and `-`, the first of them no `.`",
            hint="it is the name of a folder in RUN/checkpoints",
        )


def _stage_lengths(planned: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Sequences of each of the recipe's stages, all rounds of one together: they share its learning rate."""
    found: dict[str, int] = {}
    for stage in planned:
        found[stage["stage"]] = found.get(stage["stage"], 0) + stage["sequences"]
    return found


def identity_of(settings: Train, schedule: Schedule, **facts: Any) -> dict[str, Any]:
    """What a training depends on, by name; `facts` are those that its recipe does not say."""
    told = settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    return {**told, "learning rates": digest([asdict(leg) for leg in schedule.legs]), **facts}


def order_file(run: Path, stage: str) -> Callable[[], np.ndarray | None]:
    """Opens a stage's order by memory map, once it is there."""
    path = run / "order" / f"{stage}.npy"

    def opened() -> np.ndarray | None:
        if not path.is_file():
            return None
        try:
            found: np.ndarray = np.load(path, mmap_mode="r")
        except ValueError as error:
            raise ShardError(f"{path}: got {error}, expected an order", hint="run mixer build again") from error
        return found

    return opened


def check_tokenizer(recipe: Recipe, folder: Path, *, base: Path, store: Path, encoded: set[str]) -> None:
    """Refuse a model whose tokens are not those that the shards hold.

    Raises:
        RecipeError: The model's tokenizer is another one than the recipe's.
        ShardError: The shards were encoded with another one than the recipe's.
    """
    ours = load_encoder(recipe.tokenizer, base, store)
    if encoded != {ours.digest}:
        raise ShardError(
            "shards: got tokens of another tokenizer than the recipe's, expected the same", hint="run mixer build again"
        )
    theirs = load_encoder(TokenizerSpec(path=str(folder.absolute()), bos=False, eos=False), folder, store)
    vocabularies = [encoder.backend.get_vocab() for encoder in (ours, theirs)]
    if vocabularies[0] != vocabularies[1]:
        odd = sorted({*vocabularies[0].items()} ^ {*vocabularies[1].items()}, key=lambda item: item[1])[0]
        raise RecipeError(
            f"train.model: got a model with another tokenizer than the recipe's (token {odd[0]!r}, id {odd[1]}),"
            " expected the same",
            hint="let `tokenizer` name the model's folder or id, and build again",
        )
