"""The pseudo-inverse solver: least squares with error bars, weights, gaps and known structure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._covariance import Covariance
from gradiator_np._status import Status
from gradiator_np.solvers import _regression
from gradiator_np.solvers._groups import OutputGroup, join_outputs
from gradiator_np.solvers._least_squares.influence import left_out
from gradiator_np.solvers._least_squares.linear import LinearFit, ridge_lstsq
from gradiator_np.solvers._least_squares.reduced import ReducedProblem
from gradiator_np.solvers._least_squares.symmetric import fit_symmetric
from gradiator_np.solvers._least_squares.weighted_rows import (
    WeightedRows,
    residual_scale,
    value_stderr,
)
from gradiator_np.solvers._regression import RegressionProblem
from gradiator_np.solvers._solution import Solution


@dataclass(frozen=True, slots=True)
class Pinv:
    r"""Least squares by the Moore-Penrose inverse, left or right as the samples demand.

    Each row of J minimises

    .. math:: \sum_k w_k (df_k - J dx_k)^2 + \mathrm{ridge} |J - J_0|^2

    and where the samples leave a choice it is the one nearest to the prior :math:`J_0` (0 where
    none is given), in the caller's units of x.

    Parameters
    ----------
    rcond : float, optional
        Singular values of the samples (columns scaled to norm 1) below ``rcond`` times the
        largest count as zero. By default max(k, m) times the machine epsilon.
    ridge : float
        Penalty on the squared distance from ``jac0``, in squared units of x: the variance of the
        noise over the variance that an entry of J is believed to have (behind ``jacobian``, whose
        steps are its own, relative to the sum of squares of each input's steps). It shrinks J, and
        its errors are those of Bayesian linear regression; entries that no sample determines keep
        ``stderr`` inf all the same.
    errors : {"classical", "hc3"}
        "classical": one noise level per output, from the residuals. "hc3": from the leave-one-out
        residual of each sample, for noise whose size differs between samples in ways that no
        weights tell (MacKinnon and White, Journal of Econometrics 29, 1985).

    Raises
    ------
    ValueError
        For options out of range; of ``solve``, for "hc3" errors with ``noise`` or symmetry.

    Notes
    -----
    ``df`` may be complex: its noise is then that of the complex number, and errors are those of
    the modulus. With symmetric constraints all outputs share one noise level, and rows of J are
    correlated: products with several nonzero entries of v neglect that.

    Examples
    --------
    >>> from gradiator_np.solvers import Pinv
    >>> dx = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]]
    >>> solution = Pinv().solve(dx, [2.1, 2.9, 5.1, -1.0])
    >>> solution.coef.round(3), solution.cov.stderr().round(3)
    (array([[2.067, 3.   ]]), array([[0.053, 0.053]]))

    Shrunk towards a prior Jacobian, with a noise that is known:

    >>> Pinv(ridge=1.0).solve(dx, [2.1, 2.9, 5.1, -1.0], jac0=[[2.0, 3.0]], noise=0.1).coef.round(3)
    array([[2.05, 3.  ]])
    """

    rcond: float | None = None
    ridge: float = 0.0
    errors: Literal["classical", "hc3"] = "classical"

    def __post_init__(self) -> None:
        if self.rcond is not None and not 0 <= checks.real(self.rcond, "rcond") < 1:
            raise ValueError(f"rcond={self.rcond!r} must lie in [0, 1); None takes rounding")
        if not 0 <= checks.real(self.ridge, "ridge") < math.inf:
            raise ValueError(f"ridge={self.ridge!r} must be finite and not negative; 0 is none")
        checks.choice(self.errors, ("classical", "hc3"), "errors")

    solve = _regression.solve

    def fit(self, problem: RegressionProblem) -> Solution:
        """The solution of a checked problem."""
        symmetric = problem.constraints is not None and problem.constraints.symmetric
        if self.errors == "hc3" and (symmetric or problem.noise is not None):
            raise ValueError(
                "a symmetric fit has classical errors only; use errors='classical'"
                if symmetric
                else "errors='hc3' take the noise from each residual, so noise= cannot be given as "
                "well; drop one of the two"
            )
        reduced = ReducedProblem.of(problem)
        if symmetric:
            whole = fit_symmetric(reduced, self.rcond, self.ridge)
        else:
            parts = [(group, self._fit_group(reduced, group)) for group in reduced.groups()]
            whole = join_outputs(parts, reduced.df.shape[2], reduced.dx.shape[2])
        status, message = _status(whole)
        whole = replace(
            whole,
            coef=whole.coef if reduced.offset is None else whole.coef + reduced.offset,
            status=status,
            message=message,
            classical=self.errors == "classical" and problem.noise is None,
        )
        return whole.with_batch(problem.batch)

    def _fit_group(self, problem: ReducedProblem, group: OutputGroup) -> Solution:
        """The outputs of one group."""
        dx, df, noise = problem.select(group)
        rows = WeightedRows.of(dx, df, group.weights, problem.intercept)
        linear = ridge_lstsq(rows.x, rows.f, self.ridge, self.rcond, compact=True)
        count = rows.count - problem.intercept
        dof = count - linear.rank
        if self.ridge:
            dof = count - dx.shape[2] + self.ridge * np.square(linear.factor).sum((1, 2))
        rss = linear.rss[:, 0::2] + linear.rss[:, 1::2] if rows.is_complex else linear.rss
        scale, dof = residual_scale(rss, dof[:, None], noise)
        with np.errstate(divide="ignore", invalid="ignore"):
            misfit = rss / rows.total[:, None]
        np.sqrt(misfit, out=misfit)
        cov = Covariance(
            scale, factor=linear.factor, null=linear.null, span=linear.span, unit=linear.unit
        )
        solution = Solution(
            rows.joined(linear.coef), cov, dof, linear.rank, linear.cond, misfit,
        )  # fmt: skip
        if problem.intercept:
            solution = _with_value(solution, rows, linear)
        return _with_hc3(solution, rows, linear) if self.errors == "hc3" else solution


def _with_value(solution: Solution, rows: WeightedRows, linear: LinearFit) -> Solution:
    """Add the value at dx = 0 and its error."""
    assert rows.mean_x is not None
    assert rows.mean_f is not None
    value = rows.joined(rows.mean_f - np.matvec(linear.coef, rows.mean_x))
    error = value_stderr(solution.cov, rows.mean_x[:, None], rows.total[:, None])
    return replace(solution, value=value, value_stderr=error)


def _with_hc3(solution: Solution, rows: WeightedRows, linear: LinearFit) -> Solution:
    """Let the leave-one-out residual of each sample stand in for one noise level."""
    z = rows.x @ linear.factor
    scale = solution.cov.scale
    errors = left_out(rows, linear, z, scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        loading = np.where(errors == 0, 0.0, errors / scale[:, :, None])
    inverse = linear.factor @ z.swapaxes(1, 2)
    solution = replace(solution, cov=replace(solution.cov, factor=inverse, loading=loading))
    if rows.mean_x is None or solution.value_stderr is None:
        return solution
    root = 1.0 if rows.root is None else rows.root
    share = root / np.where(rows.total > 0, rows.total, 1.0)[:, None]
    influence = share - np.vecmat(rows.mean_x, inverse)
    error = np.sqrt(np.square(influence[:, None] * errors).sum(-1))
    known = np.isfinite(solution.value_stderr)
    return replace(solution, value_stderr=np.where(known, error, solution.value_stderr))


def _status(solution: Solution) -> tuple[Status, str]:
    """Status, and what limits the answer."""
    cov = solution.cov
    if not cov.complete:
        return Status.UNDETERMINED, (
            f"the samples determine {int(solution.rank.min())} of {solution.coef.shape[-1]} "
            "directions of x; entries whose stderr is inf are the least-norm choice: add samples "
            "along those inputs"
        )
    if not solution.dof.all():
        return Status.OK, (
            "as many unknowns as samples: nothing tells the noise, so stderr is nan; "
            "add samples or give the noise"
        )
    return Status.OK, ""
