"""Whether a search that ended is a success: what runs determine, and what they lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.local_model import LocalModel
from gradiator_np._calibration.stopping import ZERO_SUM_OF_SQUARES
from gradiator_np._calibration.triangles import triangle
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._calibration.uncertainty import (
    gauss_newton_decrease,
    parameter_errors,
)
from gradiator_np._status import Status
from gradiator_np._typing import Array, Mask

#: The residuals do not answer any more where they did by so many times as much at the start.
LOST = 1e-6
#: ... by so many times as much, where the runs do not determine the parameter any more.
LOST_IF_OPEN = 1e-2
#: A minimum so many times farther away than x is long is out of the local model's reach.
FAR = 1e3
#: A decrease of this share of the sum of squares is one that a search misses.
BLOCKED_SHARE = 1e-4
#: ... and of this share where nothing failed, if noise is so little beside the residuals. (At ten
#: times that, one of 77 fits at a noise of 1e-4 was no success at its minimum.)
SHORT_SHARE, SHORT_NOISE = 1e-3, 1e-4


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a search ended.

    Attributes
    ----------
    x : array, shape (m,)
    model : LocalModel
    active : array of bool, shape (m,)
        Parameters that a bound holds there.
    free : array, shape (m, f)
        Orthonormal directions that neither bounds nor half-spaces hold.
    region : TrustRegion
    log : FitLog
    """

    x: Array
    model: LocalModel
    active: Mask
    free: Array
    region: TrustRegion
    log: FitLog

    def verdict(self, reason: Status, ftol: float) -> tuple[Status, Mask]:
        """The reason, or another one, and which parameters do not answer any more."""
        free = self.region.movable & ~self.active
        answers = self.answers()
        lost = free & (answers < LOST)
        zero = self.model.sum_of_squares <= ZERO_SUM_OF_SQUARES * self.log.reference
        _, undetermined = parameter_errors(self.model, self.active)
        lost |= free & undetermined & (answers < LOST_IF_OPEN)
        if reason is Status.CONVERGED and not zero:
            lost |= self.is_out_of_reach(free & ~undetermined, ftol)
        if reason.success and not zero and self.is_short():
            lost |= free & undetermined
        first = next(r for r in self.log.residuals if r is not None)
        nothing = free.any() and first.any() and undetermined[free].all()
        if nothing or lost.any():
            return Status.UNDETERMINED, lost
        return (Status.FAILING_REGION if reason.success and self.is_blocked() else reason), lost

    def is_blocked(self) -> bool:
        """Whether runs failed on the way to a sum of squares that is clearly lower by the model."""
        model = self.model
        failed = [self.log.points[i] for i in self.log.failed]
        least = BLOCKED_SHARE * model.sum_of_squares + 4.0 * model.sum_of_squares_sd
        jac = model.jac @ self.free
        if not failed or gauss_newton_decrease(model.residuals, jac) <= least:
            return False
        step = -self.free @ np.linalg.lstsq(jac, model.residuals, rcond=1e-10)[0]
        away = (np.array(failed) - self.x) / self.region.unit
        distance, length = np.linalg.norm(away, axis=1), float(np.linalg.norm(step))
        return bool(((distance <= length) & (away @ step > 0.5 * distance * length)).any())

    def is_short(self) -> bool:
        """Whether a Gauss-Newton step within reach gains much, though noise hides none of it.

        Along a narrow valley a region shrinks until rounding hides what parameters do. (Rat43 and
        MGH17 of NIST's ended so at 1.4 to 5 times the least sum of squares, as successes.)
        """
        model = self.model
        quiet = model.mean_square_noise * model.count < SHORT_NOISE**2 * model.sum_of_squares
        least = SHORT_SHARE * model.sum_of_squares + 4.0 * model.sum_of_squares_sd
        jac = model.jac @ self.free
        if not quiet or gauss_newton_decrease(model.residuals, jac) <= least:
            return False
        step = self.free @ np.linalg.lstsq(jac, model.residuals, rcond=1e-10)[0]
        return bool((np.abs(step) <= self.far).all())

    @property
    def far(self) -> Array:
        """Out of reach of the local model, in radii, shape (m,)."""
        return FAR * np.maximum(np.abs(self.x), self.region.scale) / self.region.unit

    def answers(self) -> Array:
        """How much the residuals answer to each parameter at x, in what the first displaced runs
        along it moved them by; 1 where there was none.

        A search that ran off to where the residuals are flat (an exponential that is 0 everywhere)
        ends there with a gradient of 0, and is at no minimum.
        """
        log, x, jac = self.log, self.x, self.model.jac / self.region.unit
        start, *others = log.usable[: len(x) + 1]
        base, found = log.residuals[start], np.ones(len(x))
        for i in others:
            moved, residuals = np.abs(log.points[i] - log.points[start]), log.residuals[i]
            if np.count_nonzero(moved) != 1 or base is None or residuals is None:
                continue
            j = int(np.argmax(moved))
            reach = max(float(moved[j]), abs(float(x[j])))
            now, before = np.linalg.norm(jac[:, j]) * reach, np.linalg.norm(residuals - base)
            found[j] = now / before if before > 0 else 1.0
        return found

    def is_out_of_reach(self, of: Mask, ftol: float) -> Mask:
        """Which of these parameters a Gauss-Newton step, if worth it, would move ``FAR`` away.

        They answer by so little that the slope within reach gains nothing: a gradient next to 0,
        and no minimum.
        """
        model = self.model
        along = self.free[:, (np.abs(self.free[~of]) < 1e-9).all(0)]
        reduced = triangle(np.column_stack([model.jac @ along, model.residuals]))
        sizes = np.maximum(np.linalg.norm(reduced[:, :-1], axis=0), 1e-300)
        jac, residuals = reduced[:, :-1] / sizes, reduced[:, -1]
        if gauss_newton_decrease(residuals, jac) <= ftol * model.sum_of_squares:
            return np.zeros(len(of), bool)
        step = along @ (np.linalg.lstsq(jac, residuals, rcond=1e-10)[0] / sizes)
        return np.asarray(np.abs(step) > self.far)
