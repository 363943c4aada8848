"""Near duplicates beside two peers: datatrove's MinHash pipeline on its own fixture, and datasketch as an oracle."""

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.utils.hashing import HashConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer import language
from mixer.dedup import _bands, candidates, containment, find, shingles
from mixer.recipe.recipe import Dedup, NearDedup
from tests import toys
from tests.test_dedup import unit

CLUSTERS = ((0, 20, 50), (400, 420), (800, 810, 820, 840, 860), (1205, 1215, 1225, 1245), (1600,), (2000,))
"""Where windows of 400 characters begin, after tests/pipeline/dedup/test_minhash.py of huggingface/datatrove (Apache-2.0)."""
WIDTH = 400


def windows(text, starts):
    return {start: text[start : start + WIDTH] for start in starts}


def kept_by_datatrove(folder, texts):
    """Starts of the windows that datatrove's four steps keep, with its default bands."""
    # Loads spaCy without torch, which it would import for no word.
    language.word_tokenizer("en")
    config = MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))
    documents = [Document(text=text, id=str(start)) for start, text in texts.items()]
    MinhashDedupSignature(output_folder=f"{folder}/signatures", config=config)(documents)
    buckets = MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)
    for bucket in range(config.num_buckets):
        buckets(None, rank=bucket, world_size=config.num_buckets)
    MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config=config)(None)
    return [int(document.id) for document in MinhashDedupFilter(f"{folder}/remove")(documents)]


def kept_by_us(folder, texts, threshold=0.8):
    """Starts of the windows that stay; each that goes must be shown to be held by one of them."""
    rules = Dedup(near=NearDedup(threshold=threshold))
    starts = list(texts)
    removed = find([unit(folder, list(texts.values()), rules)], rules)
    kept = [start for number, start in enumerate(starts) if number not in {r.document for r in removed}]
    for removal in removed:
        gone, witness = (shingles(texts[starts[number]], 5) for number in (removal.document, removal.witness))
        assert starts[removal.witness] in kept
        assert containment(gone, witness) == removal.containment >= threshold
    return kept


@pytest.mark.parametrize("seed", range(3))
def test_of_each_cluster_of_sliding_windows_both_keep_one(tmp_path, seed):
    texts = windows(toys.sentences(seed, 60), [start for cluster in CLUSTERS for start in cluster])
    ours, theirs = kept_by_us(tmp_path / "ours", texts), kept_by_datatrove(tmp_path / "theirs", texts)
    for cluster in CLUSTERS:
        assert len(set(ours) & set(cluster)) == len(set(theirs) & set(cluster)) == 1
    # Which one differs: ours is the one with most characters, then the first; theirs has the lowest hash.
    assert {0, 800, 1600, 2000} <= set(ours)


def test_windows_far_apart_stay_with_us_and_go_with_datatrove_whose_clusters_are_chains(tmp_path):
    """Each window shares nine tenths with the next and the first nothing with the last: theirs keeps one, ours those
    that no kept one holds, so that nothing is lost."""
    text = toys.sentences(0, 90)
    texts = windows(text, range(0, 1200, 20))
    theirs = kept_by_datatrove(tmp_path / "theirs", texts)
    ours = kept_by_us(tmp_path / "ours", texts)
    assert len(theirs) <= 2
    assert len(ours) >= 1200 // 120
    whole = shingles(text[: 1180 + WIDTH], 5)
    held = [np.unique(np.concatenate([shingles(texts[start], 5) for start in kept])) for kept in (ours, theirs)]
    assert containment(whole, held[0]) > 0.95
    assert containment(whole, held[1]) < 0.6


def test_a_higher_threshold_keeps_the_far_ends_of_a_cluster_which_datatrove_cannot_be_asked_for(tmp_path):
    texts = windows(toys.sentences(0, 60), CLUSTERS[2])
    assert kept_by_us(tmp_path / "loose", texts, 0.8) == [800]
    assert kept_by_us(tmp_path / "strict", texts, 0.9) == [800, 840]


def pair(shared, own, other, seed):
    """Two sets of hashes, sorted, that share so many and have so many of their own; and their Jaccard index."""
    values = np.random.default_rng(seed).integers(1, 2**64, shared + own + other, np.uint64)
    one, two = values[: shared + own], np.concatenate([values[:shared], values[shared + own :]])
    return np.sort(one), np.sort(two), shared / len(values)


def sketch(datasketch, grams, size):
    found = datasketch.MinHash(num_perm=size)
    found.update_batch([gram.tobytes() for gram in grams])
    return found


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 2**32))
def test_our_estimate_of_jaccard_and_datasketchs_are_both_within_four_sigma_of_the_truth(shared, own, other, seed):
    datasketch = pytest.importorskip("datasketch")
    one, two, jaccard = pair(shared, own, other, seed)
    rules = NearDedup(bands=256, rows=1)
    ours = np.mean(_bands(one, 1, rules)[1:] == _bands(two, 1, rules)[1:])
    theirs = sketch(datasketch, one, 256).jaccard(sketch(datasketch, two, 256))
    allowed = 4 * np.sqrt(jaccard * (1 - jaccard) / 256) + 1 / 256
    assert abs(ours - jaccard) <= allowed
    assert abs(theirs - jaccard) <= allowed


def test_our_candidates_are_those_of_datasketch_above_the_threshold_and_none_that_are_unlike():
    """At 20 bands of 6 a pair at the threshold of 0.8 is missed once in 400: none of some 200 pairs, or one."""
    datasketch = pytest.importorskip("datasketch")
    rules, rng = NearDedup(), np.random.default_rng(7)
    lsh = datasketch.MinHashLSH(threshold=rules.threshold, num_perm=128)
    bands, truth, theirs = [], {}, set()
    for number in range(400):
        gap = int(rng.integers(0, 120))
        one, two, jaccard = pair(400 - gap, gap, gap, number)
        truth[2 * number, 2 * number + 1] = jaccard
        for key, grams in ((2 * number, one), (2 * number + 1, two)):
            bands.append(_bands(grams, 1, rules))
            sketched = sketch(datasketch, grams, 128)
            theirs |= {(known, key) for known in lsh.query(sketched)}
            lsh.insert(key, sketched)
    columns = np.array(bands)
    ranks = np.arange(len(bands))
    found = {
        tuple(reversed(each))
        for band in range(1, rules.bands + 1)
        for each in candidates(columns[:, band], ranks).tolist()
    }
    wanted = {each for each in theirs if truth.get(each, 0) >= rules.threshold}
    assert len(wanted) >= 100
    assert len(wanted - found) <= 1
    assert all(truth.get(each, 0) > 0.4 for each in found)
    assert {each for each, jaccard in truth.items() if jaccard >= 0.9} <= found
