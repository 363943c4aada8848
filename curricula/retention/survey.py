"""`mixer retention`: a Run's trainings against their base, from the recipe's slices, tasks and probes to one report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from curricula import checkpoint as checkpoints
from curricula.held import fingerprints
from curricula.interpolate import digits_of, interpolate
from curricula.job import settings_of
from curricula.model import fingerprint, model_folder
from curricula.retention import tasks
from curricula.retention.answers import Answers, ask
from curricula.retention.guard import was_stopped
from curricula.retention.measure import Reading, Subject, read_slices, write_table
from curricula.retention.plot import draw_frontier
from curricula.retention.probes import probe
from curricula.retention.report import compare_slices, compare_tasks, gate_of, pooled_gain, rows_of
from curricula.retention.slices import Texts, texts_of
from curricula.retention.stages import continual, stage_ends
from mixer.errors import CheckpointError, RecipeError
from mixer.recipe.recipe import Recipe
from mixer.recipe.retention import Retention
from mixer.run import write_json

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """What is measured, and where things lie.

    Args:
        run: The Run folder.
        rules: The recipe's `retention`.
        base: The model that trainings began with.
        slices: The documents.
        questions: The tasks.
        store: Where fingerprints of files are remembered.
        seed: The recipe's.
        say: Takes a line for people.
    """

    run: Path
    rules: Retention
    base: Subject
    slices: tuple[Texts, ...]
    questions: tuple[tasks.Questions, ...]
    store: Path
    seed: int
    say: Say

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.run / "retention"

    def read(self, subject: Subject) -> dict[str, Reading]:
        """What a model needs for the slices."""
        return read_slices(subject, self.slices, window=self.rules.window, cache=self.folder / "cache")

    def ask(self, subject: Subject) -> dict[str, Answers]:
        """What a model answers."""
        return ask(subject, self.questions, cache=self.folder / "cache") if self.questions else {}

    def subject(self, folder: Path) -> Subject:
        """A model on the same device as the base."""
        return Subject(folder, store=self.store, device=self.base.device)


def retention_of(recipe: Recipe) -> Retention:
    """The recipe's `retention`.

    Raises:
        RecipeError: It has none.
    """
    if recipe.retention is None:
        raise RecipeError(
            f"recipe `{recipe.name}`: got no `retention`, expected one: the texts that must be kept",
            hint="add `retention: {slices: {general: {path: general.jsonl}}}` and build again, which takes seconds",
        )
    return recipe.retention


def open_survey(
    run: Path, recipe: Recipe, *, base: Path, store: Path, with_tasks: bool, device: str | None = None, say: Say
) -> Survey:
    """Everything that is measured, read and chosen.

    Args:
        run: The Run folder.
        recipe: As it is in the Run, with overrides.
        base: Folder that the recipe's relative paths start from.
        store: Where converted models are kept.
        with_tasks: Whether to ask the recipe's tasks.
        device: `cuda` or `cpu`. Default: CUDA where there is one.
        say: Takes a line for people.

    Raises:
        RecipeError: The recipe has no `retention`, a template is wrong, or lm-eval is wanted and not installed.
        SourceError: A slice or a task has nothing to measure.
    """
    rules, settings = retention_of(recipe), settings_of(recipe)
    asked = rules.tasks if with_tasks else ()
    if asked and not tasks.is_installed():
        raise RecipeError(
            f"retention.tasks: got {len(asked)} tasks and no lm-eval, expected it to be installed",
            hint="pip install 'curriculum-mixer[eval]', or measure slices alone with --no-tasks",
        )
    folder = model_folder(settings.model, base=base, store=store, revision=settings.revision)
    return Survey(
        run=run,
        rules=rules,
        base=Subject(folder, store=store, device=device),
        slices=tuple(texts_of(name, own, run=run, base=base) for name, own in rules.slices.items()),
        questions=tuple(tasks.questions_of(task, base=base) for task in asked),
        store=store,
        seed=recipe.seed,
        say=say,
    )


def trainings_of(run: Path, names: Sequence[str] = ()) -> dict[str, Path]:
    """Name -> folder of the model, of the trainings that were asked for, or of all that ended; the guard's best too.

    A training that still runs may replace its best model at any time: it is measured where its name is given alone.

    Raises:
        CheckpointError: One of them has not ended, or there is none.
    """
    ended = {path.parent.name: path for path in sorted((run / "checkpoints").glob("*/final"))}
    best = {f"{path.parent.name}/best": path for path in sorted((run / "checkpoints").glob("*/best"))}
    known = dict(sorted({**ended, **best}.items()))
    over = {name: path for name, path in known.items() if path.parent.name in ended or was_stopped(path.parent)}
    if lacking := [name for name in names if name not in known]:
        raise CheckpointError(
            f"{run}/checkpoints: got no finished training `{lacking[0]}`, expected one of {', '.join(known) or 'none'}",
            hint=f"mixer train {run} --name {lacking[0]}",
        )
    if not over and not names:
        raise CheckpointError(f"{run}/checkpoints: got no finished training, expected one", hint=f"mixer train {run}")
    return {name: known[name] for name in names} if names else over


def survey(own: Survey, trainings: Mapping[str, Path], *, shares: Sequence[float] = ()) -> dict[str, Any]:
    """The report: each training against the base. Writes `retention/`.

    Args:
        own: What is measured.
        trainings: Name -> folder of the model.
        shares: Of the base model, to mix into each trained one (WiSE-FT) and to measure too.

    Raises:
        CheckpointError: A training began with another model than the base, or before other documents were held out.
        RecipeError: A model cannot be read.
        SourceError: Weights cannot be mixed.
    """
    for folder in trainings.values():
        if (began := _began(folder.parent)) is not None:
            _check_origin(folder, own, began)
            _check_held_out(folder, own, began)
    # Asked first: rows that cannot be asked are told before anything takes minutes.
    answers = own.ask(own.base)
    before = own.read(own.base), answers
    found: dict[str, Any] = {}
    tables = []
    for name, folder in trainings.items():
        own.say(f"{name}: {folder}")
        found[name], table = _training(own, folder, before, shares)
        tables.append(table.with_columns(pl.lit(name).alias("training")))
    own.base.release()
    report = {
        "base": {
            "folder": str(own.base.folder),
            "slices": {name: one.bits_per_byte for name, one in before[0].items()},
        },
        "rules": own.rules.model_dump(mode="json", exclude={"slices", "tasks", "guard"}),
        "trainings": found,
    }
    write_json(own.folder / "report.json", report)
    write_table(own.folder / "documents.parquet", pl.concat(tables))
    draw_frontier(found, own.folder / "frontier.svg", limit=own.rules.max_forgetting)
    return report


def _check_origin(model: Path, own: Survey, began: Mapping[str, Any]) -> None:
    """Refuse a model made from another one than the base: what the two differ in would be told as learned."""
    if began.get("model") not in (None, fingerprint(own.base.folder, own.store)):
        raise CheckpointError(
            f"{model}: got a training that began with another model than `train.model`, {own.base.folder};"
            " expected it to be measured against its own",
            hint="give `--set train.model=` as `mixer train` had it, and name what began with it (`--name`)",
        )


def _check_held_out(model: Path, own: Survey, began: Mapping[str, Any]) -> None:
    """Refuse a training from before a build that holds other documents out: some of them it may have trained on."""
    sources = sorted({one.source for one in own.rules.slices.values() if one.source is not None})
    now, then = fingerprints(own.run, sources), began.get("held_out")
    odd = [source for source in sources if then is not None and then.get(source) != now.get(source)]
    if odd:
        raise CheckpointError(
            f"{model}: got a training from before `{odd[0]}` was packed anew or had other documents held out, expected"
            " one since: it may have trained on what would be measured",
            hint="train again under another name, name what was trained since (`--name`), or measure files (`path`)",
        )


def _began(training: Path) -> Mapping[str, Any] | None:
    """What a training depended on when it began; None where no checkpoint is left that says it.

    Conversations are a stage after all others: what they began with is what those did.
    """
    if (checkpoint := checkpoints.latest(training)) is None:
        return None
    identity = checkpoints.read(checkpoint)[1].identity
    if "chats" not in identity:
        return identity
    before = training.with_name(training.name.removesuffix("-instruct"))
    # A folder that was renamed no longer says which one that was.
    return _began(before) if before != training else None


Before = tuple[Mapping[str, Reading], Mapping[str, Answers]]


def _training(
    own: Survey, folder: Path, before: Before, shares: Sequence[float]
) -> tuple[dict[str, Any], pl.DataFrame]:
    subject = own.subject(folder)
    after = own.read(subject)
    found = _judged(own, before, after, own.ask(subject))
    if own.rules.probes:
        found["probes"] = probe(own.base, subject, own.slices, window=own.rules.window, seed=own.seed)
    if folder.name == "final" and (ends := stage_ends(own.run, folder.parent)):
        scores = {name: own.read(own.subject(end)) for name, end in ends.items()}
        found["stages"] = continual(before[0], scores)
    subject.release()
    mixed = {}
    for share in dict.fromkeys(shares):
        digits = digits_of(share)
        place = own.folder / "interpolated" / f"{folder.parent.name}-{folder.name}-{digits}"
        other = own.subject(interpolate(own.base.folder, folder, place, share=share))
        mixed[digits] = _judged(own, before, own.read(other), own.ask(other))
        other.release()
    if mixed:
        found["interpolated"] = mixed
    return found, _documents(before[0], after)


def _judged(
    own: Survey, before: Before, after: Mapping[str, Reading], answers: Mapping[str, Answers]
) -> dict[str, Any]:
    slices = compare_slices(before[0], after, own.rules, seed=own.seed)
    asked = compare_tasks(before[1], answers, own.rules, seed=own.seed)
    gate = gate_of([*slices, *asked], own.rules)
    return {
        "slices": rows_of(slices),
        "tasks": rows_of(asked),
        "gain": pooled_gain(slices, before[0]),
        "gate": {"passes": gate.passes, "reasons": list(gate.reasons)},
    }


def _documents(before: Mapping[str, Reading], after: Mapping[str, Reading]) -> pl.DataFrame:
    """A row a document: slice, id, bytes, bits before and after."""
    return pl.concat(
        pl.DataFrame(
            {
                "slice": [name] * len(one.texts.ids),
                "id": one.texts.ids,
                "bytes": one.texts.sizes,
                "bits_before": one.bits,
                "bits_after": after[name].bits,
            }
        )
        for name, one in before.items()
    )
