"""What retention measures is there, and no source reads it: looked at before anything is paid for.

Files alone are looked at, not what is in them: that one text stands in two files is not found.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mixer.errors import SourceError
from mixer.read import matches
from mixer.recipe.recipe import Recipe
from mixer.recipe.retention import TASK_FILES, Task
from mixer.types import Unit


def check_held_out(recipe: Recipe, base: Path, listed: Mapping[str, Sequence[Unit]]) -> None:
    """Refuse files of slices and tasks that are not there, and files of slices that a source reads too.

    Args:
        recipe: The recipe.
        base: Folder that its paths start from.
        listed: Source -> the units that it is read in.

    Raises:
        SourceError: Every such problem, one a line, with the hint of the first.
    """
    if recipe.retention is None:
        return
    # A data set in the hub's layout is one unit, its folder: which files in it are its split's is not known here.
    read = {Path(file).resolve(): name for name, units in listed.items() for unit in units for file in unit.files}
    problems = [problem for name in recipe.retention.slices for problem in _slice(recipe, name, base, read)]
    for number, task in enumerate(recipe.retention.tasks):
        problems += _task(f"retention.tasks.{number}", task, base)
    if problems:
        raise SourceError("\n".join(map(str, problems)), hint=problems[0].hint)


def _slice(recipe: Recipe, name: str, base: Path, read: Mapping[Path, str]) -> Iterator[SourceError]:
    assert recipe.retention is not None
    path, spot = recipe.retention.slices[name].path, f"retention.slices.{name}.path"
    for pattern in (path,) if isinstance(path, str) else path or ():
        try:
            files = matches(spot, pattern, base)
        except SourceError as error:
            yield error
            continue
        for file in sorted(files):
            if (source := read.get((base / file).resolve())) is not None:
                told = f"got `{file}`, which source `{source}` reads too, expected text that is not trained on"
                hint = f"name other files, or what `validation` holds out of it: `source: {source}`"
                yield SourceError(f"{spot}: {told}", hint=hint)


def _task(spot: str, task: Task, base: Path) -> Iterator[SourceError]:
    named = {"path": task.path} | ({"template": task.template} if task.template.endswith(TASK_FILES) else {})
    for key, file in named.items():
        if not (base / file).is_file():
            told = f"no file: got `{file}` in {base.absolute()}, expected one"
            yield SourceError(f"{spot}.{key}: {told}", hint="a path is relative to the recipe, and no pattern here")
