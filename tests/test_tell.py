"""What is told: in any order, refused as a whole, reached elsewhere."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import JacobianEstimator, jacobian

X = np.array([1.0, 2.0, 3.0])


def fun(x):
    return np.array([x[0] * x[1], x[2] ** 2])


EXACT = np.array([[2.0, 1, 0], [0, 0, 6]])
# Central differences of polynomials of degree 2: rounding, eps f / h with h = 6e-6 |x|.
TOL = 1e-9


def test_ids_in_any_order_where_y_is_known():
    est = JacobianEstimator(X, f0=fun(X), method="3-point")
    points, ids = est.ask()
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
    points, ids = est.ask()
    est.tell([named(p) for p in points], ids=ids)
    assert_allclose(est.estimate().jac["q"], [0, 12], atol=TOL)


def test_a_tell_that_is_refused_leaves_nothing_behind():
    est = JacobianEstimator(X, method="2-point")
    with pytest.raises(ValueError, match="call ask"):
        est.tell([fun(X)])
    points, ids = est.ask()
    good = [fun(p) for p in points]
    for outputs, options, error, words in (
        (3.0, {}, ValueError, "0 outputs for 4 ids"),
        ({"a": [1.0, 2.0]}, {}, ValueError, "2 outputs for 4 ids"),
        ({"a": np.ones(5)}, {}, ValueError, "5 outputs for 4 ids"),
        ([[1.0]] * 3 + ["a"], {}, TypeError, "must be numbers"),
        ([[1.0]] * 3 + [[1j]], {}, TypeError, "id 3 is complex"),
        (good[:1], {"ids": [1.7]}, TypeError, "whole numbers"),
        (good, {"errors": {7: "broke"}}, ValueError, "names ids"),
        (good, {"points": points + 0.1}, ValueError, "x itself was missed"),
        (good, {"points": points + 1j}, TypeError, "must be real"),
    ):
        with pytest.raises(error, match=words):
            est.tell(outputs, **{"ids": ids} | options)
    est.tell(good, ids=ids)
    assert_array_equal(est.estimate().jac, jacobian(fun, X, method="2-point").jac)
    assert est.estimate().nfev == 4
    assert est.estimate().n_failed == 0


def test_an_error_wins_over_its_output():
    est = JacobianEstimator(X, method="2-point", on_error="drop")
    points, ids = est.ask()
    est.tell([fun(p) for p in points], ids=ids, errors={2: "valve stuck"})
    estimate = est.estimate()
    assert estimate.n_failed == 1
    assert np.isinf(estimate.stderr[:, 1]).all()
    partly = JacobianEstimator(X, method="2-point")
    partly.tell([[1.0, np.nan]] + [fun(p) for p in points[1:]], ids=partly.ask()[1])
    assert partly.n_failed == 1


def test_a_rig_that_reaches_one_place_twice():
    est = JacobianEstimator(X, method="5-point")
    points, ids = est.ask()
    reached = points.copy()
    for i in ids[-3:]:  # the far points of all lines, to the near ones
        near = [k for k in ids[1:4] if (points[k] != X).tolist() == (points[i] != X).tolist()]
        reached[i] = points[near[0]]
    est.tell([fun(p) for p in reached], ids=ids, points=reached)
    # The rest of each line: three points, exact for these polynomials.
    assert_allclose(est.estimate().jac, EXACT, atol=TOL)
