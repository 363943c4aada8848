"""Where a build works, whom it talks to, and what it is handed by packages that it does not import."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixer.recipe.recipe import Recipe
from mixer.score import Scoring
from mixer.steps import Say, Steps


@dataclass(frozen=True, slots=True)
class Context:
    """Where a build works and whom it talks to."""

    recipe: Recipe
    base: Path
    run: Path
    store: Path
    workers: int
    steps: Steps
    say: Say

    @property
    def cache(self) -> Path:
        """The Run's folder for intermediate results."""
        return self.run / ".cache"


Synthesize = Callable[[Context, str, Sequence[Path]], Path]
"""From the documents of a source's units to the folder of a synthetic source; `synth.synthesize`, handed in."""

OpenScore = Callable[[Context, str, Mapping[str, Sequence[Path]]], Scoring]
"""Makes a score ready, from its name and the documents of all sources that are read; `curricula.scores`, handed in."""
