"""Dynamic programme for the cheapest order of a chain of Jacobians."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAF_GIVEN, LEAF_TANGENT, LEAF_ADJOINT, PRODUCT, TANGENT, ADJOINT = range(6)


@njit(cache=True, nogil=True, error_model="numpy")
def bracket(
    dims: Integers,
    tangent: Array,
    adjoint: Array,
    accumulate: Array,
    multiply: float,
    cost: Array,
    kind: Integers,
    split: Integers,
) -> None:
    """Fill ``cost``, ``kind`` and ``split`` (q, q), entry [j, i] for the product J_j ... J_i.

    Factor j is (dims[j + 1], dims[j]); ``split`` k parts it into k + 1 ... j and i ... k. On equal
    cost the product wins: one call of BLAS replaces many calls of a stage.
    """
    q = dims.size - 1
    for j in range(q):
        best = accumulate[j]
        what = LEAF_GIVEN
        if dims[j] * tangent[j] < best:
            best = dims[j] * tangent[j]
            what = LEAF_TANGENT
        if dims[j + 1] * adjoint[j] < best:
            best = dims[j + 1] * adjoint[j]
            what = LEAF_ADJOINT
        cost[j, j] = best
        kind[j, j] = what
        split[j, j] = j
    for length in range(1, q):
        for i in range(q - length):
            j = i + length
            rows = dims[j + 1]
            columns = dims[i]
            best = np.inf
            what = -1
            where = i
            for k in range(i, j):
                c = cost[j, k + 1] + cost[k, i] + multiply * rows * dims[k + 1] * columns
                if c < best:
                    best = c
                    what = PRODUCT
                    where = k
            pulled = 0.0
            for k in range(i, j):
                pulled += adjoint[k]
                c = cost[j, k + 1] + rows * pulled
                if c < best:
                    best = c
                    what = ADJOINT
                    where = k
            pushed = 0.0
            for k in range(j - 1, i - 1, -1):
                pushed += tangent[k + 1]
                c = cost[k, i] + columns * pushed
                if c < best:
                    best = c
                    what = TANGENT
                    where = k
            cost[j, i] = best
            kind[j, i] = what
            split[j, i] = where
