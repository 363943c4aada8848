"""Sequences that come again, chosen by loss: how many, which, and how sharply."""

import numpy as np
import pytest
from pydantic import ValidationError

from curricula.resample import resample
from mixer.recipe.stage import Resample


def rule(**keys) -> Resample:
    return Resample.model_validate({"stage": "first", **keys})


def rows(count: int, source: int = 0) -> np.ndarray:
    return np.stack([np.full(count, source), np.arange(count)], axis=1).astype(np.int32)


def chosen(losses, count, **keys) -> np.ndarray:
    own = rows(len(losses))
    found = resample(own, [(np.arange(len(own)), count)], np.asarray(losses), rule=rule(**keys), seed=7, name="again")
    return found[:, 1]


def test_case_1_a_cold_draw_takes_the_hardest_and_leaves_out_the_very_hardest():
    losses = [1.0, 2.0, 3.0, 4.0, 99.0]
    assert sorted(chosen(losses, 2, temperature=1e-4, exclude_top=0.2).tolist()) == [2, 3]
    assert sorted(chosen(losses, 2, temperature=1e-4, exclude_top=0.0).tolist()) == [3, 4]


def test_case_2_every_place_comes_at_most_once():
    found = chosen(np.linspace(2, 3, 500), 250)
    assert len(set(found.tolist())) == 250


def test_case_3_each_pool_gives_its_own_number_whatever_its_losses():
    own = np.concatenate([rows(100, 0), rows(50, 1)])
    losses = np.r_[np.full(100, 9.0), np.full(50, 1.0)]
    draws = [(np.arange(100), 40), (np.arange(100, 150), 20)]
    found = resample(own, draws, losses, rule=rule(), seed=7, name="again")
    assert np.bincount(found[:, 0]).tolist() == [40, 20]


def test_the_temperature_decides_how_much_losses_matter():
    losses = np.random.default_rng(0).normal(2.5, 0.3, 4000)
    means = [losses[chosen(losses, 2000, temperature=t, exclude_top=0.0)].mean() for t in (0.05, 0.3, 1.0, 100.0)]
    assert means == sorted(means, reverse=True)
    uniform = losses[chosen(losses, 2000, by="uniform", exclude_top=0.0)].mean()
    error = 0.3 / np.sqrt(2000)
    assert abs(uniform - losses.mean()) < 4 * error
    assert abs(means[-1] - losses.mean()) < 4 * error
    assert means[0] - losses.mean() > 0.2


def test_one_draw_follows_exp_of_loss_over_temperature():
    losses, counts, tries = np.array([0.0, 0.5, 1.0]), np.zeros(3), 4000
    for seed in range(tries):
        own = resample(
            rows(3), [(np.arange(3), 1)], losses, rule=rule(temperature=0.5, exclude_top=0.0), seed=seed, name="x"
        )
        counts[own[0, 1]] += 1
    expected = np.exp(losses / 0.5) / np.exp(losses / 0.5).sum()
    assert np.abs(counts / tries - expected).max() < 5 * np.sqrt(0.25 / tries)


def test_the_uniform_control_draws_among_the_same_sequences_as_a_choice_by_loss():
    losses = np.random.default_rng(0).normal(2.5, 0.3, 4000)
    noise = set(np.argsort(losses)[-400:].tolist())
    for by in ("loss", "uniform"):
        found = set(chosen(losses, 2000, by=by, exclude_top=0.1).tolist())
        assert len(found) == 2000
        assert not found & noise
    # All 3600 that are admitted: both draws are then the same set.
    assert len({frozenset(chosen(losses, 3600, by=by, exclude_top=0.1).tolist()) for by in ("loss", "uniform")}) == 1


def test_a_temperature_without_effect_is_refused_and_so_is_no_plain_control():
    with pytest.raises(ValidationError, match="no `temperature` with `by: uniform`"):
        rule(by="uniform", temperature=0.1)
    assert [rule(by="uniform", exclude_top=top).needs_losses for top in (0.0, 0.02)] == [False, True]
    assert rule(exclude_top=0.0).needs_losses


def test_a_control_without_losses_is_another_draw_for_another_seed():
    own = rows(100)
    draws = [(np.arange(100), 50)]
    one, same, other = (
        resample(own, draws, None, rule=rule(by="uniform", exclude_top=0.0), seed=s, name="x") for s in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("count", [0, 100])
def test_nothing_or_everything_can_come_again(count):
    own = rows(100)
    found = resample(own, [(np.arange(100), count)], np.ones(100), rule=rule(), seed=7, name="x")
    assert sorted(found[:, 1].tolist()) == list(range(count))
