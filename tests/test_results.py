"""The result type: guaranteed bounds, solvers behind jacobian, summaries."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import GradiatorWarning, JacobianEstimator, designs, gradient, jacobian, vjp
from gradiator_np._covariance import Covariance
from gradiator_np._fit import fit_jacobian, fit_points
from gradiator_np.solvers import Huber, Pinv
from gradiator_np.solvers._registry import ROWS, Capability

X = np.array([0.8, -1.2, 2.0])
WITH_VALUE = [row.name for row in ROWS if Capability.INTERCEPT in row.capabilities]
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


@pytest.mark.parametrize("solver", [*WITH_VALUE, Pinv()])
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


STEEP = np.array([1.3, -20.0, 0.004])


def steep(x):
    """Inputs and outputs of sizes far apart."""
    return np.array([np.sin(x[0]) * x[1] + 500 * x[2], 1e-3 * np.exp(x[1] / 20), 1e4 * x[2] * x[0]])


STEEP_JAC = np.array([
    [np.cos(1.3) * -20, np.sin(1.3), 500], [0, 5e-5 * np.exp(-1), 0], [40, 0, 1.3e4]
])  # fmt: skip
STEPS = {
    "2-point": "2-point", "3-point": "3-point", "5-point": "5-point", "9-point": "9-point",
    "hadamard": designs.Hadamard(), "pairs": designs.Pairs(), "simplex": designs.Simplex(),
    "wide": designs.Pairs(step=0.03 * np.abs(STEEP)),
}  # fmt: skip


@pytest.mark.parametrize("method", STEPS)
@pytest.mark.parametrize("solver", [*WITH_VALUE, Pinv(ridge=1e-6), Pinv(ridge=1.0)])
def test_a_solver_behind_any_design_is_right_or_says_that_it_is_not(method, solver):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradiatorWarning)
        e = jacobian(steep, STEEP, method=STEPS[method], solver=solver)
    size = np.abs(STEEP)
    row = np.linalg.norm(STEEP_JAC * size, axis=1, keepdims=True)
    off = np.abs(e.jac - STEEP_JAC) * size
    covered = off <= 5 * np.nan_to_num(e.stderr) * size + 2e-4 * row
    assert covered.all() or e.status == "lack_of_fit"
    if getattr(solver, "ridge", 0) == 1e-6 and method in ("2-point", "3-point", "pairs"):
        assert e.status == "ok"
        assert (off < 1e-5 * row).all()


def test_what_a_ridge_takes_away_is_told():
    """Eight points a line: bars of the ridge are narrow beside what it shrinks."""
    with pytest.warns(GradiatorWarning, match="contradicts the method's own weights.*weaker ridge"):
        e = jacobian(lambda x: A @ x, X, method="9-point", solver=Pinv(ridge=1.0))
    assert e.status == "lack_of_fit"
    assert jacobian(lambda x: A @ x, X, method="9-point", solver=Pinv(ridge=1e-9)).status == "ok"
    near = jacobian(lambda x: A @ x, X, method="3-point", solver=Pinv(ridge=1.0), jac0=A)
    assert_allclose(near.jac, A, rtol=1e-6)


def test_a_solver_says_what_the_design_says_of_steps_that_do_not_show():
    with pytest.warns(GradiatorWarning, match="no output changes at all"):
        jacobian(lambda x: np.round(A @ x), X, method="3-point", solver="pinv")
    with pytest.warns(GradiatorWarning, match="x_scale"):
        jacobian(lambda x: x[:1] + x[1:], [1e-13, 1.0], method="3-point", solver="pinv")


@pytest.mark.parametrize("solver", ["pinv", "spectral", "taylor", Pinv(ridge=1e-6)])
def test_the_default_has_no_samples_for_a_solver(solver):
    for call in (jacobian, gradient):
        with pytest.raises(ValueError, match=r"method='3-point' with solver="):
            call(lambda x: x @ x, X, solver=solver)
    assert jacobian(lambda x: x @ x, X, solver=solver, rel_step=1e-4).status == "ok"


def test_a_covariance_in_other_units_is_that_of_other_inputs():
    rng = np.random.default_rng(2)
    unit, u = rng.uniform(1e-3, 1e3, 3), rng.standard_normal(3)
    null = np.array([[0.0], [0.0], [1.0]])
    cov = Covariance(
        rng.uniform(1, 2, 4), rng.uniform(1, 2, 3), rng.standard_normal((3, 2)),
        rng.uniform(0, 1, (4, 3)),
    )  # fmt: skip
    assert_allclose(cov.in_units(unit).stderr(), cov.stderr() / unit)
    assert_allclose(cov.in_units(unit).jvp_variance(u), cov.jvp_variance(u / unit))
    open_ended = Covariance(cov.scale, cov.diag, null=null).in_units(unit)
    assert np.isinf(open_ended.stderr()).tolist() == [[False, False, True]] * 4


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
    several = rng.standard_normal((5, 3))
    assert_allclose(cov.jvp_variance(several), [[w @ r @ w for r in rows] for w in several])
    assert_allclose(Covariance(scale, None, factor).jvp_variance(u),
                    scale**2 * np.square(factor.T @ u).sum())  # fmt: skip
    lost = Covariance(scale, diag, factor, lost=np.eye(4, 3, dtype=bool))
    assert_array_equal(np.isinf(lost.variance()), np.eye(4, 3, dtype=bool))
    assert_array_equal(np.isinf(lost.jvp_variance(np.array([0, 1.0, 0]))), [0, 1, 0, 0])
    # An output that takes no part does not spoil the product.
    assert np.isfinite(lost.vjp_variance(np.array([0, 0, 0, 1.0]))).all()


@pytest.mark.parametrize("per_output", [False, True])
def test_the_three_forms_of_what_is_undetermined_agree(per_output):
    """One lost input as a null vector, as a mask, and as the span of the others."""
    unit = np.array([1.0, 1e3, 1e-3])
    null = (unit * [1.0, 0.0, 0.0])[:, None]
    rest = np.eye(3)[:, 1:]
    one = Covariance(
        np.ones(2), null=np.stack([null, null]) if per_output else null, per_output=per_output
    )
    for other in (
        Covariance(np.ones(2), lost=np.array([[True, False, False]])),
        Covariance(np.ones(2), span=rest, unit=unit),
    ):
        for u in np.eye(3):
            assert_array_equal(
                np.broadcast_to(one.undetermined_along(u[None]), 2),
                np.broadcast_to(other.undetermined_along(u[None]), 2),
            )
        assert_array_equal(*np.broadcast_arrays(one.undetermined(), other.undetermined()))
        assert not other.complete


def test_what_no_batch_can_hold_is_refused():
    solution = Pinv().solve(np.eye(2), np.eye(2))
    whole = replace(solution, info={"iterations": 3, "gap": np.zeros(())})
    assert whole.map(lambda a: a[None]).info["gap"].shape == (1,)
    with pytest.raises(TypeError, match="gap is a float, which no batch can hold"):
        replace(solution, info={"gap": 0.5}).map(lambda a: a[None])


def test_a_function_of_one_output_has_a_gradient():
    for fun in (lambda x: x[0] * x[1], lambda x: [x[0] * x[1]]):
        estimate = jacobian(fun, [2.0, 3.0], method="3-point")
        assert_allclose(estimate.grad, [3.0, 2.0], atol=1e-9)
    batch = gradient(lambda x: (x**2).sum(-1), np.ones((4, 2)), batch_dims=1, method="3-point")
    assert_allclose(batch.grad, np.full((4, 2), 2.0), atol=1e-9)
    named = gradient(lambda p: p["a"] * 3.0, {"a": 1.0}, method="3-point")
    assert_allclose(named.grad["a"], 3.0, atol=1e-9)
    with pytest.raises(AttributeError, match="only a function with one output has a gradient"):
        _ = jacobian(np.sin, [1.0, 2.0], method="3-point").grad


def test_success_says_whether_the_status_is_one():
    good = jacobian(np.sin, [1.0, 2.0])
    assert good.success
    assert good.status.success
    with pytest.warns(GradiatorWarning, match="lack_of_fit"):
        bad = vjp(np.abs, [0.0], [1.0])
    assert not bad.success


def test_intervals_have_two_named_ends():
    estimate = jacobian(np.sin, [1.0, 2.0], method="3-point", noise=1e-3)
    interval = estimate.confidence_interval(confidence_level=0.9)
    low, high = interval
    assert interval.low is low
    assert interval.high is high
    assert_allclose((high - low) / 2, 1.6448536269514722 * estimate.stderr, rtol=1e-12)


def test_an_estimate_is_not_lost_where_warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradiatorWarning)
        with pytest.raises(GradiatorWarning) as caught:
            jacobian(np.abs, [0.0])
    assert caught.value.estimate.status == "lack_of_fit"
    assert len(caught.value.estimate.samples) == caught.value.estimate.nfev


def test_summaries_name_what_they_show():
    estimate = jacobian(lambda p: {"speed": p["a"] * p["b"]}, {"a": 1.0, "b": np.ones(2)},
                        method="5-point")  # fmt: skip
    text = str(estimate)
    assert "y.speed[1]" in text
    assert "x.b[0]" in text
    assert "13 evaluations" in text
    large = jacobian(lambda x: np.outer(x, x), np.ones(30), method="2-point")
    told = str(large).splitlines()
    assert "|J| = 43.1" in told[1]  # sqrt(1860): 1740 ones, 30 twos
    assert "all entries: .jac" in told[-2]
    assert len(told) == 14


def test_an_estimate_does_not_change_when_more_is_told():
    est = JacobianEstimator(X, f0=A @ X, method="2-point")
    points, ids = est.ask()
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
