"""What a build would hold and cost, before anything is built: from an earlier build's counts, else from a sample.

A sample reads whole units (slices of a source of bounded size), cleans an even selection of their pages in this
process and scales by bytes. It knows nothing of duplicates, so its numbers lean high; they are marked `~`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixer.build import encoder_inputs
from mixer.clean import Draft, steps_of
from mixer.plan import plan
from mixer.prepare import list_units, rules_of
from mixer.read import read
from mixer.recipe import AnySource, Recipe
from mixer.run import read_json
from mixer.steps import Say, Steps
from mixer.tokens import Encoder, load
from mixer.types import Page, Plan, Unit

_UNITS = 3
_PAGES = 24
_TEXT_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Size:
    """What is known of one source: tokens after cleaning, how sure, and what making it costs."""

    tokens: int
    is_exact: bool
    seconds: float = 0.0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A plan before the build, and the sizes it stands on."""

    plan: Plan
    sizes: dict[str, Size]

    def costs(self) -> dict[str, float]:
        """Disk and time that the build would take on one core; zero for what is built already."""
        return {
            "disk_bytes": sum(size.bytes for size in self.sizes.values()),
            "seconds": round(sum(size.seconds for size in self.sizes.values()), 1),
        }
