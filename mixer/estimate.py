"""What a build would hold and cost, before anything is built: from an earlier build's counts, else from a sample.

A sample reads a few whole units (slices of bounded size) of a source, cleans an even selection of their pages in
this process and scales by bytes. It knows nothing of duplicates, so its numbers lean high; they are marked `~`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixer.clean import Draft, steps_of
from mixer.plan import plan
from mixer.prepare import inputs_of
from mixer.read import read, units
from mixer.recipe import AnySource, Recipe
from mixer.shard import index_of
from mixer.steps import Say, Steps
from mixer.tokens import Encoder, load
from mixer.types import Page, Plan, Unit

_UNITS = 3
_PAGES = 24
_BYTES_PER_TOKEN = 10
"""On disk, over the Run: text kept twice, ids twice, order; measured on `benchmarks/real.yaml`."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is known of one source: tokens after cleaning, whether they were counted, and what is left to do."""

    tokens: int
    is_counted: bool
    seconds: float = 0.0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A plan before the build, and the sizes it stands on."""

    plan: Plan
    sizes: Mapping[str, Size]

    def costs(self) -> dict[str, float]:
        """Disk, and seconds on one core, that the build would take; zero for what is built already."""
        sizes = self.sizes.values()
        return {
            "disk_bytes": sum(size.disk_bytes for size in sizes),
            "seconds": round(sum(size.seconds for size in sizes), 1),
        }


def estimate(recipe: Recipe, *, base: Path, run: Path, store: Path, say: Say) -> Estimate:
    """The plan of a recipe without building it; writes nothing into the Run.

    Args:
        recipe: The recipe.
        base: Folder that its paths start from.
        run: A Run that may hold an earlier build's counts.
        store: Where converted models are kept.
        say: Takes a line for people about each source.

    Raises:
        RecipeError, SourceError, PlanError: What the user can mend.
    """
    encoder = load(recipe.tokenizer, base, store)
    steps = Steps(run, say)
    sizes = {}
    for name, source in recipe.sources.items():
        if source.declared:
            tokens = source.declared.tokens
            sizes[name] = Size(tokens, is_counted=False, disk_bytes=tokens * _BYTES_PER_TOKEN)
            say(f"{name}: {tokens:,} tokens, declared")
            continue
        its_units = units(name, source, base)
        counted = _counted(recipe, name, its_units, run, steps, encoder)
        sizes[name] = counted or _sampled(recipe, source, its_units, encoder)
        how = "counted" if counted else "from a sample"
        say(f"{name}: {'' if counted else '~'}{sizes[name].tokens:,} tokens, {how}")
    available = {name: size.tokens // recipe.sequence_length for name, size in sizes.items()}
    guessed = [name for name, size in sizes.items() if not size.is_counted]
    return Estimate(plan(recipe, available, estimated=guessed), sizes)


def _counted(
    recipe: Recipe, name: str, its_units: Sequence[Unit], run: Path, steps: Steps, encoder: Encoder
) -> Size | None:
    """What an earlier build of the same input by the same rules counted; None when there is none."""
    before = steps.recorded(f"shards {name}") or {}
    now = inputs_of(recipe, recipe.sources[name], its_units) | {"tokenizer": encoder.digest}
    if any(before.get(key) != value for key, value in now.items()):
        return None
    index = index_of(run / "shards" / name)
    if (index["sequence_length"], index["packing"]) == (recipe.sequence_length, recipe.packing):
        return Size(index["sequences"] * recipe.sequence_length, is_counted=True)
    is_exact = recipe.packing == "concat_and_chunk"
    return Size(index["document_tokens"], is_counted=is_exact)


def _sampled(recipe: Recipe, source: AnySource, its_units: Sequence[Unit], encoder: Encoder) -> Size:
    picked = [its_units[i] for i in sorted({k * (len(its_units) - 1) // (_UNITS - 1) for k in range(_UNITS)})]
    filters = tuple(recipe.clean.filters if source.filters is None else source.filters)
    clean = steps_of(recipe.clean, filters)
    began = time.monotonic()
    seen = sampled = tokens = 0
    for unit in picked:
        pages = [item for item in read(unit, source) if isinstance(item, Page)]
        seen += sum(len(page.content) for page in pages)
        chosen = pages[:: max(1, len(pages) // _PAGES)]
        sampled += sum(len(page.content) for page in chosen)
        texts = [text for text in (_cleaned(page, clean) for page in chosen) if text]
        tokens += sum(map(len, encoder.encode(texts)))
    seconds = time.monotonic() - began
    scale = seen / sampled * len(its_units) / len(picked) if sampled else 0.0
    total = round(tokens * scale)
    return Size(total, is_counted=False, seconds=seconds * scale, disk_bytes=total * _BYTES_PER_TOKEN)


def _cleaned(page: Page, steps: Sequence[Any]) -> str:
    draft = Draft(page.id, page=page, url=page.url, metadata=dict(page.metadata))
    for step in steps:
        if not draft.step:
            step(draft)
    return draft.text
