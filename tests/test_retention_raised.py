"""What is left of a training planned again with more replay, by hand: counts, orders, and what a resume takes back."""

import json

import numpy as np

from curricula.loader import Loader, Track
from curricula.retention.raised import Stock, forget, raise_replay, raised, restore
from mixer.types import Pool


def test_counts_by_hand():
    """Of 100 sequences 20 are replay; 0.32 more make 52, and each side keeps its proportions, 3:1 and 3:1."""
    before = {"new": 60, "more": 20, "old": 15, "code": 5}
    room = dict.fromkeys(before, 1000)
    found = raised(before, room, replay=["old", "code"], by=0.32)
    assert found == {"new": 36, "more": 12, "old": 39, "code": 13}
    assert sum(found.values()) == 100


def test_replay_goes_as_far_as_its_room_and_never_to_everything():
    before = {"new": 80, "old": 15, "code": 5}
    assert raised(before, {"new": 99, "old": 99, "code": 8}, replay=["old", "code"], by=0.3)["code"] == 8
    assert raised(before, {"new": 99, "old": 15, "code": 5}, replay=["old", "code"], by=0.3) == before
    assert raised({"new": 100, "old": 0}, {"new": 100, "old": 500}, replay=["old"], by=0.95)["new"] == 10


class Sequences:
    """Rows of nothing, as a loader counts them."""

    names, sequence_length, vocabulary = ("old", "new"), 4, 9

    def count(self, source: int) -> int:
        return 40


def test_what_was_trained_on_stays_and_nothing_comes_twice_or_is_skipped(tmp_path):
    """Two stages over pools of 40; the pools' shuffles go on where they were, through both stages, twice raised."""
    stock = Stock({"old": Pool("old", None, 0, 40), "new": Pool("new", None, 0, 40)}, ["old", "new"], 1.0, 7)
    from curricula.order import order
    from mixer.types import Draw

    def rows(*draws: Draw) -> np.ndarray:
        return np.concatenate(list(order(draws, seed=7)))

    first = rows(Draw("old", 40, 0, 4), Draw("new", 40, 0, 16))
    second = rows(Draw("old", 40, 4, 2), Draw("new", 40, 16, 8))
    tracks = [Track("one", 20, lambda: first), Track("two", 10, lambda: second)]
    loader = Loader(Sequences(), tracks, per_step=5)
    for position in (5, 15):
        before = [np.array(loader.order(stage)) for stage in (0, 1)]
        found = raise_replay(loader, tmp_path, position, stock, replay=["old"], by=0.2)
        restore(loader, tmp_path, position)
        assert [rest.stage for rest in found] == ["one", "two"]
        assert np.array_equal(loader.order(0)[:position], before[0][:position])
        assert len(loader.order(0)) == 20
        assert len(loader.order(1)) == 10
    every = np.concatenate([loader.order(0), loader.order(1)])
    for source, name in enumerate(("old", "new")):
        own = every[every[:, 0] == source, 1]
        assert np.array_equal(own, rows(Draw(name, 40, 0, len(own)))[:, 1])
    assert (every[:, 0] == 0).sum() > 6
    again = Loader(Sequences(), tracks, per_step=5)
    restore(again, tmp_path, 10)
    assert json.loads((tmp_path / "orders/000000000005/raised.json").read_text())[0]["stage"] == "one"
    assert np.array_equal(again.order(1), np.load(tmp_path / "orders/000000000005/two.npy"))
    restore(again, tmp_path, 15)
    assert np.array_equal(again.order(1), loader.order(1))
    forget(tmp_path, 10)
    assert [path.name for path in (tmp_path / "orders").iterdir()] == ["000000000005"]
    fresh = Loader(Sequences(), tracks, per_step=5)
    restore(fresh, tmp_path, 4)
    assert np.array_equal(fresh.order(0), first)
