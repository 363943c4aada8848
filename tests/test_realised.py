"""What a blend becomes in each engine: known answers of the real libraries, and where their rules distort a mixture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.exports import realised
from mixer.exports.blend import RULES, blends

WEIGHTS, SIZES = [0.62, 0.25, 0.13], [4000, 500, 90]
EIGHT = {"small": 8.0, "large": 8.0}
TOKENS_OF = {"big": 8.0, "tiny": 8.0}
weights = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=6)


def test_case_1_asked_for_is_largest_remainder():
    assert realised.exact(WEIGHTS, 1003) == [622, 251, 130]


def test_case_2_mosaic_gives_what_is_left_over_to_random_streams():
    assert realised.mosaic(WEIGHTS, 1003) == [621, 251, 131]


def test_case_3_litdata_draws_independently():
    assert realised.litdata(WEIGHTS, 1003) == [602, 264, 137]


def test_case_4_interleaving_until_all_are_exhausted_repeats_the_small_sources():
    counts = realised.interleave(WEIGHTS, SIZES)
    assert (counts, sum(counts)) == ([4000, 1552, 787], 6339)
    assert [round(count / size, 1) for count, size in zip(counts, SIZES, strict=True)] == [1.0, 3.1, 8.7]


def test_case_5_interleaving_until_the_first_is_exhausted_leaves_most_of_the_large_source_out():
    counts = realised.interleave(WEIGHTS, SIZES, strategy="first_exhausted")
    assert counts[2] == 90
    assert counts[0] < 600


def test_a_source_of_no_weight_keeps_nobody_waiting():
    """`all_exhausted` would draw for ever."""
    counts = realised.interleave([3, 0, 1], [30, 5, 10])
    assert counts[1] == 0
    assert counts[0] >= 30
    assert counts[2] >= 10
    assert realised.interleave([1, 0], [30, 5], strategy="first_exhausted") == [30, 0]
    # Three books in a hundred million rows each: what is drawn is known without drawing it.
    far = realised.interleave([1.0, 1e-8], [100, 3])
    assert far[1] == 3
    assert far[0] == pytest.approx(3e8, rel=0.01)


def test_a_source_of_long_documents_weighs_less_than_a_row():
    """Two sequences of a book of a thousand are a five-hundredth of a document."""
    told, _ = blends(
        "jsonl", {"a": {"pages": 98, "books": 2}}, {"pages": 50, "books": 3}, {"pages": 8, "books": 8000}, 8
    )
    found = told["stages"]["a"]
    assert found["books"]["planned"] == 0
    assert found["books"]["weight"] == pytest.approx(0.002 / 98.002)
    assert found["books"]["predicted"] == 3


def test_case_6_grain_cuts_weights_to_whole_numbers():
    assert realised.grain([0.501, 0.499], 100_000) == [50_000, 50_000]
    assert realised.grain([3.0, 1.0], 400) == [300, 100]


def test_case_7_levanter_never_draws_what_is_less_than_one_a_block():
    assert realised.levanter([0.999, 0.001], 5120, block=512) == [5120, 0]


def test_case_8_nanotron_never_reaches_part_of_the_largest_source():
    assert realised.nanotron_unseen(WEIGHTS, SIZES) == [1155, 0, 0]
    once = realised.nanotron(WEIGHTS, SIZES, sum(SIZES))
    assert (once, round(once[2] / 90, 1)) == ([2845, 1148, 597], 6.6)


def test_case_9_olmo_floors_every_file_and_tops_up_where_there_is_room():
    # Answers of OLMo-core 3.0.0's SourceMixtureDatasetConfig. By the weights, 560 and 240 of 800 windows.
    one_file_each = realised.olmo([0.7, 0.3], [[40_000]] * 2, tokens=100_000, batch_tokens=4096, sequence_length=128)
    assert one_file_each == [556, 244]
    files = [[90_000, 70_000], [30_000], [9000]]
    assert realised.olmo(WEIGHTS, files, tokens=300_000, batch_tokens=8192, sequence_length=256) == [733, 296, 155]
    # 400 files just over one window each: 70/30 was asked for, 77.8/22.2 is what comes of it, and less of it.
    small = [520 + 500 * n // 399 for n in range(400)]
    counts = realised.olmo([0.7, 0.3], [[2_000_000], small], tokens=1_000_000, batch_tokens=4096, sequence_length=512)
    assert counts[1] == 400
    assert counts[0] / sum(counts) == pytest.approx(0.778, abs=0.001)
    assert sum(counts) * 512 < 930_000


def test_megatron_stays_within_one_sample_of_the_weights_at_every_prefix():
    picked = realised._greedy(np.array(WEIGHTS), 1003)
    drawn = np.cumsum(picked[:, None] == np.arange(3), axis=0)
    ideal = np.arange(1, 1004)[:, None] * WEIGHTS
    assert np.bincount(picked).tolist() == [621, 251, 131]
    assert np.abs(drawn - ideal).max() == pytest.approx(0.86, abs=0.01)


def test_megatron_draws_the_sum_of_what_it_asks_each_source_for():
    assert sum(realised.megatron([0.9999, 0.0001], 1000)) == 1001


def test_case_10_rows_interleaved_before_any_source_ends_are_plain_draws():
    # The first 1,003 rows of `datasets` 5.2.0's interleave_datasets of sources that hold enough.
    assert realised.drawn(WEIGHTS, 1003) == [623, 254, 126]


def test_a_source_smaller_than_its_share_ends_no_mixture():
    """Engines that stop at the first source's end are handed sources that begin anew, or the prediction were wrong."""
    for name in ("litdata", "torchtitan", "webdataset", "parquet"):
        told, _ = blends(name, {"a": {"small": 100, "large": 100}}, {"small": 10, "large": 300}, EIGHT, 8)
        drawn = {source: share["predicted"] for source, share in told["stages"]["a"].items()}
        assert sum(drawn.values()) == 200
        assert drawn["small"] > 80


def test_olmo_fills_whole_batches_and_strays_where_the_stage_is_none():
    # Answers of OLMo-core 3.0.0 for sources of 200 and 90 windows: 200 rows are 25 batches of 8, and 3.1 of 64.
    asked = ({"a": {"large": 140, "small": 60}}, {"large": 200, "small": 90}, {"large": 128.0, "small": 128.0}, 128)
    for batch, expected, strays in ((8, [140, 60], False), (64, [168, 88], True)):
        told, warnings = blends("olmo", *asked, batch_sequences=batch)
        assert [share["predicted"] for share in told["stages"]["a"].values()] == expected
        assert bool(warnings) == strays


def test_a_small_source_that_loses_much_of_its_own_share_is_warned_of():
    told, warnings = blends("litdata", {"a": {"big": 998, "tiny": 2}}, {"big": 20000, "tiny": 400}, TOKENS_OF, 8)
    share = told["stages"]["a"]["tiny"]
    assert 0.1 < abs(share["predicted"] - 2) < 0.005 * 1000
    assert any("`tiny` becomes" in text for text in warnings)
    assert not any("`big`" in text for text in warnings)


@given(weights, st.integers(1, 5000))
def test_engines_that_count_hand_out_as_many_as_were_asked_for(shares, samples):
    for rule in (realised.exact, realised.mosaic, realised.litdata, realised.drawn, realised.grain):
        counts = rule(shares, samples)
        assert sum(counts) == samples
        assert min(counts) >= 0


@pytest.mark.parametrize("name", RULES)
def test_a_blend_is_told_stage_by_stage_and_warned_of_where_it_strays(name):
    counts = {"adapt": {"web": 70, "qa": 30}, "anneal": {"qa": 20}}
    told, warnings = blends(name, counts, {"web": 900, "qa": 40}, {"web": 64.0, "qa": 64.0}, 64)
    share = told["stages"]["adapt"]["qa"]
    assert (share["asked"], share["planned"], share["weight"]) == (0.3, 30, 0.3)
    assert share["epochs"] == share["predicted"] / 40
    assert told["stages"]["anneal"]["qa"]["predicted_fraction"] == 1.0
    strays = abs(share["predicted_fraction"] - 0.3) > 0.005
    assert any(text.startswith("stage `adapt`: `qa` becomes") for text in warnings) == strays


def test_weights_of_documents_are_shares_of_tokens_over_their_lengths():
    # Half the tokens each, documents of 10 and of 90 tokens: nine of the short ones for each of the long ones.
    told, _ = blends(
        "jsonl", {"a": {"short": 45, "long": 45}}, {"short": 9000, "long": 1000}, {"short": 10.0, "long": 90.0}, 10
    )
    short, long = told["stages"]["a"].values()
    assert (short["weight"], long["weight"]) == (0.9, 0.1)
    assert (short["planned"], long["planned"]) == (45, 5)
    assert short["predicted_fraction"] == pytest.approx(0.5, abs=0.02)


def test_the_rest_of_very_many_draws_is_taken_at_its_expectation():
    counts = realised.litdata([0.5, 0.5], 3_000_000)
    assert sum(counts) == 3_000_000
    assert abs(counts[0] - 1_500_000) < 2_500
