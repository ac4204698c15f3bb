"""Least squares that outliers do not spoil."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._checks import EPS
from gradiator_np._status import Status
from gradiator_np._typing import Array
from gradiator_np.solvers import _regression
from gradiator_np.solvers._least_squares.influence import leverage
from gradiator_np.solvers._least_squares.pinv import Pinv
from gradiator_np.solvers._regression import RegressionProblem
from gradiator_np.solvers._solution import Solution

# Median modulus of a normal number of standard deviation 1, real and complex.
_MAD = 0.6744897501960817
_MAD_COMPLEX = math.sqrt(math.log(2))


@dataclass(frozen=True, slots=True)
class Huber:
    r"""Huber's M-estimator by iteratively reweighted least squares, with bounded leverage.

    Samples whose residual is beyond ``c`` standard deviations pull with constant force; the
    standard deviation comes from the median absolute residual. Samples far out in x would
    pull the fit towards themselves and hide their residual, so they are weighted down beforehand
    (Mallows' scheme; Maronna, Martin, Yohai, Salibian-Barrera, Robust Statistics, 2nd ed., 5.11).

    Parameters
    ----------
    c : float
        Bend of Huber's function, in standard deviations; 1.345 loses 5 % on Gaussian noise.
    bound : float
        Leverage from which on samples are weighted down, as a multiple of the mean leverage;
        inf for none.
    max_iter : int
    tol : float
        Stop an output where none of its weights changes by more than this share of itself.
    rcond : float, optional
        As in ``Pinv``.

    Raises
    ------
    ValueError
        For options out of range.

    Notes
    -----
    ``cov.scale`` is the robust standard deviation of one sample, times the factor by which the
    estimate is less efficient than least squares (1.03 on Gaussian noise).
    ``info["weights"]`` (..., k, n) tells how much each sample counted.

    Examples
    --------
    A sample far off, which least squares would follow to a slope of 7.5:

    >>> from gradiator_np.solvers import Huber
    >>> dx = [[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]
    >>> solution = Huber().solve(dx, [2.1, 3.9, 6.0, 8.1, 60.0, 12.0])
    >>> solution.coef.round(1), solution.info["weights"].ravel().round(1)
    (array([[2.]]), array([1. , 1. , 1. , 1. , 0. , 0.8]))
    """

    c: float = 1.345
    bound: float = 2.0
    max_iter: int = 100
    tol: float = 1e-6
    rcond: float | None = None

    def __post_init__(self) -> None:
        if not checks.real(self.c, "c") > 0:
            raise ValueError(f"c={self.c!r} must be positive; 1.345 is Huber's")
        if not checks.real(self.bound, "bound") >= 1:
            raise ValueError(f"bound={self.bound!r} must be at least 1; inf bounds no leverage")
        checks.integer(self.max_iter, "max_iter")
        checks.fraction(self.tol, "tol", "1e-6 is usual")

    solve = _regression.solve

    def fit(self, problem: RegressionProblem) -> Solution:
        """The solution of a checked problem."""
        dx, df, intercept = problem.dx, problem.df, problem.intercept
        given = np.where(np.isfinite(df), problem.output_weights, 0.0)
        calm = given * self._bounded(dx, given.max(-1), intercept)[..., None]
        solver = Pinv(self.rcond)

        def fit(w: Array) -> Solution:
            return solver.fit(replace(problem, weights=w, noise=None))

        # Errors are those of this fit, at Huber's efficiency: pulls are no inverse variances.
        plain = solution = fit(calm)
        residuals = _Residuals(dx, df, given, plain.dof)
        pull, sigma, steps = np.ones(df.shape), plain.cov.scale, 0
        while True:
            # The median may jump to and fro between two samples: in the second half it only falls.
            most = sigma if 2 * steps > self.max_iter else None
            z, sigma = residuals.standardised(solution, most)
            new = self.c / np.maximum(z, self.c)
            # Weights of far outliers are small, and shrink with sigma for as long as they carry the
            # fit along: changes are a share of the weight. Outputs do not wait for each other.
            change = np.abs(new / pull - 1).max(-2)
            moving = change > np.maximum(self.tol, residuals.rounding(sigma))
            if steps == self.max_iter or not moving.any():
                break
            pull = np.where(moving[..., None, :], new, pull)
            solution, steps = fit(calm * pull), steps + 1
        learned = plain.with_noise(sigma * self._loss(z, residuals), plain.dof)
        stopped = bool(moving.any()) and solution.status == "ok"
        robust = replace(
            solution,
            cov=learned.cov,
            dof=learned.dof,
            residual=residuals.misfit(solution),
            value_stderr=learned.value_stderr,
            status=Status.NOT_CONVERGED if stopped else solution.status,
            message=f"weights of {moving.sum()} of {moving.size} outputs were still changing, by "
            f"{change.max():.1g} of themselves, at iteration {steps}; raise max_iter"
            if stopped
            else solution.message,
            info={"iterations": steps, "weights": calm * pull},
            classical=False,
        )
        return robust if problem.noise is None else robust.with_noise(problem.noise)

    def _bounded(self, dx: Array, weights: Array, intercept: bool) -> Array:
        """Factors (..., k) that hold every sample's leverage to ``bound`` times the mean."""
        factor = np.ones(dx.shape[:-1])
        if math.isinf(self.bound):
            return factor
        start = leverage(dx, weights=weights, intercept=intercept, rcond=self.rcond)
        present = np.maximum((weights > 0).sum(-1, keepdims=True), 1)
        limit = self.bound * start.sum(-1, keepdims=True) / present
        # A sample that alone shows a direction fits whatever its weight is.
        alone = start > 1 - 1e-8
        h = start
        for _ in range(20):
            # The leverage at weight 1 among samples weighted down so far.
            new = np.where(alone | (h <= limit), 1.0, limit / np.maximum(h, limit))
            moving = np.abs(new - factor).max(-1, keepdims=True) >= 1e-3
            if not moving.any():
                break
            factor = np.where(moving, new, factor)
            h = leverage(dx, weights=weights * factor, intercept=intercept, rcond=self.rcond)
            h = h / factor
        return factor

    def _loss(self, z: Array, residuals: _Residuals) -> Array:
        """How much larger errors are than those of least squares at this sigma, (..., n).

        Huber, Robust Statistics (1981), eq. 6.5 of chapter 7, with his correction K.
        """
        count, p = residuals.count, residuals.parameters
        with np.errstate(divide="ignore", invalid="ignore"):
            linear = ((z <= self.c) & residuals.present).sum(-2) / count
            square = np.square(np.where(residuals.present, np.minimum(z, self.c), 0.0)).sum(-2)
            correction = 1 + p / count * (1 - linear) / linear
            return np.asarray(correction * np.sqrt(square / (count - p)) / linear)


class _Residuals:
    """Weighted residuals of a fit and their robust size; axes (..., k, n)."""

    def __init__(self, dx: Array, df: NDArray[Any], weights: Array, dof: Array) -> None:
        self.dx, self.df = dx, np.where(weights > 0, df, 0.0)
        self.weights = weights
        self.present = weights > 0
        self.count = self.present.sum(-2)
        self.parameters = np.maximum(self.count - dof, 0.0)
        self.eps = EPS * np.abs(self.df * np.sqrt(weights)).max(-2)
        # Residuals below this are rounding.
        self.floor = 100 * self.eps
        self.median = _MAD_COMPLEX if df.dtype.kind == "c" else _MAD

    def size(self, solution: Solution) -> Array:
        """Absolute weighted residuals, nan where a sample is missing."""
        fitted = self.dx @ solution.coef.swapaxes(-1, -2)
        if solution.value is not None:
            fitted = fitted + solution.value[..., None, :]
        size = np.sqrt(self.weights) * np.abs(self.df - fitted)
        return np.where(self.present, size, np.nan)

    def standardised(self, solution: Solution, most: Array | None) -> tuple[Array, Array]:
        """Residuals in standard deviations (0 where missing), and the standard deviation.

        That is ``most`` at most, where it is given.
        """
        size = self.size(solution)
        sigma = self.deviation(size)
        if most is not None:
            sigma = np.minimum(sigma, most)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(size / sigma[..., None, :], nan=0.0), sigma

    def rounding(self, sigma: Array) -> Array:
        """How far rounding of residuals may change a weight, as a share of it, (..., n)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.nan_to_num(10 * self.eps / sigma, nan=0.0))

    def deviation(self, size: Array) -> Array:
        """Robust standard deviation; nan where there are no more samples than unknowns."""
        # p residuals of a fit of p parameters may vanish: the median is that of the others.
        ordered = np.sort(size, axis=-2)
        middle = (self.parameters + self.count - 1) / 2
        last = np.maximum(self.count - 1, 0)
        low = np.minimum(np.floor(middle).astype(np.intp), last)[..., None, :]
        high = np.minimum(np.ceil(middle).astype(np.intp), last)[..., None, :]
        pair = np.take_along_axis(ordered, low, -2) + np.take_along_axis(ordered, high, -2)
        sigma = np.maximum(pair[..., 0, :] / (2 * self.median), self.floor)
        return np.where(self.count > self.parameters, sigma, np.nan)

    def misfit(self, solution: Solution) -> Array:
        """Root mean square of all residuals, outliers included."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(
                np.sqrt(np.nansum(np.square(self.size(solution)), -2) / self.weights.sum(-2))
            )
