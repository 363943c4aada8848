"""Laws with their errors: the choice among laws, mixtures left out, redrawn runs."""

import numpy as np
import pytest

from curricula.search.evidence import Runs, enough, gather
from curricula.search.laws import DCpt, MixingLaw, PowerLaw
from curricula.search.verdict import Interval

SHARES = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7])
BEST_INSIDE = DCpt(e=2.2, b=0.9, eta=1.3, c=0.05, eps=0.03, gamma=0.7)


def runs(law, *, seeds=2, noise=0.002, shares=SHARES) -> Runs:
    """Simulated runs of each share."""
    points = np.repeat(shares, seeds)[:, None]
    rng = np.random.default_rng(3)
    losses = law.predict(points) * np.exp(noise * rng.standard_normal(len(points)))
    groups = np.repeat(np.arange(len(shares)), seeds)
    held = tuple(range(1, len(shares) - 1))
    return Runs(np.c_[1 - points, points], points, {"science": losses}, groups, held)


def spread(evidence, share=0.3) -> float:
    found = [float(laws["science"].predict(np.array([[share]]))[0]) for laws in evidence.replicates]
    return Interval.of(float(np.median(found)), found).width


def test_case_1_an_interval_holds_the_middle_of_the_replicates_and_its_value():
    interval = Interval.of(50.0, [float(n) for n in range(101)])
    assert (interval.value, interval.low, interval.high) == pytest.approx((50, 2.5, 97.5), abs=0.1)
    assert interval.width == pytest.approx(95, abs=0.2)
    assert Interval.of(9.0, [1.0, 2.0]).high == 9.0


def test_case_2_a_law_needs_two_mixtures_more_than_it_has_parameters():
    assert [enough(PowerLaw, 1, 4), enough(PowerLaw, 1, 5)] == [False, True]
    assert [enough(DCpt, 1, 7), enough(DCpt, 1, 8), enough(DCpt, 2, 8), enough(DCpt, 2, 9)] == [
        False,
        True,
        False,
        True,
    ]
    assert [enough(MixingLaw, 4, 6), enough(MixingLaw, 4, 7)] == [False, True]


def test_the_law_that_predicts_what_it_did_not_see_is_chosen():
    found = gather(runs(BEST_INSIDE), [DCpt, PowerLaw], replicates=0, seed=7)
    assert isinstance(found.laws["science"], DCpt)
    # Every second share of a plain power law: six parameters follow the noise.
    monotone = runs(PowerLaw(-0.4, 0.5, 3.0), seeds=1, noise=0.004)
    assert isinstance(gather(monotone, [DCpt, PowerLaw], replicates=0, seed=7).laws["science"], PowerLaw)


def test_what_is_left_out_is_predicted_without_it():
    honest = runs(BEST_INSIDE, noise=0.0)
    found = gather(honest, [DCpt], replicates=0, seed=7).left_out["science"]
    assert found == pytest.approx(honest.means(honest.losses["science"], honest.held), abs=0.005)
    wrong = runs(BEST_INSIDE, noise=0.0)
    wrong.losses["science"][wrong.groups == 4] *= 1.3
    # The law without the wrong share says what it should have been.
    assert gather(wrong, [DCpt], replicates=0, seed=7).left_out["science"][3] == pytest.approx(found[3], abs=0.01)


def test_replicates_are_the_same_for_the_same_seed_alone():
    measured = runs(BEST_INSIDE)
    one, two, other = (gather(measured, [PowerLaw], replicates=3, seed=seed) for seed in (7, 7, 8))
    assert one.replicates == two.replicates
    assert one.replicates != other.replicates
    more = gather(measured, [PowerLaw], replicates=5, seed=7)
    assert more.replicates[:3] == one.replicates


def test_noise_widens_what_replicates_say_and_none_leaves_no_width():
    law = PowerLaw(-0.4, 0.5, 3.0)
    widths = [spread(gather(runs(law, noise=noise), [PowerLaw], replicates=40, seed=7)) for noise in (0.001, 0.004)]
    assert 2 < widths[1] / widths[0] < 8
    assert spread(gather(runs(law, noise=0.0), [PowerLaw], replicates=10, seed=7)) < 1e-4


def test_more_runs_narrow_what_replicates_say():
    law = PowerLaw(-0.4, 0.5, 3.0)
    few = gather(runs(law, seeds=1, shares=SHARES[::2]), [PowerLaw], replicates=60, seed=7)
    many = gather(runs(law, seeds=4), [PowerLaw], replicates=60, seed=7)
    assert spread(many) < spread(few) / 2
