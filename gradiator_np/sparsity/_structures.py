"""Patterns that recur: bands, blocks, grids; ``scipy.sparse.kron`` and its kin compose them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
from scipy import sparse

from gradiator_np import _checks as checks


def banded_pattern(n: int, m: int | None = None, *, lower: int, upper: int) -> sparse.csr_array:
    """The pattern of a band: output i depends on inputs i - lower ... i + upper.

    Parameters
    ----------
    n, m : int
        Outputs and inputs; m = n by default.
    lower, upper : int
        Diagonals below and above the main one.

    Returns
    -------
    scipy.sparse.csr_array of bool, shape (n, m)

    Examples
    --------
    >>> from gradiator_np.sparsity import banded_pattern
    >>> banded_pattern(3, lower=1, upper=0).toarray().astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [0, 1, 1]])
    """
    n = checks.integer(n, "n")
    m = n if m is None else checks.integer(m, "m")
    lower, upper = checks.integer(lower, "lower", 0), checks.integer(upper, "upper", 0)
    band = np.arange(max(-lower, 1 - n), min(upper, m - 1) + 1)
    rows, shift = np.repeat(np.arange(n), len(band)), np.tile(band, n)
    inside = (rows + shift >= 0) & (rows + shift < m)
    return _of(rows[inside], (rows + shift)[inside], (n, m))


def block_diagonal_pattern(blocks: Iterable[Any]) -> sparse.csr_array:
    """The pattern of independent parts: full blocks along the diagonal.

    Parameters
    ----------
    blocks : iterable of int or of (int, int)
        The size of each block: k for (k, k), or (outputs, inputs).

    Returns
    -------
    scipy.sparse.csr_array of bool

    Examples
    --------
    >>> from gradiator_np.sparsity import block_diagonal_pattern
    >>> block_diagonal_pattern([2, (1, 2)]).toarray().astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 1, 1]])
    """
    sizes = np.array([b if isinstance(b, Sequence) else (b, b) for b in blocks])
    if sizes.ndim != 2 or sizes.shape[1] != 2 or sizes.dtype.kind not in "iu" or (sizes < 1).any():
        raise ValueError("blocks are whole numbers k, or pairs (outputs, inputs), of 1 or more")
    (n, m), (row, col) = sizes.sum(0).tolist(), (np.cumsum(sizes, 0) - sizes).T
    each = sizes.prod(1)
    of = np.repeat(np.arange(len(sizes)), each)
    within = np.arange(len(of)) - np.repeat(np.cumsum(each) - each, each)
    inner_row, inner_col = np.divmod(within, sizes[of, 1])
    return _of(row[of] + inner_row, col[of] + inner_col, (n, m))


def grid_pattern(
    shape: int | Sequence[int],
    points: int | Any = None,
    *,
    fields: int = 1,
    interleaved: bool = True,
    periodic: bool = False,
) -> sparse.csr_array:
    """The pattern of a stencil on a grid: each node depends on its neighbours.

    Parameters
    ----------
    shape : int or sequence of int
        Nodes along each of d axes; nodes count in C order, as in ``array.ravel()``.
    points : int or array_like of int, shape (q, d), optional
        Points of the stencil: 2 d + 1, the nearest along the axes (3, 5, 7; the default), or 3^d,
        the whole box (9, 27). Other stencils: the offset of each of their points.
    fields : int
        Unknowns of each node, all of which depend on all of each neighbour.
    interleaved : bool
        Whether the unknowns of one node lie together, as in an array ``(*shape, fields)``; else
        those of one field, ``(fields, *shape)``.
    periodic : bool
        Whether the last node of an axis is next to its first.

    Returns
    -------
    scipy.sparse.csr_array of bool

    Examples
    --------
    >>> from gradiator_np.sparsity import color, grid_pattern
    >>> color(grid_pattern((100, 100), points=5)).n_colors
    5
    """
    sides = [checks.integer(k, "a side of the grid") for k in np.atleast_1d(shape).tolist()]
    offsets = _stencil(points, len(sides))
    nodes = np.indices(sides).reshape(len(sides), -1)
    neighbours = nodes[:, :, None] + offsets.T[:, None, :]  # (d, nodes, q)
    limits = np.array(sides)[:, None, None]
    inside = np.ones(neighbours.shape[1:], bool)
    if periodic:
        neighbours %= limits
    else:
        inside &= ((neighbours >= 0) & (neighbours < limits)).all(axis=0)
    rows, which = np.nonzero(inside)
    cols = np.ravel_multi_index(tuple(neighbours[:, rows, which]), sides)
    grid = _of(rows, cols, (nodes.shape[1],) * 2)
    if checks.integer(fields, "fields") == 1:
        return grid
    coupled = np.ones((fields, fields), bool)
    a, b = (grid, coupled) if interleaved else (coupled, grid)
    return sparse.csr_array(sparse.kron(sparse.csr_array(a), sparse.csr_array(b)).astype(bool))


def _stencil(points: Any, d: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Offsets of a stencil, shape (q, d)."""
    if points is None or np.ndim(points) == 0:
        unit = np.eye(d, dtype=np.intp)
        star = np.concatenate([np.zeros((1, d), np.intp), unit, -unit])
        if points in (None, 2 * d + 1):
            return star
        if points == 3**d:
            return np.array(list(product((-1, 0, 1), repeat=d)))
        raise ValueError(
            f"points={points!r}: a stencil in {d} dimensions has {2 * d + 1} or {3**d} points; "
            "of others give the offsets, shape (points, dimensions)"
        )
    offsets = checks.whole(points, "offsets of a stencil")
    if offsets.ndim != 2 or offsets.shape[1] != d:
        raise ValueError(f"offsets of a stencil have shape (points, {d}), got {offsets.shape}")
    return offsets


def _of(rows: Any, cols: Any, shape: tuple[int, int]) -> sparse.csr_array:
    """Entries, each of which is True; those named twice are one."""
    ones = np.ones(len(rows), np.bool_)
    pattern = sparse.coo_array((ones, (rows, cols)), shape=shape).tocsr()
    pattern.sum_duplicates()
    return pattern
