"""From a position to a batch: seams by hand, nothing lost between processes, orders that do not fit refused."""

import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricula.loader import Loader, Track, batches_of
from curricula.rows import FILLER, Row, batch_of, row_by_row, starts_of, weights_of
from curricula.shards import Shards
from mixer.errors import ShardError
from mixer.shard import index_of
from tests import training

LENGTH = 8


class Numbered:
    """Rows whose ids say where they come from: source x 1,000 + sequence, in documents of 5 and 2, and padding."""

    names = ("one", "two")
    sequence_length = LENGTH
    vocabulary = 5000

    def row(self, source, sequence):
        ids = np.full(LENGTH, 1000 * source + sequence)
        offsets, lengths = np.array([0, 5]), np.array([5, 2])
        return Row(ids, starts_of(LENGTH, offsets, lengths), weights_of(LENGTH, offsets, lengths), 7)

    def batch(self, picked, numbers):
        return row_by_row(self, picked, numbers)

    def topic(self, source, sequence):
        return None

    def count(self, source):
        return 900


def track(name, sequences, seed=0):
    draw = np.random.default_rng(seed)
    order = np.stack([draw.integers(0, 2, sequences), draw.integers(0, 900, sequences)], 1).astype(np.int32)
    return Track(name, sequences, lambda: order)


def test_a_documents_last_token_is_predicted_and_the_next_ones_first_is_not():
    """Two documents, `10 11 2` and `20 2` (2 ends a document), and padding `0`, in one row."""
    offsets, lengths = np.array([0, 3]), np.array([3, 2])
    row = Row(np.array([10, 11, 2, 20, 2, 0]), starts_of(6, offsets, lengths), weights_of(6, offsets, lengths), 5)
    batch = batch_of([row, row], [4, 7])
    assert batch.targets.tolist() == [11, 2, 2] * 2
    assert batch.ids.ravel()[batch.places].tolist() == [10, 11, 20] * 2
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0]] * 2
    assert batch.bounds.tolist() == [0, 3, 5, 6, 9, 11, 12]
    assert (batch.longest, batch.tokens.tolist()) == (3, [5, 5])
    sums = batch.by_row(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 8)
    assert sums[:, 4].tolist() == [6.0, 3.0, 5.0]
    assert sums[:, 7].tolist() == [15.0, 3.0, 5.0]
    assert sums.sum() == 6 + 3 + 5 + 15 + 3 + 5


def test_steps_end_with_their_stage_and_follow_from_the_position_alone():
    loader = Loader(Numbered(), [track("a", 7), track("b", 4)], per_step=3)
    found, position = [], 0
    while step := loader.step(position):
        found.append((step.name, step.first, step.count))
        position += step.count
    assert found == [("a", 0, 3), ("a", 3, 3), ("a", 6, 1), ("b", 0, 3), ("b", 3, 1)]
    assert position == loader.sequences == 11
    assert loader.step(6) == Loader(Numbered(), [track("a", 7), track("b", 4)], per_step=3).step(6)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))
def test_processes_read_every_sequence_once_in_as_many_batches(count, size, micro_batch, seed):
    """A process with fewer batches than the others would leave them waiting for ever."""
    picked = track("a", count, seed).order()
    found = [
        list(batches_of(Numbered(), picked, rank=rank, size=size, micro_batch=micro_batch)) for rank in range(size)
    ]
    assert len({len(batches) for batches in found}) == 1
    assert len({tuple(batch.ids.shape for batch in batches) for batches in found}) == 1
    rows = [(row, int(batch.ids[at, 0])) for part in found for batch in part for at, row in enumerate(batch.rows)]
    real = sorted(row for row in rows if row[0] != FILLER)
    assert real == [(number, 1000 * source + sequence) for number, (source, sequence) in enumerate(picked.tolist())]
    assert all(
        not batch.weights[batch.rows[batch.places // LENGTH] == FILLER].any() for part in found for batch in part
    )


def test_the_hash_of_a_step_is_of_all_that_it_reads():
    one = Loader(Numbered(), [track("a", 9)], per_step=3)
    assert one.digest(0) == Loader(Numbered(), [track("a", 9)], per_step=3).digest(0)
    others = [one.digest(3), Loader(Numbered(), [track("a", 9, seed=1)], per_step=3).digest(0)]
    others.append(Loader(Numbered(), [track("a", 9)], per_step=2).digest(0))

    class Other(Numbered):
        def row(self, source, sequence):
            row = super().row(source, sequence)
            return Row(row.ids, row.starts[:1], row.weights, row.tokens)

    others.append(Loader(Other(), [track("a", 9)], per_step=3).digest(0))
    assert len({one.digest(0), *others}) == 5
    assert one.digest(9) == ""


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (np.zeros((3, 2), np.int32), r"order/a.npy: got \(3, 2\) rows and columns, expected \(4, 2\)"),
        (np.array([[0, 1], [1, 900], [0, 0], [0, 0]]), "order/a.npy: got source 1, sequence 900, expected one of"),
        (np.array([[0, 1], [2, 5], [0, 0], [0, 0]]), "order/a.npy: got source 2, sequence 5, expected one of"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(order, told):
    loader = Loader(Numbered(), [Track("a", 4, lambda: order)], per_step=2)
    with pytest.raises(ShardError, match=told):
        loader.picked(loader.step(0))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return training.build_run(tmp_path_factory.mktemp("built"), packing="best_fit") / "run"


SOURCES = ["web", "books", "pages"]


def test_padding_is_read_by_nobody_and_predicted_by_nothing(run):
    shards = Shards(run, SOURCES, document_mask=True)
    padded = 0
    for source, name in enumerate(SOURCES):
        index = index_of(run / "shards" / name)
        rows = [shards.row(source, number) for number in range(shards.count(source))]
        assert sum(row.tokens for row in rows) == index["sequences"] * 64 - index["padding_tokens"]
        for row in rows:
            assert not row.weights[row.tokens - 1 :].any()
            assert row.tokens in {*row.starts.tolist(), 64}
            ends = np.flatnonzero(row.ids[: row.tokens] == index["eos"])
            assert not row.weights[ends].any(), "nothing is predicted across a seam"
            assert row.weights[ends[ends > 0] - 1].all(), "the end of a document is predicted"
        padded += index["padding_tokens"]
    assert padded > 0


def test_without_a_mask_documents_see_each_other_and_the_same_tokens_count(run):
    masked, open_ = (Shards(run, SOURCES, document_mask=mask) for mask in (True, False))
    number = next(number for number in range(masked.count(0)) if len(masked.row(0, number).starts) > 1)
    assert open_.row(0, number).starts.tolist() == [0]
    assert np.array_equal(masked.row(0, number).weights, open_.row(0, number).weights)


def test_parts_of_a_source_say_the_topic_and_what_is_held_out(run, tmp_path):
    folder = training.copied(run.parent, tmp_path) / "run"
    path = folder / "shards" / "books" / "index.json"
    index = json.loads(path.read_text())
    parts = [
        {"topic": "physics", "held_out": False, "first_sequence": 0, "sequences": 20},
        {"topic": None, "held_out": False, "first_sequence": 20, "sequences": 5},
        {"topic": "physics", "held_out": True, "first_sequence": 25, "sequences": index["sequences"] - 25},
    ]
    path.write_text(json.dumps(index | {"parts": parts}))
    shards = Shards(folder, SOURCES, document_mask=True)
    assert [shards.topic(1, number) for number in (0, 19, 20, 24, 25)] == ["physics"] * 2 + [None] * 2 + ["physics"]
    assert shards.topic(0, 3) is None
    assert list(shards.held_out()) == [(1, number) for number in range(25, index["sequences"])]


def test_sequences_of_another_length_are_refused(run, tmp_path):
    folder = training.copied(run.parent, tmp_path) / "run"
    path = folder / "shards" / "pages" / "index.json"
    index = json.loads(path.read_text())
    halves = [shard | {"sequences": 2 * shard["sequences"]} for shard in index["shards"]]
    path.write_text(json.dumps(index | {"sequence_length": 32, "sequences": 2 * index["sequences"], "shards": halves}))
    with pytest.raises(ShardError, match="shards/pages: got sequences of 32, expected 64"):
        Shards(folder, SOURCES, document_mask=True)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("packing", ["best_fit", "concat_and_chunk"])
def test_a_batch_laid_out_at_once_is_the_one_put_together_from_rows(run, tmp_path_factory, mask, packing):
    folder = (
        run if packing == "best_fit" else training.build_run(tmp_path_factory.mktemp("cut"), packing=packing) / "run"
    )
    shards = Shards(folder, SOURCES, document_mask=mask)
    every = np.array([(source, number) for source in range(3) for number in range(shards.count(source))])
    picked = np.random.default_rng(1).permutation(every)[:50]
    for first, count, fill in ((0, 50, 0), (7, 1, 0), (20, 5, 3), (3, 0, 2)):
        numbers = np.array([*range(first, first + count), *[FILLER] * fill])
        pairs = picked[first : first + count]
        found, expected = shards.batch(pairs, numbers), row_by_row(shards, pairs, numbers)
        for field in fields(expected):
            mine, theirs = getattr(found, field.name), getattr(expected, field.name)
            assert np.array_equal(mine, theirs), field.name
            assert getattr(mine, "dtype", int) == getattr(theirs, "dtype", int), field.name
