"""Questions with known answers, asked through lm-eval in memory: no hub, no index of thousands of tasks, local rows.

A template is a task file of lm-eval as far as it goes without code (`!function` is refused: a task file is data), with
one key more: `where`, a Jinja condition that a row must meet. The first metric, of the first filter, is the one judged.
Items and worked examples are chosen by hash, so that before and after are asked the same, and no example is an item.
"""

import contextlib
import importlib.util
import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from curricula.order import seed_of
from curricula.retention.measure import Subject, write_table
from mixer.benchmark_rows import Row, read_rows
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
    rows = {seed_of(0, "task", digest(row.values)): row for row in _rows(name, base / task.path, where)}
    wanted = [rows[place] for place in sorted(rows)[: task.shots + task.max_items]]
    if len(wanted) <= task.shots:
        told = f"got {len(wanted)} items that fit the template, expected more than the {task.shots} of `shots`"
        raise SourceError(f"retention.tasks.{name}: {told}", hint="check `path` and the template's `where`")
    _check_fields(name, config, wanted)
    values = [row.values for row in wanted]
    return Questions(name, config, _metric(config), tuple(values[task.shots :]), tuple(values[: task.shots]))


def _check_fields(name: str, config: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Refuse a row without a field that the template names and others have: it would be asked as the word None."""
    words = set(re.findall(r"\w+", str(list(config.values()))))
    named = [field for field in dict.fromkeys(key for row in rows for key in row.values) if field in words]
    for row in rows:
        if lacking := [field for field in named if row.values.get(field) is None]:
            told = f"got a row without {', '.join(lacking)}, expected it as in other rows"
            raise SourceError(
                f"{row.place}: {told}", hint=f"retention.tasks.{name} asks for it; mend or remove the row"
            )


def _rows(name: str, path: Path, where: Any) -> Iterator[Row]:
    from jinja2 import TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    try:
        passes = SandboxedEnvironment().compile_expression(_bare(where)) if where is not None else None
    except (TemplateError, TypeError) as error:
        told = f"`where`: got {where!r}, expected a condition in Jinja: {error}"
        raise RecipeError(f"retention.tasks.{name}: {told}", hint='where: "{{answer | length == 1}}"') from error
    for row in read_rows(path):
        try:
            is_wanted = passes is None or passes(**row.values)
        except (TemplateError, TypeError, KeyError, IndexError) as error:
            told = f"`where`: got {error}, expected a row that it can be put to; this has {', '.join(row.values)}"
            raise SourceError(f"{row.place}: {told}", hint=f"retention.tasks.{name}: check `path`, template") from error
        if is_wanted:
            yield row


def _bare(where: Any) -> str:
    if not isinstance(where, str):
        raise TypeError(f"it is a {type(where).__name__}")
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
    if problem := _problem(config):
        raise RecipeError(
            f"{path}: {problem}", hint="the shipped templates in curricula/retention/templates show what is needed"
        )
    return {key: value for key, value in config.items() if key == "where" or key not in _OURS}


def _problem(config: Any) -> str | None:
    """What makes a file no task that can be judged."""
    if not isinstance(config, dict) or not config.get("output_type") or not config.get("metric_list"):
        return "got a task without output_type and metric_list, expected both"
    if config["output_type"] == "loglikelihood_rolling":
        return "got output_type loglikelihood_rolling, which judges no items, expected another; use a slice for that"
    metrics = config["metric_list"]
    if not isinstance(metrics, list) or not isinstance(metrics[0], dict) or "metric" not in metrics[0]:
        return f"metric_list: got {metrics!r}, expected a list such as [{{metric: acc}}]"
    return None


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
        task.name: cache / f"{digest([*subject.told, task.fingerprint, version('lm_eval'), VERSION])}.parquet"
        for task in tasks
    }
    if pending := [task for task in tasks if not paths[task.name].is_file()]:
        for name, scores in _asked(subject, pending).items():
            write_table(paths[name], pl.DataFrame({"score": scores}))
    found = {name: pl.read_parquet(path, glob=False)["score"].to_numpy() for name, path in paths.items()}
    return {task.name: Answers(task, found[task.name]) for task in tasks}


def _asked(subject: Subject, tasks: Sequence[Questions]) -> dict[str, np.ndarray]:
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
        # One after another, so that what a row does to its template is told of that task.
        found = {task.name: _samples(task, lm) for task in tasks}
    return {task.name: _scores(task, found[task.name]) for task in tasks}


def _samples(task: Questions, lm: Any) -> Sequence[Mapping[str, Any]]:
    from jinja2 import TemplateError
    from lm_eval.evaluator import evaluate

    ready = _task(task)
    try:
        samples: Sequence[Mapping[str, Any]] = evaluate(
            lm=lm, task_dict={"tasks": {task.name: ready}}, bootstrap_iters=0
        )["samples"][task.name]
    except (TemplateError, ValueError, TypeError, LookupError, AssertionError) as error:
        raise RecipeError(
            f"retention.tasks.{task.name}: got rows that do not fit the template: {type(error).__name__}: {error}",
            hint="each row needs the fields that docs/retention.md lists for the template, and answers of its kind",
        ) from error
    return samples


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
    scores = [by_item[number] for number in range(len(task.items))]
    if odd := [score for score in scores if not isinstance(score, int | float | np.number | np.bool_)]:
        raise RecipeError(
            f"retention.tasks.{task.name}: metric {task.metric}: got {odd[0]!r} for an item, expected a number",
            hint="name a metric that judges each item first in metric_list, such as acc or exact_match",
        )
    return np.array(scores, np.float64)


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
