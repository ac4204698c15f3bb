"""The complex step: J from imaginary parts, without subtraction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np._covariance import Covariance
from gradiator_np._status import Status
from gradiator_np._typing import Array, Mask
from gradiator_np.designs._displacements import AxisDisplacements
from gradiator_np.designs._protocol import Problem, Rows, per_input
from gradiator_np.solvers._solution import Solution

# Nothing is subtracted, so the step may be as small as one likes: its error, h^2 f'''/6, is far
# below rounding at 1e-20 of the scale of x, and f' h is far above underflow.
RELATIVE_STEP = 1e-20

# Powers of eps that make the real steps of the check, relative to the scale of x: at the first,
# 4e-10, a function that bends at 1e-7 of x is as straight as its rounding is small. Only where
# it disagrees there are two more runs, at 6e-6 both ways, which rounding does not reach.
REAL_STEPS = (0.6, 1 / 3)
# A real difference agrees where it is that near: an input whose imaginary part is lost shows if
# it makes that share of what all inputs move together.
NEAR = 0.01
# Rounding of a value in its own last places.
ROUNDING = 30.0
# Shares of the steps of the inputs, no two alike: what two inputs lose shall not cancel.
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class ComplexStep:
    """J_j = Im f(x + i h e_j) / h (Squire and Trapp, SIAM Review 40 (1998) 110).

    For functions that accept complex input and are analytic there. One more run, at real steps of
    all inputs at once, tells functions that lose the imaginary part on their way (``abs``,
    ``.real``, ``np.maximum``): their J misses what the run shows.

    Parameters
    ----------
    step : scalar, like x, or array, shape (B, m) for B points of a batch, optional
        In units of x; by default 1e-20 times its scale.

    Examples
    --------
    >>> from gradiator_np import designs, jacobian
    >>> jacobian(lambda x: x**3, [1.0, 2.0], method=designs.ComplexStep()).jac
    array([[ 3.,  0.],
           [ 0., 12.]])
    """

    step: ArrayLike | None = None
    needs_value: ClassVar[bool] = True
    draws: ClassVar[bool] = False

    def start(self, problem: Problem, learned: Any = None) -> ComplexPlan:
        """A plan for one problem."""
        return ComplexPlan(self, problem)


class ComplexPlan:
    """The complex step on one problem; see ``Plan``."""

    name = "cs"
    learned = None

    def __init__(self, design: ComplexStep, problem: Problem) -> None:
        if problem.y.dtype.kind == "c":
            raise TypeError(
                "fun returns complex values at a real x, so their imaginary part cannot carry the "
                "derivative; use method='3-point', which gives the complex Jacobian"
            )
        self.problem = problem
        if design.step is None:
            step = RELATIVE_STEP * problem.scale
        else:
            step = np.abs(per_input(design.step, problem.x.shape, "step"))
        self.h = np.where(problem.lower == problem.upper, 0.0, step)
        self.active = np.flatnonzero((self.h != 0).any(0))

    @property
    def step(self) -> Array:
        """Step of each input, nan where fixed, shape (B, m)."""
        return np.asarray(np.where(self.h == 0, np.nan, self.h))

    def ask(self, rows: Rows) -> AxisDisplacements | None:
        """One imaginary offset for each input, and a real one of all; a failed one is not replaced.

        Real parts of the first stay at x, where fun has just succeeded, so no other place would do
        better.
        """
        if not len(self.active):
            return None
        count = len(rows.moves)
        imaginary = 1j * self.h[:, self.active].T
        if count == 0:
            first = self._real(0)
            if not first.any():
                return AxisDisplacements(self.active, imaginary)
            return self._rows(imaginary, [first])
        if count == len(self.active) + 1 and self._apart(rows, 0).any():
            second = self._real(1)
            return self._rows(imaginary[:0], [second, -second] if self._room(-second) else [second])
        return None

    def _rows(self, imaginary: NDArray[Any], real: list[Array]) -> AxisDisplacements:
        """Imaginary rows of one input each, then real ones (B, m) of all."""
        first, k = self.active[0], len(imaginary)
        columns = np.concatenate([self.active[:k], np.full(len(real), first)])
        t = np.concatenate([imaginary, [d[:, first] for d in real]])
        beside = np.arange(self.h.shape[1]) != first
        return AxisDisplacements(columns, t, {k + i: d * beside for i, d in enumerate(real)})

    def _room(self, d: Array) -> bool:
        """Whether x + d lies within the bounds."""
        p = self.problem
        return bool(((p.x + d >= p.lower) & (p.x + d <= p.upper)).all())

    def _real(self, which: int) -> Array:
        """Real offsets of all inputs, within the bounds, (B, m)."""
        p = self.problem
        share = 0.5 + 0.5 * np.modf(GOLDEN * np.arange(1, p.x.shape[1] + 1))[0]
        size = p.eps ** REAL_STEPS[which] * share * p.scale
        up, down = p.upper - p.x, p.x - p.lower
        away = np.where(p.x < 0, down, up) >= np.minimum(size, np.maximum(up, down))
        ahead = away == (p.x >= 0)
        d = np.where(ahead, np.minimum(size, up), -np.minimum(size, down))
        still = (self.h == 0) | (np.abs(d) < p.eps * p.scale)  # fixed, or with no room to speak of
        return np.asarray(np.where(still, 0.0, (p.x + d) - p.x))

    def _apart(self, rows: Rows, which: int) -> Mask:
        """Where a real difference is not what J makes of it, (B, n)."""
        gap, size = self._gap(rows, which)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.abs(gap) > size)

    def _gap(self, rows: Rows, which: int) -> tuple[Array, Array]:
        """A real difference less what J makes of it, per unit of the step, and how much may be:
        both (B, n), nan where unknown."""
        row, k = len(self.active) + which, len(self.active)
        if len(rows.values) <= row or not rows.done[row]:
            nothing = np.full(rows.y.shape, np.nan)
            return nothing, nothing
        d, unit = self._real(which), self.problem.eps ** REAL_STEPS[which]
        with np.errstate(invalid="ignore", over="ignore"):
            slope = rows.values[:k].imag / self.h[:, self.active].T[..., None]  # (k, B, n)
            moved = slope * d[:, self.active].T[..., None]
            seen = rows.values[row].real - rows.y
            if (
                which and len(rows.values) > row + 1
            ):  # the mirror image of the second: free of curvature
                seen = (rows.values[row].real - rows.values[row + 1].real) / 2
            size = np.maximum(np.abs(seen), np.abs(moved).sum(0))
            may = NEAR * size + ROUNDING * self.problem.eps * np.abs(rows.y)
            return (seen - moved.sum(0)) / unit, may / unit

    def _checked(self, rows: Rows) -> bool:
        """Whether a real difference agrees with every output."""
        gap, size = self._gap(rows, 0)
        with np.errstate(invalid="ignore"):
            return bool((np.abs(gap) <= size).all())

    def _drops(self, rows: Rows) -> Mask:
        """Outputs (B, n) whose real differences agree with each other, and not with J."""
        (one, _), (two, _) = self._gap(rows, 0), self._gap(rows, 1)
        with np.errstate(invalid="ignore"):
            alike = np.abs(one - two) < 0.5 * np.minimum(np.abs(one), np.abs(two))
        return self._apart(rows, 0) & self._apart(rows, 1) & alike

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from whatever has been told."""
        b, m = self.h.shape
        n = rows.y.shape[-1]
        coef, known = np.zeros((b, n, m)), np.zeros((b, n, m), dtype=bool)
        for row, j in enumerate(self.active[: len(rows.values)].tolist()):
            with np.errstate(invalid="ignore", divide="ignore"):
                slope = rows.values[row].imag / self.h[:, j, None]
            known[:, :, j] = np.isfinite(rows.values[row]) & np.isfinite(slope)
            coef[:, :, j] = np.where(known[:, :, j], slope, 0.0)
        lost = ~known
        status = Status.OK
        message = (
            "exact to rounding where fun is analytic, "
            + ("as a real difference confirms to 1 %" if self._checked(rows) else "not checked")
            + "; nothing in the samples tells the error (stderr nan)"
        )
        if not rows.done.all():
            status, message = Status.INCOMPLETE, "not every point asked for has been told"
        elif (drops := self._drops(rows)).any():
            status = Status.LACK_OF_FIT
            message = (
                f"real differences contradict J in {int(drops.any(0).sum())} of {n} outputs: fun "
                "loses the imaginary part on its way (abs, .real, conj, np.maximum, a real array) "
                "or is not analytic; take method='auto'"
            )
        elif lost.any():
            status = Status.UNDETERMINED
            message = "fixed inputs or failed runs leave entries undetermined (stderr inf)"
        cov = Covariance(
            np.full((b, n), np.nan), np.zeros((b, m)), lost=lost if lost.any() else None
        )
        return Solution(
            coef, cov, np.zeros((b, n)), m - lost.any(1).sum(-1), np.ones(b),
            np.full((b, n), np.nan), status=status, message=message,
        )  # fmt: skip
