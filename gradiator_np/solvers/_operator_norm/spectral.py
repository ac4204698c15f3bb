r"""Least operator norm of the residual: ``min ||J B - C||_2`` with B = dx^T, C = df^T.

Without structure the least squares solution ``C B^+`` is optimal: for every A

.. math:: (A B - C)(A B - C)^T = (A - C B^+) B B^T (A - C B^+)^T + F F^T, \quad F = C (I - B^+ B),

so it minimises every singular value of the residual at once, and ``rho = ||F||_2`` certifies it.
Only a structured Jacobian (pattern, known entries, symmetry) needs an iteration.

The operator norm suits bounded noise, whose worst case it measures; for Gaussian noise least
squares is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradiator_np._checks import EPS
from gradiator_np._status import Status
from gradiator_np._typing import Array, Mask
from gradiator_np.solvers import _regression
from gradiator_np.solvers._least_squares.pinv import Pinv
from gradiator_np.solvers._operator_norm import douglas_rachford as dr
from gradiator_np.solvers._operator_norm.consistent import ConsistentSet, spectral_from_entry
from gradiator_np.solvers._operator_norm.samples import NormSamples
from gradiator_np.solvers._operator_norm.subspaces import (
    PatternSpace,
    Subspace,
    SymmetricPatternSpace,
    SymmetricSpace,
)
from gradiator_np.solvers._regression import RegressionProblem
from gradiator_np.solvers._solution import Constraints, Solution


@dataclass(frozen=True, slots=True)
class Spectral:
    """Fit a Jacobian by the least operator norm of the residual.

    Parameters
    ----------
    gap_tol : float
        A structured fit stops where its relative duality gap is at most this. Default 1e-4.
    max_iter : int
        Iterations of a structured fit, and once more of its tie-break. Default 5000.
    entry_bound : float, optional
        Bound on the error of one entry of ``df``, in units of y: for differences of two noisy
        values twice that of a value. Adds ``info["consistent"]``, the set of all Jacobians
        that the samples allow.
    spectral_bound : float, optional
        The same as a bound on the operator norm of the whole error matrix.
    tie_break : float, optional
        A structured minimiser is not unique. With ``tie_break=delta``, at least 1e-2, the
        Jacobian of least Frobenius norm of the residual among those within ``1 + delta`` times
        the least operator norm is returned. (At 1e-4 the iteration did not end.)
    start : Solution, optional
        Begin a structured fit where that of similar samples, of the same shape, stopped. (A
        Jacobian alone is no start: the iteration needs the dual variable as well, and took as
        many iterations from the exact minimiser as from least squares.)
    callback : callable, optional
        Called as ``callback(iteration, lower, upper)`` at every certificate.

    Notes
    -----
    ``Solution.info`` holds ``lower`` and ``upper``, between which the least operator norm lies
    (``upper`` is that of the returned Jacobian, equal to ``lower`` in closed form; with
    ``tie_break`` it is larger by up to delta), ``iterations``, ``state`` (for ``start``) and,
    with a bound, ``consistent`` (`ConsistentSet`).

    Bounded noise has no standard deviation. The closed form is the least squares fit and
    carries its classical covariance, right where errors are independent. A structured fit
    says nan for what the samples determine, 0 for entries known in advance and inf for what no
    sample determines: its guarantees are ``info["consistent"]``.

    The operator norm couples the outputs, so a sample with a nan is dropped whole and weights
    are per sample: the residuals of sample j are multiplied by ``sqrt(w_j)``.

    Raises
    ------
    ValueError
        For options out of range; of ``solve``, for a batch of structured problems, structure that
        contradicts itself, or a bound with which no Jacobian is consistent.

    Examples
    --------
    >>> from gradiator_np.solvers import Constraints, Spectral
    >>> dx = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]]
    >>> df = [[2.1, 0.2], [0.1, 3.0], [2.0, 3.1], [2.1, -2.9]]
    >>> diagonal = Constraints(sparsity=[[1, 0], [0, 1]])
    >>> solution = Spectral(gap_tol=1e-6).solve(dx, df, constraints=diagonal)
    >>> solution.coef.round(2), round(float(solution.info["lower"]), 3)
    (array([[2.07, 0.  ],
           [0.  , 3.  ]]), 0.245)
    """

    options_in_y: ClassVar[bool] = True
    gap_tol: float = 1e-4
    max_iter: int = 5000
    entry_bound: float | None = None
    spectral_bound: float | None = None
    tie_break: float | None = None
    start: Solution | None = field(default=None, compare=False)
    callback: Callable[[int, float, float], object] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.gap_tol < 1:
            raise ValueError(f"gap_tol must be between 0 and 1, got {self.gap_tol}")
        if self.max_iter < 1:
            raise ValueError(f"max_iter must be at least 1, got {self.max_iter}")
        if self.tie_break is not None and not self.tie_break >= 1e-2:
            raise ValueError(
                f"tie_break must be at least 1e-2, got {self.tie_break}: closer to the least "
                "operator norm the least Frobenius norm is not found in reasonable time"
            )
        if self.entry_bound is not None and self.spectral_bound is not None:
            raise ValueError("give entry_bound or spectral_bound, not both")
        if not isinstance(self.start, Solution | None):
            raise TypeError(f"start must be a Solution, got {type(self.start).__name__}")

    solve = _regression.solve

    def fit(self, problem: RegressionProblem) -> Solution:
        """The solution of a checked problem."""
        samples = NormSamples.of(problem)
        constraints = problem.constraints or Constraints()
        free, fixed = _free_entries(constraints, samples.shape)
        if free is None:
            return self._closed_form(samples, problem)
        solution = self._structured(samples, free, fixed, constraints.symmetric, problem.jac0)
        return solution if problem.noise is None else solution.with_noise(problem.noise)

    def _closed_form(self, samples: NormSamples, problem: RegressionProblem) -> Solution:
        every = bool((samples.weight == 1).all())
        whole = replace(problem, df=samples.y, weights=None if every else np.square(samples.weight))
        solution = Pinv().fit(whole)
        x, y = samples.scaled(None)
        rho = np.linalg.norm(y - x @ solution.coef.swapaxes(-1, -2), 2, axis=(-2, -1))
        info = {"lower": rho, "upper": rho, "iterations": 0, **self._consistent(samples)}
        return replace(solution, info=solution.info | info)

    def _structured(
        self,
        samples: NormSamples,
        free: Mask,
        fixed: NDArray[Any],
        symmetric: bool,
        jac0: NDArray[Any] | None,
    ) -> Solution:
        if samples.x.ndim != 2:
            raise ValueError(
                f"a structured operator norm fit takes one problem at a time, got dx of shape "
                f"{samples.x.shape}; loop over the batch"
            )
        if jac0 is not None and symmetric and not np.array_equal(jac0, jac0.T):
            raise ValueError("jac0 is not symmetric but symmetric=True; give (jac0 + jac0.T) / 2")
        base = fixed if jac0 is None else np.where(free, jac0, fixed)
        x, y = full_x, full_y = samples.scaled(base)
        if len(x) > x.shape[1] + y.shape[1]:
            # A rotation of the samples changes no norm: their triangular factor holds it all.
            r = np.asarray(np.linalg.qr(np.hstack([x, y]), mode="r"))
            x, y = np.ascontiguousarray(r[:, : x.shape[1]].real), r[:, x.shape[1] :]
        space = _subspace(x, free, symmetric)
        coef, found, failure = self._minimise(x, y.T, space)
        rest = full_y - full_x @ coef.T
        upper = dr.spectral_norm(rest)
        info = {
            "lower": min(found.lower, upper),
            "upper": upper,
            "iterations": found.iterations,
            "state": found.state,
            **self._consistent(samples),
        }
        if "consistent" in info:
            _refuse_below(info["consistent"].eps, info["lower"])
        coef = np.where(free, base + coef, base)
        solution = samples.solution(coef, free, space, info)
        if not failure:
            return solution
        return replace(solution, status=Status.NOT_CONVERGED, message=failure)

    def _minimise(
        self, x: Array, target: NDArray[Any], space: Subspace
    ) -> tuple[NDArray[Any], dr.Minimum, str]:
        """Coefficients, the certificate, and which tolerance was not met."""
        coef = space.coef(target)
        rest = target - coef @ x.T
        correction = space.coef(rest)  # one refinement: the first residual has cond * eps
        coef += correction
        rest -= correction @ x.T
        rounding = EPS * max(x.shape) * np.max(np.abs(target) + np.abs(coef) @ np.abs(x.T))
        if np.abs(rest).max() <= rounding:
            return coef, dr.Minimum(np.zeros_like(coef), 0.0, dr.spectral_norm(rest), 0, None), ""
        found = dr.minimise(
            rest,
            x,
            space,
            gap_tol=self.gap_tol,
            max_iter=self.max_iter,
            state=self._state(target),
            callback=self.callback,
        )
        failure = ""
        if found.gap() > self.gap_tol:
            failure = (
                f"after {found.iterations} iterations the least operator norm is only known to lie "
                f"between {found.lower:.6g} and {found.upper:.6g}, and gap_tol is "
                f"{self.gap_tol:g}; raise max_iter (start= continues from this solution)"
            )
        elif self.tie_break is not None:
            limit = (1 + self.tie_break) * found.upper
            found, closed = dr.least_frobenius(
                rest, x, space, found, limit, gap_tol=self.gap_tol, max_iter=self.max_iter
            )
            if not closed:
                failure = (
                    f"after {found.iterations} iterations the tie-break has not found the least "
                    f"Frobenius norm to {self.gap_tol:g}; raise max_iter or tie_break"
                )
        return coef + found.coef, found, failure

    def _state(self, target: NDArray[Any]) -> NDArray[Any] | None:
        """Where the iteration begins, (n, k); None for the least squares residual."""
        state = None if self.start is None else self.start.info.get("state")
        if state is not None and state.shape != target.shape:
            raise ValueError(
                f"start stems from samples of another shape: its state is {state.shape}, and "
                f"these need {target.shape}; leave start out"
            )
        return state

    def _consistent(self, samples: NormSamples) -> dict[str, Any]:
        eps = self.spectral_bound
        if self.entry_bound is not None:
            each = float(np.sqrt(np.mean(np.square(samples.weight))))
            eps = each * spectral_from_entry(self.entry_bound, *samples.y.shape[-2:])
        if eps is None:
            return {}
        if samples.x.ndim != 2:
            raise ValueError(
                "entry_bound and spectral_bound take one problem at a time; loop over the batch"
            )
        return {"consistent": ConsistentSet(*samples.scaled(None), eps)}


def _subspace(x: Array, free: Mask, symmetric: bool) -> Subspace:
    if not symmetric:
        return PatternSpace(x, free)
    return SymmetricSpace(x) if free.all() else SymmetricPatternSpace(x, free)


def _refuse_below(eps: float, lower: float) -> None:
    if eps < lower * (1 - 1e-9):
        raise ValueError(
            f"no Jacobian of this structure is consistent with eps = {eps:g}: the least operator "
            f"norm of the residual is at least {lower:g}. Either the noise is larger than the "
            "bound says, the structure is wrong, or the function bends over the samples"
        )


def _free_entries(c: Constraints, shape: tuple[int, int]) -> tuple[Mask | None, NDArray[Any]]:
    """Which entries are unknown, and the values of the others; None where all are unknown."""
    free, fixed = np.ones(shape, bool), np.broadcast_to(0.0, shape)
    if c.sparsity is not None:
        free = c.sparsity
    if c.known is not None:
        fixed = np.nan_to_num(c.known, nan=0.0)
        free = free & np.isnan(c.known)
    if c.symmetric:
        if (~free & ~free.T & (fixed != fixed.T)).any():
            raise ValueError("known entries contradict symmetric=True")
        free, fixed = free & free.T, np.where(free, fixed.T, fixed)
    elif free.all():
        return None, fixed
    return free, fixed
