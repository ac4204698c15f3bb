"""The result type: guaranteed bounds, solvers behind jacobian, summaries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import JacobianEstimator, jacobian
from gradiator_np.covariance import Covariance
from gradiator_np.fit import fit_jacobian, fit_points
from gradiator_np.solvers import Huber, Pinv

X = np.array([0.8, -1.2, 2.0])
A = np.arange(12.0).reshape(4, 3) - 5
ROOM = np.array([1.0, 0.0, 1.0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), base=st.sampled_from(["own", "shared", "exact", "points"]))
def test_bounds_hold_under_the_worst_of_bounded_noise(seed, base):
    rng = np.random.default_rng(seed)
    k, e = 12, 1e-2
    dx = rng.standard_normal((k, 3))
    # Errors at their bound, all signs at random: no distribution is assumed.
    errors = e * rng.choice([-1.0, 1.0], (k, 4))
    shared = e * rng.choice([-1.0, 1.0], 4)
    truth = rng.standard_normal((4, 3))
    if base == "points":
        estimate = fit_points(X + dx, dx @ truth.T + errors, x=X, solver="pinv")
    else:
        df = dx @ truth.T + errors
        if base == "own":
            df -= e * rng.choice([-1.0, 1.0], (k, 4))
        elif base == "shared":
            df -= shared
        estimate = fit_jacobian(dx, df, base=base)
    v, u = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    bound = estimate.bound(v, u, entry_bound=e)
    off = np.abs(np.einsum("pn,nm,pm->p", v, truth - estimate.jac, u))
    assert (off <= bound * (1 + 1e-12)).all()
    distance = np.linalg.norm(truth - estimate.jac, 2)
    assert distance <= estimate.consistent(entry_bound=e).radius * (1 + 1e-12)


def test_bounds_of_a_jacobian_from_a_function():
    rng = np.random.default_rng(0)
    e = 1e-3
    estimate = jacobian(
        lambda x: A @ x + e * rng.uniform(-1, 1, 4), X, method="3-point", abs_step=0.5
    )
    v, u = rng.standard_normal(4), rng.standard_normal(3)
    bound = estimate.bound(v, u, entry_bound=e)
    assert abs(v @ (estimate.jac - A) @ u) <= bound < 1.0
    with pytest.raises(ValueError, match="consistent"):
        estimate.bound(v, u, entry_bound=1e-9)
    with pytest.raises(ValueError, match="one of the two"):
        estimate.bound(v, u)
    fixed = jacobian(lambda x: A @ x, X, method="3-point", bounds=(X - ROOM, X + ROOM))
    assert fixed.bound(v, [0, 1.0, 0], entry_bound=1e-3) == np.inf
    assert fixed.bound(v, [1.0, 0, 0], entry_bound=1e-3) < np.inf


@pytest.mark.parametrize("solver", ["pinv", "huber", "spectral", "rank-one", "taylor", Pinv()])
def test_solvers_behind_jacobian(solver):
    def fun(x):
        return np.tanh(A @ x / 20)

    exact = (1 - np.tanh(A @ X / 20) ** 2)[:, None] * A / 20
    estimate = jacobian(fun, X, method="3-point", rel_step=1e-3, solver=solver)
    # Central pairs cancel curvature of even order; the third: h^2 f'''/6 with h = 2e-3.
    assert_allclose(estimate.jac, exact, atol=1e-6)
    assert estimate.nfev == 7
    assert np.isfinite(estimate.stderr).all()
    batch = jacobian(
        lambda z: np.tanh(z @ A.T / 20), np.stack([X, X + 1]), method="3-point", rel_step=1e-3,
        batch_dims=1, solver=solver,
    )  # fmt: skip
    assert_allclose(batch.jac[0], exact, atol=1e-6)


def test_a_prior_jacobian_fills_what_was_not_sampled():
    estimate = jacobian(
        lambda x: A @ x, X, method="2-point", bounds=(X - ROOM, X + ROOM),
        solver="pinv", jac0=np.full((4, 3), 7.0),
    )  # fmt: skip
    assert_allclose(estimate.jac[:, 1], 7.0)
    assert np.isinf(estimate.stderr[:, 1]).all()
    # Values of size 20 over a step of 1e-8.
    assert_allclose(estimate.jac[:, [0, 2]], A[:, [0, 2]], atol=1e-6)
    with pytest.raises(ValueError, match="prior of a solver"):
        jacobian(lambda x: A @ x, X, jac0=A)
    with pytest.raises(ValueError, match="unknown"):
        jacobian(lambda x: A @ x, X, solver="magic")


def test_outliers_are_left_to_huber():
    def fun(x):
        y = A @ x
        if (x[0] - X[0]) > 0.1:
            y[2] += 100.0
        return y

    options = {"method": "9-point", "abs_step": 0.1, "noise": None}
    plain = jacobian(fun, X, solver="pinv", **options)
    robust = jacobian(fun, X, solver=Huber(), **options)
    assert np.abs(robust.jac - A)[2].max() < 0.5 * np.abs(plain.jac - A)[2].max()


def test_covariance_rules():
    """jvp, vjp and entries from one covariance agree with the matrix written out."""
    rng = np.random.default_rng(1)
    scale, diag, factor = rng.uniform(1, 2, 4), rng.uniform(1, 2, 3), rng.standard_normal((3, 2))
    extra = rng.uniform(0, 1, (4, 3))
    cov = Covariance(scale, diag, factor, extra)
    rows = [s**2 * (np.diag(diag) + factor @ factor.T) + np.diag(x) for s, x in zip(scale, extra)]
    u, v = rng.standard_normal(3), rng.standard_normal(4)
    assert_allclose(cov.variance(), [np.diag(r) for r in rows])
    assert_allclose(cov.jvp_variance(u), [u @ r @ u for r in rows])
    assert_allclose(cov.vjp_variance(v), sum(a**2 * np.diag(r) for a, r in zip(v, rows)))
    assert_allclose(cov.product_variance(v, u), sum(a**2 * u @ r @ u for a, r in zip(v, rows)))
    several = rng.standard_normal((5, 3))
    assert_allclose(cov.jvp_variance(several), [[w @ r @ w for r in rows] for w in several])
    assert_allclose(Covariance(scale, None, factor).jvp_variance(u),
                    scale**2 * np.square(factor.T @ u).sum())  # fmt: skip
    lost = Covariance(scale, diag, factor, lost=np.eye(4, 3, dtype=bool))
    assert_array_equal(np.isinf(lost.variance()), np.eye(4, 3, dtype=bool))
    assert_array_equal(np.isinf(lost.jvp_variance(np.array([0, 1.0, 0]))), [0, 1, 0, 0])
    # An output that takes no part does not spoil the product.
    assert np.isfinite(lost.vjp_variance(np.array([0, 0, 0, 1.0]))).all()


def test_summaries_name_what_they_show():
    estimate = jacobian(lambda p: {"speed": p["a"] * p["b"]}, {"a": 1.0, "b": np.ones(2)},
                        method="5-point")  # fmt: skip
    text = str(estimate)
    assert "y.speed[1]" in text
    assert "x.b[0]" in text
    assert "13 evaluations" in text
    large = jacobian(lambda x: np.outer(x, x), np.ones(30), method="2-point")
    assert len(str(large).splitlines()) == 2


def test_an_estimate_does_not_change_when_more_is_told():
    est = JacobianEstimator(X, y=A @ X, method="2-point")
    ids, points = est.ask()
    est.tell(points[:1] @ A.T, ids=ids[:1])
    early = est.estimate()
    est.tell(points[1:] @ A.T, ids=ids[1:])
    assert len(early.samples) == early.n_samples == 2
    assert len(est.estimate().samples) == 4


def test_products_of_stacks_equal_the_loop():
    rng = np.random.default_rng(3)
    dx, df = rng.standard_normal((2, 5, 9, 3)), rng.standard_normal((2, 5, 9, 4))
    estimate = fit_jacobian(dx, df)
    u, v = rng.standard_normal((7, 2, 5, 3)), rng.standard_normal((2, 5, 4))
    # Sums of at most four products of size 10.
    assert_allclose(estimate.jvp(u), np.einsum("abnm,pabm->pabn", estimate.jac, u), atol=1e-13)
    assert_allclose(estimate.vjp(v), np.einsum("abnm,abn->abm", estimate.jac, v), atol=1e-13)
    assert estimate.vjp_stderr(v).shape == (2, 5, 3)
