"""`mixer export`: a Run in the formats of other trainers."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mixer.cli_group import say
from mixer.commands.options import Base, Json, store
from mixer.format_names import FORMATS


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A Run folder that `mixer build` finished.")],
    formats: Annotated[list[str], typer.Option("--format", help=f"May be given several times: {', '.join(FORMATS)}.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Each format gets a folder of its own in it.")],
    mode: Annotated[
        str, typer.Option(help="premixed: the training order. blended: a data set a source, for the trainer to mix.")
    ] = "premixed",
    content: Annotated[
        str | None, typer.Option(help="Of parquet and arrow: tokens or text.", show_default=False)
    ] = None,
    batch_sequences: Annotated[
        int | None, typer.Option(help="Sequences a step, where the configuration counts steps.", show_default=False)
    ] = None,
    shuffle_seed: Annotated[
        str | None,
        typer.Option(
            help="Of megatron and nanotron: the seed that they shuffle by; `null` for none.", show_default=False
        ),
    ] = None,
    file_bytes: Annotated[
        str | None,
        typer.Option(metavar="COUNT", help="Most bytes of a file, where the format has several.", show_default=False),
    ] = None,
    base: Base = Path(),
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read everything back, with the trainer's library too where it is installed."),
    ] = False,
    verify_with: Annotated[
        list[str] | None,
        typer.Option(metavar="PYTHON", help="An interpreter that has the trainer's library; it must be asked then."),
    ] = None,
    json_: Json = False,
) -> None:
    """Write a Run for another trainer: files, hashes, its configuration, and which switches to turn off.

    Safe to repeat: a finished export is skipped, one that was cut short goes on.

    Example: mixer export runs/quickstart --format megatron --format parquet --out exports --verify
    """
    from mixer import tables
    from mixer.exports.export import export as export_run

    recipe = _recipe_of(run)
    options = {
        "mode": mode,
        "content": content,
        "batch_sequences": batch_sequences,
        "shuffle_seed": shuffle_seed,
        "file_bytes": file_bytes,
    }
    wanted = [_export(name, options) for name in dict.fromkeys(formats)]
    told: dict[str, Any] = {"say": say, "tokenizer": _tokenizer(run, recipe, base)}
    records = {each.folder: export_run(run, recipe, each, out / each.folder, **told) for each in wanted}
    found: dict[str, Any] = {}
    if verify or verify_with:
        found = {each.folder: _verified(run, recipe, out / each.folder, each.format, verify_with) for each in wanted}
    if json_:
        rows = {name: [asdict(row) for row in each] for name, each in found.items()}
        typer.echo(json.dumps({"exports": records, "verified": rows}, indent=2))
        return
    tables.show_exports(records)
    if found:
        tables.show_verified(found)
    for name, record in records.items():
        for warning in record["warnings"]:
            say(f"warning: {name}: {warning}")
        say(f"next: {out / name}/config; to keep the order: {'; '.join(record['switches'])}")


def _verified(run: Path, recipe: Any, target: Path, name: str, pythons: list[str] | None) -> Any:
    """What reading one export back found; says so where the trainer's library could not be asked."""
    from mixer.errors import ExportError
    from mixer.exports.asked import interpreter_for
    from mixer.exports.theirs import LIBRARIES
    from mixer.exports.verify import verify

    python = interpreter_for(name, pythons or [sys.executable])
    if python is None and name in LIBRARIES:
        library = LIBRARIES[name][0]
        if pythons:
            raise ExportError(
                f"--verify-with: got no interpreter with {library}, expected one of {', '.join(pythons)} to have it",
                hint="docs/exports.md shows how to make one",
            )
        say(f"note: {library} was NOT asked to read {target}: it is not installed here (--verify-with PYTHON)")
    return verify(run, recipe, target, python=python)


def _tokenizer(run: Path, recipe: Any, base: Path) -> dict[str, str]:
    """The files of the Run's tokenizer, for whoever trains on its ids."""
    from mixer.exports.configuration import tokenizer_texts
    from mixer.shard import index_of

    digest = index_of(run / "shards" / next(iter(recipe.sources)))["tokenizer"]
    return tokenizer_texts(recipe.tokenizer, base, store(), digest, say)


def _recipe_of(run: Path) -> Any:
    from mixer.errors import SourceError
    from mixer.recipe.file import load

    if not (run / "manifest.json").is_file():
        raise SourceError(f"{run}: got no manifest.json, expected a finished Run", hint="run mixer build first")
    return load(run / "recipe.yaml")


def _value(value: Any) -> Any:
    """An option's value as a recipe would have it: `null`, `64M`, a number."""
    from mixer.recipe.yaml import parse

    return parse(value).value if isinstance(value, str) else value


def _export(name: str, options: dict[str, Any]) -> Any:
    """The export that the options mean; what is wrong with them is said as for a recipe."""
    from mixer.errors import RecipeError
    from mixer.recipe import problems as recipe_problems
    from mixer.recipe.exports import Export

    given = {"format": name} | {key: _value(value) for key, value in options.items() if value is not None}
    problems = [each for each in recipe_problems.find({"exports": [given]}) if each.spot[:1] == ("exports",)]
    if problems:
        told = [f"{'.'.join(map(str, each.what[2:]))}: {each.text}".lstrip(": ") for each in problems]
        # What is wrong with several options together was got as all of them: they stand in the command.
        brief = [f"expected {text.partition(', expected ')[2]}" if text.startswith("got {") else text for text in told]
        raise RecipeError(
            f"--format {name}: {'; '.join(brief)}", hint="`mixer export --help` lists formats and options"
        )
    return Export.model_validate(given)
