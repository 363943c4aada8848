"""What a build would hold and cost, before anything is built: from an earlier build's counts, else from a sample.

A sample reads a few whole units (slices of bounded size) of a source, cleans an even selection of their pages in
this process, and scales by characters within a unit and by the number of units. It knows nothing of duplicates, so
its numbers lean high; they are marked `~`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixer import imported
from mixer.clean import Draft, steps_of
from mixer.corpus import corpus_of
from mixer.errors import SourceError
from mixer.held_out import check_held_out
from mixer.plan import plan
from mixer.pools import guessed_pools, is_packed_by, pack_rule, source_pools
from mixer.read import read, units
from mixer.recipe.recipe import Recipe
from mixer.recipe.sources import HubSource, PageSource, SynthSource, TokensSource
from mixer.run import read_json
from mixer.steps import Say, Steps
from mixer.tokens import Encoder, load
from mixer.types import Page, Plan, Pool, Unit

_UNITS = 3
_PAGES = 24
_HUB_ROWS = 256
_SYNTHETIC_SHARE = 0.05
"""Tokens of accepted pairs to a token of their pages: a guess until the first build has counted them."""
_BYTES_PER_TOKEN = 10
"""On disk, over the Run: text kept twice, ids twice, order; measured on `benchmarks/real.yaml`."""
_GUESSED = {"synth": "a guess, and so is the time to write it", "tokens": "as its files say"}


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
    # Declared sizes need no tokenizer, which may lie on a hub that cannot be reached.
    is_declared = all(source.declared for source in recipe.sources.values())
    encoder = None if is_declared else load(recipe.tokenizer, base, store)
    steps = Steps(run, say)
    known = read_json(run / ".cache" / "fingerprints.json") or {}
    listed = {
        name: units(name, source, base, cache=known)
        for name, source in recipe.read_sources.items()
        if not source.declared
    }
    # Where all sizes are declared no data need be here yet.
    if listed:
        check_held_out(recipe, base, listed)
    is_built = len(listed) == len(recipe.read_sources) and steps.recorded("corpus") == corpus_of(recipe, listed)
    sizes = {}
    for name, source in recipe.sources.items():
        if source.declared or encoder is None:
            assert source.declared is not None
            tokens = source.declared.tokens
            sizes[name] = Size(tokens, is_counted=False, disk_bytes=tokens * _BYTES_PER_TOKEN)
            say(f"{name}: {tokens:,} tokens, declared")
            continue
        counted = _counted(recipe, run / "shards" / name, encoder) if is_built else None
        sizes[name] = counted or _uncounted(recipe, name, listed, sizes, encoder)
        is_counted = sizes[name].is_counted
        guessed_how = _GUESSED.get(source.kind, "from a sample")
        how = "counted" if is_counted else guessed_how + (", before `where`" if recipe.filters.get(name) else "")
        say(f"{name}: {'' if is_counted else '~'}{sizes[name].tokens:,} tokens, {how}")
    pools = _pools(recipe, run, sizes)
    available = {name: pool.available for name, pool in pools.items()}
    guessed = [name for name, pool in pools.items() if not sizes[pool.source].is_counted]
    if recipe.scores.taken:
        say(f"the time to take scores ({', '.join(recipe.scores.taken)}) comes on top")
    return Estimate(plan(recipe, available, estimated=guessed), sizes)


def _pools(recipe: Recipe, run: Path, sizes: Mapping[str, Size]) -> dict[str, Pool]:
    """The pools of every source, as it lies packed where that was counted for the same stages."""
    found: list[Pool] = []
    for name, size in sizes.items():
        index = read_json(run / "shards" / name / "index.json") if size.is_counted else None
        if index and is_packed_by(pack_rule(recipe, name), index, recipe):
            found += source_pools(recipe, name, index)
        else:
            found += guessed_pools(recipe, name, size.tokens // recipe.sequence_length)
    return {pool.name: pool for pool in found}


def _uncounted(
    recipe: Recipe,
    name: str,
    listed: Mapping[str, Sequence[Unit]],
    sizes: Mapping[str, Size],
    encoder: Encoder,
) -> Size:
    source = recipe.sources[name]
    if isinstance(source, TokensSource):
        tokens = imported.tokens_of(source, listed[name], encoder)
        return Size(tokens, is_counted=False, disk_bytes=2 * tokens * encoder.dtype.itemsize)
    if not isinstance(source, SynthSource):
        return _sampled(recipe, source, name, listed[name], encoder)
    pages = sizes.get(source.source) or _uncounted(recipe, source.source, listed, sizes, encoder)
    return Size(round(pages.tokens * _SYNTHETIC_SHARE), is_counted=False)


def _counted(recipe: Recipe, shards: Path, encoder: Encoder) -> Size | None:
    """What the last build counted, by the same tokenizer; None when it did not get that far."""
    index = read_json(shards / "index.json")
    if index is None or index["tokenizer"] != encoder.digest:
        return None
    if (index["sequence_length"], index["packing"]) == (recipe.sequence_length, recipe.packing):
        return Size(index["sequences"] * recipe.sequence_length, is_counted=True)
    return Size(index["document_tokens"], is_counted=recipe.packing == "concat_and_chunk")


def _sampled(recipe: Recipe, source: PageSource, name: str, its_units: Sequence[Unit], encoder: Encoder) -> Size:
    picked = [its_units[i] for i in sorted({k * (len(its_units) - 1) // (_UNITS - 1) for k in range(_UNITS)})]
    filters = tuple(recipe.clean.filters if source.filters is None else source.filters)
    clean = steps_of(recipe.clean, filters)
    began = time.monotonic()
    seen, sampled, tokens = 0.0, 0, 0
    for unit in picked:
        size, chosen = _choose(name, source, unit)
        seen += size
        sampled += sum(len(page.content) for page in chosen)
        texts = [text for text in (_cleaned(page, clean) for page in chosen) if text]
        tokens += sum(map(len, encoder.encode(texts)))
    seconds = time.monotonic() - began
    scale = seen / sampled * len(its_units) / len(picked) if sampled else 0.0
    total = round(tokens * scale)
    return Size(total, is_counted=False, seconds=seconds * scale, disk_bytes=total * _BYTES_PER_TOKEN)


def _choose(name: str, source: PageSource, unit: Unit) -> tuple[float, list[Page]]:
    """Size of a unit's content, and an even selection of its pages; holds no more than twice the selection."""
    is_hub = isinstance(source, HubSource)
    size, step, number = 0, 1, -1
    chosen: list[Page] = []
    for number, item in enumerate(read(unit, source, limit=_HUB_ROWS if is_hub else None)):
        if isinstance(item, Page):
            size += len(item.content)
            if number % step == 0:
                chosen.append(item)
        if len(chosen) >= 2 * _PAGES:
            chosen, step = chosen[::2], step * 2
    if not is_hub or number + 1 < _HUB_ROWS:
        return size, chosen
    if source.max_documents is None:
        raise SourceError(
            f"sources.{name}: got a hub data set of unknown length, expected one that can be planned for",
            hint="set `max_documents`, or state its size with `declared: {tokens: 60B}`",
        )
    return size * source.max_documents / _HUB_ROWS, chosen


def _cleaned(page: Page, steps: Sequence[Any]) -> str:
    draft = Draft(page.id, page=page, url=page.url, metadata=dict(page.metadata))
    for step in steps:
        if not draft.step:
            step(draft)
    return draft.text
