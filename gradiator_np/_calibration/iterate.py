"""What is known at a point of the search: the model, its step, and what going on may bring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import null_space

from gradiator_np._calibration.local_model import LocalModel
from gradiator_np._calibration.subproblem import solve_subproblem
from gradiator_np._calibration.triangles import triangle
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._calibration.uncertainty import (
    ExpectedLoss,
    expected_loss,
    gauss_newton_decrease,
)
from gradiator_np._checks import EPS
from gradiator_np._status import Status
from gradiator_np._typing import Array, Mask

#: Decrease, in standard deviations of the noise of the sum of squares, that is worth a run.
WORTHWHILE_SD = 0.25
#: Standard errors by which a slope has to point outside for a bound to hold a parameter.
SURE_SLOPE = 3.0
#: A run tells that slope where it lies so near, in radii, and leaves the bound by this share of it.
NEAR, OFF_BOUND = 2.0, 0.1
#: A step that ends so near to a half-space, in radii, is held by it.
HELD = 1e-9
#: Noise, relative to the residuals, that may be curvature of many inputs.
ALMOST_QUIET = 1e-3
#: Noise of so many times what rounding of the parameters and of the residuals comes to is rounding
#: too: a few additions in fun lose a digit.
ROUNDING_NOISE = 16.0


@dataclass(frozen=True, slots=True)
class Iterate:
    """The model about a point, in radii, and the step that it proposes.

    Attributes
    ----------
    x : array, shape (m,)
    model : LocalModel
    step : array, shape (m,)
        Solution of the trust-region subproblem.
    active : array of bool, shape (m,)
        Parameters that a bound holds there.
    touching : array, shape (q, m)
        Half-spaces that hold x or the step.
    on_bounds : array of bool, shape (m,)
        Parameters on a bound there or at x.
    free : array, shape (m, f)
        Orthonormal directions that neither bounds nor half-spaces hold there.
    predicted_decrease : float
        Of the sum of squares by that step.
    full_decrease : float
        Of the sum of squares by a Gauss-Newton step, however long, of the others.
    loss : ExpectedLoss
    rounding : float
        What rounding of residuals and of x comes to in one residual.
    ftol : float
        Decrease, relative to the sum of squares, that is not worth a run.
    """

    x: Array
    model: LocalModel
    step: Array
    active: Mask
    touching: Array
    on_bounds: Mask
    free: Array
    predicted_decrease: float
    full_decrease: float
    loss: ExpectedLoss
    rounding: float
    ftol: float

    @classmethod
    def at(
        cls,
        x: Array,
        model: LocalModel,
        region: TrustRegion,
        rounding: float = 0.0,
        ftol: float = 0.0,
    ) -> Iterate:
        limits = region.box(x)
        reduced = triangle(np.column_stack([model.jac, model.residuals]))
        jac, residuals = reduced[:, :-1], reduced[:, -1]
        step, active = solve_subproblem(residuals, jac, *limits)
        free = _free_directions(active, _holding(step, *limits[2:]))
        touching = np.unique(
            np.vstack([_holding(u, *limits[2:]) for u in (0.0 * step, step)]), axis=0
        )
        on_bounds = active | (limits[0] >= 0.0) | (limits[1] <= 0.0)
        change = jac @ step
        predicted = -float(change @ (2.0 * residuals + change))
        anywhere = gauss_newton_decrease(residuals, jac @ free)
        loss = expected_loss(model, free)
        of_x = np.linalg.norm(np.abs(model.jac) @ np.abs(x / region.unit)) / np.sqrt(model.count)
        return cls(
            x,
            model,
            step,
            active,
            touching,
            on_bounds,
            free,
            predicted,
            anywhere,
            loss,
            rounding + EPS * float(of_x),
            ftol,
        )

    @property
    def length(self) -> float:
        """Of the step, in radii."""
        return float(np.linalg.norm(self.step))

    @property
    def decrease(self) -> float:
        """What the sum of squares may fall by at most, anywhere.

        By the step itself or by the parameters that it leaves free, whichever is more: a step into
        a corner of the box leaves none free. (Without its own part, 0.72 of 264 noise-free fits in
        tight boxes were solved to 1e-3, and most of the others called converged; with it 0.97.)
        """
        return max(self.full_decrease + self.loss.jac, self.local_decrease)

    @property
    def local_decrease(self) -> float:
        """What it may fall by at most within the trust region.

        Errors of the residuals look like something to gain: their part counts once.
        """
        return max(self.predicted_decrease, self.loss.value) + self.loss.jac

    @property
    def negligible_decrease(self) -> float:
        """What is not worth a run."""
        return WORTHWHILE_SD * self.model.sum_of_squares_sd + self.ftol * self.model.sum_of_squares

    def is_negligible(self, decrease: float) -> bool:
        """Whether a decrease of the sum of squares is not worth a run."""
        return decrease <= self.negligible_decrease

    @property
    def limited_by_noise(self) -> bool:
        """Whether noise of the runs, not the relative tolerance, makes a decrease negligible."""
        noise = float(np.sqrt(self.model.mean_square_noise))
        hidden = WORTHWHILE_SD * self.model.sum_of_squares_sd
        share = self.ftol * self.model.sum_of_squares
        return noise > ROUNDING_NOISE * self.rounding and hidden > share

    @property
    def reason(self) -> Status:
        """Why nothing is left to gain, where that is so."""
        return Status.NOISE_LIMIT if self.limited_by_noise else Status.CONVERGED

    @property
    def spanning_directions(self) -> Array:
        """Unit vectors (m, m), or more, that runs can go along: axes where no half-space is met.

        At half-spaces: the free directions, and for each of what holds the step the one that leaves
        it and keeps to the others, bounds at x among them. (Along the axes no run can leave some
        corners: of 200 fits under two constraints 5 knew nothing of J at the end. Without the
        bounds at x 7 of 160 linear fits under two constraints and up to four bounds took 60 to 500
        runs, and 2 do.)
        """
        m = len(self.x)
        if not len(self.touching):
            return np.eye(m)
        held = np.vstack([self.touching, np.eye(m)[self.on_bounds]])
        leaving = np.linalg.pinv(held).T
        leaving /= np.linalg.norm(leaving, axis=1, keepdims=True)
        return np.vstack([null_space(held).T, leaving])

    @property
    def is_held(self) -> bool:
        """Whether bounds hold every parameter."""
        return not self.free.size and (self.length < 1e-9 or self.predicted_decrease <= 0)

    @property
    def doubtful_bounds(self) -> Mask:
        """Parameters on their bounds whose slope is not sure to point outside.

        By its error, or since no run nearby has them elsewhere: the error is that of the curvature
        along what has been moved.
        """
        model, samples = self.model, self.model.samples
        errors = np.sqrt(np.diagonal(model.summed_covariance(model.residuals**2))[1:])
        distance = np.linalg.norm(samples, axis=1)[:, None]
        tells = (np.abs(samples) > OFF_BOUND * distance) & (distance <= NEAR)
        sure = (np.abs(model.gradient) > SURE_SLOPE * errors) & tells.any(0)
        return np.asarray(self.active & ~sure)

    @property
    def is_almost_quiet(self) -> bool:
        """Whether noise is so little beside the residuals that it may be unmodelled curvature."""
        noise = self.model.mean_square_noise * self.model.count
        return noise < ALMOST_QUIET**2 * self.model.sum_of_squares

    @property
    def cosine(self) -> float:
        """Largest cosine of the angle between the residuals and a free column of J."""
        free = self.model.jac @ self.free
        sizes = np.linalg.norm(free, axis=0) * np.sqrt(self.model.sum_of_squares)
        slopes = np.abs(free.T @ self.model.residuals)
        return float(np.max(slopes / np.maximum(sizes, 1e-300), initial=0.0))


def _holding(step: Array, rows: Array, room: Array) -> Array:
    """Half-spaces (q, m) that hold a step."""
    return np.asarray(rows[rows @ step >= room - HELD * np.linalg.norm(rows, axis=1)])


def _free_directions(active: Mask, holding: Array) -> Array:
    """Orthonormal directions (m, f) that no bound and no half-space holds."""
    free = np.eye(len(active))[:, ~active]
    if not len(holding) or not free.size:
        return free
    return np.asarray(free @ null_space(holding @ free))
