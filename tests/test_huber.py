"""Huber's estimator: its defining equation, its intervals, and what outliers do to it."""

import numpy as np
import pytest

from gradiator_np.solvers._least_squares.huber import Huber
from gradiator_np.solvers._least_squares.pinv import Pinv
from gradiator_np.solvers._solution import Constraints

EPS = np.finfo(float).eps


def samples(k, m, n, seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    jac, dx = rng.normal(size=(n, m)), rng.normal(size=(k, m))
    return dx, dx @ jac.T + noise * rng.normal(size=(k, n)), jac


@pytest.mark.parametrize("intercept", [False, True])
def test_solves_hubers_equation(intercept):
    """sum psi(e / s) x = 0, with s the normalised median of the residuals."""
    dx, df, _ = samples(30, 3, 2)
    df[:4] += 3
    s = Huber(bound=np.inf).solve(dx, df, intercept=intercept)
    e = df - dx @ s.coef.T - (s.value if intercept else 0)
    p = 3 + intercept
    sigma = np.median(np.sort(np.abs(e), 0)[p:], 0) / 0.6744897501960817
    psi = np.clip(e / sigma, -1.345, 1.345)
    x = np.column_stack([np.ones(30), dx]) if intercept else dx
    # Weights are still by 1e-6 when it stops: each term of the sum by that.
    np.testing.assert_allclose(psi.T @ x, 0, atol=1e-6 * np.abs(x).sum() * 1.345)


def test_far_outliers_pull_no_more_than_near_ones():
    dx, df, jac = samples(40, 3, 1)
    moved = {}
    for far in (10.0, 1e6):
        spoilt = df.copy()
        spoilt[:4] += far
        moved[far] = Huber().solve(dx, spoilt).coef
        assert np.abs(Pinv().solve(dx, spoilt).coef - jac).max() > 0.02 * far
    np.testing.assert_allclose(moved[1e6], moved[10.0], rtol=0, atol=1e-5)
    # sigma / sqrt(k) is 0.016; four outliers of forty shift it by some of these.
    np.testing.assert_allclose(moved[10.0], jac, atol=0.15)


def test_a_wrong_sample_far_out_does_not_take_the_fit_along():
    dx, df, jac = samples(40, 2, 1)
    dx[0] = 20.0
    df[0] = -100.0
    error = {b: np.abs(Huber(bound=b).solve(dx, df).coef - jac).max() for b in (2.0, np.inf)}
    assert error[np.inf] > 1
    assert error[2.0] < 0.3


def test_without_outliers_it_is_near_least_squares():
    dx, df, _ = samples(60, 3, 1)
    s, t = Huber().solve(dx, df), Pinv().solve(dx, df)
    # The two estimates differ by sqrt(1/0.95 - 1) = 0.23 standard errors, one sigma.
    assert (np.abs(s.coef - t.coef) < 4.4 * 0.23 * t.cov.stderr() + 1e-12).all()


@pytest.mark.slow
@pytest.mark.parametrize("outliers", [0, 3])
def test_intervals_hold_their_level(outliers):
    held, trials = 0, 400
    dx, _, jac = samples(40, 4, 1)
    dx[-2:] *= 4
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        df = dx @ jac.T + 0.1 * rng.normal(size=(40, 1))
        df[:outliers] += 5 * rng.normal(size=(outliers, 1))
        s = Huber().solve(dx, df)
        held += int(abs(s.coef - jac)[0, 0] < s.interval(0.95)[0, 0])
    # Independent seeds: at 0.95 the share has sd 0.011, 4.4 of them leave with chance 1e-5. The
    # asymptotic errors may be off by a few per cent more at 40 samples.
    assert 0.90 < held / trials < 0.995


def test_exact_samples_with_wrong_ones_among_them():
    dx, df, jac = samples(30, 3, 2, noise=0)
    df[:3] += 1
    s = Huber().solve(dx, df)
    assert s.status == "ok"
    np.testing.assert_allclose(s.coef, jac, atol=1e-5)
    clean = Huber().solve(dx, dx @ jac.T)
    np.testing.assert_allclose(clean.coef, jac, atol=1e-13)


def test_outputs_have_weights_of_their_own():
    dx, df, _ = samples(30, 3, 2)
    df[:3, 0] += 5
    df[5, 1] = np.nan
    both = Huber().solve(dx, df)
    ok = np.arange(30) != 5
    # Leverage is bounded for all samples that serve any output.
    alone = Huber(bound=np.inf).solve(dx[ok], df[ok][:, [1]])
    unbounded = Huber(bound=np.inf).solve(dx, df)
    np.testing.assert_allclose(unbounded.coef[1], alone.coef[0], rtol=0, atol=1e-6)
    assert (both.info["weights"][:3, 0] < 0.5).all()
    assert both.info["weights"][5, 1] == 0


def test_batches_and_complex_outputs():
    dx, df, _ = samples(30, 3, 2)
    z = df + 1j * samples(30, 3, 2, 7)[1]
    z[2] += 4j
    s = Huber().solve(np.stack([dx, dx]), np.stack([z, 2 * z]))
    one = Huber().solve(dx, z)
    np.testing.assert_allclose(s.coef[0], one.coef, rtol=0, atol=1e-5)
    np.testing.assert_allclose(s.coef[1], 2 * one.coef, rtol=0, atol=1e-5)
    assert np.abs(one.coef - Pinv().solve(dx, z).coef).max() > 1e-2


@pytest.mark.parametrize(
    "options, text",
    [({"c": 0.0}, "c="), ({"bound": 0.5}, "bound"), ({"max_iter": 0}, "max_iter"),
     ({"tol": 1.0}, "tol")],
)  # fmt: skip
def test_options_out_of_range(options, text):
    with pytest.raises(ValueError, match=text):
        Huber(**options)


def test_structure_and_prior():
    dx, df, jac = samples(30, 3, 3)
    df[:2] += 5
    known = np.full((3, 3), np.nan)
    known[0, 0] = jac[0, 0]
    s = Huber().solve(dx, df, constraints=Constraints(known=known), jac0=np.ones((3, 3)))
    assert s.coef[0, 0] == jac[0, 0]
    assert s.cov.stderr()[0, 0] == 0
    # Full rank: the prior does not matter.
    plain = Huber().solve(dx, df, constraints=Constraints(known=known))
    np.testing.assert_allclose(s.coef, plain.coef, rtol=0, atol=1e-5)
