"""The sweep's own runs: a small model trained on a mixture of a Run's shards, and its losses on what is held out."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from curricula.job import Job, job_of, settings_of
from curricula.loader import Loader, Track
from curricula.order import order
from curricula.parallel import world
from curricula.schedule import schedule_of
from curricula.search.sweep import Job as Wanted
from curricula.train import train
from curricula.validation import validate
from curricula.workbench import open_bench, settled
from mixer.errors import PlanError, RecipeError
from mixer.mixture import source_of
from mixer.ordering import draws_of
from mixer.plan import plan
from mixer.recipe.recipe import Recipe
from mixer.recipe.stage import Stage
from mixer.replan import pools_of_run
from mixer.run import digest
from mixer.shard import index_of
from mixer.types import Plan, Pool


class TrainedSurrogate:
    """Trains `sweep.model`, else the recipe's model, as `train` says, on mixtures of a Run's shards.

    Its slices are the Run's held-out sequences: `source`, and `source/topic` where a source is packed by topic.

    Attributes:
        made_by: Stands for the model, the data and every setting.

    Raises:
        RecipeError: The recipe has no `train`, or the Run holds nothing out.
        SourceError, ShardError: It is no finished Run.
    """

    def __init__(self, run: Path, recipe: Recipe, *, base: Path, store: Path, say: Callable[[str], None]) -> None:
        settings = settings_of(recipe)
        assert recipe.sweep is not None
        own = settings.model_copy(update={"model": recipe.sweep.model or settings.model, "instruct": None})
        self._recipe = recipe.model_copy(update={"train": own})
        self._run, self._base, self._store, self._say = run, base, store, say
        self._pools = pools_of_run(run, recipe)
        self._job = job_of(run, self._recipe, name="sweep", base=base, store=store)
        if not self._job.held_out:
            raise RecipeError(
                f"{run}: got nothing held out, expected sequences to measure losses on",
                hint="add `validation: {sequences: 32}` to the recipe and build again",
            )
        shards = {name: index_of(run / "shards" / name)["shards"] for name in recipe.sources}
        self.made_by = digest([dict(self._job.identity), shards])

    def __call__(self, mixture: Mapping[str, float], *, tokens: int, seed: int) -> dict[str, float]:
        """Slice -> loss after `tokens` tokens of the mixture; with 0 tokens, of the base model as it is."""
        if not tokens:
            return self._base_losses()
        job = self._job_for(mixture, tokens, seed)
        try:
            with world() as here:
                train(job, world=here, say=self._say)
            last = (job.folder / "validation.jsonl").read_text("utf-8").splitlines()[-1]
            return _by_slice({(one["source"], one["topic"]): one["loss"] for one in json.loads(last)["losses"]})
        finally:
            shutil.rmtree(job.folder, ignore_errors=True)

    def check(self, wanted: Iterable[Wanted]) -> None:
        """Plan all runs before the first is trained.

        Raises:
            PlanError: Some run is too short for its mixture, or there is nothing to draw of a source.
        """
        for number, job in enumerate(wanted, start=1):
            try:
                if job.tokens:
                    _plan_of(self._recipe_for(job.mixture, job.tokens, job.seed), self._pools)
            except PlanError as error:
                told = f"sweep: got run {number}, which cannot be planned, expected all to be: {error}"
                raise PlanError(told, hint="raise `tokens_per_run`, or try other shares") from error

    def _base_losses(self) -> dict[str, float]:
        with world() as here, settled(here):
            bench = open_bench(replace(self._job, folder=self._run / "sweep" / "base"), world=here, say=self._say)
            held = self._job.held_out
            found = validate(bench.objective, self._job.loader.rows, held, world=here, micro_batch=bench.micro_batch)
        return _by_slice(found)

    def _job_for(self, mixture: Mapping[str, float], tokens: int, seed: int) -> Job:
        """The recipe's training, of one stage with this mixture."""
        name = digest([dict(mixture), tokens, seed])[:16]
        recipe = self._recipe_for(mixture, tokens, seed)
        rows = _order_of(recipe, self._pools)
        length = self._job.loader.rows.sequence_length
        track = Track("sweep", len(rows), lambda: rows)
        return replace(
            self._job,
            folder=self._run / "sweep" / "runs" / name,
            schedule=schedule_of(recipe, [len(rows) * length]),
            loader=Loader(self._job.loader.rows, [track], per_step=self._job.loader.per_step),
            seed=recipe.seed,
        )

    def _recipe_for(self, mixture: Mapping[str, float], tokens: int, seed: int) -> Recipe:
        weights: dict[str, Any] = {source: weight for source, weight in mixture.items() if weight > 0}
        stage = Stage(name="sweep", token_budget=tokens, mixture=weights)
        # A short run that repeats a source shows what repetition does; the caps of the answer hold it off.
        changes = {"stages": (stage,), "seed": self._recipe.seed + seed, "max_epochs": 1e6, "sweep": None}
        return self._recipe.model_copy(update=changes)


def _plan_of(recipe: Recipe, pools: Mapping[str, Pool]) -> Plan:
    return plan(recipe, {name: pool.available for name, pool in pools.items()})


def _order_of(recipe: Recipe, pools: Mapping[str, Pool]) -> np.ndarray:
    """(sequences, 2) the order of a recipe's only stage."""
    [(stage, draws)] = draws_of(_plan_of(recipe, pools), pools)
    rows: np.ndarray = np.concatenate(list(order(draws, seed=recipe.seed, segments=stage.segments)))
    sources = np.array([list(recipe.sources).index(source_of(draw.name)) for draw in draws], np.int32)
    rows[:, 0] = sources[rows[:, 0]]
    return rows


def _by_slice(losses: Mapping[tuple[str, str | None], float]) -> dict[str, float]:
    """Losses by `source/topic`, and by source as the mean over its topics."""
    found: dict[str, float] = {}
    by_source: dict[str, list[float]] = {}
    for (source, topic), loss in losses.items():
        by_source.setdefault(source, []).append(loss)
        if topic is not None:
            found[f"{source}/{topic}"] = loss
    return found | {source: float(np.mean(own)) for source, own in by_source.items()}
