"""Logs of runs made for another purpose: what `fit_points` makes of them by itself."""

import warnings

import numpy as np
import pytest

from gradiator_np import fit_points
from gradiator_np._status import GradiatorWarning, Status
from gradiator_np.solvers._taylor.solver import Taylor

X = np.array([0.7, 1.1, 0.5, 0.9])


def fun(x):
    """Three outputs that bend in different ways."""
    return np.stack(
        [
            np.exp(0.5 * x[..., 0]) * x[..., 1],
            np.sin(x[..., 2] + x[..., 0]),
            x[..., 3] ** 2 + x.sum(-1),
        ],
        -1,
    )


def jac(x):
    e, c = np.exp(0.5 * x[0]), np.cos(x[2] + x[0])
    return np.array([[0.5 * e * x[1], e, 0, 0], [c, 0, c, 0], [1, 1, 1, 1 + 2 * x[3]]])


def points(k, seed=0, reach=0.1):
    return X + np.random.default_rng(seed).uniform(-reach, reach, (k, 4))


def held(estimate, want):
    """Share of the entries in their 95 % intervals."""
    return np.mean(np.abs(estimate.jac - want) <= estimate.solution.interval(0.95))


def test_as_many_points_as_a_plane_has_coefficients_are_a_model_of_curvature():
    few, many = (
        fit_points(points(k), fun(points(k)), x=points(k).mean(0)) for k in (4, 30)
    )  # fmt: skip
    assert "rho" not in few.solution.info
    assert many.solution.info["rho"].shape == (3, 4)
    assert np.all(many.solution.info["rho"] > 0)


def test_value_slope_and_noise_come_with_errors_that_hold():
    """40 logs, whose entries and values succeed together: the lower limit is 0.95 less 4 binomial
    sd of 40 trials, a false alarm in 3e4."""
    slopes, values, noises = [], [], []
    for seed in range(40):
        p = points(30, seed)
        y = fun(p) + 1e-3 * np.random.default_rng(seed).normal(size=(30, 3))
        e = fit_points(p, y, x=X)
        slopes.append(held(e, jac(X)))
        values.append(np.mean(np.abs(e.y - fun(X)) <= 1.96 * e.solution.value_stderr))
        noises.append(e.noise)
    limit = 0.95 - 4 * np.sqrt(0.95 * 0.05 / 40)
    assert np.mean(slopes) > limit
    assert np.mean(values) > limit
    # sd of a sample sd is 1 / sqrt(2 dof), with 15 to 25 of them; of the median of 120, an eighth.
    np.testing.assert_allclose(np.median(noises), 1e-3, rtol=0.1)


def test_units_from_1e_minus_9_to_1e6_are_one_problem():
    unit, scale = np.array([1e-9, 1e6, 1.0, 1e3]), np.array([1e-12, 1e9, 1.0])
    p = points(30)
    e = fit_points(p * unit, fun(p) * scale, x=X * unit)
    plain = fit_points(p, fun(p), x=X)
    # Rounding of the products, seen through an optimiser of eight steps.
    np.testing.assert_allclose(e.jac * unit / scale[:, None], plain.jac, atol=1e-5)
    np.testing.assert_allclose(e.solution.info["rho"] / unit, plain.solution.info["rho"], rtol=1e-2)


def test_leading_axes_are_logs_of_their_own():
    p = np.stack([points(14, seed) for seed in range(3)])
    whole = fit_points(p, fun(p), x=X)
    assert whole.jac.shape == (3, 3, 4)
    for i in range(3):
        np.testing.assert_array_equal(whole.jac[i], fit_points(p[i], fun(p[i]), x=X).jac)


def test_points_on_one_side_widen_the_bars_and_warn():
    inside, side = points(40), X + np.abs(points(40) - X)
    with pytest.warns(GradiatorWarning, match="extrapolation"):
        e = fit_points(side, fun(side), x=X)
    assert e.status == Status.EXTRAPOLATION
    assert np.all(e.stderr > fit_points(inside, fun(inside), x=X).stderr.min())
    assert held(e, jac(X)) > 0.8  # entries fail together: one of them may


def test_rows_of_weight_zero_are_not_there():
    p = points(30)
    y = fun(p)
    y[:6] += 100.0
    w = np.ones(30)
    w[:6] = 0.0
    e, rest = fit_points(p, y, x=X, weights=w), fit_points(p[6:], y[6:], x=X)
    np.testing.assert_array_equal(e.jac, rest.jac)
    y[:6] = np.nan
    np.testing.assert_array_equal(fit_points(p, y, x=X).jac, rest.jac)


def test_failures_one_by_one():
    p = points(30)
    y = fun(p)
    y[3, 0] = y[7, 1] = y[20, 1] = np.nan
    e = fit_points(p, y, x=X)
    assert e.solution.info["n_used"].tolist() == [29, 28, 30]
    assert np.abs(e.jac - jac(X)).max() < 1e-2
    assert e.n_failed == 3


def test_the_nearest_of_many():
    """A long log far away and near: what counts lies near."""
    p = np.vstack([points(40, 1), points(20_000, 2, reach=3.0)])
    e = fit_points(p, fun(p), x=X, solver=Taylor(max_samples=300))
    assert e.solution.info["n_used"].max() <= 300
    assert np.abs(e.jac - jac(X)).max() < 1e-2


def test_a_point_of_its_own_for_every_problem_of_a_batch():
    """The same numbers as one by one, to the rounding of sums in another order."""
    rng = np.random.default_rng(3)
    x = rng.uniform(1, 2, (3, 2))
    points = x[:, None] * (1 + 0.05 * rng.uniform(-1, 1, (3, 20, 2)))
    values = np.sin(points) + points[..., ::-1] ** 2
    together = fit_points(points, values, x=x)
    assert together.jac.shape == (3, 2, 2)
    for i in range(3):
        alone = fit_points(points[i], values[i], x=x[i])
        np.testing.assert_allclose(together.jac[i], alone.jac, rtol=1e-8)
        np.testing.assert_allclose(together.stderr[i], alone.stderr, rtol=1e-6)


def test_as_many_points_as_unknowns_have_error_bars_from_what_is_usual():
    """With m + 1 points nothing tells how f bends; the prior's bars hold all of 30 functions' 360
    entries with at most 10 % misses (18 expected at 95 %; over 36 with probability 1e-4)."""
    missed = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        a, x = rng.standard_normal((3, 4)), 1 + rng.random(4)
        points = x * (1 + 0.05 * rng.uniform(-1, 1, (5, 4)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GradiatorWarning)  # x outside of five points
            estimate = fit_points(points, np.sin(points @ a.T), x=x)
        low, high = estimate.confidence_interval(0.95)
        exact = np.cos(a @ x)[:, None] * a
        missed += np.count_nonzero((exact < low) | (exact > high))
        assert np.isfinite(estimate.stderr).all()
    assert missed <= 36


def test_the_unit_of_each_input_may_be_given():
    """f bends along input 0 alone, over 0.05; told so, the fit is closer than without (30 logs,
    medians), and the unit does not matter by itself: the same for all inputs changes J by less
    than a tenth of its error bars."""
    better, same = [], []
    for seed in range(30):
        p = points(12, seed)
        y = np.stack([np.sin(p[:, 0] / 0.05), p.sum(1)], axis=1)
        exact = np.cos(X[0] / 0.05) / 0.05
        plain, told, even = (
            fit_points(p, y, x=X, x_scale=s) for s in (None, [0.05, 50, 50, 50], 0.05)
        )
        better.append([abs(e.jac[0, 0] - exact) for e in (plain, told)])
        same.append(np.median(np.abs(even.jac - plain.jac) / plain.stderr))
    assert np.median(better, axis=0)[1] < np.median(better, axis=0)[0]
    assert np.median(same) < 0.1
    with pytest.raises(ValueError, match="unit of solver='taylor'"):
        fit_points(points(3), fun(points(3)), x=X, x_scale=1.0)
    with pytest.raises(ValueError, match="x_scale"):
        fit_points(points(12), fun(points(12)), x=X, x_scale=[1.0, 2.0])
