"""The scheduler that a build is handed: it arranges what each pool gives, and interleaves the pools."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from curricula import resample
from curricula.arrange import arrange
from curricula.order import order
from mixer.recipe.stage import Order, Resample
from mixer.types import Draw, Segment


class Scheduler:
    """Orders stages; see `mixer.ordering.Scheduler`."""

    def order(
        self,
        draws: Sequence[Draw],
        *,
        seed: int,
        segments: Sequence[Segment] = (),
        orders: Mapping[str, Order] | None = None,
        ranks: Callable[[str], np.ndarray | None] = lambda _: None,
    ) -> Iterator[np.ndarray]:
        """Yield a stage's order in pieces, (n, 2) int32: index into `draws`, sequence.

        Args:
            draws: One a pool.
            seed: The recipe's.
            segments: How shares move within the stage.
            orders: Pool -> in which order it is taken; at random where none is named.
            ranks: Gives a pool's sequences from the lowest score to the highest, None where they lie so.
        """
        arranged = {
            draw.name: arrange(draw, orders[draw.name], ranks(draw.name), seed=seed)
            for draw in draws
            if orders and draw.name in orders and draw.count
        }
        yield from order(draws, seed=seed, segments=segments, arranged=arranged)

    def resample(
        self,
        rows: np.ndarray,
        draws: Sequence[tuple[np.ndarray, int]],
        losses: np.ndarray | None,
        *,
        rule: Resample,
        seed: int,
        name: str,
    ) -> np.ndarray:
        """Some rows of an earlier stage again; see `resample.resample`."""
        return resample.resample(rows, draws, losses, rule=rule, seed=seed, name=name)
