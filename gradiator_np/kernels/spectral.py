"""Coefficients of rows that see their own inputs only."""

from __future__ import annotations

from typing import Any

from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True, error_model="numpy")
def pattern_coefficients(
    inner: NDArray[Any],
    indptr: NDArray[Any],
    indices: NDArray[Any],
    start: NDArray[Any],
    rank: NDArray[Any],
    factors: NDArray[Any],
    scratch: NDArray[Any],
    out: NDArray[Any],
) -> None:
    """``out[i, S_i] = M_i M_i^T inner[i, S_i]``, other entries untouched.

    Row i has the inputs ``S_i = indices[indptr[i]:indptr[i + 1]]`` and the factor M_i of shape
    ``(len(S_i), rank[i])``, which begins at ``factors[start[i]]`` (rows one after another).
    ``scratch`` holds ``max(rank)`` numbers of the type of ``inner``.
    """
    for i in range(rank.size):
        r = rank[i]
        for a in range(r):
            scratch[a] = 0.0
        at = start[i]
        for j in range(indptr[i], indptr[i + 1]):
            x = inner[i, indices[j]]
            for a in range(r):
                scratch[a] += factors[at + a] * x
            at += r
        at = start[i]
        for j in range(indptr[i], indptr[i + 1]):
            total = scratch[0] * 0.0 if r > 0 else inner[i, indices[j]] * 0.0
            for a in range(r):
                total += factors[at + a] * scratch[a]
            out[i, indices[j]] = total
            at += r
