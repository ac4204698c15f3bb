"""How much each sample matters: leverage and leave-one-out residuals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np.solvers.linear import LinearFit, least_squares
from gradiator_np.solvers.rows import Rows

Array = NDArray[np.float64]

# A sample that alone determines a direction has leverage 1 and no residual; what rounding leaves
# of 1 - leverage is no divisor.
_SATURATED = 1e-8


def leverage(
    dx: Array,
    *,
    weights: Array | None = None,
    intercept: bool = False,
    rcond: float | None = None,
) -> Array:
    """How much of each sample's own value a least-squares fit takes: diagonal of the projection.

    Parameters
    ----------
    dx : array, shape (..., k, m)
    weights : array, shape (..., k), optional
    intercept : bool
        Whether a value at dx = 0 is fitted as well.
    rcond : float, optional
        As in ``Pinv``.

    Returns
    -------
    array, shape (..., k)
        Between 0 and 1; 1 for a sample that alone determines a direction. The sum is the rank
        (and 1 for an intercept); losing sample k multiplies the variance along it by
        ``1 / (1 - h)``.
    """
    dx = np.asarray(dx, dtype=np.float64)
    *batch, k, m = dx.shape
    flat = dx.reshape(-1, k, m)
    w = None if weights is None else np.broadcast_to(weights, dx.shape[:-1]).reshape(-1, k)
    rows = Rows.of(flat, np.zeros((flat.shape[0], k, 0)), w, intercept)
    z = rows.x @ least_squares(rows.x, rows.f, rcond).factor
    return _leverage(rows, z).reshape(*batch, k)


def leave_one_out(
    dx: Array,
    df: NDArray[Any],
    *,
    weights: Array | None = None,
    intercept: bool = False,
    rcond: float | None = None,
) -> NDArray[Any]:
    """Misfit of each sample to the fit of all others, without refitting: e / (1 - leverage).

    Parameters
    ----------
    dx : array, shape (..., k, m)
    df : array, shape (..., k, n)
    weights, intercept, rcond
        As in ``leverage``.

    Returns
    -------
    array, shape (..., k, n)
        In units of y; nan for a sample that alone determines a direction or has no weight.
    """
    dx, df = np.asarray(dx, dtype=np.float64), np.asarray(df)
    *batch, k, m = dx.shape
    flat, n = dx.reshape(-1, k, m), df.shape[-1]
    w = None if weights is None else np.broadcast_to(weights, dx.shape[:-1]).reshape(-1, k)
    rows = Rows.of(flat, df.reshape(-1, k, n), w, intercept)
    fit = least_squares(rows.x, rows.f, rcond)
    residual = rows.joined((rows.f - rows.x @ fit.coef.swapaxes(1, 2)).swapaxes(1, 2))
    slack = 1 - _leverage(rows, rows.x @ fit.factor)
    root = 1.0 if rows.root is None else rows.root
    with np.errstate(divide="ignore", invalid="ignore"):
        out = (
            residual.swapaxes(1, 2) / np.where(slack < _SATURATED, np.nan, slack * root)[..., None]
        )
    return np.asarray(out.reshape(*batch, k, n))


def left_out(rows: Rows, linear: LinearFit, z: Array, scale: Array) -> Array:
    """Leave-one-out residuals of the weighted rows, shape (b, n, k)."""
    residual = rows.f - rows.x @ linear.coef.swapaxes(1, 2)
    size = np.abs(rows.joined(residual.swapaxes(1, 2)))
    slack = 1 - _leverage(rows, z)
    alone = slack < _SATURATED
    size = size / np.where(alone, 1.0, slack)[:, None]
    return np.where(alone[:, None], scale[:, :, None], size)


def _leverage(rows: Rows, z: Array) -> Array:
    """How much of each sample's own value its fit takes, shape (b, k), from z = x F."""
    h = np.square(z).sum(-1)
    if rows.mean_x is not None:
        share = 1.0 if rows.root is None else np.square(rows.root)
        h = h + share / np.where(rows.total > 0, rows.total, 1.0)[:, None]
    return np.asarray(h)
