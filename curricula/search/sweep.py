"""`mixer sweep`: which mixtures to try, their runs in a table that survives a kill, and the question put to them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from curricula.search import mixtures
from curricula.search.evidence import Runs, enough
from curricula.search.laws import DCpt
from curricula.search.question import Question, ShareQuestion, WeightsQuestion, rows_of
from curricula.search.recommend import recommend
from curricula.search.results import Result, Table, key_of
from curricula.search.stock import Stock
from curricula.search.verdict import Report
from mixer.baselines import natural
from mixer.errors import PlanError, SourceError
from mixer.mixture import leaves
from mixer.recipe.recipe import Recipe
from mixer.recipe.sweep import ShareVary, Sweep, WeightsVary

_OFF_THE_LINE = 0.01
_LEAST_BUDGETS = 3
_FAR = 10


class Surrogate(Protocol):
    """Trains a small model on a mixture and evaluates it.

    Attributes:
        made_by: Stands for the model, the data and every setting; results made by another are not used again.
    """

    made_by: str

    def __call__(self, mixture: Mapping[str, float], *, tokens: int, seed: int) -> Mapping[str, float]:
        """Slice -> loss after `tokens` tokens of the mixture; with 0 tokens, of the base model as it is."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run that the sweep asks for; 0 tokens is the base model."""

    mixture: Mapping[str, float]
    tokens: int
    seed: int


def jobs(sweep: Sweep, stock: Stock, *, seed: int) -> tuple[Job, ...]:
    """The runs that a sweep asks for, in their order: the base model if needed, all mixtures once, then once more.

    Args:
        sweep: The recipe's section.
        stock: What the sources hold.
        seed: The recipe's.

    Raises:
        PlanError: So many different mixtures cannot be drawn, or a run is too short for a share.
    """
    tried = _tried(sweep, stock, seed)
    _check_whole(tried, sweep.tokens_per_run, stock)
    runs = [Job(mixture, sweep.tokens_per_run, number) for number in range(sweep.seeds) for mixture in tried]
    most = [len(runs), *([sweep.max_runs] if sweep.max_runs else [])]
    most += [sweep.max_tokens // sweep.tokens_per_run] if sweep.max_tokens else []
    return (*([Job({}, 0, 0)] if sweep.keep else []), *runs[: min(most)])


def train(
    wanted: Sequence[Job], table: Table, surrogate: Surrogate, *, say: Callable[[str], None]
) -> tuple[Result, ...]:
    """The results of the jobs, in their order; only those that are not in the table yet are run.

    Raises:
        SourceError: The surrogate does not evaluate a slice that the sweep asks for.
    """
    done = []
    for number, job in enumerate(wanted, start=1):
        found = table.results.get(key_of(job.mixture, job.tokens, job.seed))
        if found is None:
            told = ", ".join(f"{name} {weight:.3g}" for name, weight in job.mixture.items() if weight)
            say(f"run {number} of {len(wanted)}: {told or 'the base model'}, {job.tokens:,} tokens, seed {job.seed}")
            losses = surrogate(job.mixture, tokens=job.tokens, seed=job.seed)
            if missing := [name for name in table.slices if name not in losses]:
                raise SourceError(
                    f"sweep: got losses of {', '.join(losses) or 'nothing'}, expected `{missing[0]}` too",
                    hint="name slices in `targets` and `keep` that the evaluation has",
                )
            found = Result(job.mixture, job.tokens, job.seed, dict(losses))
            table.add(found)
        done.append(found)
    return tuple(done)


def slices_of(sweep: Sweep) -> tuple[str, ...]:
    """The evaluation slices that a sweep needs the losses of."""
    return tuple(dict.fromkeys([*sweep.targets, *sweep.keep]))


def analyse(sweep: Sweep, stock: Stock, results: Sequence[Result], *, seed: int) -> Report:
    """The report of a sweep's results, recorded or trained.

    Args:
        sweep: The recipe's section.
        stock: What the sources hold.
        results: At least one run, and the base model's if `keep` names slices.
        seed: The recipe's.

    Raises:
        SourceError: There is no run, no base model to keep to, or runs differ in more than the share that varies.
        PlanError: There is no data for any mixture that was tried.
    """
    limits = _limits(sweep, [result for result in results if result.tokens == 0])
    runs, budgets, left_out = _comparable(sweep, [result for result in results if result.tokens > 0])
    weights = rows_of(tuple(stock.mixture), [run.mixture for run in runs])
    question = _question(sweep, stock, weights, budgets, limits)
    groups, held = _groups(question, weights)
    measured = Runs(
        weights=weights,
        points=question.points(weights, np.array([run.tokens for run in runs], float)),
        losses={name: np.array([run.losses[name] for run in runs]) for name in slices_of(sweep)},
        groups=groups,
        held=held,
    )
    # Thousands of fits of a dozen numbers each: threads of the linear algebra would only wait for one another.
    with threadpool_limits(1):
        return recommend(
            question,
            measured,
            stock,
            widest=sweep.widest,
            seed=seed,
            replicates=sweep.replicates,
            warnings=[*left_out, *_budget_warnings(budgets, stock.budget)],
        )


def _budget_warnings(budgets: Sequence[int], stage: int) -> list[str]:
    largest = max(budgets)
    if len(budgets) == 1 and stage != largest:
        return [f"runs have {largest:,} tokens, the stage {stage:,}: the best mixture may change with the budget"]
    if len(budgets) > 1 and stage > _FAR * largest:
        return [f"the law is read at the stage's {stage:,} tokens, {stage / largest:.0f} times the longest run's"]
    return []


def _tried(sweep: Sweep, stock: Stock, seed: int) -> list[dict[str, float]]:
    if isinstance(sweep.vary, ShareVary):
        return mixtures.at_shares(stock.mixture, sweep.vary.sources, sweep.vary.grid)
    most = stock.max_epochs / sweep.tokens_per_run
    return mixtures.around(
        _prior(sweep.vary, stock),
        first=stock.baselines().values(),
        count=sweep.vary.mixtures,
        caps={name: held * most for name, held in stock.available.items()},
        strengths=sweep.vary.strengths,
        minimum=sweep.vary.minimum,
        seed=seed,
        least=stock.sequence_length / sweep.tokens_per_run,
    )


def _check_whole(tried: Sequence[Mapping[str, float]], tokens: int, stock: Stock) -> None:
    """Refuse runs that would have less than a sequence of a source, before any is trained."""
    length = stock.sequence_length
    name, part = min(
        ((name, part) for mixture in tried for name, part in mixture.items() if part > 0), key=lambda pair: pair[1]
    )
    if part * (tokens // length) < 1:
        raise PlanError(
            f"sweep.tokens_per_run: got {tokens:,}, in which a share of {part:g} of `{name}` is less than a sequence of"
            f" {length:,} tokens, expected {math.ceil(1 / part) * length:,} at least",
            hint="raise `tokens_per_run`, or leave the smallest shares out of `grid`",
        )


def asked(recipe: Recipe) -> Sweep:
    """The recipe's sweep, with the sources named where it says `replay`."""
    sweep = recipe.sweep
    assert sweep is not None
    stage = next(each for each in recipe.mixed_stages if each.name == sweep.stage)
    if not isinstance(sweep.vary, ShareVary) or sweep.vary.sources != "replay" or stage.replay is None:
        return sweep
    names = tuple(leaves(stage.replay.mixture, recipe.sources))
    return sweep.model_copy(update={"vary": sweep.vary.model_copy(update={"sources": names})})


def _prior(vary: WeightsVary, stock: Stock) -> dict[str, float]:
    if vary.prior == "stage":
        return dict(stock.mixture)
    return {name: float(part) for name, part in natural(stock.available).items()}


def _limits(sweep: Sweep, base: Sequence[Result]) -> dict[str, float]:
    """Slice -> the largest loss that is allowed."""
    if sweep.keep and not base:
        raise SourceError(
            f"sweep.keep: got no losses of the base model, expected them of {', '.join(sweep.keep)}",
            hint='add a line such as {"tokens": 0, "losses": {"general": 2.86}}',
        )
    return {name: (1 + rise) * float(np.mean([r.losses[name] for r in base])) for name, rise in sweep.keep.items()}


def _comparable(sweep: Sweep, runs: Sequence[Result]) -> tuple[list[Result], list[int], list[str]]:
    """The runs that one law can hold for, their token budgets, and what was left out."""
    if not runs:
        raise SourceError("sweep: got no runs, expected some", hint="record one run a line; see docs/sweep.md")
    budgets = sorted({run.tokens for run in runs})
    count = len({key_of(run.mixture, 1, 0) for run in runs})
    is_share = isinstance(sweep.vary, ShareVary)
    if is_share and len(budgets) >= _LEAST_BUDGETS and enough(DCpt, 2, count):
        return list(runs), budgets, []
    kept = [run for run in runs if run.tokens == budgets[-1]]
    left_out = len(runs) - len(kept)
    told = [f"{left_out} runs with fewer than {budgets[-1]:,} tokens are left out"] if left_out else []
    return kept, budgets[-1:], told


def _question(
    sweep: Sweep, stock: Stock, weights: np.ndarray, budgets: Sequence[int], limits: Mapping[str, float]
) -> Question:
    names, vary, total = tuple(stock.mixture), sweep.vary, sum(sweep.targets.values())
    targets = {name: omega / total for name, omega in sweep.targets.items()}
    caps = np.array(list(stock.caps.values()))
    if isinstance(vary, WeightsVary):
        held = np.array(list(stock.available.values()), float)
        tried = np.stack([weights.min(axis=0), weights.max(axis=0)])
        _check_room(stock, np.minimum(caps, tried[1]))
        return WeightsQuestion(
            names=names,
            prior=np.array(list(_prior(vary, stock).values())),
            kl=vary.kl,
            low=np.minimum(vary.minimum, caps),
            caps=caps,
            tried=tried,
            passes=stock.budget / held if vary.repetition == "discount" else np.zeros(len(names)),
            before=np.array(list(stock.used.values())) / held,
            targets=targets,
            limits=limits,
        )
    inside = np.array([name in vary.sources for name in names])
    shares = weights[:, inside].sum(axis=1)
    question = ShareQuestion(
        names=names,
        inside=inside,
        mixture=np.array(list(stock.mixture.values())),
        caps=caps,
        tried=(float(shares.min()), float(shares.max())),
        budgets=(max(budgets), stock.budget) if len(budgets) > 1 else None,
        targets=targets,
        limits=limits,
    )
    _check_line(question, weights)
    return question


def _check_room(stock: Stock, most: np.ndarray) -> None:
    if most.sum() < 1:
        listed = ", ".join(f"{name} {part:.3g}" for name, part in zip(stock.mixture, most, strict=True))
        raise PlanError(
            f"sweep: got fractions of at most {listed} within max_epochs and what was tried, {most.sum():.3g} in all,"
            " expected 1",
            hint="add data, raise max_epochs, cut the stage's token_budget, or try other mixtures",
        )


def _check_line(question: ShareQuestion, weights: np.ndarray) -> None:
    for row in weights:
        share = float(row[question.inside].sum())
        expected = question.weights(share)
        place = int(np.abs(row - expected).argmax())
        if abs(row[place] - expected[place]) > _OFF_THE_LINE:
            name = question.names[place]
            raise SourceError(
                f"sweep.vary: got a run with {row[place]:.3g} of `{name}` beside a share of {share:.3g}, expected"
                f" {expected[place]:.3g}: nothing but the share may differ from the stage's mixture",
                hint="set the stage's mixture to that of the runs, or use `vary: {kind: weights}`",
            )


def _groups(question: Question, weights: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Numbers of the runs' mixtures, and those to leave out in turn: all, but not the ends of a share's range."""
    if isinstance(question, WeightsQuestion):
        distinct, groups = np.unique(weights.round(6), axis=0, return_inverse=True)
        return groups.reshape(-1), tuple(range(len(distinct)))
    shares, groups = np.unique(weights[:, question.inside].sum(axis=1).round(6), return_inverse=True)
    return groups, tuple(range(1, len(shares) - 1))
