"""Recursive least squares, and Kaczmarz updates, as a batch solver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import _checks as checks
from gradiator_np._typing import Array
from gradiator_np.solvers import _regression
from gradiator_np.solvers._groups import OutputGroup, join_batch, join_outputs
from gradiator_np.solvers._recursive.kaczmarz import kaczmarz, refuse_zero_steps
from gradiator_np.solvers._recursive.square_root import SquareRoot, solution_of, with_value
from gradiator_np.solvers._regression import RegressionProblem
from gradiator_np.solvers._solution import Solution

Mode = Literal["least-squares", "kaczmarz"]


@dataclass(frozen=True, slots=True)
class RankOne:
    """Recursive least squares: samples are taken row by row, in their order.

    Parameters
    ----------
    mode : {"least-squares", "kaczmarz"}
        "least-squares" averages noise and equals a ridge fit of all rows at once; "kaczmarz" fits
        the newest row exactly and keeps what is orthogonal to it (Broyden's update): no error bars.
    prior_scale : float or array_like, shape (m,), or None
        The prior counts as one row of this displacement along each input, in units of x, which
        saw ``jac0`` (zero by default): the ridge is its square. None: the fit nearest to ``jac0``,
        as that of `Pinv`.
    forgetting : float
        Weight, in (0, 1], that a row leaves of earlier information along its own direction.

    Raises
    ------
    ValueError
        For options out of range; of ``solve``, in Kaczmarz mode for an intercept or a zero row.

    Examples
    --------
    The newest samples count most where the Jacobian drifts:

    >>> from gradiator_np.solvers import RankOne
    >>> dx, df = [[1.0]] * 8, [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    >>> RankOne().solve(dx, df).coef.round(2), RankOne(forgetting=0.5).solve(dx, df).coef.round(2)
    (array([[1.5]]), array([[1.94]]))
    """

    mode: Mode = "least-squares"
    prior_scale: ArrayLike | None = None
    forgetting: float = 1.0

    def __post_init__(self) -> None:
        check_options(self.mode, self.forgetting)

    solve = _regression.solve

    def fit(self, problem: RegressionProblem) -> Solution:
        """The solution of a checked problem."""
        if problem.intercept and self.mode == "kaczmarz":
            raise ValueError(
                "Kaczmarz updates cannot tell the noise of a shared base: pass base='exact', or "
                "use RankOne(mode='least-squares')"
            )
        df, jac0 = problem.df, problem.jac0
        n, m = df.shape[-1], problem.dx.shape[-1]
        # One column where all outputs share their weights, so that they share one triangle.
        full = problem.output_weights
        failed = np.isnan(df)
        if failed.any():
            full = np.where(failed, 0.0, full)
        start = np.zeros((*problem.batch, n, m)) if jac0 is None else jac0
        prior = prior_lengths(self.prior_scale, m)
        if self.mode == "kaczmarz":
            for i in np.ndindex(*problem.batch):
                used = np.flatnonzero(full[i].any(1))
                refuse_zero_steps(problem.dx[i][used], used, "dx")
        members = [
            self._fit_member(problem.dx[i], df[i], full[i], problem.intercept, start[i], prior)
            for i in np.ndindex(*problem.batch)
        ]
        solution = join_batch(members, problem.batch)
        return solution if problem.noise is None else solution.with_noise(problem.noise)

    def _fit_member(
        self,
        dx: Array,
        df: NDArray[Any],
        weights: Array,
        intercept: bool,
        jac0: NDArray[Any],
        prior: Array | None,
    ) -> Solution:
        """One problem of the batch; outputs that share their weights share a fit."""
        patterns, group = np.unique(weights, axis=1, return_inverse=True)
        parts = []
        n, m = df.shape[1], dx.shape[1]
        shared = patterns.shape[1] == 1
        for g in range(patterns.shape[1]):
            outputs = np.arange(n) if shared else np.flatnonzero(group.ravel() == g)
            rows = patterns[:, g] > 0
            root = np.sqrt(patterns[rows, g])[:, None]
            x, y = dx[rows], df[np.ix_(rows, outputs)]
            if np.iscomplexobj(y) or np.iscomplexobj(jac0):
                y = y - x @ jac0[outputs].T
                fitted = self._fit_rows(x, np.hstack([y.real, y.imag]), root, intercept, prior)
                fitted = _as_complex(fitted)
            else:
                fitted = self._fit_rows(x, y - x @ jac0[outputs].T, root, intercept, prior)
            fitted = replace(fitted, coef=fitted.coef + jac0[outputs])
            parts.append((OutputGroup(outputs), fitted))
        return join_outputs(parts, n, m)

    def _fit_rows(
        self, dx: Array, df: Array, root: Array, intercept: bool, prior: Array | None
    ) -> Solution:
        # From the first row, or rounding of a cloud far from 0 would pass for a direction.
        origin = dx[:1]
        columns = np.hstack([np.ones((len(dx), 1)), dx - origin]) if intercept else dx
        state = SquareRoot.zeros(columns.shape[1], df.shape[1], self.forgetting)
        weighted = bool((root != 1).any())
        state.absorb(columns * root if weighted else columns, df * root if weighted else df)
        # The value at the base has no prior, and is no part of the least norm.
        inner = state.without_intercept() if intercept else state
        solution = solution_of(inner, inner.posterior(prior))
        if intercept:
            solution = with_value(solution, state, origin)
        # Error bars are sums along the rows of the factor, which LAPACK leaves in columns.
        factor = np.ascontiguousarray(solution.cov.factor)
        solution = replace(solution, cov=replace(solution.cov, factor=factor))
        if self.mode == "least-squares":
            return solution
        jac = np.zeros((df.shape[1], dx.shape[1]))
        kaczmarz(jac, np.ascontiguousarray(dx), np.ascontiguousarray(df))
        miss = np.sqrt(np.square(df - dx @ jac.T).mean(axis=0)) if len(dx) else solution.residual
        return replace(
            solution,
            coef=jac,
            cov=replace(solution.cov, scale=np.full(df.shape[1], np.nan)),
            dof=np.zeros(df.shape[1]),
            residual=miss,
            classical=False,
        )


def check_options(mode: str, forgetting: float) -> None:
    """Refuse options that no solver has.

    Raises
    ------
    ValueError
    """
    if mode not in ("least-squares", "kaczmarz"):
        raise ValueError(f"mode must be 'least-squares' or 'kaczmarz', got {mode!r}")
    if not 0 < checks.real(forgetting, "forgetting") <= 1:
        raise ValueError(
            f"forgetting is the weight kept per row, in (0, 1], got {forgetting!r}: "
            "1 forgets nothing"
        )
    if mode == "kaczmarz" and forgetting != 1:
        raise ValueError(
            "Kaczmarz updates overwrite along each sample and have nothing to forget gradually: "
            "use forgetting=1, or mode='least-squares'"
        )


def prior_lengths(prior_scale: ArrayLike | None, m: int) -> Array | None:
    """``prior_scale`` as an array of shape (m,), or None.

    Raises
    ------
    ValueError
        If it is not positive and finite, or of another length.
    """
    if prior_scale is None:
        return None
    scale = checks.numeric(prior_scale, "prior_scale").astype(np.float64)
    if scale.shape not in ((), (m,)):
        raise ValueError(f"prior_scale must be a number or of shape ({m},), got {scale.shape}")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(
            "prior_scale is a displacement in units of x and must be positive and finite, got "
            f"{prior_scale!r:.60}: use None for the least-norm limit"
        )
    return np.broadcast_to(scale, (m,)).copy()


def _as_complex(solution: Solution) -> Solution:
    """Join the real and imaginary parts that were solved as outputs of their own."""
    n = len(solution.coef) // 2

    def size(a: Array) -> Array:
        return np.asarray(np.hypot(a[:n], a[n:]))

    value, error = solution.value, solution.value_stderr
    return replace(
        solution,
        coef=solution.coef[:n] + 1j * solution.coef[n:],
        cov=replace(solution.cov, scale=size(solution.cov.scale)),
        dof=solution.dof[:n],
        residual=size(solution.residual),
        value=None if value is None else value[:n] + 1j * value[n:],
        value_stderr=None if error is None else size(error),
    )
