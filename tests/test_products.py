"""Products at corners of bounds, along complex, vanishing and endless directions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import GradiatorWarning, jvp, linearize, vjp

X = np.array([1.0, 2.0, 3.0])


def fun(x):
    return np.array([x[0] * x[1], x[2] ** 2])


# Central differences of polynomials of degree 2: rounding, eps f / h with h = 6e-6 |x|.
TOL = 1e-9
EPS = np.finfo(float).eps


@pytest.mark.parametrize("how", [{}, {"vectorized": True}, {"workers": map}])
def test_complex_cotangents_of_a_real_function(how):
    v = np.array([1.0, 1j, 2 - 1j])
    product = vjp(lambda x: x**2, X, v, method="3-point", **how)
    assert_allclose(product.value, 2 * X * v, atol=TOL)
    with pytest.raises(TypeError, match="imaginary"):
        vjp(lambda x: x**2, X, v, method="cs")


def test_directions_must_be_finite():
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="u must be finite"):
            jvp(fun, X, [bad, 1, 1])
        with pytest.raises(ValueError, match="v must be finite"):
            vjp(fun, X, [1.0, bad])


def test_a_product_that_bounds_forbid_is_no_silent_zero():
    lin = linearize(
        lambda x: x**2, [0.5, 0.5], bounds=([0.5, 0], [1, 0.5]), method="2-point"
    )[1]  # fmt: skip
    with pytest.raises(ValueError, match="corner"):
        lin.jvp([1.0, 1.0])
    assert_allclose(lin.jvp([1.0, -1.0]), [1, -1], atol=1e-6)
    fixed = linearize(lambda x: x**2, [0.5, 0.5], bounds=([0.5, 0], [0.5, 1]), method="3-point")[1]
    with pytest.warns(GradiatorWarning, match="fixed"):
        assert_array_equal(fixed.jvp([1.0, 1.0]), 0)
    assert_allclose(fixed.jvp([0.0, 1.0]), [0, 1], atol=TOL)


def test_a_tangent_that_nearly_vanishes():
    assert_allclose(jvp(fun, X, np.full(3, 1e-313), method="3-point").value, 0, atol=1e-311)


def test_the_complex_step_has_no_corners():
    value = jvp(np.sin, X, [1.0, 0, 1], method="cs", bounds=(1, 3)).value
    assert_allclose(value, np.cos(X) * [1, 0, 1], rtol=4 * EPS)
