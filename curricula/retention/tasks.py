"""Questions with known answers from local rows, as lm-eval asks them: no hub, no index of thousands of tasks.

A template is a task file of lm-eval as far as it goes without code (`!function` is refused: a task file is data), with
one key more: `where`, a Jinja condition that a row must meet. The first metric, of the first filter, is the one judged.
Items and worked examples are chosen by hash, so that before and after are asked the same, and no example is an item.
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curricula.order import seed_of
from mixer.benchmark_rows import Row, read_rows
from mixer.errors import RecipeError, SourceError
from mixer.recipe.problems import unknown
from mixer.recipe.retention import Task
from mixer.run import digest

TEMPLATES = Path(__file__).parent / "templates"
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
        places: File and line of each item, then of each shot; they change nothing of what is asked.
    """

    name: str
    config: Mapping[str, Any]
    metric: str
    items: tuple[Mapping[str, Any], ...]
    shots: tuple[Mapping[str, Any], ...]
    places: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """A hash of all that is asked."""
        return digest([self.config, self.metric, list(self.items), list(self.shots)])


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
    if len(wanted) < task.shots + 2:
        told = f"got {len(wanted)} rows that fit the template, expected {task.shots} for `shots` and two items at least"
        raise SourceError(f"retention.tasks.{name}: {told}", hint="check `path` and the template's `where`")
    _check_fields(name, config, wanted)
    shots, items = wanted[: task.shots], wanted[task.shots :]
    return Questions(
        name,
        config,
        _metric(config),
        tuple(row.values for row in items),
        tuple(row.values for row in shots),
        tuple(row.place for row in (*items, *shots)),
    )


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
