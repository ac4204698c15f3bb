"""RankOne, its square-root state, and the kernels behind them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from gradiator_np.kernels.rank_one import kaczmarz_update, qr_update
from gradiator_np.solvers import Pinv
from gradiator_np.solvers._recursive.kaczmarz import kaczmarz
from gradiator_np.solvers._recursive.rank_one import RankOne
from gradiator_np.solvers._recursive.square_root import SquareRoot

EPS = np.finfo(float).eps
sizes = st.tuples(
    st.integers(1, 12), st.integers(1, 6), st.integers(1, 90), st.integers(0, 2**32 - 1)
)


def samples(m, n, k, seed, noise=0.1):
    rng = np.random.default_rng(seed)
    jac, dx = rng.standard_normal((n, m)), rng.standard_normal((k, m))
    return jac, dx, dx @ jac.T + noise * rng.standard_normal((k, n))


def ridge(dx, df, p):
    """Slow twin: augmented least squares."""
    m, n = dx.shape[1], df.shape[1]
    rows = np.vstack([dx, np.diag(np.broadcast_to(p, m))])
    return np.linalg.lstsq(rows, np.vstack([df, np.zeros((m, n))]), rcond=None)[0].T


def kaczmarz_slowly(jac, dx, df):
    jac = jac.copy()
    for d, f in zip(dx, df):
        jac += np.outer(f - jac @ d, d) / (d @ d)
    return jac


@pytest.mark.kernel
@pytest.mark.parametrize("n", [1, 7, 8, 19])
def test_kaczmarz_kernel_equals_the_formula(n):
    """Same operations in another order: a few eps for each of k projections, none of which
    grows errors."""
    jac, dx, df = samples(5, n, 6, 0)
    start = jac + 1.0
    got = start.copy()
    assert kaczmarz_update(got, dx, df, np.empty(13)) == 0
    np.testing.assert_allclose(got, kaczmarz_slowly(start, dx, df), atol=6 * 50 * EPS * 10)


@pytest.mark.kernel
def test_kaczmarz_kernel_names_the_zero_row_and_changes_nothing():
    jac, dx, df = samples(3, 9, 4, 1)
    dx[2] = 0
    got = jac.copy()
    assert kaczmarz_update(got, dx, df, np.empty(11)) == 3
    np.testing.assert_array_equal(got, jac)


@pytest.mark.kernel
def test_kaczmarz_kernel_takes_steps_whose_squares_underflow():
    jac = np.zeros((1, 2))
    kaczmarz_update(jac, np.array([[3e-200, 4e-200]]), np.array([[5e-200]]), np.empty(10))
    np.testing.assert_allclose(jac, [[0.6, 0.8]], rtol=8 * EPS)


def _qr(dx, df, forgetting=1.0):
    m, n, k = dx.shape[1], df.shape[1], len(dx)
    r, z, ssr = np.zeros((m, m)), np.zeros((m, n)), np.zeros(n)
    known = np.empty(k, np.bool_)
    qr_update(r, z, ssr, dx.copy(), df.copy(), forgetting, known, np.empty(2 * m + n))
    return r, z, ssr, known


@pytest.mark.kernel
def test_qr_kernel_holds_the_normal_equations_and_the_residual():
    _, dx, df = samples(4, 3, 20, 2)
    r, z, ssr, known = _qr(dx, df)
    # Backward stable: k rotations of size |dx|^2 ~ k m, a few eps each.
    atol = 20 * 20 * 4 * 4 * EPS
    np.testing.assert_allclose(r.T @ r, dx.T @ dx, atol=atol)
    np.testing.assert_allclose(r.T @ z, dx.T @ df, atol=atol * 4)
    best = np.linalg.lstsq(dx, df, rcond=None)[0]
    np.testing.assert_allclose(ssr, np.square(df - dx @ best).sum(0), rtol=1e-10)
    assert np.array_equal(r, np.triu(r))
    assert list(known) == [False] * 4 + [True] * 16


@pytest.mark.kernel
def test_directional_forgetting_is_its_formula_row_by_row():
    """Twin: the dense formula on the information matrix, Lambda - (1 - l) L d d' L / (d' L d)."""
    _, dx, df = samples(3, 2, 25, 3)
    r, z, _, _ = _qr(dx, df, 0.8)
    hess, right = np.zeros((3, 3)), np.zeros((3, 2))
    for d, f in zip(dx, df):
        v, size = hess @ d, d @ hess @ d
        if size > 1e-12:
            right = right - 0.2 * np.outer(v, d @ right) / size
            hess = hess - 0.2 * np.outer(v, v) / size
        hess, right = hess + np.outer(d, d), right + np.outer(d, f)
    # The twin squares the condition number (< 1e3 once full): 1e6 eps x 25 steps.
    np.testing.assert_allclose(r.T @ r, hess, atol=1e-8)
    np.testing.assert_allclose(r.T @ z, right, atol=1e-8)
    assert (np.diag(r) >= 0).all()
    assert np.array_equal(r, np.triu(r))


@njit
def _inside_user_code(points, values):
    k, m = points.shape
    n = values.shape[1]
    r, z, ssr = np.zeros((m, m)), np.zeros((m, n)), np.zeros(n)
    known, work = np.empty(1, np.bool_), np.empty(2 * m + n)
    jac, scratch = np.zeros((n, m)), np.empty(m + 8)
    for t in range(k):
        kaczmarz_update(jac, points[t : t + 1], values[t : t + 1], scratch)
        qr_update(r, z, ssr, points[t : t + 1], values[t : t + 1], 1.0, known, work)
    return r, z, jac


@pytest.mark.kernel
def test_kernels_are_callable_from_compiled_user_code():
    _, dx, df = samples(3, 2, 12, 4)
    r, z, projected = _inside_user_code(dx.copy(), df.copy())
    best = np.linalg.lstsq(dx, df, rcond=None)[0].T
    np.testing.assert_allclose(np.linalg.solve(r, z).T, best, rtol=1e-9)
    np.testing.assert_allclose(projected, kaczmarz_slowly(np.zeros((2, 3)), dx, df), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_a_kaczmarz_block_equals_its_rows_in_turn(size):
    m, n, k, seed = size
    jac, dx, df = samples(m, n, k, seed)
    got = jac.copy()
    kaczmarz(got, dx, df)
    want = kaczmarz_slowly(jac, dx, df)
    # The triangular system has unit diagonal; its condition grows as rows repeat directions
    # (m = 1: all of them), where errors contract instead. 1e4 eps holds with a margin of 100.
    scale = np.abs(df / np.linalg.norm(dx, axis=1)[:, None]).max() + np.abs(jac).max()
    np.testing.assert_allclose(got, want, atol=1e6 * EPS * scale)
    # The newest sample is fitted exactly.
    np.testing.assert_allclose(got @ dx[-1], df[-1], atol=1e6 * EPS * scale)


@settings(max_examples=40, deadline=None)
@given(sizes, st.floats(0.01, 10))
def test_least_squares_equals_the_batch_ridge_fit(size, p):
    m, n, k, seed = size
    _, dx, df = samples(m, n, k, seed)
    got = RankOne(prior_scale=p).solve(dx, df).coef
    # Both are backward stable on [dx; p I]: condition at most |dx| / p, |dx| < 40 here.
    cond = np.linalg.norm(dx) / p + 1
    atol = 100 * k * EPS * cond**2 * (1 + np.abs(df).max() / p)
    np.testing.assert_allclose(got, ridge(dx, df, p), atol=atol)


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(-8, 8))
def test_without_a_prior_it_is_the_fit_of_least_norm(size, power):
    """Badly scaled inputs, too few samples, repeated samples: least norm in the caller's units."""
    m, n, k, seed = size
    _, dx, df = samples(m, n, k, seed, noise=0)
    units = 10.0 ** np.linspace(-power, power, m)
    dx = np.vstack([dx, dx[:1]]) * units
    df = np.vstack([df, df[:1]])
    solution = RankOne().solve(dx, df)
    want = Pinv(rcond=1e-12).solve(dx, df)
    assert solution.rank == want.rank == min(k, m)
    # Both are backward stable: eps cond^2, each entry in units of its input.
    atol = 1e4 * EPS * want.cond**2 * (np.abs(want.coef * units).max() + np.abs(df).max())
    np.testing.assert_allclose(solution.coef * units, want.coef * units, atol=atol)
    assert (solution.status == "undetermined") == (k < m)
    stderr = solution.cov.stderr()
    assert np.isinf(stderr).all() == (k < m)


def test_an_intercept_is_no_part_of_the_least_norm():
    """Three samples far from 0, two inputs of which one is known: the value is free."""
    dx = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    df = 100 + 2 * dx[:, :1]
    for solver in (RankOne(), Pinv(), RankOne(prior_scale=1e-9)):
        found = solver.solve(dx, df, intercept=True)
        np.testing.assert_allclose(found.coef, [[2.0, 0.0]], atol=1e-9)
        np.testing.assert_allclose(found.value, [100.0], rtol=1e-9)
        assert np.isinf(found.value_stderr).all()
        assert np.isinf(found.cov.stderr()).tolist() == [[False, True]]


def test_standard_errors_equal_the_textbook():
    _, dx, df = samples(4, 3, 30, 5)
    solution = RankOne().solve(dx, df)
    ssr = np.linalg.lstsq(dx, df, rcond=None)[1]
    sigma = np.sqrt(ssr / (30 - 4))
    want = sigma[:, None] * np.sqrt(np.diag(np.linalg.inv(dx.T @ dx)))
    np.testing.assert_allclose(solution.cov.stderr(), want, rtol=1e-10)
    np.testing.assert_array_equal(solution.dof, 26)
    np.testing.assert_allclose(solution.residual, np.sqrt(ssr / 30), rtol=1e-10)


def test_intercept_weights_and_prior_jacobian():
    jac, dx, df = samples(3, 2, 25, 6)
    weights = np.random.default_rng(0).uniform(0.2, 3, 25)
    solution = RankOne().solve(dx, df + 7.0, weights=weights, intercept=True, jac0=jac + 1)
    rows = np.hstack([np.ones((25, 1)), dx]) * np.sqrt(weights)[:, None]
    best = np.linalg.lstsq(rows, (df + 7.0) * np.sqrt(weights)[:, None], rcond=None)[0]
    np.testing.assert_allclose(solution.coef, best[1:].T, rtol=1e-9)
    np.testing.assert_allclose(solution.value, best[0], rtol=1e-9)
    spread = np.sqrt(np.diag(np.linalg.inv(rows.T @ rows)))
    np.testing.assert_allclose(solution.value_stderr, solution.cov.scale * spread[0], rtol=1e-9)
    # The prior's ridge of (1e-10)^2 is all that jac0 still weighs.
    np.testing.assert_allclose(
        RankOne(prior_scale=1e3).solve(dx[:1], df[:1], jac0=jac).coef, jac, atol=1e-3
    )


def test_outputs_with_failed_samples_are_fitted_on_the_others():
    _, dx, df = samples(3, 4, 20, 7)
    df[2, 1] = df[5, 1] = df[9, 3] = np.nan
    solution = RankOne().solve(dx, df)
    assert solution.cov.per_output
    for i in range(4):
        good = ~np.isnan(df[:, i])
        alone = RankOne().solve(dx[good], df[good][:, [i]])
        np.testing.assert_allclose(solution.coef[i], alone.coef[0], rtol=1e-9)
        np.testing.assert_allclose(solution.cov.stderr()[i], alone.cov.stderr()[0], rtol=1e-9)
        assert solution.dof[i] == alone.dof[0]


def test_batches_and_complex_outputs():
    rng = np.random.default_rng(8)
    dx = rng.standard_normal((2, 9, 3))
    df = rng.standard_normal((2, 9, 2)) + 1j * rng.standard_normal((2, 9, 2))
    solution = RankOne().solve(dx, df)
    assert solution.coef.shape == (2, 2, 3)
    assert solution.cov.stderr().shape == (2, 2, 3)
    assert solution.rank.shape == (2,)
    for b in range(2):
        best = np.linalg.lstsq(dx[b].astype(complex), df[b], rcond=None)[0].T
        np.testing.assert_allclose(solution.coef[b], best, rtol=1e-9)


def test_kaczmarz_mode_and_what_it_refuses():
    jac, dx, df = samples(3, 2, 10, 9)
    solution = RankOne(mode="kaczmarz").solve(dx, df, jac0=jac)
    np.testing.assert_allclose(solution.coef, kaczmarz_slowly(jac, dx, df), rtol=1e-9)
    assert np.isnan(solution.cov.stderr()).all()
    assert np.isinf(RankOne(mode="kaczmarz").solve(dx[:2], df[:2]).cov.stderr()).all()
    zero = dx.copy()
    zero[4] = 0
    with pytest.raises(ValueError, match=r"dx\[4\] did not move"):
        RankOne(mode="kaczmarz").solve(zero, df)
    with pytest.raises(ValueError, match="shared base"):
        RankOne(mode="kaczmarz").solve(dx, df, intercept=True)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"mode": "ridge"}, "mode must be"),
        ({"forgetting": 0.0}, r"\(0, 1\]"),
        ({"mode": "kaczmarz", "forgetting": 0.9}, "Kaczmarz"),
    ],
)
def test_bad_options(options, match):
    with pytest.raises(ValueError, match=match):
        RankOne(**options)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, [1.0, 2.0]])
def test_bad_prior_scale(scale):
    with pytest.raises(ValueError, match="prior_scale"):
        RankOne(prior_scale=scale).solve(np.ones((4, 3)), np.ones((4, 1)))


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_a_wandering_jacobian_loses_exactly_the_variance_it_is_given(size):
    """Lambda'^-1 = Lambda^-1 + Q, and the estimate stays."""
    m, n, k, seed = size
    _, dx, df = samples(m, n, k + m + 3, seed)
    state = SquareRoot.zeros(m, n)
    state.absorb(dx, df)
    before = np.linalg.lstsq(dx, df, rcond=None)[0].T
    variance = np.random.default_rng(seed).uniform(0, 3, m)
    state.inflate(variance)
    want = np.linalg.inv(dx.T @ dx) + np.diag(variance)
    # Inverses of matrices of condition c lose c eps.
    cond = np.linalg.cond(dx) ** 2 * np.linalg.cond(want)
    root = np.linalg.inv(state.r)
    np.testing.assert_allclose(root @ root.T, want, atol=1e3 * cond * EPS * np.abs(want).max())
    assert np.array_equal(state.r, np.triu(state.r))
    np.testing.assert_allclose(
        np.linalg.solve(state.r, state.z).T, before, atol=1e3 * cond * EPS * np.abs(df).max()
    )
