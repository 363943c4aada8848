"""What a model answers to questions, asked through lm-eval in memory."""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curricula.retention.measure import Subject, write_table
from curricula.retention.tasks import Questions
from mixer.errors import RecipeError
from mixer.run import digest

VERSION = 2
"""Raise it when the same model would answer the same items otherwise."""
_BATCH = {"cpu": 8, "cuda": 32}
_METRICS = "name a metric that judges each item first in metric_list, such as acc or exact_match"


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model made of a task.

    Args:
        questions: The task.
        scores: (items,) float64 the judged metric of each; 0 or 1 where it is right or wrong.
    """

    questions: Questions
    scores: np.ndarray

    @property
    def accuracy(self) -> float:
        """The mean score."""
        return float(self.scores.mean())


def check(task: Questions) -> None:
    """Refuse what lm-eval counts as wrong whatever the model answers: a right answer that is none of the choices.

    Raises:
        RecipeError: A row has one, or lm-eval refuses the template or the rows.
    """
    with _quiet(), _told(task):
        ready = _task(task)
        if ready.OUTPUT_TYPE == "multiple_choice":
            for row, place in zip((*task.items, *task.shots), task.places, strict=True):
                _check_answer(task, row, place, ready)


def _check_answer(task: Questions, row: Mapping[str, Any], place: str, ready: Any) -> None:
    choices = ready.doc_to_choice(row)
    gold = ready.doc_to_text(row) if ready.multiple_input else ready.doc_to_target(row)
    for one in gold if isinstance(gold, list) else [gold]:
        if one not in choices and not (isinstance(one, int) and 0 <= one < len(choices)):
            told = f"expected a whole number from 0 to {len(choices) - 1} or one of the choices"
            raise RecipeError(
                f"{place}: got the right answer {one!r}, {told}",
                hint=f"retention.tasks.{task.name}: docs/retention.md lists the fields of its rows; mend the row",
            )


@contextlib.contextmanager
def _told(task: Questions) -> Iterator[None]:
    """Tell what rows do to their template as an error of theirs."""
    from jinja2 import TemplateError

    try:
        yield
    except (TemplateError, ValueError, TypeError, LookupError, AssertionError) as error:
        raise RecipeError(
            f"retention.tasks.{task.name}: got rows that do not fit the template: {type(error).__name__}: {error}",
            hint="each row needs the fields that docs/retention.md lists for the template, and answers of its kind",
        ) from error


def ask(subject: Subject, tasks: Sequence[Questions], *, cache: Path) -> dict[str, Answers]:
    """What a model answers, from the cache where it was asked before.

    Args:
        subject: The model.
        tasks: What to ask.
        cache: Folder of earlier answers, a file for a model and a task.

    Raises:
        RecipeError: lm-eval refuses a template, or a row has no right answer.
    """
    paths = {
        task.name: cache / f"{digest([*subject.told, task.fingerprint, version('lm_eval'), VERSION])}.parquet"
        for task in tasks
    }
    for task in tasks:
        check(task)
    if pending := [task for task in tasks if not paths[task.name].is_file()]:
        for name, scores in _asked(subject, pending).items():
            write_table(paths[name], pl.DataFrame({"score": scores}))
    found = {name: pl.read_parquet(path, glob=False)["score"].to_numpy() for name, path in paths.items()}
    return {task.name: Answers(task, found[task.name]) for task in tasks}


def _asked(subject: Subject, tasks: Sequence[Questions]) -> dict[str, np.ndarray]:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(subject.folder, local_files_only=True)
        # It raises whatever the file makes it raise.
        except Exception as error:
            raise RecipeError(
                f"{subject.folder}: got a tokenizer that transformers refuses: {type(error).__name__}: {error}",
                hint="tasks go through transformers; mend tokenizer.json and tokenizer_config.json, or --no-tasks",
            ) from error
        # Left to itself, lm-eval rounds log-probabilities to the model's bfloat16: three digits, and answers that tie.
        lm = HFLM(
            pretrained=subject.model,
            tokenizer=tokenizer,
            batch_size=_BATCH[subject.device],
            softmax_dtype="float32",
        )
        # One after another, so that what a row does to its template is told of that task.
        found = {task.name: _samples(task, lm) for task in tasks}
    return {task.name: _scores(task, found[task.name]) for task in tasks}


def _samples(task: Questions, lm: Any) -> Sequence[Mapping[str, Any]]:
    from lm_eval.evaluator import evaluate

    with _told(task):
        ready = {"tasks": {task.name: _task(task)}}
        found: Sequence[Mapping[str, Any]] = evaluate(lm=lm, task_dict=ready, bootstrap_iters=0)["samples"][task.name]
    return found


def _task(task: Questions) -> Any:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    def splits(**_: Any) -> dict[str, Any]:
        return {"test": Dataset.from_list(list(task.items)), "shots": Dataset.from_list(list(task.shots))}

    own = {
        "task": task.name,
        "custom_dataset": splits,
        "test_split": "test",
        "num_fewshot": len(task.shots),
        "metadata": None,
    }
    if task.shots:
        own |= {"fewshot_split": "shots", "fewshot_config": {"sampler": "first_n"}}
    try:
        ready = ConfigurableTask(config={**task.config, **own})
    except Exception as error:
        raise RecipeError(
            f"retention.tasks.{task.name}: got what lm-eval refuses, in the template or in the first row"
            f" ({task.places[0]}): {type(error).__name__}: {error}",
            hint="the shipped templates in curricula/retention/templates show what works without code, and of which"
            " rows; an index beyond the choices is no right answer",
        ) from error
    if ready.higher_is_better().get(task.metric) is False:
        raise RecipeError(
            f"retention.tasks.{task.name}: metric {task.metric}: got one of which less is better, expected more",
            hint=_METRICS,
        )
    return ready


def _scores(task: Questions, samples: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(items,) of the judged metric, of the first filter."""
    own = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    by_item = {sample["doc_id"]: sample[task.metric] for sample in own}
    assert len(by_item) == len(task.items), f"{task.name}: {len(by_item)} answers to {len(task.items)} items"
    scores = [by_item[number] for number in range(len(task.items))]
    if odd := [score for score in scores if not _is_share(score)]:
        told = f"got {odd[0]!r} for an item, expected a number from 0 to 1"
        raise RecipeError(f"retention.tasks.{task.name}: metric {task.metric}: {told}", hint=_METRICS)
    return np.array(scores, np.float64)


def _is_share(score: Any) -> bool:
    return isinstance(score, int | float | np.number | np.bool_) and bool(0 <= score <= 1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's bars and notes; what goes wrong raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
