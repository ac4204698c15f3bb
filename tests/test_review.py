"""Small traps, each of which gave a wrong number once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
EPS = np.finfo(float).eps


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


def test_a_failure_where_an_input_is_fixed_at_one_point_of_the_batch():
    x = np.array([[1.0, 2.0], [1.0, 2.0]])
    lower, upper = np.array([[1.0, -9], [-9, -9]]), np.array([[1.0, 9], [9, 9]])

    def fails(z):
        if (z[1, 0] != 1.0).any():
            raise ValueError("stiff")
        return z**2

    with pytest.warns(GradiatorWarning):
        estimate = jacobian(fails, x, method="3-point", bounds=(lower, upper), batch_dims=1)
    assert np.isinf(estimate.stderr[:, :, 0]).all()
    assert_allclose(estimate.jac[:, 1, 1], 4, atol=10 * TOL)


def test_what_ran_already_may_fill_several_parts():
    """Values of 8 MiB: points are handed over eight at a time, ten have been run."""
    calls = []

    def big(x):
        calls.append(1)
        if x[9] > 1:
            raise ValueError("stiff")
        return np.full(2**20, x.sum())

    with pytest.warns(GradiatorWarning):
        estimate = jacobian(big, np.ones(10), method="2-point")
    assert estimate.nfev == len(calls) == 12
    assert_allclose(estimate.jac[0], 1, atol=1e-6)

    def stop(x):
        if x[8] > 1:
            raise KeyboardInterrupt
        return np.full(2**20, x.sum())

    with pytest.raises(KeyboardInterrupt) as caught:
        jacobian(stop, np.ones(10), method="2-point")
    assert len(caught.value.samples) == 9


def test_masked_outputs_are_failed_outputs():
    with pytest.warns(GradiatorWarning):
        estimate = jacobian(lambda x: np.ma.masked_greater(x**2, 8.0), X, method="2-point")
    assert np.isinf(estimate.stderr[2]).all()
    assert_allclose(estimate.jac[:2, :2], [[2, 0], [0, 4]], atol=1e-6)
    with pytest.raises(ValueError, match="finite"):
        jacobian(fun, np.ma.masked_equal(X, 2.0), method="2-point")


# -- what fun computes in ----------------------------------------------------------------------


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
    est = JacobianEstimator(X, y=(X**2).astype(np.float32), method="2-point")
    _, points = est.ask()
    est.tell((points**2).astype(np.float32))
    assert est.estimate().solution.coef.dtype == np.float64
    assert_allclose(est.estimate().jac, np.diag(2 * X), atol=0.02)


# -- functions and workers that do not keep to their word --------------------------------------


def test_a_vectorized_dict_must_answer_for_every_point():
    """The value of the first point is not spread over the others: they are run one by one."""
    estimate = jacobian(lambda p: {"s": p[:1, 0] ** 2}, X, method="3-point", vectorized=True)
    assert_allclose(estimate.jac["s"], [2, 0, 0], atol=TOL)


@pytest.mark.parametrize(
    "workers, error, words",
    [
        (lambda f, points: [f(p) for p in points] * 2, EvaluationError, "more than 3 results"),
        (lambda f, points: [f(points[0])], EvaluationError, "gave 1 results"),
        (lambda f, points: None, TypeError, "as map does, got None"),
        (lambda f, points: [fun(p) for p in points], TypeError, "what f returned"),
    ],
)
def test_maps_that_are_none(workers, error, words):
    with pytest.raises(error, match=words):
        jacobian(fun, X, method="2-point", workers=workers)


# -- float32 -----------------------------------------------------------------------------------


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


# -- tell --------------------------------------------------------------------------------------


def test_a_tell_that_is_refused_leaves_nothing_behind():
    est = JacobianEstimator(X, method="2-point")
    with pytest.raises(ValueError, match="call ask"):
        est.tell([fun(X)])
    ids, points = est.ask()
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
    ids, points = est.ask()
    est.tell([fun(p) for p in points], ids=ids, errors={2: "valve stuck"})
    estimate = est.estimate()
    assert estimate.n_failed == 1
    assert np.isinf(estimate.stderr[:, 1]).all()
    partly = JacobianEstimator(X, method="2-point")
    partly.tell([[1.0, np.nan]] + [fun(p) for p in points[1:]], ids=partly.ask()[0])
    assert partly.n_failed == 1


def test_a_rig_that_reaches_one_place_twice():
    est = JacobianEstimator(X, method="5-point")
    ids, points = est.ask()
    reached = points.copy()
    for i in ids[-3:]:  # the far points of all lines, to the near ones
        near = [k for k in ids[1:4] if (points[k] != X).tolist() == (points[i] != X).tolist()]
        reached[i] = points[near[0]]
    est.tell([fun(p) for p in reached], ids=ids, points=reached)
    # The rest of each line: three points, exact for these polynomials.
    assert_allclose(est.estimate().jac, EXACT, atol=TOL)


def test_an_exception_that_cannot_be_printed():
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError

    def fails(x):
        raise Odd

    with pytest.raises(EvaluationError, match="Odd"):
        jacobian(fails, X, method="2-point")


def test_booleans_have_no_derivative():
    with pytest.raises(TypeError, match="bool"):
        jacobian(lambda x: x > 2, X, method="2-point")


# -- products ----------------------------------------------------------------------------------


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


def test_a_batch_that_is_fixed_throughout():
    x = np.ones((3, 2))
    estimate = jacobian(lambda z: z**2, x, batch_dims=1, bounds=(x, x), method="2-point")
    assert estimate.nfev == 1
    assert np.isinf(estimate.stderr).all()
    assert_array_equal(estimate.jac, 0)


def test_a_bug_in_a_vectorized_function_is_found_early():
    calls = []

    def bug(p):
        calls.append(len(p))
        if len(p) > 1 or (p != 1).any():
            raise KeyError("typo")
        return p

    for on_error, words in (("adapt", "bug in fun"), ("raise", "on_error='raise'")):
        calls.clear()
        with pytest.raises(EvaluationError, match=words):
            jacobian(bug, np.ones(100), method="3-point", vectorized=True, on_error=on_error)
        # x, seven halvings of 200 points to the first, a few more to the third, one opposite.
        assert len(calls) < 20


def test_the_complex_step_has_no_corners():
    value = jvp(np.sin, X, [1.0, 0, 1], method="cs", bounds=(1, 3)).value
    assert_allclose(value, np.cos(X) * [1, 0, 1], rtol=4 * EPS)
