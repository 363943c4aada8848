"""The trainer's side: configuration files filled in with what was exported, from the templates in `fragments/`."""

from pathlib import Path

import jinja2

from mixer.exports.target import Told
from mixer.recipe.exports import Export

_FOLDER = Path(__file__).parent / "fragments"
_STAGE = "@stage"
"""In a template's name: a file a stage."""
_NUMBERED = {"olmo": ".npy", "parquet": ".parquet", "webdataset": ".tar", "jsonl": ".jsonl"}
"""Formats whose configuration names every file, by what their names end with."""


def render(export: Export, record: Told) -> dict[str, str]:
    """File name -> text of the configuration for a format; a template that has nothing to say makes no file.

    Args:
        export: Format and options.
        record: What `export.json` will say.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found = {}
    for template in sorted((_FOLDER / export.format).glob("*.jinja")):
        name = template.name.removesuffix(".jinja")
        stages = [stage["name"] for stage in record["stages"]] if _STAGE in name else [""]
        for stage in stages:
            told = {**record, "export": export, "stage": stage, "parts": _parts(record)}
            text = environment.get_template(f"{export.format}/{template.name}").render(told)
            if text.strip():
                found[name.replace(_STAGE, stage)] = text
    return found


def _parts(record: Told) -> dict[str, list[str]]:
    """The numbered files of each set, in order; what else lies in the folder is none of the trainer's."""
    ending = _NUMBERED.get(record["format"], "")
    found: dict[str, list[str]] = {name: [] for name in record["sets"]}
    for file in sorted(record["files"], key=lambda file: (len(file), file)):
        if ending and file.endswith(ending):
            found[file.removesuffix(ending).rpartition("-")[0]].append(file)
    return found
