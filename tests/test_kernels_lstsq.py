"""The batched Householder kernel against NumPy, problem by problem."""

import numpy as np
import pytest
from numba import njit

from gradiator_np.kernels.lstsq import lstsq_batch

pytestmark = pytest.mark.kernel

EPS = np.finfo(float).eps


def solve(dx, df, lanes=4, power=3):
    b, _k, m = dx.shape
    n = df.shape[2]
    coef, factor = np.empty((b, n, m)), np.zeros((b, m, m))
    rss, cond = np.empty((b, n)), np.empty((b, 2))
    # Singular problems divide by 0; without the JIT, NumPy's scalars warn of it.
    with np.errstate(all="ignore"):
        lstsq_batch(dx, df, coef, factor, rss, cond, lanes, power)
    return coef, factor, rss, cond


def problem(b, k, m, n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(b, k, m)), rng.normal(size=(b, k, n))


@pytest.mark.parametrize("b, k, m, n", [(1, 1, 1, 1), (5, 8, 6, 4), (7, 6, 6, 1)])
def test_solves_each_problem_as_numpy_does(b, k, m, n):
    dx, df = problem(b, k, m, n)
    coef, factor, rss, cond = solve(dx, df)
    for i in range(b):
        want, *_ = np.linalg.lstsq(dx[i], df[i], rcond=None)
        scaled = dx[i] / np.linalg.norm(dx[i], axis=0)
        true = np.linalg.cond(scaled)
        # Least squares by Householder QR: k m eps cond relative to the solution, and cond^2 times
        # the residual (Higham, Accuracy and Stability, 20.3), both sides of the comparison.
        norms = 1 / np.linalg.norm(dx[i], axis=0)
        atol = 4 * k * m * EPS * true**2 * np.linalg.norm(df[i]) * norms.max()
        np.testing.assert_allclose(coef[i], want.T, rtol=0, atol=atol)
        residual = df[i] - dx[i] @ want
        atol = 4 * k * m * EPS * np.square(df[i]).sum()
        np.testing.assert_allclose(rss[i], np.square(residual).sum(0), rtol=0, atol=atol)
        inverse = np.linalg.inv(dx[i].T @ dx[i])
        # The reference squares the condition number.
        atol = 4 * k * m * EPS * true**2 * np.abs(inverse).max()
        np.testing.assert_allclose(factor[i] @ factor[i].T, inverse, rtol=0, atol=atol)
        # Power iteration from below; the Frobenius bound from above, at most m times too large.
        slack = 1 + m * k * EPS * true
        assert cond[i, 0] <= true * slack
        assert true <= cond[i, 1] * slack <= m * true * slack**2


def test_power_iteration_converges():
    dx, df = problem(20, 8, 5, 1)
    cond = solve(dx, df, power=200)[3]
    true = np.linalg.cond(dx / np.linalg.norm(dx, axis=1, keepdims=True))
    # 200 steps reduce the error by the 400th power of the ratio of neighbouring singular values.
    np.testing.assert_allclose(cond[:, 0], true, rtol=1e-3)


@pytest.mark.parametrize("lanes", [1, 3, 7, 64])
def test_lanes_change_no_bit(lanes):
    dx, df = problem(10, 5, 3, 2)
    for a, b in zip(solve(dx, df, 10), solve(dx, df, lanes), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dependent_columns_are_told_by_the_bound():
    dx, df = problem(4, 6, 3, 2)
    dx[1, :, 2] = 2 * dx[1, :, 0]
    dx[2, :, 1] = 0
    cond = solve(dx, df)[3]
    proven = cond[:, 1] < 1 / (6 * EPS)
    np.testing.assert_array_equal(proven, [True, False, False, True])


def test_units_of_any_size():
    dx, df = problem(3, 6, 4, 2)
    size = np.array([1e-200, 1e-8, 1e8, 1e200])
    coef = solve(dx * size, df)[0]
    plain = solve(dx, df)[0]
    # Scaling by powers of ten rounds every entry of dx once: cond eps relative per column, and
    # cond^2 for the residual; cond is below 30 here.
    atol = 100 * 30**2 * EPS * np.abs(plain).max()
    np.testing.assert_allclose(coef * size, plain, rtol=0, atol=atol)


@njit
def user_gradient(dx, df, residual):
    """A caller's own compiled code: fit a Jacobian, then pull a residual back through it."""
    k, m = dx.shape
    n = df.shape[1]
    coef, factor = np.empty((1, n, m)), np.zeros((1, m, m))
    rss, cond = np.empty((1, n)), np.empty((1, 2))
    lstsq_batch(dx.reshape(1, k, m), df.reshape(1, k, n), coef, factor, rss, cond, 1, 2)
    gradient = np.zeros(m)
    for i in range(n):
        gradient += coef[0, i] * residual[i]
    return gradient, cond[0, 1]


def test_called_from_compiled_code():
    rng = np.random.default_rng(1)
    jac, dx = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    residual = rng.normal(size=4)
    gradient, bound = user_gradient(dx, np.ascontiguousarray(dx @ jac.T), residual)
    # Exact data: the solution is cond eps away, and the Frobenius bound is above cond.
    atol = 4 * 15 * EPS * bound * np.abs(jac).max() * np.abs(residual).sum()
    np.testing.assert_allclose(gradient, jac.T @ residual, rtol=0, atol=atol)
