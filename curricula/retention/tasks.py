"""Questions with known answers, asked through lm-eval in memory: no hub, no index of thousands of tasks, local rows.

A template is a task file of lm-eval as far as it goes without code (`!function` is refused: a task file is data), with
one key more: `where`, a Jinja condition that a row must meet. The first metric, of the first filter, is the one judged.
Items and worked examples are chosen by hash, so that before and after are asked the same, and no example is an item.
"""

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from curricula.order import seed_of
from curricula.retention.measure import Subject, write_table
from mixer.benchmark_rows import read_rows
from mixer.errors import RecipeError, SourceError
from mixer.recipe.problems import unknown
from mixer.recipe.retention import Task
from mixer.run import digest

VERSION = 2
"""Raise it when the same model would answer the same items otherwise."""
TEMPLATES = Path(__file__).parent / "templates"
_BATCH = {"cpu": 8, "cuda": 32}
_OURS = ("where", "task", "dataset_path", "dataset_name", "dataset_kwargs", "test_split", "fewshot_split")


@dataclass(frozen=True, slots=True)
class Questions:
    """A task, ready to be asked.

    Args:
        name: The task's.
        config: The template, as lm-eval takes it.
        metric: The one that is judged.
        items: Rows to answer.
        shots: Rows that stand solved before each.
    """

    name: str
    config: Mapping[str, Any]
    metric: str
    items: tuple[Mapping[str, Any], ...]
    shots: tuple[Mapping[str, Any], ...]

    @property
    def fingerprint(self) -> str:
        """A hash of all that is asked."""
        return digest([self.config, self.metric, list(self.items), list(self.shots)])


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


def is_installed() -> bool:
    """Whether lm-eval is there; it is an extra of this package."""
    return importlib.util.find_spec("lm_eval") is not None


def questions_of(task: Task, *, base: Path) -> Questions:
    """A task's items, chosen by hash.

    Args:
        task: What the recipe says of it.
        base: Folder of the recipe.

    Raises:
        RecipeError: There is no such template, or it cannot be used.
        SourceError: Its items cannot be read, or are too few.
    """
    config = _template(task.template, base)
    where, name = config.pop("where", None), task.name or Path(task.template).stem
    rows = {seed_of(0, "task", digest(row)): row for row in _rows(base / task.path, where)}
    wanted = [rows[place] for place in sorted(rows)[: task.shots + task.max_items]]
    if len(wanted) <= task.shots:
        told = f"got {len(wanted)} items that fit the template, expected more than the {task.shots} of `shots`"
        raise SourceError(f"retention.tasks.{name}: {told}", hint="check `path` and the template's `where`")
    return Questions(name, config, _metric(config), tuple(wanted[task.shots :]), tuple(wanted[: task.shots]))


def _rows(path: Path, where: str | None) -> Iterator[dict[str, Any]]:
    from jinja2.sandbox import SandboxedEnvironment

    passes = SandboxedEnvironment().compile_expression(_bare(where)) if where else None
    for row in read_rows(path):
        if passes is None or passes(**row.values):
            yield dict(row.values)


def _bare(where: str) -> str:
    return where.strip().removeprefix("{{").removesuffix("}}")


def _template(template: str, base: Path) -> dict[str, Any]:
    path = TEMPLATES / f"{template}.yaml"
    path = path if path.is_file() else base / template
    if not path.is_file():
        known = sorted(file.stem for file in TEMPLATES.glob("*.yaml"))
        told = unknown("template", template, known, plural="templates")
        raise RecipeError(f"retention.tasks: {told}", hint="or name a task file of lm-eval, relative to the recipe")
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(
            f"{path}: got {str(error).splitlines()[0]}, expected plain YAML",
            hint="tasks with code (`!function`) or parts in other files (`include`) are not read; spell them out",
        ) from error
    if not isinstance(config, dict) or not config.get("output_type") or not config.get("metric_list"):
        raise RecipeError(
            f"{path}: got a task without output_type and metric_list, expected both",
            hint="the shipped templates in curricula/retention/templates show what is needed",
        )
    return {key: value for key, value in config.items() if key == "where" or key not in _OURS}


def _metric(config: Mapping[str, Any]) -> str:
    return str(config["metric_list"][0]["metric"])


def ask(subject: Subject, tasks: Sequence[Questions], *, cache: Path) -> dict[str, Answers]:
    """What a model answers, from the cache where it was asked before.

    Args:
        subject: The model.
        tasks: What to ask.
        cache: Folder of earlier answers, a file for a model and a task.

    Raises:
        RecipeError: lm-eval refuses a template.
    """
    paths = {
        task.name: cache / f"{digest([subject.fingerprint, subject.device, task.fingerprint, VERSION])}.parquet"
        for task in tasks
    }
    if pending := [task for task in tasks if not paths[task.name].is_file()]:
        for name, scores in _asked(subject, pending).items():
            write_table(paths[name], pl.DataFrame({"score": scores}))
    found = {name: pl.read_parquet(path, glob=False)["score"].to_numpy() for name, path in paths.items()}
    return {task.name: Answers(task, found[task.name]) for task in tasks}


def _asked(subject: Subject, tasks: Sequence[Questions]) -> dict[str, np.ndarray]:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(subject.folder, local_files_only=True)
        # Left to itself, lm-eval rounds log-probabilities to the model's bfloat16: three digits, and answers that tie.
        lm = HFLM(
            pretrained=subject.model,
            tokenizer=tokenizer,
            batch_size=_BATCH[subject.device],
            softmax_dtype="float32",
        )
        ready = {task.name: _task(task) for task in tasks}
        found = evaluate(lm=lm, task_dict={"tasks": ready}, bootstrap_iters=0)
    return {task.name: _scores(task, found["samples"][task.name]) for task in tasks}


def _task(task: Questions) -> Any:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    splits = {"test": Dataset.from_list(list(task.items)), "shots": Dataset.from_list(list(task.shots))}
    own = {
        "task": task.name,
        "custom_dataset": lambda **_: splits,
        "test_split": "test",
        "num_fewshot": len(task.shots),
        "metadata": None,
    }
    if task.shots:
        own |= {"fewshot_split": "shots", "fewshot_config": {"sampler": "first_n"}}
    try:
        return ConfigurableTask(config={**task.config, **own})
    except Exception as error:
        raise RecipeError(
            f"retention.tasks.{task.name}: got a template that lm-eval refuses: {type(error).__name__}: {error}",
            hint="the shipped templates in curricula/retention/templates show what works without code",
        ) from error


def _scores(task: Questions, samples: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(items,) of the judged metric, of the first filter."""
    own = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    by_item = {sample["doc_id"]: sample[task.metric] for sample in own}
    assert len(by_item) == len(task.items), f"{task.name}: {len(by_item)} answers to {len(task.items)} items"
    return np.array([float(by_item[number]) for number in range(len(task.items))])


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
