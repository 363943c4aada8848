"""What retention measures is there, and nothing is trained on it: looked at before anything is paid for.

Files alone are looked at, not what is in them: that one text stands in two files is not found.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mixer.errors import SourceError
from mixer.read import matches
from mixer.recipe.recipe import Recipe
from mixer.recipe.retention import TASK_FILES, Task
from mixer.types import Unit

_OTHERS = "name other files; what `validation` holds out of a source is measured by a slice with `source: NAME`"


def check_held_out(recipe: Recipe, base: Path, listed: Mapping[str, Sequence[Unit]]) -> None:
    """Refuse files of slices and tasks that are not there, and those that are trained on too.

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
    read = {
        Path(file).resolve(): f"sources.{name}"
        for name, units in listed.items()
        for unit in units
        for file in unit.files
    } | _chats(recipe, base)
    problems = [problem for name in recipe.retention.slices for problem in _slice(recipe, name, base, read)]
    for number, task in enumerate(recipe.retention.tasks):
        problems += _task(f"retention.tasks.{number}", task, base, read)
    if problems:
        raise SourceError("\n".join(map(str, problems)), hint=problems[0].hint)


def _chats(recipe: Recipe, base: Path) -> dict[Path, str]:
    """Files of conversations, which need not be there before `mixer train`."""
    if recipe.train is None or recipe.train.instruct is None:
        return {}
    path = recipe.train.instruct.path
    found: dict[Path, str] = {}
    for pattern in (path,) if isinstance(path, str) else path:
        with contextlib.suppress(SourceError):
            found |= {(base / file).resolve(): "train.instruct" for file in matches("", pattern, base)}
    return found


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
            yield from _leaked(spot, file, base, read)


def _task(spot: str, task: Task, base: Path, read: Mapping[Path, str]) -> Iterator[SourceError]:
    named = {"path": task.path} | ({"template": task.template} if task.template.endswith(TASK_FILES) else {})
    for key, file in named.items():
        if not (base / file).is_file():
            told = f"no file: got `{file}` in {base.absolute()}, expected one"
            yield SourceError(f"{spot}.{key}: {told}", hint="a path is relative to the recipe, and no pattern here")
    yield from _leaked(f"{spot}.path", task.path, base, read)


def _leaked(spot: str, file: str, base: Path, read: Mapping[Path, str]) -> Iterator[SourceError]:
    """What is told of a file that is trained on too."""
    if (reader := read.get((base / file).resolve())) is not None:
        told = f"got `{file}`, which `{reader}` reads too, expected text that is not trained on"
        yield SourceError(f"{spot}: {told}", hint=_OTHERS)
