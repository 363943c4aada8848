"""What several commands share: their options, and how they find recipes, Runs, models and one another's packages."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from mixer.cli_group import say

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, or a shipped recipe's name.")]
RunFolder = Annotated[
    Path | None, typer.Option("--run", help="The Run folder. Default: runs/NAME.", show_default=False)
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A Run folder, such as runs/quickstart.")]
Base = Annotated[
    Path,
    typer.Option(
        help="Folder that the recipe's relative paths start from, that of its file. Default: the current folder.",
        show_default=False,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value: stages.0.token_budget=30M."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def load_recipe(recipe: Path, overrides: list[str] | None) -> tuple[Any, Path]:
    """The recipe that an argument means, with its overrides, and its file."""
    from mixer.recipe.file import load
    from mixer.shipped import resolve

    path = resolve(recipe)
    return load(path, overrides=overrides or []), path


def build_options(recipe: Path, run: Path, workers: int | None) -> dict[str, Any]:
    """What every build is told: where things lie, how many processes, and where lines for people go."""
    from mixer.execute import check_workers, default_workers

    count = default_workers() if workers is None else check_workers(workers)
    return {"base": recipe.parent, "run": run, "store": store(), "workers": count, "say": say}


def open_scheduler() -> Any:
    """What orders stages; imported when it is needed."""
    from curricula.scheduler import Scheduler

    return Scheduler()


def score_opener(synthesizer: Any) -> Any:
    """Makes scores ready; the synthesizer, where there is one, asks their teachers."""

    def opened(context: Any, name: str, documents: Any) -> Any:
        from curricula.scores.score import open_score

        return open_score(context, name, documents, label=synthesizer.labels if synthesizer else None)

    return opened


def open_synthesizer(base: Path, *, regenerate: bool = False) -> Any:
    """Makes synthetic sources; finds models where the recipe and the store have them."""
    from synth.synthesize import Synthesizer, Weights

    def locate(model: Any) -> Weights:
        from curricula.model import fingerprint, model_folder

        if model.endpoint is not None:
            return Weights(None, f"{model.name}@{model.revision or 'unknown'}")
        folder = model_folder(model.path, base=base, store=store(), revision=model.revision)
        return Weights(folder, fingerprint(folder, store()))

    return Synthesizer(locate, regenerate=regenerate)


def spelled(run: Path | None, overrides: list[str] | None) -> str:
    """The options that the next command needs to mean the same Run and recipe."""
    words = [["--run", str(run)]] if run else []
    words += [["--set", override] for override in overrides or []]
    return "".join(f" {option} {shlex.quote(value)}" for option, value in words)


def spelled_base(base: Path) -> list[str]:
    """The words of `--base` that the next command needs to find the same files."""
    return ["--base", str(base)] if base != Path() else []


def run_folder(run: Path | None, recipe: Any) -> Path:
    """The Run folder that `--run` names, else `runs/NAME`."""
    return run or Path("runs") / recipe.name


def store() -> Path:
    """Where converted models are kept between Runs."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "curriculum-mixer"
