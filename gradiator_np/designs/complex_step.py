"""The complex step: J from imaginary parts, without subtraction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradiator_np.covariance import Covariance
from gradiator_np.designs.base import Problem, Rows
from gradiator_np.designs.moves import AxisMoves
from gradiator_np.solvers.solution import Solution
from gradiator_np.status import Status

Array = NDArray[np.float64]

# Nothing is subtracted, so the step may be as small as one likes: its error, h^2 f'''/6, is far
# below rounding at 1e-20 of the scale of x, and f' h is far above underflow.
RELATIVE_STEP = 1e-20


@dataclass(frozen=True, slots=True)
class ComplexStep:
    """J_j = Im f(x + i h e_j) / h (Squire and Trapp, SIAM Review 40 (1998) 110).

    For functions that accept complex input and are analytic there.

    Parameters
    ----------
    step : array, shape (B, m), or None
        In units of x; by default 1e-20 times its scale.
    """

    step: Array | None = None
    needs_value = True

    def start(self, problem: Problem) -> ComplexPlan:
        """A plan for one problem."""
        return ComplexPlan(self, problem)


class ComplexPlan:
    """The complex step on one problem; see ``Plan``."""

    name = "cs"

    def __init__(self, design: ComplexStep, problem: Problem) -> None:
        if problem.y.dtype.kind == "c":
            raise TypeError(
                "fun returns complex values at a real x, so their imaginary part cannot carry the "
                "derivative; use method='3-point', which gives the complex Jacobian"
            )
        self.problem = problem
        step = RELATIVE_STEP * problem.scale if design.step is None else np.abs(design.step)
        self.h = np.where(problem.lower == problem.upper, 0.0, step)
        self.active = np.flatnonzero((self.h != 0).any(0))

    @property
    def step(self) -> Array:
        """Step of each input, nan where fixed, shape (B, m)."""
        return np.asarray(np.where(self.h == 0, np.nan, self.h))

    def ask(self, rows: Rows) -> AxisMoves | None:
        """One imaginary offset for each input; a failed one is not replaced.

        Real parts stay at x, where fun has just succeeded, so no other place would do better.
        """
        if len(rows.moves) or not len(self.active):
            return None
        return AxisMoves(self.active, 1j * self.h[:, self.active].T)

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from whatever has been told."""
        b, m = self.h.shape
        n = rows.y.shape[-1]
        coef, known = np.zeros((b, n, m)), np.zeros((b, n, m), dtype=bool)
        for row, j in enumerate(self.active[: len(rows.values)]):
            with np.errstate(invalid="ignore", divide="ignore"):
                slope = rows.values[row].imag / self.h[:, j, None]
            known[:, :, j] = np.isfinite(rows.values[row]) & np.isfinite(slope)
            coef[:, :, j] = np.where(known[:, :, j], slope, 0.0)
        lost = ~known
        status, message = (
            Status.OK,
            (
                "exact to rounding where fun is analytic; nothing in the samples tells the error "
                "(stderr nan)"
            ),
        )
        if not rows.done.all():
            status, message = Status.INCOMPLETE, "not every point asked for has been told"
        elif lost.any():
            status = Status.UNDETERMINED
            message = "fixed inputs or failed runs leave entries undetermined (stderr inf)"
        cov = Covariance(
            np.full((b, n), np.nan), np.zeros((b, m)), lost=lost if lost.any() else None
        )
        return Solution(
            coef, cov, np.zeros((b, n)), m - lost.any(1).sum(-1), np.ones(b),
            np.full((b, n), np.nan), status=str(status), message=message,
        )  # fmt: skip
