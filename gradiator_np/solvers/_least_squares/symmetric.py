"""Least squares for symmetric Jacobians: the Hessian of a function whose gradient was sampled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._covariance import Covariance
from gradiator_np._typing import Array, Index
from gradiator_np.solvers._groups import compressed
from gradiator_np.solvers._least_squares.linear import ridge_lstsq, stacked_lstsq
from gradiator_np.solvers._least_squares.reduced import ReducedProblem
from gradiator_np.solvers._least_squares.weighted_rows import (
    WeightedRows,
    residual_scale,
    value_stderr,
)
from gradiator_np.solvers._solution import Solution

# Unknowns of one dense problem: 3000 (77 inputs) take 72 MB for the factor and some seconds.
_MAX_UNKNOWNS = 3000


def fit_symmetric(problem: ReducedProblem, rcond: float | None, ridge: float) -> Solution:
    """Fit J = J^T: every pair (i, j) is one unknown, on which outputs i and j both depend.

    Noise is taken to be of one size in all outputs (weights say otherwise) and estimated from
    all residuals together.

    Raises
    ------
    ValueError
        Where the pattern or the known entries are not symmetric, or there are too many unknowns.
    """
    b, k, m = problem.dx.shape
    pairs = _pairs(problem)
    p = pairs[0].size
    rows = [_rows(problem, i) for i in range(m)]
    design = np.zeros((b, m, k, p))
    for i, row in enumerate(rows):
        for mine, other in (pairs, pairs[::-1]):
            at = np.flatnonzero(mine == i)
            design[:, i, :, at] = row.x[:, :, other[at]].transpose(2, 0, 1)
    f = np.stack([row.f for row in rows], 1)
    linear = ridge_lstsq(
        design.reshape(b, m * k, p), f.reshape(b, m * k, -1), ridge, rcond, compact=False
    )
    dof = sum(row.count - problem.intercept for row in rows) - linear.rank
    if ridge:
        dof = dof + linear.rank - p + ridge * np.square(linear.factor).sum((1, 2))
    rss = _columns(linear.rss.sum(1), m)
    scale, dof = residual_scale(rss, _columns(dof, m), problem.noise)
    total = np.stack([row.total for row in rows], 1)
    residual = f - design @ linear.coef.swapaxes(1, 2)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        misfit = np.sqrt(np.square(residual).sum((2, 3)) / total)
    coef = _spread(rows[0].joined(linear.coef)[:, 0, :, None], pairs, m)[..., 0]
    factor = compressed(_spread(linear.factor, pairs, m))
    null = None if linear.null is None else _spread(linear.null, pairs, m)
    cov = Covariance(scale, factor=factor, null=null, per_output=True)
    # A symmetric J may be determined by fewer samples than inputs.
    rank = stacked_lstsq(rows[0].x, rows[0].f[:, :, :0], rcond).rank
    rank = np.where(linear.rank == p, m, rank)
    solution = Solution(coef, cov, dof, rank, linear.cond, misfit)
    if not problem.intercept:
        return solution
    mean_x = np.stack([np.asarray(row.mean_x) for row in rows], 1)
    mean_f = np.concatenate([row.joined(np.asarray(row.mean_f)) for row in rows], 1)
    return replace(
        solution,
        value=mean_f - (coef * mean_x).sum(2),
        value_stderr=value_stderr(cov, mean_x, total),
    )


def _pairs(problem: ReducedProblem) -> tuple[Index, Index]:
    """The unknowns: inputs i <= j of every free pair."""
    m = problem.dx.shape[2]
    free = np.ones((m, m), dtype=bool) if problem.free is None else problem.free
    offset = np.zeros((m, m)) if problem.offset is None else problem.offset
    if (free != free.T).any() or (offset != offset.swapaxes(-1, -2)).any():
        raise ValueError(
            "symmetric=True needs sparsity, known entries and prior that are symmetric as well; "
            "symmetrise them, as in (jac0 + jac0.T) / 2"
        )
    pairs = np.nonzero(np.triu(free))
    if pairs[0].size > _MAX_UNKNOWNS:
        raise ValueError(
            f"a symmetric fit of {pairs[0].size} unknowns is beyond the dense solver's "
            f"{_MAX_UNKNOWNS}; fit without symmetric and take (J + J.T) / 2, or give a sparsity"
        )
    return pairs[0], pairs[1]


def _rows(problem: ReducedProblem, i: int) -> WeightedRows:
    """Centred and weighted rows of output i."""
    w = problem.weights
    if w is not None and w.ndim == 3:
        w = np.ascontiguousarray(w[:, :, i])
    return WeightedRows.of(problem.dx, problem.df[:, :, i : i + 1], w, problem.intercept)


def _spread(a: NDArray[Any], pairs: tuple[Index, Index], m: int) -> NDArray[Any]:
    """Unknowns (b, p, r) as entries of symmetric matrices, (b, m, m, r)."""
    out = np.zeros((a.shape[0], m, m, a.shape[2]), dtype=a.dtype)
    out[:, pairs[0], pairs[1]] = a
    out[:, pairs[1], pairs[0]] = a
    return out


def _columns(a: NDArray[Any], n: int) -> Array:
    return np.repeat(a[:, None], n, axis=1)
