"""Entries of sparse Jacobians from runs of colours, against a loop over entries."""

import numpy as np
import pytest

from gradiator_np.kernels.compressed import slopes

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("p", [1, 2])
def test_slopes_are_weighted_differences(dtype, p):
    rng = np.random.default_rng(p)
    n, m, c = 7, 9, 4
    dense = rng.random((n, m)) < 0.4
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(dense.sum(1))]).astype(np.int64)
    colors = rng.integers(0, c, m).astype(np.int32)
    values, y = rng.normal(size=(p, c, n)).astype(dtype), rng.normal(size=n).astype(dtype)
    if dtype is np.complex128:
        values, y = values + 1j * rng.normal(size=values.shape), y - 1j
    weights, per_unit = rng.normal(size=(p, c)), rng.normal(size=m)
    out = np.empty(rows.size, dtype)
    slopes(indptr, columns.astype(np.int32), colors, values, y, weights, per_unit, out)
    wanted = [
        per_unit[j]
        * sum(weights[q, colors[j]] * (values[q, colors[j], i] - y[i]) for q in range(p))
        for i, j in zip(rows, columns)
    ]
    # sums of two products of order one, each rounded a few times
    np.testing.assert_allclose(out, wanted, rtol=1e-13, atol=1e-14)
