"""What the sources can give to one stage, and the mixtures that need no search."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from mixer.baselines import natural, unimax
from mixer.errors import PlanError
from mixer.mixture import source_of
from mixer.types import Plan

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Stock:
    """Tokens that a stage's sources hold, in the order of its mixture.

    Args:
        mixture: The stage's own: source -> fraction; they sum to one.
        available: Source -> tokens of one epoch.
        used: Source -> tokens that other stages draw.
        budget: Tokens of the stage.
        max_epochs: Most passes over a source, over all stages.
        sequence_length: Tokens of a sequence, the least that a run can draw of a source.
    """

    mixture: Mapping[str, float]
    available: Mapping[str, int]
    used: Mapping[str, int]
    budget: int
    max_epochs: float
    sequence_length: int = 1

    @property
    def room(self) -> dict[str, int]:
        """Source -> tokens that are left for the stage within `max_epochs`."""
        epochs = Fraction(str(self.max_epochs))
        return {name: max(0, int(epochs * held) - self.used[name]) for name, held in self.available.items()}

    @property
    def caps(self) -> dict[str, float]:
        """Source -> the largest fraction of the stage that it can fill."""
        return {name: min(1.0, room / self.budget) for name, room in self.room.items()}

    def epochs(self, mixture: Mapping[str, float]) -> dict[str, float]:
        """Source -> passes over it, other stages' included, if the stage had this mixture."""
        return {
            name: (self.used[name] + mixture.get(name, 0.0) * self.budget) / held
            for name, held in self.available.items()
        }

    def baselines(self) -> dict[str, dict[str, float]]:
        """Name -> mixture: uniform, natural, UniMax where there are tokens enough, and the stage's own."""
        found = {
            "uniform": dict.fromkeys(self.mixture, 1 / len(self.mixture)),
            "natural": {name: float(part) for name, part in natural(self.available).items()},
        }
        try:
            even = unimax(self.room, budget=self.budget, max_epochs=1)
            found["unimax"] = {name: float(tokens / self.budget) for name, tokens in even.items()}
        except PlanError:
            # The table then shows that no mixture could fill the stage evenly; the others break `max_epochs`, too.
            pass
        return found | {"stage": dict(self.mixture)}


def stock_of(plan: Plan, stage: str, *, max_epochs: float) -> Stock:
    """What the sources of a planned stage can give to it.

    Args:
        plan: All stages, with what each draws.
        stage: Its name.
        max_epochs: The recipe's.
    """
    own = next(found for found in plan.stages if found.name == stage)
    others = [found for found in plan.stages if found.name != stage]
    length = plan.sequence_length
    return Stock(
        mixture=_by_source({pool: share.fraction for pool, share in own.sources.items()}, own.sources),
        available=_by_source({pool: held * length for pool, held in plan.available.items()}, own.sources),
        used=_by_source(
            {
                pool: sum(found.sources[pool].tokens for found in others if pool in found.sources)
                for pool in plan.available
            },
            own.sources,
        ),
        budget=own.token_budget,
        max_epochs=max_epochs,
        sequence_length=length,
    )


def _by_source(pools: Mapping[str, _Number], stage: Iterable[str]) -> dict[str, _Number]:
    """Sums over the topics of each source of a stage, which another stage may mix by topic."""
    names = dict.fromkeys(source_of(pool) for pool in stage)
    return {name: sum(value for pool, value in pools.items() if source_of(pool) == name) for name in names}
