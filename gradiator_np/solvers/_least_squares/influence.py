"""How much each sample matters: leverage and leave-one-out residuals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np._typing import Array
from gradiator_np.solvers._least_squares.linear import LinearFit, stacked_lstsq
from gradiator_np.solvers._least_squares.weighted_rows import WeightedRows
from gradiator_np.solvers._regression import RegressionProblem

# A sample that alone determines a direction has leverage 1 and no residual; what rounding leaves
# of 1 - leverage is no divisor.
_SATURATED = 1e-8


def leverage(
    dx: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    intercept: bool = False,
    rcond: float | None = None,
) -> Array:
    """How much of each sample's own value a least-squares fit takes: diagonal of the hat matrix.

    Parameters
    ----------
    dx : array_like, shape (..., k, m)
    weights : array_like, shape (..., k), optional
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

    Raises
    ------
    ValueError, TypeError
        As ``Pinv.solve``.

    Examples
    --------
    >>> from gradiator_np.solvers import leverage
    >>> leverage([[1.0, 0.0], [2.0, 0.0], [0.0, 5.0]])
    array([0.2, 0.8, 1. ])
    """
    nothing = np.zeros((*np.shape(dx)[:-1], 0))
    problem = RegressionProblem.of(dx, nothing, weights=weights, intercept=intercept)
    rows = _weighted_rows(problem)
    return _leverage(rows, rows.x @ stacked_lstsq(rows.x, rows.f, rcond).factor).reshape(
        problem.dx.shape[:-1]
    )


def leave_one_out(
    dx: ArrayLike,
    df: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    intercept: bool = False,
    rcond: float | None = None,
) -> NDArray[Any]:
    """Misfit of each sample to the fit of all others, without refitting: e / (1 - leverage).

    Parameters
    ----------
    dx : array_like, shape (..., k, m)
    df : array_like, shape (..., k, n), or (..., k) for one output
        Finite.
    weights, intercept, rcond
        As in ``leverage``.

    Returns
    -------
    array, shape (..., k, n)
        In units of y; nan for a sample that alone determines a direction or has no weight.

    Raises
    ------
    ValueError, TypeError
        As ``Pinv.solve``, and where an output is missing.

    Examples
    --------
    The mean of the first three is 1, from which the last is 3 away:

    >>> from gradiator_np.solvers import leave_one_out
    >>> leave_one_out([[1.0], [1.0], [1.0], [1.0]], [0.0, 1.0, 2.0, 4.0])[-1].round(6)
    array([3.])
    """
    problem = RegressionProblem.of(dx, df, weights=weights, intercept=intercept)
    if np.isnan(problem.df).any():
        raise ValueError("df must be finite: leave the samples out whose outputs are missing")
    rows = _weighted_rows(problem)
    fit = stacked_lstsq(rows.x, rows.f, rcond)
    residual = rows.joined((rows.f - rows.x @ fit.coef.swapaxes(1, 2)).swapaxes(1, 2))
    slack = 1 - _leverage(rows, rows.x @ fit.factor)
    root = 1.0 if rows.root is None else rows.root
    with np.errstate(divide="ignore", invalid="ignore"):
        out = (
            residual.swapaxes(1, 2) / np.where(slack < _SATURATED, np.nan, slack * root)[..., None]
        )
    return np.asarray(out.reshape(problem.df.shape))


def _weighted_rows(problem: RegressionProblem) -> WeightedRows:
    dx, df, w, b = problem.dx, problem.df, problem.weights, math.prod(problem.batch)
    if w is not None and w.ndim == df.ndim:
        raise ValueError("give one weight per sample: leverages are those of all outputs")
    return WeightedRows.of(
        dx.reshape(b, *dx.shape[-2:]),
        df.reshape(b, *df.shape[-2:]),
        None if w is None else w.reshape(b, -1),
        problem.intercept,
    )


def left_out(rows: WeightedRows, linear: LinearFit, z: Array, scale: Array) -> Array:
    """Leave-one-out residuals of the weighted rows, shape (b, n, k)."""
    residual = rows.f - rows.x @ linear.coef.swapaxes(1, 2)
    size = np.abs(rows.joined(residual.swapaxes(1, 2)))
    slack = 1 - _leverage(rows, z)
    alone = slack < _SATURATED
    size = size / np.where(alone, 1.0, slack)[:, None]
    return np.where(alone[:, None], scale[:, :, None], size)


def _leverage(rows: WeightedRows, z: Array) -> Array:
    """How much of each sample's own value its fit takes, shape (b, k), from z = x F."""
    h = np.square(z).sum(-1)
    if rows.mean_x is not None:
        share = 1.0 if rows.root is None else np.square(rows.root)
        h = h + share / np.where(rows.total > 0, rows.total, 1.0)[:, None]
    return np.asarray(h)
