"""Shards: what is written is read back, and a shard that breaks the frame is refused."""

import numpy as np
import polars as pl
import pytest

from mixer.errors import ShardError
from mixer.layout import Group
from mixer.shard import Sequences, TokenFiles, write
from mixer.tokens import Encoder

DOCUMENTS = [[5, 6, 7, 0], [8, 0], [9, 10, 11, 12, 13, 0], [14, 0]]


def toy_encoder(bos=None, eos=0) -> Encoder:
    """Ids below 100; 0 ends a document."""
    special = frozenset(i for i in (bos, eos) if i is not None)
    return Encoder(None, bos, eos, special, 100, "toy")


def token_files(tmp_path, documents, split=2) -> TokenFiles:
    """The documents encoded into two units."""
    folders = []
    for number, part in enumerate((documents[:split], documents[split:])):
        folder = tmp_path / f"unit{number}"
        folder.mkdir()
        np.array([i for ids in part for i in ids], np.uint16).tofile(folder / "tokens.bin")
        np.save(folder / "lengths.npy", np.array([len(ids) for ids in part], np.int64))
        folders.append(folder)
    return TokenFiles(folders, np.dtype(np.uint16))


def written(tmp_path, documents=DOCUMENTS, order=(2, 0, 3, 1), encoder=None, packing="concat_and_chunk", length=4):
    folder = tmp_path / "shards"
    folder.mkdir()
    tokens = token_files(tmp_path, documents)
    index = write(
        folder,
        tokens,
        [Group(None, held_out=False, runs=(np.array(order),))],
        encoder or toy_encoder(),
        source="toy",
        sequence_length=length,
        packing=packing,
    )
    return folder, index


def test_case_1_documents_in_the_given_order_cut_every_four_tokens(tmp_path):
    folder, index = written(tmp_path)
    sequences = Sequences(folder)
    assert [s.tolist() for s in sequences] == [[9, 10, 11, 12], [13, 0, 5, 6], [7, 0, 14, 0]]
    assert index["left_out_tokens"] == 2


def test_case_2_spans_name_the_document_and_the_piece_of_it(tmp_path):
    folder, _ = written(tmp_path)
    spans = pl.read_parquet(folder / "00000.spans.parquet")
    assert spans.rows() == [
        (0, 0, 4, 2, 0),
        (1, 0, 2, 2, 4),
        (1, 2, 2, 0, 0),
        (2, 0, 2, 0, 2),
        (2, 2, 2, 3, 0),
    ]


def test_case_3_best_fit_pads_with_eos_outside_every_span(tmp_path):
    folder, index = written(tmp_path, packing="best_fit")
    assert index["padding_tokens"] == index["sequences"] * 4 - sum(map(len, DOCUMENTS))
    assert Sequences(folder)[0].tolist() == [9, 10, 11, 12]


def test_a_control_token_inside_a_document_is_refused(tmp_path):
    with pytest.raises(ShardError, match=r"00000.bin: got id 0 at place 1, expected control tokens only around"):
        written(tmp_path, documents=[[5, 0, 6, 0], [7, 0], [8, 0], [9, 0]], order=(0, 1, 2, 3))


def test_a_document_without_its_eos_is_refused(tmp_path):
    with pytest.raises(ShardError, match="expected control tokens only around documents"):
        written(tmp_path, documents=[[5, 6, 7, 8], [7, 0], [8, 0], [9, 0]], order=(0, 1, 2, 3))


def test_an_id_outside_the_vocabulary_is_refused(tmp_path):
    with pytest.raises(ShardError, match="got id 100, expected less than 100"):
        written(tmp_path, documents=[[100, 0], [7, 0], [8, 0], [9, 0]], order=(0, 1, 2, 3))


def test_bos_is_checked_too(tmp_path):
    documents = [[1, 5, 0], [1, 6, 0], [1, 7, 0], [1, 8, 0]]
    folder, _ = written(tmp_path, documents=documents, order=(0, 1, 2, 3), encoder=toy_encoder(bos=1), length=6)
    assert [s.tolist() for s in Sequences(folder)] == [[1, 5, 0, 1, 6, 0], [1, 7, 0, 1, 8, 0]]


def test_a_shard_cut_short_is_refused(tmp_path):
    folder, _ = written(tmp_path)
    path = folder / "00000.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ShardError, match="got 23 bytes, expected 24"):
        Sequences(folder)


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(ShardError, match="got no index"):
        Sequences(tmp_path)


def test_a_sequence_that_is_not_there_is_an_index_error(tmp_path):
    folder, _ = written(tmp_path)
    with pytest.raises(IndexError):
        Sequences(folder)[3]
