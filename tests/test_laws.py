"""The laws of a loss in its mixture: published numbers, exact slopes, and each law found again in its own losses."""

import itertools

import numpy as np
import pytest

from curricula.search import huber
from curricula.search.laws import CMR, CMR_TOKENS, DCpt, GeneralLoss, MixingLaw, PowerLaw

SHARES = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7])[:, None]
WEIGHTS = np.array([w for w in itertools.product(np.arange(0, 1.01, 0.25), repeat=3) if sum(w) == 1])
TOKENS = np.arange(1.0, 101.0, 5.0)[:, None]
BUDGETS = np.array([(share, budget) for share in SHARES[:, 0] for budget in (0.25, 0.5, 1.0)])
BEST_INSIDE = DCpt(e=2.2, b=0.9, eta=1.3, c=0.05, eps=0.03, gamma=0.7)
LAWS = [
    (PowerLaw(a=-0.4, s=0.3, b=2.9), SHARES),
    (PowerLaw(a=0.2, s=-0.5, b=2.1), SHARES),
    (BEST_INSIDE, SHARES),
    (DCpt(e=2.2, b=0.9, eta=1.3, c=0.05, eps=0.03, gamma=0.7, beta=0.3), BUDGETS),
    (GeneralLoss(a2=0.3, s2=0.1, a3=-0.02, s3=0.5, b2=-0.05), TOKENS),
    (MixingLaw(c=np.log(2.0), t=(-0.5, 0.2, -1.0)), WEIGHTS),
]


def named(case):
    return f"{type(case[0]).__name__}-{case[1].shape[1]}"


def test_case_1_the_published_cmr_curves_at_20_billion_tokens():
    # methods.md 10.10: 29.8%, 34.9%, 41.4%, 47.8% of domain data at T = 100.
    at = np.array([[20e9 / CMR_TOKENS]])
    shares = [float(law.predict(at)[0]) for law in CMR.values()]
    assert np.round(shares, 4).tolist() == [0.2976, 0.3489, 0.4143, 0.4783]


def test_case_2_a_power_law_by_hand():
    # 3 - 2 sqrt(r): 3, 2, 1 at 0, 1/4, 1.
    points = np.array([[0.0], [0.25], [1.0]])
    assert PowerLaw(a=-2, s=0.5, b=3).predict(points).round(6).tolist() == [3, 2, 1]


def test_case_3_a_d_cpt_curve_by_hand():
    # 2 + r^2 + 0.1 / (r + 0.1): at 0, 0.4, 0.9 this is 3, 2.36, 2.91.
    law = DCpt(e=2, b=1, eta=2, c=0.1, eps=0.1, gamma=1)
    assert law.predict(np.array([[0.0], [0.4], [0.9]])).round(6).tolist() == [3, 2.36, 2.91]
    # With four times the tokens and beta = 1/2, the cost of the share is halved.
    more = DCpt(e=2, b=1, eta=2, c=0.1, eps=0.1, gamma=1, beta=0.5)
    assert more.predict(np.array([[0.4, 4.0]])).round(6).tolist() == [2.28]


def test_case_4_a_mixing_law_by_hand():
    # 1 + exp(-2 w1): all of the first source gives 1 + e^-2.
    law = MixingLaw(c=0.0, t=(-2.0, 0.0))
    assert law.predict(np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx([1 + np.exp(-2), 2])


@pytest.mark.parametrize("case", LAWS, ids=named)
def test_each_law_is_found_again_in_its_own_losses(case):
    law, points = case
    losses = law.predict(points)
    found = type(law).fit(points, losses)
    assert np.abs(found.predict(points) - losses).max() < 1e-3 * np.ptp(losses)


@pytest.mark.parametrize("case", LAWS, ids=named)
def test_the_slopes_of_each_law_are_exact(case, monkeypatch):
    law, points = case
    seen = []

    def look(curve, values, *, starts, bounds, relative=True):
        seen.append((curve, starts[0]))
        return starts[0]

    monkeypatch.setattr(huber, "fit", look)
    type(law).fit(points, law.predict(points) + 0.1, law)
    (curve, at), step = seen[0], 1e-6
    _, slopes = curve(at)
    moved = [(curve(at + move)[0] - curve(at - move)[0]) / (2 * step) for move in step * np.eye(len(at))]
    assert slopes == pytest.approx(np.stack(moved, axis=1), abs=1e-7)


def test_equal_losses_give_equal_laws():
    losses = BEST_INSIDE.predict(SHARES) * np.exp(0.002 * np.random.default_rng(0).standard_normal(9))
    assert DCpt.fit(SHARES, losses) == DCpt.fit(SHARES, losses)


def test_one_run_that_went_wrong_moves_the_fit_little():
    losses = BEST_INSIDE.predict(np.repeat(SHARES, 3, axis=0))
    losses[10] *= 1.5
    found = DCpt.fit(np.repeat(SHARES, 3, axis=0), losses)
    assert np.abs(found.predict(SHARES) / BEST_INSIDE.predict(SHARES) - 1).max() < 0.01


def test_a_share_of_zero_has_a_loss_in_every_law():
    points = np.r_[[[0.0]], SHARES]
    losses = 3 - 0.5 * points[:, 0] ** 0.5
    for family in (PowerLaw, DCpt):
        assert np.isfinite(family.fit(points, losses).predict(points)).all()


def test_a_d_cpt_law_has_positive_terms():
    rng = np.random.default_rng(1)
    law = DCpt.fit(SHARES, 2.5 * np.exp(0.02 * rng.standard_normal(9)))
    assert min(law.e, law.b, law.eta, law.c, law.eps, law.gamma) > 0
    assert law.beta == 0


def test_parameters_are_counted():
    counted = [PowerLaw.parameters(1), DCpt.parameters(1), DCpt.parameters(2), MixingLaw.parameters(4)]
    assert counted == [3, 6, 7, 5]
    assert GeneralLoss.parameters(1) == 5
