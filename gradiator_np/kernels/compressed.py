"""Entries of a sparse Jacobian from runs in which inputs of one colour moved together."""

from __future__ import annotations

from typing import Any

from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True, error_model="numpy")
def slopes(
    indptr: NDArray[Any], indices: NDArray[Any], colors: NDArray[Any], values: NDArray[Any],
    y: NDArray[Any], weights: NDArray[Any], per_unit: NDArray[Any], out: NDArray[Any],
) -> None:  # fmt: skip
    """out[q] = sum_p weights[p, c] (values[p, c, i] - y[i]) per_unit[j] for entry q = (i, j).

    Parameters
    ----------
    indptr, indices : array
        The pattern, row by row.
    colors : array, shape (m,)
        c of each column.
    values : array, shape (p, colours, n)
    weights : array, shape (p, colours)
    per_unit : array, shape (m,)
    out : array, shape (nnz,)
    """
    for i in range(y.size):
        for q in range(indptr[i], indptr[i + 1]):
            j = indices[q]
            c = colors[j]
            total = weights[0, c] * (values[0, c, i] - y[i])
            for p in range(1, values.shape[0]):
                total += weights[p, c] * (values[p, c, i] - y[i])
            out[q] = total * per_unit[j]
