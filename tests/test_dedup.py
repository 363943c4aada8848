"""Duplicates: what is found, what is proven, and what must never be removed."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.dedup import Signer, candidates, containment, find, find_exact, shingles, words
from mixer.recipe.recipe import Dedup, NearDedup
from mixer.table import DOCUMENTS, TableWriter

RIVER = "the river carries sand and silt from the hills to the sea where it settles in layers over many thousand years"


def unit(folder, texts, rules=None):
    """One cleaned unit with these documents, as cleaning leaves it."""
    folder.mkdir()
    signer = Signer(rules or Dedup())
    with TableWriter(folder / "documents.parquet", DOCUMENTS) as table:
        for number, text in enumerate(texts):
            table.write(id=str(number), text=text, url=None, source="toy", metadata=json.dumps({}))
            signer.add(text)
    np.save(folder / "exact.npy", signer.exact())
    np.save(folder / "bands.npy", signer.bands())
    return folder


def removals(units, rules=None):
    return [(r.document, r.witness, r.step) for r in find(units, rules or Dedup())]


def test_case_1_exact_ignores_case_width_punctuation_and_space(tmp_path):
    texts = ["What is 2?", "what  is 2", "WHAT IS ２ !", "What is 3?"]
    assert removals([unit(tmp_path / "a", texts)]) == [(1, 0, "exact_dedup"), (2, 0, "exact_dedup")]


def test_case_2_five_identical_short_questions_leave_one(tmp_path):
    # datatrove's MinHash gives texts below n words no signature and keeps all five.
    assert [d for d, *_ in removals([unit(tmp_path / "a", ["Why is it so?"] * 5)])] == [1, 2, 3, 4]


def test_case_3_the_shorter_near_duplicate_goes_and_names_the_longer(tmp_path):
    texts = [f"{RIVER} and then", f"{RIVER} and then it is stone", "something else entirely " * 9]
    assert removals([unit(tmp_path / "a", texts)]) == [(0, 1, "near_dedup")]


def test_case_4_duplicates_are_found_across_units(tmp_path):
    units = [unit(tmp_path / "a", [RIVER]), unit(tmp_path / "b", ["other words", RIVER])]
    assert removals(units) == [(2, 0, "exact_dedup")]


def test_a_chain_of_look_alikes_does_not_take_its_far_end_with_it(tmp_path):
    # b is 90% of a, c is 90% of b but only 70% of a: once b is gone, c has no witness that holds it.
    tokens = [f"w{i:03d}" for i in range(400)]
    a, b, c = tokens[:300], tokens[30:328], tokens[60:356]
    rules = Dedup(near=NearDedup(threshold=0.85, ngram=5, bands=64, rows=2))
    texts = [" ".join(t) for t in (a, b, c)]
    assert removals([unit(tmp_path / "a", texts, rules)], rules) == [(1, 0, "near_dedup")]
    assert containment(shingles(texts[2], 5), shingles(texts[1], 5)) > 0.85
    assert containment(shingles(texts[2], 5), shingles(texts[0], 5)) < 0.85


def test_texts_that_share_only_a_template_stay(tmp_path):
    rng = np.random.default_rng(0)
    template = "Here is a clear and complete answer to the question that was asked about"
    texts = [f"{template} " + " ".join(f"x{n}" for n in rng.integers(0, 10**6, 60)) for _ in range(300)]
    assert removals([unit(tmp_path / "a", texts)]) == []


def test_an_exact_duplicate_of_a_removed_document_names_a_document_that_stays(tmp_path):
    texts = [f"{RIVER} and then", f"{RIVER} and then it is stone", f"{RIVER} and then"]
    found = removals([unit(tmp_path / "a", texts)])
    assert found == [(0, 1, "near_dedup"), (2, 1, "near_dedup")]


def test_switched_off_means_off(tmp_path):
    rules = Dedup(exact=False, near=None)
    assert removals([unit(tmp_path / "a", [RIVER, RIVER], rules)], rules) == []


def test_texts_without_words_are_told_apart_by_their_characters(tmp_path):
    assert removals([unit(tmp_path / "a", ["≈ → ←", "→ ≈ ←", "≈→←"])]) == [(2, 0, "exact_dedup")]


def test_chinese_is_compared_by_characters():
    assert words("水分子 H2O。") == ["水", "分", "子", "h2o"]
    assert len(shingles("水分子由氢和氧组成", 5)) == 5


def test_minhash_agrees_with_datasketch_about_which_pairs_are_alike():
    datasketch = pytest.importorskip("datasketch")
    rng = np.random.default_rng(1)
    rules = NearDedup()
    checked = 0
    for overlap in (0.3, 0.6, 0.9, 0.97):
        base = [f"w{n}" for n in rng.integers(0, 10**6, 400)]
        other = base[: int(400 * overlap)] + [f"v{n}" for n in rng.integers(0, 10**6, 400 - int(400 * overlap))]
        pair = [" ".join(base), " ".join(other)]
        signer = Signer(Dedup(near=rules))
        sketches = []
        for text in pair:
            signer.add(text)
            sketch = datasketch.MinHash(num_perm=512)
            sketch.update_batch([gram.tobytes() for gram in shingles(text, rules.ngram)])
            sketches.append(sketch)
        jaccard = sketches[0].jaccard(sketches[1])
        agreeing = (signer.bands()[0, 1:] == signer.bands()[1, 1:]).sum()
        # Expected bands in agreement: bands * J^rows; four standard deviations around it.
        expected = rules.bands * jaccard**rules.rows
        assert abs(agreeing - expected) <= 4 * np.sqrt(rules.bands * 0.25) + 1
        checked += 1
    assert checked == 4


@given(st.lists(st.integers(0, 6), max_size=60))
def test_exact_keeps_the_first_of_every_kind(keys):
    hashes = np.array([(k, k * 7) for k in keys], np.uint64).reshape(-1, 2)
    gone = {r.document: r.witness for r in find_exact(hashes)}
    assert sorted(set(range(len(keys))) - set(gone)) == sorted({k: keys.index(k) for k in keys}.values())
    assert all(keys[w] == keys[d] and w not in gone for d, w in gone.items())


@given(st.lists(st.integers(0, 5), max_size=80), st.randoms())
def test_candidates_agree_and_point_to_longer_documents(values, random):
    rank = list(range(len(values)))
    random.shuffle(rank)
    by_rank = dict(zip(rank, values, strict=True))
    pairs = candidates(np.array(values, np.uint64), np.array(rank, np.int64))
    for later, earlier in pairs.tolist():
        assert earlier < later
        assert by_rank[earlier] == by_rank[later] != 0
    for value in set(values) - {0}:
        members = sorted(r for r, v in by_rank.items() if v == value)
        assert all(any(p[0] == m for p in pairs.tolist()) for m in members[1:])


def test_a_group_of_ten_thousand_look_alikes_gives_a_bounded_number_of_pairs():
    pairs = candidates(np.ones(10_000, np.uint64), np.arange(10_000))
    assert len(pairs) <= 8 * 10_000
