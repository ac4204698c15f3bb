"""The operator-norm solver against closed forms, slow twins and an interior-point SDP."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradiator_np.kernels.spectral import pattern_coefficients
from gradiator_np.solvers._operator_norm.consistent import ConsistentSet, spectral_from_entry
from gradiator_np.solvers._operator_norm.spectral import Spectral
from gradiator_np.solvers._operator_norm.subspaces import (
    PatternSpace,
    SymmetricPatternSpace,
    SymmetricSpace,
)
from gradiator_np.solvers._operator_norm.two_sided import parrott
from gradiator_np.solvers._solution import Constraints

EPS = np.finfo(float).eps
# Demanded agreement with the SDP, whose own tolerance is set to 1e-9.
SDP_TOL = 1e-5


def samples(seed, n, m, k):
    rng = np.random.default_rng(seed)
    return rng, rng.standard_normal((k, m)), rng.standard_normal((k, n))


def sdp(dx, df, constraints=None, *, intercept=False, frobenius_within=None):
    """Least operator norm by cvxpy and Clarabel (or least Frobenius norm within a bound)."""
    cp = pytest.importorskip("cvxpy", reason="cvxpy and clarabel are the independent oracle")
    n, m = df.shape[1], dx.shape[1]
    jac, held = cp.Variable((n, m)), []
    c = constraints or Constraints()
    if c.sparsity is not None:
        held.append(cp.multiply(jac, 1.0 * ~c.sparsity) == 0)
    if c.known is not None:
        given = ~np.isnan(c.known)
        held.append(cp.multiply(jac, 1.0 * given) == np.where(given, c.known, 0.0))
    if c.symmetric:
        held.append(jac == jac.T)
    rest = jac @ dx.T - df.T
    if intercept:
        rest = rest + cp.Variable((n, 1)) @ np.ones((1, len(dx)))
    goal = cp.sigma_max(rest)
    if frobenius_within is not None:
        held.append(goal <= frobenius_within)
        goal = cp.norm(rest, "fro")
    task = cp.Problem(cp.Minimize(goal), held)
    return task.solve(solver="CLARABEL", tol_gap_rel=1e-9, tol_gap_abs=1e-9)


def norm2(a):
    return np.linalg.norm(a, 2) if a.size else 0.0


# The plain problem: closed form


@pytest.mark.parametrize("n, m, k", [(3, 4, 9), (4, 3, 3), (1, 3, 7), (5, 1, 4), (3, 6, 4)])
def test_least_squares_minimises_every_singular_value(n, m, k):
    """R R^T grows by a positive semidefinite matrix for any other A, so all of them grow."""
    rng, dx, df = samples(n + m + k, n, m, k)
    solution = Spectral().solve(dx, df)
    best = np.linalg.svd(df.T - solution.coef @ dx.T, compute_uv=False)
    assert solution.info["iterations"] == 0
    np.testing.assert_allclose(solution.coef, np.linalg.lstsq(dx, df)[0].T, atol=1e-12)
    for size in 10.0 ** rng.uniform(-8, 1, 200):
        other = solution.coef + size * rng.standard_normal((n, m))
        values = np.linalg.svd(df.T - other @ dx.T, compute_uv=False)
        # Rounding of an SVD of numbers of order size + 1.
        assert (values >= best - 100 * EPS * (size + 1)).all()


@pytest.mark.parametrize("n, m, k", [(3, 4, 9), (4, 3, 3), (2, 5, 3)])
def test_plain_optimum_is_that_of_the_sdp(n, m, k):
    _, dx, df = samples(k, n, m, k)
    optimum = sdp(dx, df)
    info = Spectral().solve(dx, df).info
    assert info["lower"] == info["upper"] == pytest.approx(optimum, rel=SDP_TOL, abs=SDP_TOL)


def test_plain_takes_batches_prior_intercept_and_weights():
    rng, dx, df = samples(0, 3, 4, 10)
    stack_x, stack_y = rng.standard_normal((5, 10, 4)), rng.standard_normal((5, 10, 3))
    jac0 = rng.standard_normal((3, 4))
    weights = rng.uniform(0.5, 2.0, 10)
    batch = Spectral().solve(stack_x, stack_y)
    for i in range(5):
        one = Spectral().solve(stack_x[i], stack_y[i])
        np.testing.assert_allclose(batch.coef[i], one.coef, atol=1e-12)
        np.testing.assert_allclose(batch.info["upper"][i], one.info["upper"], rtol=1e-12)
    # A prior changes nothing where the samples determine J.
    plain, prior = Spectral().solve(dx, df), Spectral().solve(dx, df, jac0=jac0)
    np.testing.assert_allclose(prior.coef, plain.coef, atol=1e-12)
    # An intercept is a column of ones, weights are factors sqrt(w) on both sides.
    root = np.sqrt(weights)[:, None]
    ones = np.concatenate([np.ones((10, 1)), dx], 1)
    expected = np.linalg.lstsq(ones * root, df * root)[0].T
    got = Spectral().solve(dx, df, weights=weights, intercept=True)
    np.testing.assert_allclose(got.coef, expected[:, 1:], atol=1e-12)
    np.testing.assert_allclose(got.value, expected[:, 0], atol=1e-12)
    rho = norm2(root * (df - ones @ expected.T))
    assert got.info["upper"] == pytest.approx(rho, rel=1e-12)


# The structured problem


def structures(n, m, seed):
    rng = np.random.default_rng(seed)
    pattern = rng.random((n, m)) < 0.5
    known = np.where(rng.random((n, m)) < 0.3, rng.standard_normal((n, m)), np.nan)
    yield Constraints(sparsity=pattern)
    yield Constraints(known=known)
    yield Constraints(sparsity=pattern, known=np.where(pattern, known, np.nan))
    if n == m:
        both, pairs = pattern | pattern.T, known + known.T
        yield Constraints(symmetric=True)
        yield Constraints(symmetric=True, sparsity=both)
        yield Constraints(symmetric=True, known=pairs)
        yield Constraints(symmetric=True, sparsity=both, known=np.where(both, pairs, np.nan))


# (4, 4, 12) and (4, 6, 12) have k > m + n: the samples are rotated into their triangular factor.
SHAPES = [(4, 4, 7), (4, 4, 12), (4, 4, 3), (6, 4, 3), (4, 6, 12), (1, 4, 8), (4, 1, 6)]


@pytest.mark.parametrize("n, m, k", SHAPES)
def test_structured_optimum_is_that_of_the_sdp(n, m, k):
    _, dx, df = samples(10 * n + m, n, m, k)
    for c in structures(n, m, k):
        # Both ends within 1e-6 of the optimum: no help from the SDP's tolerance.
        solution = Spectral(gap_tol=1e-6, max_iter=20_000).solve(dx, df, constraints=c)
        lower, upper, jac = solution.info["lower"], solution.info["upper"], solution.coef
        optimum = sdp(dx, df, c)
        assert lower == pytest.approx(optimum, rel=SDP_TOL, abs=SDP_TOL)
        assert upper == pytest.approx(optimum, rel=SDP_TOL, abs=SDP_TOL)
        assert upper == pytest.approx(norm2(df.T - jac @ dx.T), rel=1e-12)
        if c.sparsity is not None:
            assert not jac[~c.sparsity].any()
        if c.known is not None:
            given = ~np.isnan(c.known)
            np.testing.assert_array_equal(jac[given], c.known[given])
            assert not solution.cov.stderr()[given].any()
        if c.symmetric:
            np.testing.assert_allclose(jac, jac.T, atol=1e-13)


def test_structured_takes_weights_intercept_and_prior():
    rng, dx, df = samples(3, 4, 5, 9)
    pattern = rng.random((4, 5)) < 0.6
    c, w = Constraints(sparsity=pattern), rng.uniform(0.5, 2.0, 9)
    solver = Spectral(gap_tol=1e-6, max_iter=20_000)
    got = solver.solve(dx, df, constraints=c, intercept=True)
    optimum = sdp(dx, df, c, intercept=True)
    assert got.info["upper"] == pytest.approx(optimum, rel=SDP_TOL)
    root = np.sqrt(w)[:, None]
    got = solver.solve(dx, df, constraints=c, weights=w)
    assert got.info["upper"] == pytest.approx(sdp(dx * root, df * root, c), rel=SDP_TOL)
    # A prior moves nothing but the start where the samples determine every entry.
    prior = solver.solve(dx, df, constraints=c, jac0=rng.standard_normal((4, 5)))
    assert prior.info["upper"] == pytest.approx(sdp(dx, df, c), rel=SDP_TOL)
    assert not prior.coef[~pattern].any()


def test_complex_outputs_have_a_complex_jacobian():
    """A complex factor of modulus 2 on df multiplies J and the norm; real parts stay real."""
    rng, dx, df = samples(4, 4, 5, 9)
    factor = 2 * np.exp(0.7j)
    for c in (None, Constraints(sparsity=rng.random((4, 5)) < 0.6)):
        real = Spectral(gap_tol=1e-6).solve(dx, df, constraints=c)
        got = Spectral(gap_tol=1e-6).solve(dx, df * factor, constraints=c)
        assert got.info["upper"] == pytest.approx(2 * real.info["upper"], rel=3e-6)
        # One sequence of iterates, rotated: only rounding differs, and 1e3 steps at most.
        np.testing.assert_allclose(got.coef, factor * real.coef, atol=1e-9)


def test_exact_data_return_at_once_at_any_scale():
    """J is recovered to rounding: each column's scale is divided out of every factorisation."""
    rng = np.random.default_rng(5)
    scale = 10.0 ** np.array([-8, 0, 3, 8])
    dx = rng.standard_normal((9, 4)) * scale
    free = np.array([[1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]], dtype=bool)
    jac = np.where(free, rng.standard_normal((4, 4)) / scale, 0.0)
    got = Spectral().solve(dx, dx @ jac.T, constraints=Constraints(sparsity=free))
    assert got.info["iterations"] == 0
    np.testing.assert_allclose(got.coef, jac, rtol=1e-12)
    for c in (Constraints(symmetric=True), Constraints(symmetric=True, sparsity=free & free.T)):
        spread = rng.standard_normal((4, 4)) / scale / scale[:, None]
        jac = (spread + spread.T) * (1 if c.sparsity is None else c.sparsity)
        got = Spectral().solve(dx, dx @ jac.T, constraints=c)
        assert got.info["iterations"] == 0
        np.testing.assert_allclose(got.coef, jac, rtol=1e-12)


@pytest.mark.parametrize("free", [np.ones((3, 5), bool), np.eye(5, dtype=bool)[:1]])
def test_no_iteration_where_least_squares_is_optimal(free):
    """A full pattern is the plain problem, and one output has one singular value."""
    _, dx, df = samples(6, len(free), 5, 9)
    shift = np.full(free.shape, np.nan)
    shift[0, 0] = 0.0 if len(free) == 1 else np.nan
    got = Spectral().solve(dx, df, constraints=Constraints(sparsity=free, known=shift))
    assert got.info["iterations"] == 0
    assert got.info["upper"] == pytest.approx(got.info["lower"], rel=1e-10)


def test_certificate_warm_start_and_status():
    rng, dx, df = samples(7, 12, 12, 20)
    c = Constraints(sparsity=rng.random((12, 12)) < 0.4)
    calls = []
    # 200 seeds took 40 to 6940 iterations; 1 in 60 the default's 5000 or more.
    patient = Spectral(gap_tol=1e-5, max_iter=10**5)
    told = replace(patient, callback=lambda *a: calls.append(a))
    full = told.solve(dx, df, constraints=c)
    assert full.status == "ok"
    assert [i for i, _, _ in calls] == list(range(0, full.info["iterations"] + 1, 10))
    lowers, uppers = np.array(calls).T[1:]
    assert (np.diff(lowers) >= 0).all()
    assert (np.diff(uppers) <= 0).all()
    assert uppers[-1] - lowers[-1] <= 1e-5 * uppers[-1] < uppers[0] - lowers[0]
    # Every bound holds against every other certificate.
    assert lowers.max() <= uppers.min()
    short = replace(patient, max_iter=25).solve(dx, df, constraints=c)
    assert short.status == "not_converged"
    assert "raise max_iter" in short.message
    assert short.info["lower"] <= full.info["upper"]
    # Going on from there takes what was left, up to the next check at each end.
    rest = replace(patient, start=short).solve(dx, df, constraints=c)
    assert rest.status == "ok"
    assert rest.info["iterations"] <= full.info["iterations"] - 25 + 20
    near = df + 1e-6 * rng.standard_normal(df.shape)
    assert Spectral(start=full).solve(dx, near, constraints=c).info["iterations"] <= 10
    with pytest.raises(ValueError, match="another shape"):
        Spectral(start=full).solve(dx[:-1], df[:-1], constraints=c)


@pytest.mark.parametrize("delta", [1e-2, 1e-1])
def test_tie_break_is_the_least_frobenius_norm(delta):
    rng, dx, df = samples(8, 6, 6, 10)
    c = Constraints(sparsity=rng.random((6, 6)) < 0.5)
    plain = Spectral(gap_tol=1e-6).solve(dx, df, constraints=c)
    got = Spectral(gap_tol=1e-6, max_iter=20_000, tie_break=delta).solve(dx, df, constraints=c)
    assert got.status == "ok"
    limit = (1 + delta) * plain.info["upper"]
    assert got.info["upper"] <= limit * (1 + 1e-12)
    least = sdp(dx, df, c, frobenius_within=limit)
    rest = np.linalg.norm(df - dx @ got.coef.T)
    # gap_tol bounds the square's relative error; the SDP has its own 1e-9.
    assert rest == pytest.approx(least, rel=1e-6)
    assert rest < np.linalg.norm(df - dx @ plain.coef.T)


def test_structured_memory_is_at_most_five_times_inputs_and_outputs():
    rng, dx, df = samples(9, 100, 100, 150)
    pattern = np.zeros((100, 100), bool)
    for row in pattern:
        row[rng.choice(100, 15, replace=False)] = True
    solver, c = Spectral(max_iter=20), Constraints(sparsity=pattern)
    got = solver.solve(dx, df, constraints=c)  # compiled and imported before it is measured
    tracemalloc.start()
    solver.solve(dx, df, constraints=c)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    outputs = got.coef.nbytes + got.cov.extra.nbytes + got.info["state"].nbytes
    assert peak <= 5 * (dx.nbytes + df.nbytes + pattern.nbytes + outputs)


# Projections, against dense bases


def dense_projection(matrices, dx, residual):
    """Projection of ``residual`` on the span of E B for the matrices E of a set, by lstsq."""
    design = np.stack([(e @ dx.T).ravel() for e in matrices], 1)
    return (design @ np.linalg.lstsq(design, residual.ravel())[0]).reshape(residual.shape)


def units(free, symmetric=False):
    for i, j in np.argwhere(np.triu(free) if symmetric else free):
        e = np.zeros(free.shape)
        e[i, j] = 1.0
        if symmetric:
            e[j, i] = 1.0
        yield e


@pytest.mark.parametrize("k", [3, 8])
@pytest.mark.parametrize("repeated", [False, True])
def test_projections_equal_dense_least_squares(k, repeated):
    rng, dx, _ = samples(11, 5, 5, k)
    if repeated:
        dx[:, 1], dx[-1] = dx[:, 0], dx[0]
    free = rng.random((5, 5)) < 0.6
    both, full = free | free.T, np.ones((5, 5), bool)
    residual = rng.standard_normal((5, k))
    for space, basis in (
        (PatternSpace(dx, free), list(units(free))),
        (SymmetricSpace(dx), list(units(full, True))),
        (SymmetricPatternSpace(dx, both), list(units(both, True))),
    ):
        a = space.coef(residual)
        # Condition numbers here are below 1e2, squared in the third.
        np.testing.assert_allclose(a @ dx.T, dense_projection(basis, dx, residual), atol=1e-11)
        design = np.stack([(e @ dx.T).ravel() for e in basis], 1)
        assert space.rank == np.linalg.matrix_rank(design)
        assert space.unknowns == len(basis)
        null = space.null()
        assert (null is None) == (space.rank == space.unknowns)
        if null is not None:
            np.testing.assert_allclose(np.einsum("kj,ijq->ikq", dx, null), 0.0, atol=1e-12)
            # Entries that may move unseen: those of the null space of the dense design.
            lost = np.linalg.svd(design)[2][space.rank :]
            moving = np.einsum("qp,pij->qij", lost, np.stack(basis))
            np.testing.assert_array_equal(
                (null != 0).any(-1), (np.abs(moving) > 1e-10).any(0), strict=True
            )


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_pattern_kernel_is_the_plain_product(dtype):
    rng = np.random.default_rng(12)
    sizes, ranks = [3, 0, 2], np.array([2, 0, 2])
    indices = np.array([0, 2, 4, 1, 3])
    indptr = np.array([0, 3, 3, 5])
    blocks = [rng.standard_normal((s, r)) for s, r in zip(sizes, ranks)]
    start = np.array([0, 6, 6])
    flat = np.concatenate([b.ravel() for b in blocks])
    inner = rng.standard_normal((3, 5)).astype(dtype)
    if dtype is np.complex128:
        inner += 1j * rng.standard_normal((3, 5))
    out = np.zeros_like(inner)
    pattern_coefficients(inner, indptr, indices, start, ranks, flat, np.zeros(2, dtype), out)
    expected = np.zeros_like(inner)
    for i, block in enumerate(blocks):
        at = indices[indptr[i] : indptr[i + 1]]
        expected[i, at] = block @ (block.T @ inner[i, at])
    np.testing.assert_allclose(out, expected, atol=1e-13)


# Jacobians consistent with bounded noise


def root(a, power=0.5):
    lam, vec = np.linalg.eigh(a)
    return (vec * np.maximum(lam, 0.0) ** power) @ vec.T


@pytest.mark.parametrize("n_m_k", [(3, 2, 6), (3, 4, 5), (1, 3, 4), (4, 1, 3)])
def test_bound_is_attained_by_a_consistent_jacobian(n_m_k):
    n, m, k = n_m_k
    rng, dx, df = samples(20, n, m, k)
    rest = df - dx @ np.linalg.lstsq(dx, df)[0]
    eps = 1.3 * norm2(rest)
    found = ConsistentSet(dx, df, eps)
    assert found.optimum == pytest.approx(norm2(rest), rel=1e-10)
    left = root(eps**2 * np.eye(n) - rest.T @ rest)
    right = root(dx.T @ dx, -0.5)

    def attain(a, b):
        """The member of the set whose K is a b^T."""
        k = np.outer(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
        jac = found.center + left @ k @ right
        assert norm2(jac @ dx.T - df.T) <= eps * (1 + 1e-10)
        return jac

    v, u = rng.standard_normal(n), rng.standard_normal(m)
    jac = attain(left @ v, right @ u)
    assert abs(v @ (jac - found.center) @ u) == pytest.approx(found.bound(v, u), rel=1e-9)
    a, b = np.linalg.eigh(left)[1][:, -1], np.linalg.eigh(right)[1][:, -1]
    jac = attain(a, b)
    assert norm2(jac - found.center) == pytest.approx(found.radius, rel=1e-9)
    # Stacks, and the distance of another Jacobian, are added up.
    vs, us = rng.standard_normal((5, 1, n)), rng.standard_normal((4, m))
    stack = found.bound(vs, us)
    assert stack.shape == (5, 4)
    assert stack[2, 3] == pytest.approx(found.bound(vs[2, 0], us[3]))
    other = found.center + 1.0
    extra = abs(v.sum() * u.sum())
    assert found.bound(v, u, jac=other) == pytest.approx(found.bound(v, u) + extra, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_bounded_noise_never_leaves_the_bound(seed):
    rng, dx, _ = samples(seed, 3, 2, 9)
    jac, e = rng.standard_normal((3, 2)), 0.1
    value = dx @ jac.T + rng.choice([-e, e], (9, 3))
    solution = Spectral(entry_bound=e).solve(dx, value)
    v, u = rng.standard_normal((50, 3)), rng.standard_normal((50, 2))
    error = np.abs(np.einsum("sn,nm,sm->s", v, jac - solution.coef, u))
    assert (error <= solution.info["consistent"].bound(v, u, jac=solution.coef)).all()
    # Differences share a base, the structured fit is about another centre: the same guarantee.
    differences = value - rng.choice([-e, e], 3)
    free = np.abs(jac) > np.abs(jac).min()
    c = Constraints(known=np.where(free, np.nan, jac))
    solution = Spectral(entry_bound=2 * e).solve(dx, differences, constraints=c)
    error = np.abs(np.einsum("sn,nm,sm->s", v, jac - solution.coef, u))
    assert (error <= solution.info["consistent"].bound(v, u, jac=solution.coef)).all()


def test_bounds_refuse_and_say_infinite():
    rng, dx, df = samples(21, 3, 4, 6)
    rho = ConsistentSet(dx, df, 10.0).optimum
    with pytest.raises(ValueError, match="no Jacobian is consistent"):
        ConsistentSet(dx, df, 0.999 * rho)
    c = Constraints(sparsity=np.eye(3, 4, dtype=bool))
    least = Spectral().solve(dx, df, constraints=c).info["lower"]
    assert least > rho
    with pytest.raises(ValueError, match="this structure"):
        Spectral(spectral_bound=0.999 * least).solve(dx, df, constraints=c)
    # Two samples see two of four directions.
    found = ConsistentSet(dx[:2], df[:2], 1.0)
    assert found.radius == np.inf
    assert np.isfinite(found.bound(np.ones(3), dx[0] - dx[1]))
    assert found.bound(np.ones(3), rng.standard_normal(4)) == np.inf
    assert found.bound(np.zeros(3), rng.standard_normal(4)) == 0.0
    # Exact data are consistent with no noise at all, and then J is known.
    exact = ConsistentSet(dx, dx @ rng.standard_normal((4, 3)), 0.0)
    assert exact.radius == 0.0
    # A sample with a nan is not there.
    gap = df.copy()
    gap[1, 2] = np.nan
    got, expected = (
        ConsistentSet(dx, gap, 9.0),
        ConsistentSet(np.delete(dx, 1, 0), df[[0, *range(2, 6)]], 9.0),
    )
    assert got.radius == pytest.approx(expected.radius, rel=1e-12)


def test_entry_bound_is_attained_by_equal_errors():
    assert spectral_from_entry(0.5, 4, 9) == pytest.approx(norm2(np.full((4, 9), 0.5)), rel=1e-14)
    assert spectral_from_entry(0.5, 4, 9, differences=True) == pytest.approx(6.0, rel=1e-14)
    with pytest.raises(ValueError, match="not negative"):
        spectral_from_entry(-1.0, 2, 2)


# Two-sided


@pytest.mark.parametrize(
    "sizes", [(6, 3, 4, 7, 3, 4), (6, 4, 4, 7, 2, 3), (3, 5, 2, 2, 3, 2), (4, 4, 4, 4, 2, 2),
              (5, 1, 1, 5, 1, 1), (2, 2, 3, 6, 2, 3)],
)  # fmt: skip
def test_two_sided_optimum_is_that_of_the_sdp(sizes):
    cp = pytest.importorskip("cvxpy", reason="cvxpy and clarabel are the independent oracle")
    p, n, m, q, r, s = sizes
    rng = np.random.default_rng(p + q)
    d = rng.standard_normal((p, r)) @ rng.standard_normal((r, n))
    e = rng.standard_normal((m, s)) @ rng.standard_normal((s, q))
    c = rng.standard_normal((p, q))
    a, value = parrott(d, e, c)
    assert norm2(d @ a @ e - c) == pytest.approx(value, rel=1e-12, abs=1e-12)
    jac = cp.Variable((n, m))
    task = cp.Problem(cp.Minimize(cp.sigma_max(d @ jac @ e - c)))
    optimum = task.solve(solver="CLARABEL", tol_gap_rel=1e-9, tol_gap_abs=1e-9)
    assert value == pytest.approx(optimum, rel=SDP_TOL, abs=SDP_TOL)


def test_two_sided_is_attained_where_the_inverse_is_singular():
    """mu = ||H22||: the residual's free block is 0 / 0 there."""
    d, e = np.eye(4)[:, :2], np.eye(4)[:2]
    for c in (np.diag([1.0, 2.0, 5.0, 3.0]), np.zeros((4, 4)), np.ones((4, 4)), np.eye(4)[::-1]):
        a, value = parrott(d, e, c)
        assert norm2(d @ a @ e - c) == pytest.approx(value, rel=1e-12, abs=1e-14)
    # Units of either side change A, not the minimum.
    rng = np.random.default_rng(0)
    d, e, c = (rng.standard_normal(s) for s in ((5, 2), (3, 6), (5, 6)))
    units = 10.0 ** np.array([-8, 8])
    value = parrott(d, e, c)[1]
    assert parrott(d * units, e, c)[1] == pytest.approx(value, rel=1e-12)
    with pytest.raises(ValueError, match="do not fit together"):
        parrott(d, e.T, c)


# Hard inputs


@st.composite
def hard_problems(draw):
    n, m, k = draw(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dx, df = rng.standard_normal((k, m)), rng.standard_normal((k, n))
    dx *= 10.0 ** rng.integers(-8, 9, m)
    if draw(st.booleans()):
        dx[draw(st.integers(0, k - 1))] = 0.0
    if draw(st.booleans()):
        dx[-1], df[-1] = dx[0], df[0]
    if draw(st.booleans()):
        dx[:, -1] = 2 * dx[:, 0]
    if draw(st.booleans()):
        dx[:, 0] = 0.0
    if draw(st.booleans()):
        df = dx @ rng.standard_normal((m, n))
    free = rng.random((n, m)) < draw(st.sampled_from([0.3, 0.7, 1.0]))
    return dx, df, free, rng


@settings(max_examples=150, deadline=None)
@given(hard_problems())
def test_hard_inputs_give_certified_answers(problem):
    """Scales 1e-8 beside 1e8, k < m, repeats, zero rows and columns, dependent columns."""
    dx, df, free, rng = problem
    got = Spectral(gap_tol=1e-3).solve(dx, df, constraints=Constraints(sparsity=free))
    scale = np.linalg.norm(dx, axis=0)
    scale[scale == 0] = 1.0
    # Residuals are differences of numbers as large as |J| |dx|, far above df where columns are
    # nearly dependent: each rounds to 5e-17 of that, and a few thousand add up on the way.
    largest = np.linalg.norm(np.abs(dx) @ np.abs(got.coef).T)
    size = 1e-12 * (1 + np.linalg.norm(df) + largest)
    assert np.isfinite(got.coef).all()
    assert not got.coef[~free].any()
    assert got.status in ("ok", "undetermined")
    lower, upper = got.info["lower"], got.info["upper"]
    assert upper == pytest.approx(norm2(df.T - got.coef @ dx.T), rel=1e-9, abs=size)
    assert lower <= upper
    assert upper - lower <= 1.001e-3 * upper + size
    # No other Jacobian of the set undercuts the lower bound: not least squares, row by row ...
    twin = np.zeros(free.shape)
    for i, row in enumerate(free):
        if row.any():
            twin[i, row] = np.linalg.lstsq(dx[:, row] / scale[row], df[:, i])[0] / scale[row]
    assert lower <= norm2(df.T - twin @ dx.T) + size
    # ... and none nearby.
    for step in 10.0 ** rng.uniform(-4, 0, 10):
        other = got.coef + step * rng.standard_normal(free.shape) * free / scale
        assert lower <= norm2(df.T - other @ dx.T) + size
    # inf exactly where some direction through the entry is unseen.
    stderr = got.cov.stderr()
    for i, row in enumerate(free):
        x = dx[:, row] / scale[row]
        for at, j in enumerate(np.flatnonzero(row)):
            # older NumPy has no rank for what is empty
            others = np.delete(x, at, 1)
            seen = np.linalg.matrix_rank(x) - (np.linalg.matrix_rank(others) if others.size else 0)
            assert np.isinf(stderr[i, j]) == (seen == 0)


@settings(max_examples=60, deadline=None)
@given(hard_problems())
def test_plain_form_certifies_hard_inputs(problem):
    dx, df, _, rng = problem
    got = Spectral().solve(dx, df)
    size = 1e-12 * (1 + np.linalg.norm(df))
    assert np.isfinite(got.coef).all()
    assert got.info["upper"] == pytest.approx(norm2(df.T - got.coef @ dx.T), rel=1e-9, abs=size)
    eps = 1.1 * got.info["upper"] + size
    bound = Spectral(spectral_bound=eps).solve(dx, df).info["consistent"].bound
    v = rng.standard_normal(df.shape[1])
    for i, row in enumerate(dx):  # along a sample J is known to within the noise: |e_i| <= 1
        assert bound(v, row) <= eps * np.linalg.norm(v) * (1 + 1e-9), i


def test_dependent_inputs_leave_the_others_alone():
    """The least-norm choice concerns dependent inputs; a tiny one beside them is determined."""
    rng = np.random.default_rng(33)
    seen, df = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    for units in ([1e8, 1e4, 1e-9], [1.0, 2.0, 3.0], [1e-8, 1.0, 1e8]):
        dx = np.column_stack([seen * units, 2 * seen[:, 0] * units[0]])
        got = ConsistentSet(dx, df, 9.0)
        exact = np.linalg.lstsq(seen, df)[0].T / units
        expected = np.column_stack([exact[:, 0] / 5, exact[:, 1:], 2 * exact[:, 0] / 5])
        # a (x1 + 2 x4) is told only: the least norm puts a fifth of it on x1, two on x4.
        np.testing.assert_allclose(got.center, expected, rtol=1e-12)
        rho = norm2(df - seen @ np.linalg.lstsq(seen, df)[0])
        assert got.optimum == pytest.approx(rho, rel=1e-12)
        assert Spectral().solve(dx, df).info["upper"] == pytest.approx(rho, rel=1e-12)


def test_rows_with_nan_are_dropped_whole():
    rng, dx, df = samples(30, 4, 3, 12)
    df[2, 1] = df[7, 3] = np.nan
    keep = np.isfinite(df).all(1)
    for c in (None, Constraints(sparsity=rng.random((4, 3)) < 0.6)):
        for intercept in (False, True):
            got = Spectral().solve(dx, df, constraints=c, intercept=intercept)
            expected = Spectral().solve(dx[keep], df[keep], constraints=c, intercept=intercept)
            # Two runs to a gap of 1e-4 that differ in rounding take the same steps.
            np.testing.assert_allclose(got.coef, expected.coef, atol=1e-8)
            assert got.info["upper"] == pytest.approx(expected.info["upper"], rel=1e-8)


X, Y = np.eye(3), np.eye(3)
SQUARE = np.array([[1.0, 2.0, np.nan]] * 3)


@pytest.mark.parametrize(
    "options, arguments, message",
    [
        ({"gap_tol": 0}, {}, "gap_tol"),
        ({"max_iter": 0}, {}, "max_iter"),
        ({"tie_break": 1e-3}, {}, "at least 1e-2"),
        ({"entry_bound": 1.0, "spectral_bound": 1.0}, {}, "not both"),
        ({}, {"weights": np.arange(9.0).reshape(3, 3)}, "cannot take weights per output"),
        ({}, {"weights": np.array([1.0, -1.0, 1.0])}, "not negative"),
        ({}, {"df": Y[:2]}, "one sample a row"),
        ({}, {"df": Y + np.nan}, "every sample failed"),
        ({}, {"df": Y + np.inf}, "every sample failed"),
        ({}, {"dx": X + np.nan}, "dx is not finite in sample 0"),
        ({}, {"constraints": Constraints(sparsity=np.ones((2, 3), bool))}, "has shape"),
        ({}, {"constraints": Constraints(known=SQUARE, symmetric=True)}, "contradict"),
        ({}, {"df": Y[:, :2], "constraints": Constraints(symmetric=True)}, "square"),
        ({}, {"jac0": np.tri(3), "constraints": Constraints(symmetric=True)}, "not symmetric"),
        ({}, {"dx": X[None], "df": Y[None], "constraints": Constraints(SQUARE > 0)}, "one problem"),
        ({"entry_bound": 1.0}, {"dx": X[None], "df": Y[None]}, "one problem"),
    ],
)
def test_refusals_say_what_to_do(options, arguments, message):
    with pytest.raises(ValueError, match=message):
        Spectral(**options).solve(**({"dx": X, "df": Y} | arguments))


def test_symmetric_with_a_large_pattern_is_refused():
    free = ~np.eye(64, dtype=bool)
    with pytest.raises(ValueError, match="2016 unknown entries"):
        Spectral().solve(np.eye(64), np.eye(64), constraints=Constraints(free, symmetric=True))


def test_the_certificate_is_that_of_the_jacobian():
    rng, dx, df = samples(31, 3, 3, 6)
    for pattern in (rng.random((3, 3)) < 0.5, None):
        found = Spectral().solve(dx, df, constraints=Constraints(sparsity=pattern))
        upper = pytest.approx(norm2(df.T - found.coef @ dx.T), rel=1e-12)
        assert found.info["lower"] <= found.info["upper"] == upper


@pytest.mark.parametrize("size", [1e-140, 1e140])
def test_units_of_y_do_not_matter(size):
    """Sums of squares of squares of these numbers leave the range of floats."""
    rng, dx, df = samples(32, 4, 4, 8)
    pattern = Constraints(sparsity=rng.random((4, 4)) < 0.6)
    want = Spectral().solve(dx, df, constraints=pattern)
    got = Spectral().solve(dx, df * size, constraints=pattern)
    np.testing.assert_allclose(got.coef, want.coef * size, rtol=1e-6, atol=1e-9 * size)
    for bound in ("lower", "upper"):
        assert got.info[bound] == pytest.approx(want.info[bound] * size, rel=1e-6)
