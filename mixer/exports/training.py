"""What a Run trains on: its recipe, stages and sources, ready to be written in another form."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixer.errors import ExportError, ShardError
from mixer.exports.rows import Rows, Shards, Span
from mixer.mixture import source_of
from mixer.recipe.exports import FOLDERS, Export
from mixer.recipe.recipe import Recipe
from mixer.run import digest, file_hash, read_json, sha256


@dataclass(frozen=True, slots=True)
class Training:
    """A Run.

    Args:
        recipe: Its recipe.
        plan: Its `plan.json`.
        shards: Its sources' sequences.
        stages: The order of each stage, (sequences, 2) int32, by memory map.
        order_sha256: The hash of each stage's order.
        waiting: Stages that have no order yet, for want of losses.
    """

    recipe: Recipe
    plan: Mapping[str, Any]
    shards: Shards
    stages: Mapping[str, np.ndarray]
    order_sha256: Mapping[str, str]
    waiting: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Of everything in the Run that decides what is trained on."""
        shards = {name: [index["shards"], index.get("parts")] for name, index in self.shards.index.items()}
        return digest([shards, dict(self.order_sha256), self.recipe.tokenizer.path])

    def documents_digest(self) -> str:
        """A hash of the documents; reads them all."""
        return digest(
            {name: [file_hash(path) for path in self.shards.document_tables(name)] for name in self.shards.names}
        )

    def sets(self, export: Export, *, staged: bool) -> dict[str, Rows]:
        """What an export writes: a name each, and its rows.

        Args:
            export: Which.
            staged: Whether the format wants a set a stage.

        Raises:
            ExportError: A source's folder would be that of the configuration.
        """
        if export.mode == "blended":
            sources = {name: self.source(name) for name in self.shards.names}
            found = {name: rows for name, rows in sources.items() if len(rows)}
            if "config" in found and export.format in FOLDERS:
                raise ExportError(
                    f"export {export.folder}: got a source named `config`, which is where the configuration stands",
                    hint="name it otherwise, or export `premixed`",
                )
            return found
        if staged:
            # As wide as the last needs, so that files in name order are in stage order.
            width = max(2, len(str(len(self.stages) - 1)))
            stages = enumerate(self.stages.items())
            return {f"{number:0{width}d}-{name}": Rows(self.shards, [order]) for number, (name, order) in stages}
        name = "train" if export.format == "arrow" else "premixed"
        return {name: Rows(self.shards, list(self.stages.values()))}

    def source(self, name: str) -> Rows:
        """All sequences of one source, but those that are held out."""
        index, number = self.shards.index[name], self.shards.names.index(name)
        whole = {"held_out": False, "first_sequence": 0, "sequences": index["sequences"]}
        kept = [part for part in index.get("parts") or [whole] if not part["held_out"]]
        return Rows(self.shards, [Span(number, part["first_sequence"], part["sequences"]) for part in kept])

    def counts(self) -> dict[str, dict[str, int]]:
        """Stage -> source -> sequences, in the recipe's order of sources."""
        found = {}
        for stage in self.plan["stages"]:
            sums = dict.fromkeys(self.shards.names, 0)
            for pool, share in stage["sources"].items():
                sums[source_of(pool)] += share["sequences"]
            found[stage["name"]] = {name: count for name, count in sums.items() if count}
        return found


def training(run: Path, recipe: Recipe, scratch: Path) -> Training:
    """The training of a Run.

    Args:
        run: The Run folder.
        recipe: Its recipe.
        scratch: A folder for what is laid out on the way.

    Raises:
        ShardError: It has no plan, or its order and its plan do not agree.
    """
    plan = read_json(run / "plan.json")
    if plan is None:
        raise ShardError(f"{run}: got no plan.json, expected a Run that was built", hint="run mixer build")
    stages, hashes = {}, {}
    waiting = [each["name"] for each in plan["stages"] if each.get("resample") and not _order_of(run, each).is_file()]
    plan["stages"] = [stage for stage in plan["stages"] if stage["name"] not in waiting]
    for stage in plan["stages"]:
        path = _order_of(run, stage)
        order = np.asarray(np.load(path, mmap_mode="r")) if path.is_file() else np.empty((0, 2), np.int32)
        if order.shape != (stage["sequences"], 2):
            raise ShardError(
                f"{path}: got {order.shape[0]:,} sequences, expected {stage['sequences']:,} as in plan.json",
                hint="run mixer build",
            )
        stages[stage["name"]], hashes[stage["name"]] = order, sha256(path)
    shards = Shards(run, tuple(recipe.sources), scratch, recipe.tokenizer.path)
    return Training(recipe, plan, shards, stages, hashes, tuple(waiting))


def _order_of(run: Path, stage: Mapping[str, Any]) -> Path:
    return run / "order" / f"{stage['name']}.npy"
