"""Values of any size: the answer of ordinary units, scaled."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gradiator_np import fit_jacobian, fit_points, gradient, jacobian, vjp
from gradiator_np._covariance import Covariance
from gradiator_np._engine import _check_moved
from gradiator_np._structure import Layout
from gradiator_np.designs._displacements import AxisDisplacements, Displacements, of_rows

SIZES = [1e-300, 1e-160, 1e150, 1e160, 1e290]


def fun(x):
    return np.array([np.sin(x[0]) * x[1], x[1] ** 2])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ["auto", "2-point", "5-point", "cs"])
def test_outputs_of_any_size(method, size):
    want = jacobian(fun, [1.0, 2.0], method=method)
    got = jacobian(lambda x: size * fun(x), [1.0, 2.0], method=method)
    assert got.status == want.status
    # the imaginary parts of a complex step at 1e-300 are below 2e-308, and have lost digits
    rtol = 1e-3 if method == "cs" and size == 1e-300 else 1e-6
    np.testing.assert_allclose(got.jac / size, want.jac, rtol=rtol, atol=1e-8)
    known = np.isfinite(want.stderr)
    assert np.array_equal(known, np.isfinite(got.stderr))
    assert (got.stderr[known] > 0).all()
    if size > 1e-300 and known.any():
        # rounding of the product is other rounding of values: as far as the bars are known
        ratio = got.stderr[known] / size / want.stderr[known]
        assert ((ratio > 0.01) & (ratio < 100)).all()


def test_noise_and_tolerances_scale_along():
    """The same numbers as for f of order 1: 2^600 is a unit."""
    unit = 2.0**600
    want = jacobian(fun, [1.0, 2.0], noise=1e-3, atol=0.1, rng=0)
    got = jacobian(lambda x: unit * fun(x), [1.0, 2.0], noise=1e-3 * unit, atol=0.1 * unit, rng=0)
    np.testing.assert_allclose(got.jac / unit, want.jac, rtol=1e-12)
    np.testing.assert_allclose(got.stderr / unit, want.stderr, rtol=1e-12)
    assert got.nfev == want.nfev
    np.testing.assert_array_equal(got.samples.outputs / unit, want.samples.outputs)
    np.testing.assert_allclose(got.vjp_stderr([1.0, 1.0]) / unit, want.vjp_stderr([1.0, 1.0]))
    np.testing.assert_allclose(got.jvp_stderr([1.0, 1.0]) / unit, want.jvp_stderr([1.0, 1.0]))


@pytest.mark.parametrize("method", ["auto", "2-point", "3-point", "5-point"])
def test_entries_that_are_no_floats_are_never_ok(method):
    found = jacobian(lambda x: 1e305 * np.sin(x * 1e5), [3e-5, 1e-5], method=method)
    assert np.isfinite(found.jac).all()
    assert np.isinf(found.stderr).any()
    assert not found.success


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["outputs", "inputs", "both"])
@pytest.mark.parametrize("solver", ["pinv", "huber", "rank-one", "points"])
def test_fits_of_samples_of_any_size(solver, what, size):
    rng = np.random.default_rng(0)
    dx = rng.standard_normal((12, 3))
    df = dx @ rng.standard_normal((3, 2)) + 0.01 * rng.standard_normal((12, 2))

    def fit(x, y):
        if solver == "points":
            return fit_points(x, y, x=np.zeros(3))
        return fit_jacobian(x, y, solver=solver)

    want = fit(dx, df)
    got = fit(dx * (1 if what == "outputs" else size), df * (1 if what == "inputs" else size))
    by = {"outputs": size, "inputs": 1 / size, "both": 1.0}[what]
    assert got.status == want.status
    np.testing.assert_allclose(got.jac / by, want.jac, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(got.stderr / by, want.stderr, rtol=1e-3)


def test_scaled_covariances_are_those_of_the_formula():
    """Against extended range: the same in units where nothing leaves the range of floats."""
    rng = np.random.default_rng(1)
    x, y = 2.0 ** np.array([-600, 0, 700]), 2.0 ** np.array([-500, 400])
    scale, diag, factor = rng.uniform(1, 2, 2), rng.uniform(1, 2, 3), rng.uniform(1, 2, (3, 2))
    want = Covariance(scale, None, factor, null=np.array([[1.0], [0.0], [1.0]]))
    got = Covariance(scale * y, None, factor * x[:, None], null=np.array([[1.0], [0.0], [1.0]]))
    u, v = rng.uniform(1, 2, 3), rng.uniform(1, 2, 2)
    np.testing.assert_allclose(got.stderr()[:, 1], (want.stderr() * y[:, None] * x)[:, 1])
    assert np.isinf(got.stderr()[:, [0, 2]]).all()
    got, want = Covariance(scale * y, diag, factor), Covariance(scale, diag, factor)
    np.testing.assert_allclose(got.jvp_stderr(u), want.jvp_stderr(u) * y)
    np.testing.assert_allclose(got.vjp_stderr(v / y), want.vjp_stderr(v))


def test_products_of_large_outputs():
    found = vjp(lambda x: 1e200 * fun(x), [1.0, 2.0], [1.0, 1.0]).value
    np.testing.assert_allclose(found / 1e200, [2 * np.cos(1), np.sin(1) + 4], rtol=1e-7)


def test_a_gradient_of_many_inputs_takes_memory_in_proportion():
    """6009 points of 3000 inputs are 144 MB; the default keeps one number of each (and parts of
    64 MiB go to ``fun``), where it took three times all of them."""
    a = np.linspace(1, 2, 3000)
    gradient(lambda x: float(x @ a[:3]) ** 2, np.ones(3))  # compilation
    tracemalloc.start()
    estimate = gradient(lambda x: float(x @ a) ** 2, np.ones(3000))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(estimate.jac, 2 * a.sum() * a, rtol=1e-7)
    assert most < 1.2e8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_of_single_inputs_are_those_of_offsets(dtype):
    """Rows that move one input, and two that move any: within limits, taken, told elsewhere."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5, 1.5, (2, 5)).astype(dtype)
    each, columns = np.arange(7), rng.integers(0, 5, 7)
    offsets = np.zeros((7, 2, 5))
    offsets[each, :, columns] = 0.1 * rng.normal(size=(7, 2))
    offsets[[1, 4]] = 0.1 * rng.normal(size=(2, 2, 5))
    beside = offsets.copy()
    beside[each, :, columns] = 0
    drift = {row: beside[row] for row in (1, 4)}
    limits = np.full((2, 5), 0.5), np.full((2, 5), 1.5)
    single = AxisDisplacements(columns, offsets[each, :, columns], drift).realised(x, limits)
    plain = Displacements(offsets).realised(x, limits)
    for rows in (slice(None), np.array([4, 0, 1])):
        np.testing.assert_array_equal(single.points(x, rows), plain.points(x, rows))
        np.testing.assert_array_equal(single.dense(rows, 5), plain.offsets[rows])
    for j in (columns, np.roll(columns, 1)):
        np.testing.assert_array_equal(single.along(each, j), plain.offsets[each, :, j])
    some = single.take(np.array([4, -1, 2])).points(x, slice(None))
    np.testing.assert_array_equal(some[1], x)
    np.testing.assert_array_equal(some[[0, 2]], single.points(x, np.array([4, 2])))
    there = plain.offsets[[1]] + 0.25
    again = single.reached(np.array([1]), there)
    np.testing.assert_array_equal(again.dense(np.array([1]), 5), there)
    np.testing.assert_array_equal(again.dense(np.array([4]), 5), plain.offsets[[4]])


def test_rows_that_move_any_inputs_are_looked_at_for_steps_that_round_to_nothing():
    wanted = of_rows(np.array([[[0.1, 1e-9]]]))
    x = np.array([[1.0, 1e9]])
    with pytest.raises(ValueError, match=r"1e-09 of x\[1\] = 1e\+09 rounds to nothing"):
        _check_moved(wanted, wanted.realised(x, None), x, Layout((2,)))
