"""Least squares that outliers do not spoil."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np.solvers.influence import leverage
from gradiator_np.solvers.linear import EPS
from gradiator_np.solvers.pinv import Pinv
from gradiator_np.solvers.solution import Constraints, Solution

Array = NDArray[np.float64]

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
        Stop where no weight changes by more than this.
    rcond : float, optional
        As in ``Pinv``.

    Raises
    ------
    ValueError
        For options out of range.

    Notes
    -----
    ``cov.scale`` is the
    robust standard deviation of one sample, times the factor by which the estimate is less
    efficient than least squares (1.03 on Gaussian noise).
    """

    c: float = 1.345
    bound: float = 2.0
    max_iter: int = 100
    tol: float = 1e-6
    rcond: float | None = None

    def __post_init__(self) -> None:
        if not self.c > 0:
            raise ValueError(f"c={self.c!r} must be positive; 1.345 is Huber's")
        if not self.bound >= 1:
            raise ValueError(f"bound={self.bound!r} must be at least 1; inf bounds no leverage")
        if self.max_iter < 1:
            raise ValueError(f"max_iter={self.max_iter!r} must be at least 1")
        if not 0 < self.tol < 1:
            raise ValueError(f"tol={self.tol!r} must lie between 0 and 1")

    def solve(
        self,
        dx: Array,
        df: NDArray[Any],
        *,
        weights: Array | None = None,
        intercept: bool = False,
        constraints: Constraints | None = None,
        jac0: NDArray[Any] | None = None,
    ) -> Solution:
        """Fit df = J dx (+ c where ``intercept``); see ``Solver.solve``.

        Raises
        ------
        ValueError
            For ``symmetric`` constraints, under which outputs share one noise level.
        """
        if constraints is not None and constraints.symmetric:
            raise ValueError("Huber() fits each output by itself and knows no symmetry; use Pinv()")
        given = np.ones(df.shape[:-1]) if weights is None else weights
        given = given if given.ndim == df.ndim else given[..., None]
        given = np.where(np.isfinite(df), given, 0.0)
        calm = given * self._bounded(dx, given.max(-1), intercept)[..., None]
        solver = Pinv(self.rcond)

        def fit(w: Array) -> Solution:
            return solver.solve(
                dx, df, weights=w, intercept=intercept, constraints=constraints, jac0=jac0
            )

        # Errors are those of this fit, at Huber's efficiency: pulls are no inverse variances.
        plain = solution = fit(calm)
        residuals = _Residuals(dx, df, given, plain.dof)
        pull, change, steps, sigma = np.ones(df.shape), math.inf, 0, plain.cov.scale
        while change > self.tol and steps < self.max_iter:
            # The median may jump to and fro between two samples: hold it in the second half.
            held = sigma if 2 * steps > self.max_iter else None
            z, sigma = residuals.standardised(solution, held)
            new = self.c / np.maximum(z, self.c)
            change = float(np.abs(new - pull).max())
            pull, solution, steps = new, fit(calm * new), steps + 1
        z, sigma = residuals.standardised(solution, sigma)
        scale = sigma * self._loss(z, residuals)
        stopped = change > self.tol and solution.status == "ok"
        return replace(
            solution,
            cov=replace(plain.cov, scale=scale),
            dof=plain.dof,
            residual=residuals.misfit(solution),
            value_stderr=_rescaled(plain.value_stderr, plain.cov.scale, scale),
            status="not_converged" if stopped else solution.status,
            message=f"weights changed by {change:.1g} at iteration {steps}; raise max_iter"
            if stopped
            else solution.message,
            info={"iterations": steps, "weights": calm * pull},
        )

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
            if np.abs(new - factor).max() < 1e-3:
                break
            factor = new
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
        # Residuals below this are rounding.
        self.floor = 100 * EPS * np.abs(self.df * np.sqrt(weights)).max(-2)
        self.median = _MAD_COMPLEX if df.dtype.kind == "c" else _MAD

    def size(self, solution: Solution) -> Array:
        """Absolute weighted residuals, nan where a sample is missing."""
        fitted = self.dx @ solution.coef.swapaxes(-1, -2)
        if solution.value is not None:
            fitted = fitted + solution.value[..., None, :]
        size = np.sqrt(self.weights) * np.abs(self.df - fitted)
        return np.where(self.present, size, np.nan)

    def standardised(self, solution: Solution, sigma: Array | None) -> tuple[Array, Array]:
        """Residuals in standard deviations (0 where missing), and the standard deviation."""
        size = self.size(solution)
        if sigma is None:
            sigma = self.deviation(size)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(size / sigma[..., None, :], nan=0.0), sigma

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


def _rescaled(error: Array | None, learned: Array, scale: Array) -> Array | None:
    """A value's error at another noise level."""
    if error is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(np.isinf(error), np.inf, error / learned * scale))
