"""The trust region: how far the local model is believed, and the box of the bounds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gradiator_np._calibration.constraints import TOLERANCE, least_distance
from gradiator_np._typing import Array, Mask

#: Actual over predicted decrease from which on the radius grows, and below which it shrinks.
GOOD, FAIR, BAD = 0.7, 0.25, 0.1
#: Radius below which x does not move any more, and at which parameters that only noise answered
#: are given up.
SMALLEST_RADIUS, LARGEST_RADIUS = 1e-14, 1e12
#: Growth where nothing answers.
NO_RESPONSE = 4.0
#: Least distance of runs that improve the model, in radii.
NEAREST = 1e-3


def within_region(step: float) -> float:
    """A distance of runs that improve the model, in radii: not beside the centre, not outside."""
    return float(np.clip(step, NEAREST, 1.0))


@dataclass(frozen=True, slots=True)
class TrustRegion:
    """A ball of scaled steps u = (x - center) / (radius * scale), |u| <= 1, within bounds.

    Attributes
    ----------
    scale, low, high : array, shape (m,)
    radius : float
        In units of ``scale``.
    rows, limits : array, shape (q, m) and (q,), or None
        Half-spaces rows x <= limits.
    difference_step : float
        Distance, in units of ``scale``, at which noise and curvature cost a difference the same:
        where a run tells most of J. 0 where it is not known yet.
    first_radius : float
        That at the start, of which ``radius`` is a multiple; the same by default.
    refused : float
        Least radius at which a trial about this centre failed.
    """

    scale: Array
    low: Array
    high: Array
    radius: float
    difference_step: float = 0.0
    rows: Array | None = None
    limits: Array | None = None
    first_radius: float = np.nan
    refused: float = np.inf

    def __post_init__(self) -> None:
        if np.isnan(self.first_radius):
            object.__setattr__(self, "first_radius", self.radius)

    @property
    def unit(self) -> Array:
        """Length of u = 1, in units of x, shape (m,)."""
        return self.radius * self.scale

    @property
    def shrinkage(self) -> float:
        """Radius over that at the start."""
        return self.radius / self.first_radius

    @property
    def movable(self) -> Mask:
        """Parameters that the bounds do not fix."""
        return self.high > self.low

    def in_radii(self, distance: float) -> float:
        """A distance in units of ``scale`` as |u|."""
        return distance / self.radius

    def box(self, center: Array) -> tuple[Array, Array, Array, Array]:
        """The bounds as limits of u, and half-spaces g u <= h."""
        low, high = (self.low - center) / self.unit, (self.high - center) / self.unit
        if self.rows is None or self.limits is None:
            return low, high, np.zeros((0, len(low))), np.zeros(0)
        return low, high, self.rows * self.unit, np.maximum(self.limits - self.rows @ center, 0.0)

    def contains(self, x: Array) -> bool:
        """Whether x keeps to the bounds, and to half-spaces but for rounding."""
        inside = bool(((self.low <= x) & (x <= self.high)).all())
        if self.rows is None or self.limits is None:
            return inside
        slack = TOLERANCE * (np.abs(self.rows) @ np.abs(x) + np.abs(self.limits))
        return inside and bool((self.rows @ x <= self.limits + slack).all())

    def clip(self, x: Array) -> Array:
        """x within the bounds and half-spaces: the nearest point, in units of the scale."""
        x = np.clip(x, self.low, self.high)
        if self.rows is None or self.limits is None or self.contains(x):
            return x
        each = np.eye(len(x))
        lines = np.vstack([self.rows * self.scale, each, -each])
        room = np.concatenate([self.limits - self.rows @ x, (self.high - x) / self.scale,
                               (x - self.low) / self.scale])  # fmt: skip
        known = np.isfinite(room)
        step = least_distance(lines[known], room[known])
        return x if step is None else np.clip(x + self.scale * step, self.low, self.high)

    @property
    def has_vanished(self) -> bool:
        return self.radius < SMALLEST_RADIUS

    @property
    def is_boundless(self) -> bool:
        return self.radius > LARGEST_RADIUS

    # -- the radius --------------------------------------------------------------------------

    def resized(self, factor: float) -> TrustRegion:
        return replace(self, radius=self.radius * factor)

    def with_radius(self, radius: float) -> TrustRegion:
        return replace(self, radius=radius)

    def with_difference_step(self, step: float) -> TrustRegion:
        """Runs that improve the model go that many radii, within the region."""
        return replace(self, difference_step=self.radius * within_region(step))

    def after_failure(self) -> TrustRegion:
        """A trial failed, or is worse than noise explains."""
        return replace(self.resized(0.5), refused=min(self.refused, self.radius))

    def moved(self) -> TrustRegion:
        """About another centre."""
        return replace(self, refused=np.inf)

    @property
    def may_answer_farther(self) -> bool:
        """Whether a larger region is not one in which trials failed.

        (Brown's badly scaled function at a noise of 1e-4 spent its budget on two points in turn.)
        """
        return NO_RESPONSE * self.radius < self.refused

    def after_no_response(self) -> TrustRegion:
        """Nothing within the region answers beyond its noise."""
        return self.resized(NO_RESPONSE)

    def after_noise(self) -> TrustRegion:
        """Noise exceeds curvature all over the region: runs tell most where the two are equal."""
        return self.resized(1.5)

    def after_trial(self, agreement: float, length: float, least: float) -> TrustRegion:
        """Follow the agreement of a trial step with its prediction.

        Parameters
        ----------
        agreement : float
            Actual over predicted decrease of the sum of squares.
        length : float
            Of the step, in radii: one well inside of the region says nothing of a larger one.
        least : float
            Largest shrinkage: where noise equals curvature within the region, noise is to blame.
        """
        if agreement > GOOD and length > 0.9:
            return self.resized(2.0)
        if agreement < FAIR:
            return self.resized(max(0.5 if agreement < BAD else 0.7, least))
        return self
