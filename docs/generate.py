"""Write docs/recipes.md and docs/cli.md from the code: `python docs/generate.py`. A test keeps them fresh."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from mixer.recipe.file import schema

DOCS = Path(__file__).parent
HEAD = "<!-- Written by docs/generate.py; edit the docstrings in mixer/recipe/ or mixer/commands instead. -->\n\n"


def recipes() -> str:
    """docs/recipes.md: every section of a recipe, a table each."""
    root = schema()
    parts = ["# Recipes\n", "A recipe is one YAML file. `mixer schema` prints the same as JSON Schema for an editor.\n"]
    parts += ["Counts may be written `1_000`, `30M`, `92.5B`. Only `true` and `false` are switches; `no` is a word.\n"]
    parts += _section("Recipe", root)
    for name, section in root["$defs"].items():
        parts += _section(name, section)
    return HEAD + "\n".join(parts)


def _section(name: str, section: dict[str, Any]) -> list[str]:
    if "properties" not in section:
        return []
    required = section.get("required", [])
    lines = [
        f"## {name}\n",
        f"{section.get('description', '')}\n",
        "| key | is | default | meaning |",
        "|---|---|---|---|",
    ]
    for key, spec in section["properties"].items():
        default = "required" if key in required else f"`{_plain(spec.get('default'))}`"
        meaning = spec.get("description", "").replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{key}` | {_kind(spec)} | {default} | {meaning} |")
    return [*lines, ""]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "its defaults"
    words = {None: "none", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _kind(spec: dict[str, Any]) -> str:
    if "$ref" in spec:
        name = spec["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in spec:
        return f"`{spec['const']}`"
    if "enum" in spec:
        return ", ".join(f"`{value}`" for value in spec["enum"])
    if options := spec.get("anyOf") or spec.get("oneOf"):
        return " or ".join(dict.fromkeys(_kind(option) for option in options if option.get("type") != "null"))
    if spec.get("type") == "array":
        return f"list of {_kind(spec.get('items', {}))}"
    if spec.get("type") == "object":
        values = spec.get("additionalProperties") or next(iter(spec.get("patternProperties", {}).values()), {})
        return f"names to {_kind(values if isinstance(values, dict) else {})}"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}.get(
        spec.get("type", ""), "any"
    )


def cli() -> str:
    """docs/cli.md: every command and option."""
    command = [sys.executable, "-m", "typer", "mixer.cli", "utils", "docs", "--name", "mixer", "--title", "Commands"]
    return HEAD + subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    (DOCS / "recipes.md").write_text(recipes(), "utf-8")
    (DOCS / "cli.md").write_text(cli(), "utf-8")
