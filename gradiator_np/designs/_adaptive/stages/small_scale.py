"""The first question: is the function smooth, and free of noise, at steps of 1e-5 and below?"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.evaluation_log import Moves
from gradiator_np.designs._adaptive.model.local_behaviour import (
    LAW,
    departure,
    follows_squares,
    grows_as_squares,
    is_one_sided,
    law_of_seconds,
)
from gradiator_np.designs._adaptive.model.noise import SECOND_NOISE, NoiseEstimator
from gradiator_np.designs._adaptive.model.scale_consistency import FULL_UP, WIDE, relative_weights
from gradiator_np.designs._adaptive.stages.pilot_line import PilotLine

# Rounding of a second difference, in eps of the size of f, and what calls for a closer look.
ROUNDED, LOUD = 30.0, 10.0
# Rounding errors of a program stay below so many eps.
NOISY = 1e3
# A contrast of rounding that is less than so many times what curvature may leave in it tells
# nothing.
FOURTH = 30.0
# The closer look is at a hundredth of the step, and once more where the function changes by this
# share within the first of what it does within a wide step.
CLOSER, ALL = 0.01, 0.3
# Steps below so many units in the last place of x show these.
ULPS = 20.0
# Relative change of a slope that is none of anybody's business, one that limits the steps, and one
# up to which a pair is of use beside smaller ones.
NEGLIGIBLE, DEPARTS, USEFUL = 1e-7, 1e-2, 0.5
# A pair between tells a bend from roughness.
BETWEEN = 0.3
# Bisections of log t in search of a step at which the slope still holds.
TRIES = 3


class Kind(Enum):
    """What a function is at small steps."""

    SMOOTH = "smooth"
    RANDOM = "random"
    ROUGH = "rough"
    STILL = "still"


@dataclass(frozen=True, slots=True)
class SmallScale:
    """What the small steps showed.

    Attributes
    ----------
    kind : Kind
    noise : NoiseEstimator
        With contrasts of small steps where the function is smooth.
    step, max_step : float
        Smallest step of the pilot, and the widest at which the slope still holds.
    kinked : bool
        Whether the slopes to the two sides of x differ.
    jumps : bool
        Whether f jumps at x.
    unresolved : float
        Step at which the function changes by as much as it ever does, though it repeats, and is
        not smooth below either; 0 where there is none.
    """

    kind: Kind
    noise: NoiseEstimator
    step: float = 0.0
    max_step: float = np.inf
    kinked: bool = False
    jumps: bool = False
    unresolved: float = 0.0


def small_step(eps: float) -> float:
    """The widest of the small steps: the power of ten nearest to eps^(1/3), of full length."""
    return float(FULL_UP * 10.0 ** np.rint(np.log10(eps) / 3))


def examine_small_scale(
    line: PilotLine, noise: NoiseEstimator, repeats: bool
) -> Generator[Moves, None, SmallScale]:
    """Look at the smallest pair, closer where it is loud, and up to `small_step`; ``repeats``
    tells that the caller knows the function to."""
    return (yield from _Look(line, noise).run(repeats))


class _Look:
    """The pairs of small steps of one pilot."""

    def __init__(self, line: PilotLine, noise: NoiseEstimator) -> None:
        self.line, self.noise = line, noise
        self.eps = line.context.problem.eps
        self.up = small_step(self.eps)
        # x is kept in float64, and may be float32 to the function
        self.finest = ULPS * max(line.resolution, self.eps)
        self.first = self.step = line.smallest
        slope, second = line.at(self.first)
        self.alive = np.isfinite(second)
        # an output next to 0 is made of parts that are not: as large as its slope, or other outputs
        typical = np.median(noise.size[self.alive]) if self.alive.any() else 0.0
        self.size = (
            np.maximum(noise.size, np.maximum(np.nan_to_num(np.abs(slope)), typical)) + 1e-300
        )
        # what rounding of x leaves of the slopes to both sides
        sides = np.abs(slope) + np.abs(second) / (2 * self.first)
        self.rounding = ROUNDED * self.eps * self.size + 2 * line.resolution * sides
        self.kinked = False
        self.slope = self.sd = self.typical = slope

    def run(self, repeats: bool) -> Generator[Moves, None, SmallScale]:
        line = self.line
        loud = (np.abs(line.at(self.first)[1]) > LOUD * self.rounding)[self.alive].any()
        if loud:
            rough = yield from self._closer(repeats)
            if rough is not None:
                return rough
        line.allow(2)
        # wide steps come next in any case
        yield from line.pairs([self.up] if loud else [self.up, WIDE, WIDE / 2])
        return (yield from self._hold())

    def _closer(self, repeats: bool) -> Generator[Moves, None, SmallScale | None]:
        """Tell curvature, a kink and a jump from noise at smaller steps; None where the function
        is smooth there but for a kink."""
        line, unresolved = self.line, 0.0
        if not repeats:
            yield from line.pairs([], again=True)
            if line.random:
                return SmallScale(Kind.RANDOM, self.noise)
        for _ in range(2):
            line.allow(2)
            near = CLOSER * self.step
            if line.spare < 1 or near < self.finest:
                break
            wide = line.at(self.step)[1]
            yield from line.pairs([near])
            self.step = line.smallest
            slope, second = line.at(near)
            if (slope[self.alive] == 0).all() and (second[self.alive] == 0).all():
                lost = line.is_lost(near / CLOSER, near)
                return None if lost else SmallScale(Kind.STILL, self.noise)
            law = law_of_seconds(wide, second, CLOSER, NOISY * self.eps * self.size)
            if (law.falls | law.kinked)[self.alive].all():
                # what a long program rounds is seen here, where curvature is not
                own = np.minimum(np.abs(second), NOISY * self.eps * self.size)
                self.rounding = np.maximum(self.rounding, 5 * np.where(law.kinked, 0.0, own))
                self.kinked = bool(law.kinked.any())
                return None
            # half the jump over the step is the slope
            steep = np.abs(np.abs(2 * near * slope) - np.abs(second)) < 0.1 * np.abs(second)
            jumped = law.jumped & steep
            if jumped.any() and (law.falls | law.kinked | jumped)[self.alive].all():
                return SmallScale(Kind.ROUGH, self.noise, jumps=True)
            if not (yield from self._is_all_there_is(wide)):
                return SmallScale(Kind.ROUGH, self.noise)
            # the function may live far from the origin
            unresolved = near / CLOSER
        return SmallScale(Kind.ROUGH, self.noise, unresolved=unresolved)

    def _is_all_there_is(self, second: Array) -> Generator[Moves, None, bool]:
        """Whether half of the outputs change by as much within a small step as within a wide one,
        by their ``second`` differences (N,)."""
        self.line.allow(2)
        yield from self.line.pairs([WIDE])
        slope, wide = self.line.at(WIDE)
        change = np.fmax(np.abs(2 * WIDE * slope), np.abs(wide))
        return bool((np.abs(second) > ALL * change)[self.alive].mean() >= 0.5)

    # -- how far the slope holds -------------------------------------------------------------

    def _hold(self) -> Generator[Moves, None, SmallScale]:
        """Find the widest step up to `small_step` at which the slope of the smallest holds."""
        line = self.line
        self.slope = line.at(self.step)[0].copy()
        self.sd = 0.5 * self.rounding / (np.sqrt(2.0) * self.step)
        typical = np.abs(self.slope[self.alive]) / self.size[self.alive]
        self.typical = (np.median(typical) if typical.size else 0.0) * self.size
        low, high = self.step, max(line.widest(self.up), self.step)
        if self.first > self.step:
            low = self.first
            if self._change(self.first) > DEPARTS:
                low, high = self.step, self.first
        # a pair with which the smallest has to agree, but for rounding and curvature
        beside, straight = high, self._change(high) <= NEGLIGIBLE
        if self._change(high) > DEPARTS:
            high = yield from self._narrow_down(low, high)
            beside = low = max(line.widest(0.99 * high), self.step)
        elif not straight:
            line.allow(2)
            yield from line.pairs([BETWEEN * high])
            near, far = (line.at(t)[0] - self.slope for t in (BETWEEN * high, high))
            # it may be the smallest step that is off, by rounding
            straight = self._change(BETWEEN * high, high) <= NEGLIGIBLE
            if not straight and not follows_squares(near, far, 1 / BETWEEN, self.sd):
                # terms of third and of fifth order may cancel; those of second order do not
                high = low if self._is_event(high) else high * self._is_bend(high)
        if high == 0:
            return SmallScale(Kind.ROUGH, self.noise)
        if high < 0.99 * self.up:
            line.log.exclude_above(line.log.pilot, 1.01 * high)
        law = law_of_seconds(line.at(high)[1], line.at(low)[1], low / high, LOUD * self.rounding)
        kinked = self.kinked or bool(low < high and law.kinked.any())
        noise = replace(self.noise, size=line.sizes(2 * self.up))
        if beside > self.step:
            noise = yield from self._with_contrasts(noise, beside, kinked, straight)
        return SmallScale(Kind.SMOOTH, noise, self.step, high, kinked)

    def _with_contrasts(
        self, noise: NoiseEstimator, beside: float, kinked: bool, straight: bool
    ) -> Generator[Moves, None, NoiseEstimator]:
        """Rounding: what second differences and slopes have beyond curvature."""
        (d0, e0), (d1, e1) = self.line.at(self.step), self.line.at(beside)
        square = (self.step / beside) ** 2
        if straight:
            noise = noise.add(d0 - d1, 0.5 / self.step**2 + 0.5 / beside**2)
        if kinked:
            return noise
        contrast, left = e0 - square * e1, square * self._fourth(beside)
        if self._hides(contrast, left)[self.alive].any():
            near = CLOSER * self.step
            self.line.allow(2)
            if self.line.spare > 0 and near > self.finest:
                yield from self.line.pairs([near])
                other = self.line.at(near)[1]
                # its slope shows how x is rounded
                self.line.log.exclude_steps(self.line.log.pilot, (near,))
                seen, square = np.isfinite(other), CLOSER**2
                contrast = np.where(seen, other - square * e0, contrast)
                left = np.where(seen, square * self._fourth(self.step), left)
        return noise.add(np.where(self._hides(contrast, left), np.nan, contrast), SECOND_NOISE)

    def _hides(self, contrast: Array, left: Array) -> NDArray[np.bool_]:
        """Contrasts (N,) that what is ``left`` (N,) of curvature may be all of, beyond rounding."""
        return (left > self.eps * self.noise.size) & (np.abs(contrast) < FOURTH * left)

    def _fourth(self, t: float) -> Array:
        """Size (N,) of the terms of fourth order in second differences at t: to those of second
        order, and to the root of those of third and second, as the slope's change is to it."""
        slope, second = self.line.at(t)
        change = np.nan_to_num(slope - self.slope)
        share = float(np.sqrt(np.mean(relative_weights(slope, self.slope) * np.square(change))))
        return np.asarray(share * np.abs(second) + np.sqrt(share) * t * np.abs(change))

    def _narrow_down(self, low: float, high: float) -> Generator[Moves, None, float]:
        """Between a step at which the slope holds and one at which it does not: the widest that is
        of use, 0 where the slope departs without a law."""
        for _ in range(TRIES):
            if high < 3 * low or self._is_of_use(low, high) or not self.line.allow(2):
                break
            middle = float(np.sqrt(low * high))
            yield from self.line.pairs([middle])
            low, high = (middle, high) if self._change(middle) <= DEPARTS else (low, middle)
        if self.line.widest(0.99 * high) <= self.step < BETWEEN * high:
            # one departure alone follows no law
            self.line.allow(2)
            yield from self.line.pairs([BETWEEN * high])
        if self._is_event(high):
            return low
        if not self._is_bend(high):
            return 0.0
        return high if self._is_of_use(low, high) else low

    def _is_of_use(self, low: float, high: float) -> bool:
        """Whether the pair at a step at which the slope has departed helps beside smaller ones: by
        not too much, and not from ``low`` on already, as a function does that has bent before."""
        change = self._change(high)
        before = max(LAW[1] * (low / high) ** 2 * change, NEGLIGIBLE)
        return change <= USEFUL and self._change(low) <= before

    def _change(self, t: float, other: float | None = None) -> float:
        """Largest relative change of a slope from the smallest step, or from t, to another; inf
        where runs failed there."""
        start, sd = self.slope, self.sd
        if other is not None:
            start, sd, t = self.line.at(t)[0], 0 * sd, other
        end = self.line.at(t)[0][self.alive]
        if not np.isfinite(end).all():
            return np.inf
        parts = (a[self.alive] for a in (sd, self.typical))
        return float(departure(start[self.alive], end, *parts).max(initial=0.0))

    def _is_event(self, t: float) -> bool:
        """Whether what differs at a step happened on one side of x."""
        other, second = self.line.at(t)
        return is_one_sided(t, other - self.slope, second, 1 / np.square(self.size))

    def _is_bend(self, high: float) -> bool:
        """Whether slopes depart as a bend lets them by the first step at which they have: in
        proportion to t^2, or second differences do."""
        view, slope, sd = self.line.view.sorted(), self.slope, self.sd
        t = view.t[0][view.t[0] <= 1.01 * high]
        for k in range(1, t.size):
            ratio = t[k] / t[k - 1]
            near, far = view.slope[0, k - 1 : k + 1] - slope
            seen = t[k - 1] > self.step and bool((np.abs(far) > 10 * sd).any())
            if seen and follows_squares(near, far, ratio, sd):
                return True
            near, far = view.second[0, k - 1 : k + 1]
            # large enough to bend the slope by the step at which it departs: an exponential that
            # does by 1 % has two and a half times as much
            least = np.abs(slope) * t[k] ** 2 / (10 * high)
            if grows_as_squares(near, far, ratio, LOUD * self.rounding, least):
                return True
        return False
