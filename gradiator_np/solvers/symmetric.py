"""Least squares for symmetric Jacobians: the Hessian of a function whose gradient was sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np.covariance import Covariance
from gradiator_np.solvers.groups import Task
from gradiator_np.solvers.linear import compressed, least_squares
from gradiator_np.solvers.rows import Part, Rows, value_stderr

if TYPE_CHECKING:
    from gradiator_np.solvers.pinv import Pinv

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# Unknowns of one dense problem: 3000 (77 inputs) take 72 MB for the factor and some seconds.
_MAX_UNKNOWNS = 3000


def fit_symmetric(task: Task, solver: Pinv, intercept: bool) -> Part:
    """Fit J = J^T: every pair (i, j) is one unknown that outputs i and j both tell about.

    Noise is taken to be of one size in all outputs (weights say otherwise) and estimated from
    all residuals together.

    Raises
    ------
    ValueError
        Where J is not square, the pattern or the known entries are not symmetric, there are too
        many unknowns, or "hc3" errors are asked for.
    """
    if solver.errors != "classical":
        raise ValueError("a symmetric fit has classical errors only; use errors='classical'")
    b, k, m = task.dx.shape
    pairs = _pairs(task)
    p = pairs[0].size
    rows = [_rows(task, i, intercept) for i in range(m)]
    design = np.zeros((b, m, k, p))
    for i, row in enumerate(rows):
        for mine, other in (pairs, pairs[::-1]):
            at = np.flatnonzero(mine == i)
            design[:, i, :, at] = row.x[:, :, other[at]].transpose(2, 0, 1)
    f = np.stack([row.f for row in rows], 1)
    whole = Rows.of(design.reshape(b, m * k, p), f.reshape(b, m * k, -1), None, False)
    whole = Rows(whole.x, whole.f, None, None, None, whole.count, whole.total, rows[0].is_complex)
    linear = solver.linear(whole, compact=False)

    dof = sum(row.count - intercept for row in rows) - linear.rank
    if solver.ridge:
        dof = dof + linear.rank - p + solver.ridge * np.square(linear.factor).sum((1, 2))
    rss = _columns(linear.rss.sum(1), m)
    scale, dof = solver.scale(rss, _columns(dof, m), None)
    total = np.stack([row.total for row in rows], 1)
    residual = f - design @ linear.coef.swapaxes(1, 2)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        misfit = np.sqrt(np.square(residual).sum((2, 3)) / total)
    coef = _spread(whole.joined(linear.coef)[:, 0, :, None], pairs, m)[..., 0]
    factor = compressed(_spread(linear.factor, pairs, m))
    null = None if linear.null is None else _spread(linear.null, pairs, m)
    cov = Covariance(scale, factor=factor, null=null, per_output=True)
    # A symmetric J may be determined by fewer samples than inputs.
    rank = least_squares(rows[0].x, rows[0].f[:, :, :0], solver.rcond).rank
    rank = np.where(linear.rank == p, m, rank)
    part = Part(coef, cov, dof, rank, linear.cond, misfit)
    if not intercept:
        return part
    mean_x = np.stack([np.asarray(row.mean_x) for row in rows], 1)
    mean_f = np.concatenate([row.joined(np.asarray(row.mean_f)) for row in rows], 1)
    value = mean_f - (coef * mean_x).sum(2)
    error = value_stderr(cov, mean_x, total)
    return Part(coef, cov, part.dof, rank, linear.cond, misfit, value, error)


def _pairs(task: Task) -> tuple[Index, Index]:
    """The unknowns: inputs i <= j of every free pair."""
    n, m = task.df.shape[2], task.dx.shape[2]
    if n != m:
        raise ValueError(
            f"a symmetric Jacobian has as many outputs as inputs, got {n} outputs and {m} inputs"
        )
    free = np.ones((m, m), dtype=bool) if task.free is None else task.free
    offset = np.zeros((m, m)) if task.offset is None else task.offset
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


def _rows(task: Task, i: int, intercept: bool) -> Rows:
    """Centred and weighted rows of output i."""
    w = task.weights
    if w is not None and w.ndim == 3:
        w = np.ascontiguousarray(w[:, :, i])
    return Rows.of(task.dx, task.df[:, :, i : i + 1], w, intercept)


def _spread(a: NDArray[Any], pairs: tuple[Index, Index], m: int) -> NDArray[Any]:
    """Unknowns (b, p, r) as entries of symmetric matrices, (b, m, m, r)."""
    out = np.zeros((a.shape[0], m, m, a.shape[2]), dtype=a.dtype)
    out[:, pairs[0], pairs[1]] = a
    out[:, pairs[1], pairs[0]] = a
    return out


def _columns(a: NDArray[Any], n: int) -> Array:
    return np.repeat(a[:, None], n, axis=1)
