"""Values and points of less than double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from gradiator_np import JacobianEstimator, jacobian, jvp, vjp

X = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.complex64])
@pytest.mark.parametrize("vectorized", [False, True])
def test_coarse_values_get_coarse_steps(dtype, vectorized):
    def coarse(x):
        return (x**2).astype(dtype)

    def named(x):
        return {"coarse": coarse(x), "fine": x**2}

    # sqrt(eps) relative steps and values, and as much curvature.
    tol = 8 * np.sqrt(np.finfo(dtype).eps)
    how = {"method": "2-point", "vectorized": vectorized}
    assert_allclose(jacobian(coarse, X, **how).jac, np.diag(2 * X), atol=3 * tol)
    assert_allclose(jacobian(named, X, **how).jac["coarse"], np.diag(2 * X), atol=3 * tol)
    assert_allclose(vjp(coarse, X, np.ones(3), **how).value, 2 * X, atol=3 * tol)
    assert_allclose(jvp(coarse, X, np.ones(3), **how).value, 2 * X, atol=3 * tol)


def test_coarse_values_that_are_told():
    est = JacobianEstimator(X, f0=(X**2).astype(np.float32), method="2-point")
    points, _ = est.ask()
    est.tell((points**2).astype(np.float32))
    assert est.estimate().solution.coef.dtype == np.float64
    assert_allclose(est.estimate().jac, np.diag(2 * X), atol=0.02)


@settings(max_examples=60, deadline=None)
@given(
    room=st.lists(st.floats(-7, -2), min_size=4, max_size=4),
    method=st.sampled_from(["2-point", "3-point", "5-point"]),
)
def test_float32_points_stay_within_float64_bounds(room, method):
    """A point that is rounded to float32 must not leave a bound that is no float32 number."""
    x = np.array([0.3, -0.7], np.float32)
    lower, upper = x - 10.0 ** np.array(room[:2]), x + 10.0 ** np.array(room[2:])

    def guarded(z):
        assert z.dtype == np.float32
        assert (z.astype(float) >= lower).all()
        assert (z.astype(float) <= upper).all()
        return z**2

    estimate = jacobian(guarded, x, method=method, bounds=(lower, upper), on_error="raise")
    assert np.isfinite(estimate.jac).all()
    for u in ([1.0, 1], [-1, 2]):
        try:
            jvp(guarded, x, u, method=method, bounds=(lower, upper), on_error="raise")
        except ValueError as exc:
            if "rounds to nothing" not in str(exc):  # a room of an ulp leaves no step: told
                raise
