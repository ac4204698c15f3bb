"""Arrays of the caller's: they may change after a call."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import JacobianEstimator, gradiator, jacobian, linearize

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


class Simulator:
    """Returns the same arrays each time, with new numbers in them, as compiled codes do."""

    def __init__(self):
        self.y, self.product = np.zeros(3), np.zeros(3)

    def run(self, x):
        self.y[:] = np.sin(x)
        return self.y

    def diagonal(self, x, direction):
        self.product[:] = np.cos(x) * direction
        return self.product


@pytest.mark.parametrize("given", ["grad_fun", "jvp_fun"])
@pytest.mark.parametrize("batch", [False, True])
def test_derivatives_may_use_a_buffer_again(given, batch):
    s = Simulator()
    f = gradiator(s.run, **{given: s.diagonal})
    if batch:
        f, x = f.batched((0,)), np.stack([X, 2 * X])
        want = np.cos(x)[..., None] * np.eye(3)
    else:
        x, want = X, np.diag(np.cos(X))
    point = f.linearize(x)
    assert_array_equal(f.jacobian(x), want)
    rows = np.eye(3) if not batch else np.eye(3)[:, None] * np.ones((2, 1))
    product = point.pullback if given == "grad_fun" else point.pushforward
    assert_array_equal(product(rows), np.moveaxis(want, -2, 0))
    s.run(0 * X)
    assert_array_equal(point.value, np.sin(x))
