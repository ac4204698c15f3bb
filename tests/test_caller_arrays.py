"""Arrays of the caller's: they may change after a call."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import JacobianEstimator, jacobian, linearize

X = np.array([1.0, 2.0, 3.0])


def fun(x):
    return np.array([x[0] * x[1], x[2] ** 2])


EXACT = np.array([[2.0, 1, 0], [0, 0, 6]])


@pytest.mark.parametrize("options", [{}, {"bounds": (0, 9)}])
def test_the_caller_may_change_x_and_y_later(options):
    x = X.copy()
    late = jacobian(fun, x, method="5-point", **options)
    x += 5  # an optimiser's step, in place
    late.y[:] = 0
    late.x[:] = 0
    early = jacobian(fun, X, method="5-point", **options)
    assert_array_equal(late.stderr, early.stderr)
    assert_array_equal(late.x, X)
    assert_array_equal(late.samples.points, early.samples.points)
    x = X.copy()
    est = JacobianEstimator(x, method="3-point")
    points, _ = est.ask()
    x += 5
    est.tell([fun(p) for p in points])
    assert_array_equal(est.estimate().x, X)


def test_a_residual_in_place_does_not_spoil_the_linearization():
    x = X.copy()
    y, lin = linearize(fun, x, method="2-point")
    y -= 100
    x += 5
    assert_allclose(lin.jvp([1.0, 0, 0]), EXACT[:, 0], atol=1e-6)
    assert_allclose(lin.vjp([1.0, 0.0]), EXACT[0], atol=1e-6)
