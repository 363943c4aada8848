"""The recipes, and the templates of tasks, that come with the package, found by name."""

from pathlib import Path

from mixer.errors import RecipeError


def folder() -> Path:
    """Where the shipped recipes lie: inside the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "recipes"


def listing() -> str:
    """One line a recipe: its name, and what its first comment lines say of it."""
    paths = sorted(folder().glob("*.yaml"))
    width = max(len(path.stem) for path in paths)
    return "\n".join(f"{path.stem:<{width}}  {_about(path)}" for path in paths)


def _about(path: Path) -> str:
    comments = [line for line in path.read_text("utf-8").splitlines() if line.startswith("# ")]
    return comments[1][2:] if len(comments) > 1 else ""


def recipe_path(name: str) -> Path:
    """The file of a shipped recipe.

    Raises:
        RecipeError: There is none of that name; offers the nearest.
    """
    from mixer.recipe.problems import nearest

    known = sorted(path.stem for path in folder().glob("*.yaml"))
    if name in known:
        return folder() / f"{name}.yaml"
    near = nearest(name, known)
    guess = f"did you mean `{near}`? " if near else ""
    raise RecipeError(
        f"recipe: got {name!r}, expected a file or one of {', '.join(known)}",
        hint=f"{guess}`mixer recipes` lists the shipped ones",
    )


def resolve(recipe: Path) -> Path:
    """The recipe file that an argument means: a file, else a shipped recipe's name."""
    if recipe.is_file() or recipe.suffix or recipe.parent != Path():
        return recipe
    return recipe_path(recipe.name)


def templates() -> list[str]:
    """Names of the task templates that come along, for `retention.tasks`; they lie beside what asks them."""
    beside = Path(__file__).parents[1] / "curricula" / "retention" / "templates"
    return sorted(path.stem for path in beside.glob("*.yaml"))
