"""Star colouring of a symmetric pattern: no path of four has two colours.

A pattern comes as ``indptr`` and ``indices`` of its rows; entries on the diagonal are passed over.
Nothing is checked.

References
----------
A. H. Gebremedhin, F. Manne and A. Pothen, What color is your Jacobian? Graph coloring for
computing derivatives, SIAM Review 47 (2005) 629-705, section 4.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gradiator_np.kernels.coloring import Ints, least_free


@njit(cache=True, nogil=True, error_model="numpy")
def first_fit(indptr: Ints, indices: Ints, order: Ints, colors: Ints, stamp: Ints) -> int:
    """Give the vertices, in ``order``, the least colour that makes no path of four of two colours.

    Neighbours of a vertex without a colour get different ones, so that no path goes through a
    vertex that comes later.

    Parameters
    ----------
    colors : array of int32, shape (m,)
        -1 at the start; overwritten.
    stamp : array of int32, shape (m + 1,)
        Scratch, -1 at the start.

    Returns
    -------
    int
        Colours used.
    """
    used = 0
    for at in range(order.size):
        v = order[at]
        for p in range(indptr[v], indptr[v + 1]):
            w = indices[p]
            if w == v:
                continue
            k = colors[w]
            if k >= 0:
                stamp[k] = v
            for q in range(indptr[w], indptr[w + 1]):
                x = indices[q]
                if x in (v, w) or colors[x] < 0 or stamp[colors[x]] == v:
                    continue
                if k < 0:
                    stamp[colors[x]] = v
                    continue
                for r in range(indptr[x], indptr[x + 1]):
                    y = indices[r]
                    if y != w and y != x and colors[y] == k:
                        stamp[colors[x]] = v
                        break
        k = least_free(stamp, v)
        colors[v] = k
        used = max(used, k + 1)
    return used


@njit(cache=True, nogil=True, error_model="numpy")
def places(indptr: Ints, indices: Ints, colors: Ints, seen: Ints, alone: NDArray[np.bool_]) -> None:
    """Which entries (i, j) are the only ones of their row in the colour of j.

    Parameters
    ----------
    seen : array of int32, shape (colours, 2)
        Scratch, -1 at the start: the latest row with that colour, and how many entries of it have
        it.
    alone : array of bool, shape (nnz,)
        Overwritten.
    """
    for i in range(indptr.size - 1):
        for q in range(indptr[i], indptr[i + 1]):
            k = colors[indices[q]]
            if seen[k, 0] != i:
                seen[k, 0], seen[k, 1] = i, 0
            seen[k, 1] += 1
        for q in range(indptr[i], indptr[i + 1]):
            alone[q] = seen[colors[indices[q]], 1] == 1
