"""Partial distance-2 colouring: columns that share a row get different colours.

A pattern comes row by row (``indptr``, ``indices``) and column by column (``colptr``, ``rows``).
Work is at most the sum of the squares of the row lengths. Nothing is checked.

References
----------
A. H. Gebremedhin, F. Manne and A. Pothen, What color is your Jacobian? Graph coloring for
computing derivatives, SIAM Review 47 (2005) 629-705. D. Brelaz, New methods to color the vertices
of a graph, Comm. ACM 22 (1979) 251-256.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def least_free(stamp: Ints, vertex: int) -> int:
    """The least colour that ``vertex`` has not stamped."""
    k = 0
    while stamp[k] == vertex:
        k += 1
    return k


@njit(cache=True, nogil=True, error_model="numpy")
def first_fit(
    indptr: Ints, indices: Ints, colptr: Ints, rows: Ints, order: Ints, colors: Ints, stamp: Ints
) -> int:
    """Give the columns, in ``order``, the least colour that no column beside them has.

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
        c = order[at]
        for p in range(colptr[c], colptr[c + 1]):
            r = rows[p]
            for q in range(indptr[r], indptr[r + 1]):
                k = colors[indices[q]]
                if k >= 0:
                    stamp[k] = c
        k = least_free(stamp, c)
        colors[c] = k
        used = max(used, k + 1)
    return used


@njit(cache=True, nogil=True, error_model="numpy")
def neighbours(
    indptr: Ints, indices: Ints, colptr: Ints, rows: Ints, degree: Ints, stamp: Ints
) -> None:
    """Columns that share a row with each column, itself not counted: degrees at distance 2."""
    for c in range(colptr.size - 1):
        count = 0
        for p in range(colptr[c], colptr[c + 1]):
            r = rows[p]
            for q in range(indptr[r], indptr[r + 1]):
                u = indices[q]
                if u != c and stamp[u] != c:
                    stamp[u] = c
                    count += 1
        degree[c] = count


@njit(cache=True, nogil=True, error_model="numpy")
def _unlink(u: int, key: int, head: Ints, links: Ints) -> None:
    after, before = links[u, 0], links[u, 1]
    if before >= 0:
        links[before, 0] = after
    else:
        head[key] = after
    if after >= 0:
        links[after, 1] = before


@njit(cache=True, nogil=True, error_model="numpy")
def _link(u: int, key: int, head: Ints, links: Ints) -> None:
    links[u, 0] = head[key]
    links[u, 1] = -1
    if head[key] >= 0:
        links[head[key], 1] = u
    head[key] = u


@njit(cache=True, nogil=True, error_model="numpy")
def dynamic_order(
    indptr: Ints,
    indices: Ints,
    colptr: Ints,
    rows: Ints,
    key: Ints,
    change: int,
    head: Ints,
    links: Ints,
    stamp: Ints,
    order: Ints,
) -> None:
    """Take columns one by one by a key that changes for the neighbours of what has been taken.

    ``change`` = -1: the least key first, and its neighbours' keys fall (smallest last, backwards).
    +1: the largest key first, and its neighbours' keys rise (incidence degree).

    Parameters
    ----------
    key : array of int32, shape (m,)
        Degrees for -1, zeros for +1; overwritten.
    head : array of int32, shape (largest possible key + 2,)
        Scratch, -1 at the start.
    links : array of int32, shape (m, 2)
        Scratch: the next and the last column of the same key.
    stamp : array of int32, shape (m,)
        Scratch, -1 at the start.
    order : array of int32, shape (m,)
        The columns in the order in which they were taken.
    """
    m = colptr.size - 1
    for u in range(m - 1, -1, -1):
        _link(u, key[u], head, links)
    at = 0 if change < 0 else head.size - 1
    for step in range(m):
        while head[at] < 0:
            at -= change
        c = head[at]
        _unlink(c, at, head, links)
        key[c] = -1
        order[step] = c
        stamp[c] = c
        for p in range(colptr[c], colptr[c + 1]):
            r = rows[p]
            for q in range(indptr[r], indptr[r + 1]):
                u = indices[q]
                if stamp[u] != c and key[u] >= 0:
                    stamp[u] = c
                    _unlink(u, key[u], head, links)
                    key[u] += change
                    _link(u, key[u], head, links)
        at = max(at - 1, 0) if change < 0 else min(at + 1, head.size - 1)


@njit(cache=True, nogil=True, error_model="numpy")
def saturation(
    indptr: Ints,
    indices: Ints,
    colptr: Ints,
    rows: Ints,
    start: Ints,
    colors: Ints,
    seen: NDArray[np.uint64],
    count: Ints,
    head: Ints,
    links: Ints,
) -> int:
    """DSATUR: the column that sees most colours is next, and takes the least that it may.

    Parameters
    ----------
    start : array of int32, shape (m,)
        The order of columns that see none.
    colors : array of int32, shape (m,)
        -1 at the start; overwritten.
    seen : array of uint64, shape (m, w)
        Scratch, 0 at the start: the colours that a column sees, as bits; room for 64 w colours.
    count : array of int32, shape (m,)
        Scratch, 0 at the start.
    head : array of int32, shape (64 w + 1,)
        Scratch, -1 at the start.
    links : array of int32, shape (m, 2)
        Scratch: the next and the last column of the same key.

    Returns
    -------
    int
        Colours used; 0 where 64 w do not suffice.
    """
    m = start.size
    one = np.uint64(1)
    for at in range(m - 1, -1, -1):
        _link(start[at], 0, head, links)
    used, top = 0, 0
    for _ in range(m):
        while head[top] < 0:
            top -= 1
        c = head[top]
        _unlink(c, top, head, links)
        k = 0
        while k < head.size - 1 and (seen[c, k >> 6] >> np.uint64(k & 63)) & one:
            k += 1
        if k == head.size - 1:
            return 0
        colors[c] = k
        seen[c] = ~np.uint64(0)  # a column that is done sees all: one look tells both
        used = max(used, k + 1)
        word, bit = k >> 6, one << np.uint64(k & 63)
        for p in range(colptr[c], colptr[c + 1]):
            r = rows[p]
            for q in range(indptr[r], indptr[r + 1]):
                u = indices[q]
                if not seen[u, word] & bit:
                    seen[u, word] |= bit
                    _unlink(u, count[u], head, links)
                    count[u] += 1
                    _link(u, count[u], head, links)
                    top = max(top, count[u])
    return used


@njit(cache=True, nogil=True, error_model="numpy")
def first_conflict(indptr: Ints, indices: Ints, colors: Ints, stamp: Ints) -> int:
    """The first row in which two columns have one colour, or -1."""
    for i in range(indptr.size - 1):
        for q in range(indptr[i], indptr[i + 1]):
            k = colors[indices[q]]
            if stamp[k] == i:
                return i
            stamp[k] = i
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def decompress(
    indptr: Ints,
    indices: Ints,
    column_colors: Ints,
    row_colors: Ints,
    by_column: NDArray[Any],
    by_row: NDArray[Any],
    data: NDArray[Any],
) -> None:
    """The entries of J from products with sums of columns, and with sums of rows.

    Parameters
    ----------
    column_colors : array of int32, shape (m,)
    row_colors : array of int32, shape (n,)
        -1 for rows whose entries are found by columns.
    by_column : array, shape (c, n)
        J times the sum of the columns of each colour.
    by_row : array, shape (d, m)
        The sum of the rows of each colour.
    data : array, shape (nnz,)
        Overwritten, in the order of ``indices``.
    """
    for i in range(indptr.size - 1):
        k = row_colors[i]
        for q in range(indptr[i], indptr[i + 1]):
            j = indices[q]
            data[q] = by_row[k, j] if k >= 0 else by_column[column_colors[j], i]
