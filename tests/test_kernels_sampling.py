"""Compiled sampling against plain Python calls, and what it does when runs fail."""

import math

import numpy as np
import pytest
from numba import njit

from gradiator_np._calls import is_jitted
from gradiator_np.kernels import sampling
from gradiator_np.kernels.sampling import SHAPE, Unsupported, positional, sample

pytestmark = pytest.mark.kernel
EPS = np.finfo(float).eps


@njit
def elementwise(x):
    return np.sin(x) * x[0]


@njit
def turned(x):
    return x.reshape(3, 2).T


@njit
def total(x):
    return x.sum()


@njit
def pair(x):
    return x[0] * x[1], 2.0 * x[2]


@njit
def cube(x):
    return np.exp(x * 1j) * np.ones((2, 1, 6))


@njit
def zero_dim(x):
    return np.array(x[0])


@njit
def affine(x, a, b):
    return a * x + b


@njit
def fragile(x):
    if x[0] == 1.0:
        raise ValueError("one is too much")
    if x[0] == 2.0:
        return x[:1].copy()
    return x + 1.0


@njit
def greedy(x):
    x[:] = x * 2
    return x


# False with NUMBA_DISABLE_JIT=1: the drivers are Python then.
JIT = is_jitted(total)


def python_twin(fun, points, *args):
    rows = [np.ravel(np.asarray(fun(p.copy(), *args))) for p in points]
    return np.array(rows)


@pytest.mark.parametrize("fun", [elementwise, turned, total, pair, cube, zero_dim])
def test_values_equal_plain_calls(fun):
    """The same compiled function runs either way (sin may be vectorised: 2 ulp)."""
    points = np.random.default_rng(0).standard_normal((7, 6))
    runs = sample(fun, points, like=fun(points[0]))
    expected = python_twin(fun, points)
    assert not runs.errors
    assert runs.values.dtype == expected.dtype
    assert runs.values.shape == expected.shape
    np.testing.assert_allclose(runs.values, expected, rtol=4 * EPS)


def test_extra_arguments_inputs_of_any_rank_and_no_points():
    points = np.arange(24.0).reshape(4, 3, 2)
    b = np.ones((3, 2))
    runs = sample(affine, points, (2.0, b), like=b)
    np.testing.assert_array_equal(runs.values, (2 * points + 1).reshape(4, 6))
    assert sample(affine, points[:0], (2.0, b), like=b).values.shape == (0, 6)


def test_a_scalar_input_arrives_as_a_number():
    @njit
    def scalar(x):
        return math.sin(x)  # refuses arrays

    points = np.linspace(0.0, 1.0, 5)
    runs = sample(scalar, points, like=0.0)
    np.testing.assert_allclose(runs.values[:, 0], np.sin(points), rtol=4 * EPS)


def test_complex_points_give_complex_values_of_a_real_template():
    points = np.array([[1.0 + 1e-20j, 2.0], [0.5, 0.25 + 1e-20j]])
    runs = sample(elementwise, points, like=np.zeros(2))
    np.testing.assert_allclose(runs.values, np.sin(points) * points[:, :1], rtol=4 * EPS)


def test_failed_runs_lose_nothing_but_themselves():
    """Of 1000 runs one raises and one changes its shape: the other 998 stand."""
    points = np.random.default_rng(1).uniform(-1.0, 0.0, (1000, 3))
    points[998, 0], points[0, 0] = 1.0, 2.0
    runs = sample(fragile, points, like=np.zeros(3))
    assert sorted(runs.errors) == [0, 998]
    assert str(runs.errors[998]) == "one is too much"
    assert "shape (3,)" in str(runs.errors[0])
    assert np.isnan(runs.values[[0, 998]]).all()
    good = np.delete(np.arange(1000), [0, 998])
    np.testing.assert_array_equal(runs.values[good], points[good] + 1)


def test_every_run_may_fail():
    points = np.ones((3, 2))
    runs = sample(fragile, points, like=np.zeros(2))
    assert sorted(runs.errors) == [0, 1, 2]


def test_a_change_of_shape_is_a_status_and_never_broadcast():
    """One output would broadcast into three: the driver stops at that row instead."""
    values, progress = np.full((2, 3), 7.0), np.zeros(2, np.int64)
    status = sampling.sample_driver(fragile)(np.array([[0.0] * 3, [2.0] * 3]), (), values, progress)
    assert status == SHAPE
    assert progress[0] == 1
    np.testing.assert_array_equal(values, [[1.0] * 3, [7.0] * 3])


def test_a_function_that_writes_into_its_argument_does_not_change_the_points():
    points = np.arange(6.0).reshape(3, 2)
    runs = sample(greedy, points, like=np.zeros(2))
    np.testing.assert_array_equal(points, np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(runs.values, 2 * points)


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
@pytest.mark.parametrize("args", [(), (object(),)], ids=["output", "argument"])
def test_what_numba_cannot_call_is_refused_and_not_taken_for_failed_runs(args):
    @njit
    def odd(x, *args):
        return {1: x[0]}

    with pytest.raises(Unsupported, match="compiled"):
        sample(odd, np.ones((3, 2)), args, like=0.0)


def test_drivers_can_be_called_from_compiled_code():
    drive = sampling.sample_driver(elementwise)

    @njit
    def mean(points, values):
        drive(points, (), values, np.zeros(2, np.int64))
        return values.mean()

    points = np.random.default_rng(2).standard_normal((5, 2))
    expected = python_twin(elementwise, points).mean()
    # 10 values of at most 3 in magnitude.
    np.testing.assert_allclose(mean(points, np.empty((5, 2))), expected, rtol=0, atol=30 * EPS)


def test_named_arguments_become_positional():
    def fun(x, a, b=2.0, c=3.0):
        return a + b + c

    assert positional(fun, (1.0,), {"c": 5.0}) == (1.0, 2.0, 5.0)
    assert positional(fun, (1.0,), {}) == (1.0,)
    assert positional(affine, (), {"b": 1.0, "a": 2.0}) == (2.0, 1.0)
    with pytest.raises(TypeError, match="missing"):
        positional(fun, (), {"c": 5.0})

    def named(x, *, a):
        return a

    with pytest.raises(TypeError, match="position"):
        positional(named, (), {"a": 1.0})
