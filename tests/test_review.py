"""Small traps, each of which gave a wrong number once."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import (
    EvaluationError,
    GradiatorWarning,
    JacobianEstimator,
    jacobian,
    jvp,
    linearize,
    prepare,
    vjp,
)

X = np.array([1.0, 2.0, 3.0])


def fun(x):
    return np.array([x[0] * x[1], x[2] ** 2])


EXACT = np.array([[2.0, 1, 0], [0, 0, 6]])
# Central differences of polynomials of degree 2: rounding, eps f / h with h = 6e-6 |x|.
TOL = 1e-9


# -- order of things ---------------------------------------------------------------------------


def test_ids_in_any_order_where_y_is_known():
    est = JacobianEstimator(X, y=fun(X), method="3-point")
    ids, points = est.ask()
    order = [3, 0, 5, 1, 4, 2]
    est.tell([fun(points[i]) for i in order], ids=ids[order])
    assert_array_equal(est.estimate().jac, jacobian(fun, X, method="3-point").jac)


def test_keys_of_outputs_in_any_order():
    calls = []

    def named(x):
        calls.append(1)
        out = {"p": x[0] ** 2, "q": x[1] ** 3}
        return out if len(calls) % 2 else dict(reversed(out.items()))

    for f0 in (None, {"q": 8.0, "p": 1.0}):
        jac = jacobian(named, [1.0, 2.0], method="3-point", f0=f0).jac
        assert_allclose(jac["p"], [2, 0], atol=TOL)
        assert_allclose(jac["q"], [0, 12], atol=TOL)
    est = JacobianEstimator([1.0, 2.0], method="3-point")
    ids, points = est.ask()
    est.tell([named(p) for p in points], ids=ids)
    assert_allclose(est.estimate().jac["q"], [0, 12], atol=TOL)


def test_prepared_for_a_dict():
    prepared = prepare(lambda d: d["a"] * d["b"] ** 2, {"a": 1.0, "b": 3.0}, method="3-point")
    jac = prepared({"b": 3.0, "a": 1.0}).jac
    assert_allclose((jac["a"], jac["b"]), (9.0, 6.0), atol=10 * TOL)
    for other in ({"a": 1.0, "c": 3.0}, {"a": 1.0, "b": np.ones(2)}, np.ones(2)):
        with pytest.raises(ValueError, match="was prepared for"):
            prepared(other)


# -- arrays that the caller changes later ------------------------------------------------------


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
    _, points = est.ask()
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


# -- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_failing_output_spoils_only_cotangents_that_weigh_it(vectorized):
    def half(x):
        failed = np.where(x[..., 1] == 2.0, 1.0, np.nan)
        return np.stack([x[..., 0] * x[..., 1], failed], axis=-1)

    with pytest.warns(GradiatorWarning):
        product = vjp(half, X, [[1.0, 0], [0, 1], [2, 0]], method="3-point", vectorized=vectorized)
    assert_allclose(product.value[[0, 2]], [[2, 1, 0], [4, 2, 0]], atol=TOL)
    assert np.isinf(product.stderr[1, 1])
    assert not np.isinf(product.stderr[[0, 2]]).any()
