"""Packing on hand-sized documents, then its laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.pack import best_fit, concat_and_chunk, pack


def spans(packing):
    """(document, start, length, sequence, offset) of every span."""
    columns = (packing.document, packing.document_start, packing.length, packing.sequence, packing.offset)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_case_1_concat_cuts_every_four_tokens_and_leaves_out_the_tail():
    # aaab|bbbc|c : documents of 3, 4 and 2 tokens, the last token fills no sequence
    packed = concat_and_chunk(np.array([3, 4, 2]), 4)
    assert spans(packed) == [(0, 0, 3, 0, 0), (1, 0, 1, 0, 3), (1, 1, 3, 1, 0), (2, 0, 1, 1, 3)]
    assert (packed.sequences, packed.left_out) == (2, 1)


def test_case_2_a_document_that_ends_on_a_sequence_end():
    packed = concat_and_chunk(np.array([4, 4]), 4)
    assert spans(packed) == [(0, 0, 4, 0, 0), (1, 0, 4, 1, 0)]


def test_case_3_a_document_longer_than_two_sequences():
    assert spans(concat_and_chunk(np.array([9]), 4)) == [(0, 0, 4, 0, 0), (0, 4, 4, 1, 0)]


def test_case_4_best_fit_fills_the_fullest_sequence_that_still_fits():
    # 4 fills sequence 0; 3 opens 1; 2 opens 2; 1 goes to sequence 1, which has one place left, not to 2.
    packed = best_fit(np.array([3, 4, 2, 1]), 4)
    assert spans(packed) == [(1, 0, 4, 0, 0), (0, 0, 3, 1, 0), (3, 0, 1, 1, 3), (2, 0, 2, 2, 0)]
    assert packed.left_out == 0


def test_case_5_best_fit_cuts_only_what_is_longer_than_a_sequence():
    packed = best_fit(np.array([10, 3]), 4)
    assert [span[:3] for span in spans(packed) if span[0] == 0] == [(0, 0, 4), (0, 4, 4), (0, 8, 2)]
    assert [span[:3] for span in spans(packed) if span[0] == 1] == [(1, 0, 3)]


def test_nothing_to_pack_gives_no_sequences():
    for packing in ("concat_and_chunk", "best_fit"):
        assert pack(np.array([], np.int64), sequence_length=4, packing=packing).sequences == 0


@pytest.mark.parametrize("packing", ["concat_and_chunk", "best_fit"])
@given(lengths=st.lists(st.integers(0, 40), max_size=60), sequence_length=st.integers(2, 16))
def test_every_token_has_one_place_or_is_counted_as_left_out(packing, lengths, sequence_length):
    packed = pack(np.array(lengths, np.int64), sequence_length=sequence_length, packing=packing)
    assert packed.length.sum() + packed.left_out == sum(lengths)
    places = set()
    tokens = set()
    for document, start, length, sequence, offset in spans(packed):
        assert length > 0
        assert offset + length <= sequence_length
        assert start + length <= lengths[document]
        places |= {(sequence, offset + k) for k in range(length)}
        tokens |= {(document, start + k) for k in range(length)}
    assert len(places) == len(tokens) == packed.length.sum()
    assert packed.left_out < sequence_length


@given(st.lists(st.integers(1, 16), min_size=1, max_size=60))
def test_best_fit_wastes_less_than_half(lengths):
    packed = best_fit(np.array(lengths), 16)
    assert packed.sequences <= 2 * -(-sum(lengths) // 16)


@given(st.lists(st.integers(0, 40), max_size=60))
def test_spans_are_sorted_by_place(lengths):
    for packing in ("concat_and_chunk", "best_fit"):
        found = [
            (sequence, offset)
            for *_, sequence, offset in spans(pack(np.array(lengths, np.int64), sequence_length=8, packing=packing))
        ]
        assert found == sorted(found)
