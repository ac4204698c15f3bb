"""The compiled stencil against the same rule in NumPy."""

import numpy as np
import pytest
from numba import njit

from gradiator_np._calls import is_jitted
from gradiator_np.designs._finite_difference.stencil import RULES, default_step
from gradiator_np.designs._finite_difference.weights import solve_lines
from gradiator_np.kernels.stencil import stencil, stencil_driver

pytestmark = pytest.mark.kernel
EPS = np.finfo(float).eps


@njit
def coupled(x, scale):
    return np.array([scale * np.exp(x[0]) * x[1], x[2] ** 3 - x[0], x[1] * x[2], 1.0])


@njit
def fragile(x):
    if x[1] < 2.0:
        raise ValueError("below two")
    return x * x


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_equals_the_numpy_stencil_bit_for_bit(rule):
    """Same steps, same points, and the same arithmetic in the same order."""
    x, multiples, p = np.array([0.7, -3.0, 1e-14]), np.array(rule.points), len(rule.points)
    relative = rule.relative_step(EPS)
    y = coupled(x, 2.0)
    done = stencil(coupled, x, y, multiples, relative, (2.0,))
    steps = default_step(x, np.abs(x), relative)
    t = (x + multiples[:, None] * steps) - x
    points = np.repeat(x[None], p * 3, axis=0)
    points[np.arange(p * 3), np.tile(np.arange(3), p)] += (multiples[:, None] * steps).ravel()
    values = np.array([coupled(point, 2.0) for point in points])
    coef = solve_lines(t[:, :, None], values.reshape(p, 3, 1, 4), y[None])[0][0]
    np.testing.assert_array_equal(done.steps, steps)
    np.testing.assert_array_equal(done.values, values)
    np.testing.assert_array_equal(done.coef, coef)
    assert not done.errors


def test_a_failed_run_costs_no_other():
    x = np.array([1.0, 2.0])
    done = stencil(fragile, x, x * x, np.array([1, -1]), 2.0**-10)
    assert list(done.errors) == [3]  # the backward step of the second input
    assert np.isnan(done.coef).all()
    np.testing.assert_array_equal(
        done.values[:3, 0], [(1 + 2.0**-10) ** 2, 1.0, (1 - 2.0**-10) ** 2]
    )
    assert np.isnan(done.values[3]).all()


def test_a_change_of_shape_is_an_error_of_that_run():
    @njit
    def shrinking(x):
        return x[:1].copy() if x[0] > 1.0 else x.copy()

    x = np.array([1.0, 1.0])
    done = stencil(shrinking, x, x.copy(), np.array([1]), 2.0**-10)
    assert list(done.errors) == [0]
    assert "shape (2,)" in str(done.errors[0])


@pytest.mark.skipif(not is_jitted(fragile), reason="nothing is compiled")
def test_strided_and_read_only_points_compile_nothing_new():
    x = np.array([1.0, 3.0])
    frozen = x.copy()
    frozen.flags.writeable = False
    strided = np.repeat(x, 2)[::2]
    expected = stencil(fragile, x, x * x, np.array([1]), 2.0**-10).coef
    for other in (frozen, strided):
        coef = stencil(fragile, other, x * x, np.array([1]), 2.0**-10).coef
        np.testing.assert_array_equal(coef, expected)
    assert len(stencil_driver(fragile).signatures) == 1
