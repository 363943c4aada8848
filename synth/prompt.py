"""Prompts: files with a version that is their hash, filled with pages that can't change their structure.

A prompt is a Jinja file; what a page or a model wrote enters as a value, never as a template, and loses every marker
that a chat template could take for its own.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from mixer.run import digest

_FOLDER = Path(__file__).parent / "prompts"
_MARKER = re.compile(r"<(?=[|｜/]?[\w｜|▁:.\-]{1,40}[|｜]?\s?[\w]{0,40}>)|<(?=<[A-Z]{2,10}>>)")
_BRACKET = re.compile(r"\[(?=/?[A-Z_]{3,24}\])")
_LEAST_TOLD = 10
"""Characters of a sentence of a prompt by which its wording is known again."""
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def neutral(text: str) -> str:
    """The text without anything that ends a message, opens a turn, or is read but not seen.

    `<|im_end|>`, `</s>`, `[INST]` and their like get another first character, so that a reader still knows them.

    Example:
        >>> neutral("stop<|im_end|> [/INST] a < b")
        'stop‹|im_end|> (/INST] a < b'
    """
    return _BRACKET.sub("(", _MARKER.sub("‹", _INVISIBLE.sub("", text)))


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: neutral(value) if isinstance(value, str) else value,
    )


@cache
def tasks() -> tuple[str, ...]:
    """The names of all prompts, such as `vote.en`."""
    shared = ("page", "system")
    names = (path.name.removesuffix(".jinja") for path in _FOLDER.glob("*.jinja"))
    return tuple(sorted(name for name in names if not name.startswith(shared)))


@cache
def version(name: str) -> str:
    """`name@hash` of a prompt file and the parts that all prompts share: what a record says it was made with."""
    return f"{name}@{digest([(_FOLDER / part).read_text('utf-8') for part in _parts(name)])[:12]}"


def _parts(name: str) -> tuple[str, ...]:
    return f"{name}.jinja", "page.jinja", f"system.{name.rsplit('.', 1)[-1]}.jinja"


def messages(name: str, *, page: str | None = None, values: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    """Chat messages of a prompt.

    Args:
        name: File name without suffix, such as `vote.en`; the part after the dot is the language.
        page: Shown first, between marks that depend on it, or None.
        values: What the file's placeholders stand for; one too few is an error.
    """
    environment = _environment()
    text = environment.get_template(f"{name}.jinja").render(values).strip()
    if page is not None:
        # The mark hashes the page, so no page can hold its own end mark.
        shown = environment.get_template("page.jinja").render(mark=digest(page)[:8], page=page)
        text = f"{shown}\n{text}"
    system = environment.get_template(f"system.{name.rsplit('.', 1)[-1]}.jinja").render().strip()
    return ({"role": "system", "content": system}, {"role": "user", "content": text})


def leaks(*names_used: str) -> Sequence[str]:
    """The sentences of the prompt files themselves, which no question or answer may repeat."""
    files = {part for name in names_used for part in _parts(name)}
    lines = [line for part in sorted(files) for line in (_FOLDER / part).read_text("utf-8").splitlines()]
    plain = [re.sub(r"\{[{%#].*?[%#}]\}", " ", line) for line in lines]
    told = [sentence.strip() for line in plain for sentence in re.split(r"(?<=[.。:])\s*", line)]
    return [sentence for sentence in told if len(sentence) > _LEAST_TOLD]
