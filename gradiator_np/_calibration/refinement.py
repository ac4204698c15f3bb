"""The last phase of a fit without noise: J afresh close by, and Gauss-Newton steps on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.geometry import reflected
from gradiator_np._calibration.iterate import Iterate
from gradiator_np._calibration.models import NOISE_FACTOR
from gradiator_np._calibration.problem import Tolerances
from gradiator_np._calibration.stopping import ZERO_SUM_OF_SQUARES
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._checks import EPS
from gradiator_np._typing import Array, Index

#: A column of J is sure where its error is this share of it.
SURE = 1e-6
#: Differences stand out of rounding by this factor, in norm.
ABOVE_ROUNDING = 1e5
#: Displacements, in radii of the smaller region.
CLOSE = 0.01
#: Radii of the smaller region per length of the step that is due.
ROOM = 4.0
#: Steps in a row that do not halve what is left to gain before the phase ends.
STAGNANT = 4
#: ... and where noise hides what is left, if it is none but curvature.
STAGNANT_IN_NOISE = 1
#: A step of so many radii is limited by the region; one that gains this part of what it promised is
#: not in vain. (With MGH17 of NIST's the phase was given up as it went along a valley at twice the
#: speed with each step, and the search ended there, at 1.4 times the least sum of squares.)
LIMITED, GAINED = 0.9, 0.25
#: How often runs of J that failed are replaced: where 30 % fail at random, seven rounds leave
#: 0.02 % of the columns unknown.
MOST_ATTEMPTS = 6
#: J is made afresh again where its errors cost more than this share of the sum of squares, and the
#: phase has gained: J has changed on the way. What is left is 1e-5 standard errors of x or so.
AGAIN = 1e-12
#: A decrease of so much of the first sum of squares is a matter of the search, not of last digits.
NOT_THE_LAST = 1e-3


@dataclass(frozen=True, slots=True)
class LastPhase:
    """Runs of the last phase, and how its steps go.

    Attributes
    ----------
    base : int
        Id of its centre at the start.
    first, latest, end : int or None
        Ids of its first run, of the first one that was made in place of others, and behind the last
        one that J is made of; None where J was sure and none was made.
    start, noise, radius : float
        Sum of squares at ``base``, noise of a residual and radius of the region there.
    promised, least : float
        Predicted decrease of the first step, and the least one so far.
    stagnant : int
        Steps in a row that did not halve it, nor gain what they promised in a region that limits
        them.
    before : (float, float)
        Sum of squares at the step before, and what that promised.
    attempts : int
        How often runs that failed were replaced by others.
    closed : int or None
        Id of the first run that is none of the phase any more; None while it goes on.
    """

    base: int
    first: int | None
    latest: int | None
    end: int | None
    start: float
    noise: float
    radius: float
    promised: float = np.inf
    least: float = np.inf
    stagnant: int = 0
    before: tuple[float, float] = (np.inf, np.inf)
    attempts: int = 0
    closed: int | None = None

    def samples(self, log: FitLog, center: int, most: int) -> Index | None:
        """Ids of the runs that J was made of, of later ones the latest, and the centre.

        Others are too far away: with them rounding of the kernel costs J all but four digits.
        """
        if self.first is None or self.end is None:
            return None
        closed = len(log.points) if self.closed is None else self.closed
        usable = log.usable[(log.usable >= self.first) & (log.usable < closed)]
        made_of = usable[usable < self.end]
        return np.unique(np.r_[self.base, made_of, usable[-most:], center])

    def replacements(self, log: FitLog, region: TrustRegion) -> list[Array]:
        """Points in place of those whose runs failed: on the other side, then half as far.

        A column of J that one failed run left unknown is no answer, be x ever so right.
        """
        if self.latest is None or self.end is None or self.attempts == MOST_ATTEMPTS:
            return []
        base, factor = log.points[self.base], -1.0 if self.attempts % 2 == 0 else 0.5
        latest = range(self.latest, min(self.end, len(log.points)))  # a budget may cut it short
        failed = [i for i in latest if log.residuals[i] is None]
        points = [region.clip(base + factor * (log.points[i] - base)) for i in failed]
        return [point for point in points if not np.array_equal(point, base)]

    def replaced(self, count: int) -> LastPhase:
        """So many runs more that J is made of."""
        assert self.end is not None
        return replace(self, latest=self.end, end=self.end + count, attempts=self.attempts + 1)

    def after(self, it: Iterate) -> LastPhase:
        """One step more."""
        predicted, at = it.predicted_decrease, it.model.sum_of_squares
        halved = predicted < 0.5 * self.least
        # along a valley the region grows, and with it what a step gains
        gains = it.length > LIMITED and self.before[0] - at > GAINED * self.before[1]
        return replace(
            self,
            before=(at, predicted),
            promised=min(self.promised, predicted) if np.isinf(self.promised) else self.promised,
            least=min(self.least, predicted),
            stagnant=0 if halved or gains else self.stagnant + 1,
        )

    def has_ended(self, it: Iterate, region: TrustRegion, tolerances: Tolerances) -> bool:
        """Whether a tolerance holds, or steps gain nothing beyond rounding any more."""
        xtol, gtol = tolerances.xtol, tolerances.gtol
        step, size = np.abs(it.step * region.unit), np.abs(it.x)
        return (
            it.predicted_decrease <= 4.0 * EPS * it.model.sum_of_squares
            or self._is_stagnant(it)
            or region.has_vanished
            or (xtol is not None and bool((step <= xtol * (xtol + size)).all()))
            or (gtol is not None and it.cosine <= gtol)
        )

    def is_due_again(self, it: Iterate) -> bool:
        """Whether J has to be made afresh once more.

        Where residuals stay large, changes of J move the minimum: steps by one J end beside it.
        """
        gained = self.start - it.model.sum_of_squares
        return it.loss.jac > AGAIN * it.model.sum_of_squares and gained > GAINED * self.promised

    def was_early(self, it: Iterate, log: FitLog) -> bool:
        """Whether the search has to go on: there was much to gain, or steps do not reach it.

        Where a step is in vain, noise has to hide what it promised, and be what it was when the
        phase began: louder, it is curvature that the model of this phase does not follow.
        """
        gain = max(self.start - it.model.sum_of_squares, it.predicted_decrease)
        noise = float(np.sqrt(it.model.mean_square_noise))
        loud = it.limited_by_noise and noise > NOISE_FACTOR * self.noise
        zero = it.model.sum_of_squares <= ZERO_SUM_OF_SQUARES * log.reference
        in_vain = (loud and not zero) or not it.is_negligible(it.predicted_decrease)
        stuck = self._is_stagnant(it) and in_vain
        return stuck or (gain > NOT_THE_LAST * log.reference and not it.is_negligible(gain))

    def _is_stagnant(self, it: Iterate) -> bool:
        return self.stagnant >= (STAGNANT_IN_NOISE if it.limited_by_noise else STAGNANT)


def begun(
    before: LastPhase | None, center: int, first: int, count: int, it: Iterate, radius: float
) -> LastPhase:
    """A phase about a centre, of so many runs from the first one; none where J is sure."""
    start, noise = it.model.sum_of_squares, float(np.sqrt(it.model.mean_square_noise))
    if before is not None:
        noise = min(noise, before.noise)
    if count:
        return LastPhase(center, first, first, first + count, start, noise, radius)
    if before is None:
        return LastPhase(center, None, None, None, start, noise, radius)
    # J is sure by the runs of the phase before
    return LastPhase(before.base, before.first, before.end, before.end, start, noise, radius)


def refining_steps(it: Iterate, region: TrustRegion) -> tuple[TrustRegion, list[Array]]:
    """A smaller region, and a step along each parameter in it; none where J is sure.

    Forward differences, as far as rounding and curvature cost the same (Moré and Wild, ACM Trans.
    Math. Softw. 38 (2012) 19), and farther along what J answers to little. On a bound they go
    inside: whether it holds the parameter is known then.
    """
    model, n = it.model, it.model.count
    covariance = model.total_covariance[1:, 1:]
    errors = np.sqrt(np.diagonal(covariance))
    sizes = np.linalg.norm(model.jac, axis=0)
    if not ((errors > SURE * sizes) | it.active)[region.movable].any():
        return region, []
    noise = float(np.sqrt(model.mean_square_noise)) if it.limited_by_noise else 0.0
    level = max(it.rounding, noise)
    step = (8.0 * (level / max(model.curvature, 1e-300)) ** 2) ** 0.25
    step = max(min(step, CLOSE), float(np.sqrt(EPS)) / region.radius)
    shrinkage = min(1.0, max(step / CLOSE, ROOM * it.length))
    closer = region.resized(max(shrinkage, step))
    steps = []
    for direction in it.spanning_directions:
        if not direction[region.movable].any():
            continue
        # a slope that is not known is not one of 0
        size = float(np.linalg.norm(model.jac @ direction))
        size += float(np.sqrt(max(direction @ covariance @ direction, 0.0)))
        answer = ABOVE_ROUNDING * level * np.sqrt(n) / max(size, 1e-300)
        downhill = -np.copysign(1.0, float(direction @ model.gradient))
        u = downhill * max(step, min(answer, 1.0)) * direction
        steps.append(reflected(u * (region.radius / closer.radius), *closer.box(it.x)))
    return closer, steps
