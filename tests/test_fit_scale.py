"""Fits of many residuals: models in a basis of the runs, triangles in place of singular values."""

import tracemalloc

import numpy as np
import pytest

from gradiator_np import LeastSquares, least_squares
from gradiator_np._calibration import output_basis
from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.kriging import Kriging, TrendReflectors
from gradiator_np._calibration.local_model import fit_rows
from gradiator_np._calibration.output_basis import OutputBasis, Rows
from gradiator_np._calibration.triangles import regular_inverse
from gradiator_np._calibration.uncertainty import ExpectedLoss

EPS = np.finfo(float).eps


@pytest.mark.parametrize("block", [2**20, 1])
def test_coordinates_keep_every_product(block, monkeypatch):
    """Of independent vectors, one next to others, a repeated one and 0; in blocks of 8 and more."""
    monkeypatch.setattr(output_basis, "BLOCK", block)
    monkeypatch.setattr(output_basis, "PIECE", 700)
    rng = np.random.default_rng(0)
    y = rng.normal(size=(20, 2000))
    y[5] = y[0] + 1e-9 * y[5]
    y[6], y[7] = y[1], 0.0
    y[8:] = y[3] + 1e-6 * y[8:]  # runs next to each other
    basis = OutputBasis(2000)
    rows = Rows.reduced([basis.add(row) for row in y], basis)
    assert basis.rank in (18, 19)  # rounding may leave a direction to the repeated one
    assert rows.multiplicity.sum() == 2000
    # sums of 2000 products: eps times the sizes of both, and the root of their number
    sizes = np.linalg.norm(y, axis=1)
    tol = 50 * EPS * np.outer(sizes, sizes)
    assert (np.abs(rows.values @ rows.values.T - y @ y.T) <= tol).all()
    # differences of neighbours keep what they have of digits
    apart = np.linalg.norm(rows.values[8:] - rows.values[3], axis=1)
    np.testing.assert_allclose(apart, np.linalg.norm(y[8:] - y[3], axis=1), rtol=1e-6 * 50)
    error = np.abs(basis.lift(rows.values[:, :-1]) - y).max(1)
    assert (error <= 50 * EPS * np.maximum(sizes, 1e-300)).all()
    np.testing.assert_allclose(basis.project(y), rows.values[:, :-1], atol=50 * EPS * sizes.max())


@pytest.mark.parametrize("noise", [None, 0.3])
def test_the_model_of_coordinates_is_that_of_the_residuals(noise):
    rng = np.random.default_rng(1)
    u, n = rng.normal(size=(14, 3)), 1500
    y = rng.normal(size=n) + u @ rng.normal(size=(3, n)) + 0.1 * rng.normal(size=(14, n))
    level = None if noise is None else np.full(n, noise)
    full = fit_rows(u, Rows.of(list(y)), level, 1e-9, 0.5, 10.0)
    basis = OutputBasis(n)
    few = fit_rows(u, Rows.reduced([basis.add(row) for row in y], basis), level, 1e-9, 0.5, 10.0)
    assert len(few.residuals) == 15
    assert few.count == full.count == n
    # both solve with one kernel matrix, of a condition below 1e6
    close = {"rtol": 1e6 * EPS, "atol": 1e6 * EPS}
    for name in ("curvature", "covariances", "mean_square_noise", "difference_step", "gradient",
                 "sum_of_squares", "sum_of_squares_sd", "total_covariance"):  # fmt: skip
        np.testing.assert_allclose(getattr(few, name), getattr(full, name), **close, err_msg=name)
    ours, want = few.of_residuals(), full.of_residuals()
    for name in ("residuals", "jac", "group", "noise"):
        np.testing.assert_allclose(getattr(ours, name), getattr(want, name), **close, err_msg=name)
    v = rng.normal(size=(2, 3))
    sums = [np.square(m.predict(v)).sum(1) for m in (few, full)]
    np.testing.assert_allclose(*sums, rtol=1e6 * EPS)
    some = rng.normal(size=n)
    np.testing.assert_allclose(few.weighted(some), full.weighted(some), **close)


def test_a_basis_of_half_the_residuals_is_given_up():
    log, rng = FitLog(reduces=True), np.random.default_rng(0)
    for count in range(520):
        log.add(rng.normal(size=2), rng.normal(size=1000))
        rows = log.rows(log.usable)
        assert (rows.basis is None) == (count >= 500)
        assert rows.values.shape[1] == (1000 if rows.basis is None else count + 2)


@pytest.mark.parametrize("options", [{}, {"run_noise": 0.01}, {"prior_mean": 0.0, "sigma": 1.0}])
def test_fits_of_many_residuals_do_not_hang_on_the_basis(options, monkeypatch):
    t, rng = np.linspace(0, 4, 3000), np.random.default_rng(0)
    data = 2 * np.exp(-0.7 * t) + 0.1 * rng.normal(size=3000)
    if "prior_mean" in options:
        options = {**options, "prior_mean": [1.0, 1.0], "prior_std": [0.5, 0.5]}
    noise = options.get("run_noise", 0.0)

    def fit():
        runs = np.random.default_rng(1)

        def fun(x):
            return x[0] * np.exp(-x[1] * t) - data + noise * runs.normal(size=3000)

        return least_squares(fun, [1.0, 1.0], **options)

    few = fit()
    monkeypatch.setattr(output_basis, "LEAST_RESIDUALS", np.inf)
    full = fit()
    assert few.reason is full.reason
    # Both end where 1e-8 of the sum of squares is not to be had: 1e-4 of roots; 1e-6 where noise
    # makes the paths the same.
    np.testing.assert_allclose(few.x, full.x, atol=1e-4 * full.stderr.max())
    np.testing.assert_allclose(few.stderr, full.stderr, rtol=1e-4)
    np.testing.assert_allclose(few.fun, full.fun, atol=1e-4)
    within = 5 * np.hypot(few.jac_stderr, full.jac_stderr) + 1e-12
    assert (np.abs(few.jac - full.jac) <= within).all()


def test_memory_is_a_few_times_that_of_the_runs():
    t = np.linspace(0, 4, 200_000)
    data = 2 * np.exp(-0.7 * t) + 0.1 * np.random.default_rng(0).normal(size=t.size)
    least_squares(lambda x: x[0] * np.exp(-x[1] * t[:99]) - data[:99], [1.0, 1.0])  # imports
    tracemalloc.start()
    fit = least_squares(lambda x: x[0] * np.exp(-x[1] * t) - data, [1.0, 1.0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Runs are kept, their basis, and what the result holds of them; J and its errors, a few rows.
    assert peak < 8.0 * (3 * fit.nfev + 40) * t.size


@pytest.mark.parametrize("rows, rank", [(12, 4), (3, 3), (12, 3)])
def test_reflectors_are_an_orthogonal_basis(rows, rank):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4))
    if rank == 3 < rows:
        x[:, 3] = x[:, :3] @ [1.0, 2.0, 3.0]
    trend = TrendReflectors(x)
    assert trend.rank == rank
    q = trend.coordinates(np.eye(rows)).T
    np.testing.assert_allclose(q.T @ q, np.eye(rows), atol=20 * EPS)
    contrasts = trend.vectors(np.eye(rows - rank))
    np.testing.assert_allclose(contrasts, q[:, rank:], atol=20 * EPS)
    np.testing.assert_allclose(contrasts.T @ x, 0.0, atol=100 * EPS)
    np.testing.assert_allclose(trend.back @ q[:, :rank].T, np.linalg.pinv(x), atol=1e3 * EPS)
    np.testing.assert_allclose(x @ trend.null, 0.0, atol=100 * EPS)


@pytest.mark.parametrize("exponent", range(0, 20, 2))
def test_an_inverse_is_given_only_where_rank_is_sure(exponent):
    rng = np.random.default_rng(exponent)
    left, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    right, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    r = np.linalg.qr(left * np.logspace(0, -exponent, 6) @ right, mode="r")
    inverse = regular_inverse(r, 1e-9)
    # Frobenius norms are at most the root of 6 times the largest singular values
    assert (inverse is None) or exponent < 9
    assert (inverse is not None) or 6 * 10.0**exponent > 1e9 * (1 - 1e-6)
    if inverse is not None:
        np.testing.assert_allclose(r @ inverse, np.eye(6), atol=100 * EPS * 10.0**exponent)
    assert regular_inverse(np.triu(np.ones((2, 3))), 1e-9) is None
    assert regular_inverse(np.diag([1.0, 0.0]), 1e-9) is None


def zero_residuals(seed):
    """A random function with a root, and its exact Jacobian."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 7))
    n = int(m + rng.integers(0, 30))
    a, root = rng.normal(size=(n, m)), rng.normal(size=m)
    kind = seed % 3
    fun = (lambda z: np.tanh(z), lambda z: np.exp(0.3 * z), lambda z: z + 0.1 * z**2)[kind]
    slope = (
        lambda z: 1 - np.tanh(z) ** 2, lambda z: 0.3 * np.exp(0.3 * z), lambda z: 1 + 0.2 * z,
    )[kind]  # fmt: skip
    target, start = fun(a @ root), root + 0.5 * rng.normal(size=m)
    return lambda x: fun(a @ x) - target, lambda x: slope(a @ x)[:, None] * a, start


@pytest.mark.slow
def test_errors_of_j_hold_where_residuals_vanish():
    """By the curvature of the last runs alone 86 % of such fits have an entry 5 errors off."""
    off, useful = 0, []
    for seed in range(90):
        fun, jac, start = zero_residuals(seed)
        fit = least_squares(fun, start)
        error = np.abs(fit.jac - jac(fit.x))
        off += not (error <= 5 * fit.jac_stderr).all()
        useful.append(np.median(fit.jac_stderr) / np.abs(fit.jac).max())
    # 1.5 % of 200 others: more than 7 of 90 once in 10 000 times
    assert off <= 7
    # J has six digits and more there, and its bars say so
    assert np.median(useful) < 1e-4


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_that_alone_tells_of_a_direction_is_no_outlier(seed):
    """What is left of it among the contrasts is rounding, and no residual."""
    rng = np.random.default_rng(seed)
    u = np.hstack([rng.normal(size=(12, 2)), np.zeros((12, 1))])
    u[5, 2] = 0.01
    y = np.exp(0.1 * u @ rng.normal(size=(3, 20)))
    kriging = Kriging(u, y, np.ones(20), None, 1.0, None)
    assert kriging.shares()[5] == 0
    assert (np.delete(kriging.shares(), 5) > 0).all()
    assert np.isfinite(kriging.leave_one_out())
    assert any(np.array_equal(u[5], kept) for kept in fit_rows(u, Rows.of(list(y))).samples)


def test_runs_that_j_is_due_are_as_few_as_leave_a_bearable_loss():
    each = np.random.default_rng(0).exponential(size=30)[::-1].cumsum()[::-1]
    loss = ExpectedLoss(float(each.sum()), 0.0, np.eye(30), each)
    for bearable in (0.0, 1e-3, 1.0, 0.5 * loss.jac, 2.0 * loss.jac):
        due = loss.due(bearable)
        assert 1 <= due <= 30
        assert each[due:].sum() <= bearable * (1 + 30 * EPS)
        assert due == 1 or each[due - 1 :].sum() > bearable * (1 - 30 * EPS)


@pytest.mark.parametrize("m", [20, 21])
def test_runs_go_at_once_where_models_cost_more_than_they_save(m):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2 * m, m)) / np.sqrt(m)
    target = np.tanh(a @ rng.normal(size=m)) + 0.1 * rng.normal(size=2 * m)
    search, sizes = LeastSquares(np.zeros(m)), []
    while len((asked := search.ask())[1]):
        sizes.append(len(asked[1]))
        search.tell([np.tanh(a @ x) - target for x in asked[0]])
    # the first runs, single ones, pairs that confirm the end, J afresh
    several = [size for size in sizes if size not in (1, 2, m, m + 1)]
    assert bool(several) is (m > 20)
    assert search.result().success


@pytest.mark.slow
def test_errors_of_j_hold_where_runs_are_noisy():
    """Runs in a cluster tell of noise: by the likeliest curvature alone 0.83 is held."""
    held = []
    for seed in range(60):
        fun, jac, start = zero_residuals(seed)
        runs = np.random.default_rng([seed, 1])
        size = 10.0 ** -(2 + seed % 2) * np.sqrt(np.mean(fun(start) ** 2))
        fit = least_squares(
            lambda x, fun=fun, runs=runs, size=size: fun(x) + size * runs.normal(size=fun(x).size),
            start,
        )
        told = ~fit.undetermined
        if told.any():
            inside = np.abs(fit.jac - jac(fit.x)) <= 1.96 * fit.jac_stderr
            held.append(inside[:, told].mean())
    # The share of one fit has a standard deviation of 0.041, about 0.979 (75 others): 0.0055 in the
    # mean of 56. Below the nominal share by 3.3 of that at a mean of 0.95 once in 2000.
    assert len(held) > 48
    assert np.mean(held) > 0.95 - 3.3 * 0.0055
