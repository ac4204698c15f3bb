"""Profile intervals: how far a parameter may go until no choice of the others makes up for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gradiator_np._text import number
from gradiator_np._typing import Array

#: A profile t this close to the wanted quantile, relative to it, ends the search for an end, which
#: is interpolated from there.
NEAR = 0.02
#: Conditional fits on one side at most.
MOST_FITS = 12
#: Largest factor by which a trial goes further out than the last one.
STRETCH = 3.0


@dataclass(frozen=True, slots=True)
class ConditionalFit:
    """The best that the other parameters make of a fixed value of one.

    Attributes
    ----------
    x : array, shape (m,)
    sum_of_squares : float
        inf where no run succeeded.
    nfev : int
    """

    x: Array
    sum_of_squares: float
    nfev: int


@dataclass(frozen=True, slots=True, repr=False)
class Profile:
    """A profile interval of one parameter, and the conditional fits that it rests on.

    Attributes
    ----------
    name : str
        Of the parameter.
    low, high : float
        Ends of the interval; -inf or inf where the sum of squares does not rise enough however far
        the parameter goes, the bound where it stops there, nan where conditional fits failed.
    confidence_level : float
    value : array, shape (k,)
        Values of the parameter, ascending, that of the fit among them.
    t : array, shape (k,)
        Profile t there, sign(value - estimate) sqrt((S(value) - S) / s^2): a straight line where
        the Gaussian interval is right.
    x : array, shape (k, m)
        Parameters of the conditional fits.
    nfev : int
        Runs made.
    message : str
        What is in the way of an end, else empty.

    References
    ----------
    Bates and Watts, Nonlinear Regression Analysis and Its Applications, Wiley 1988, ch. 6.
    """

    name: str
    low: float
    high: float
    confidence_level: float
    value: Array
    t: Array
    x: Array
    nfev: int
    message: str

    def __repr__(self) -> str:
        width = abs(self.high - self.low) / 4
        ends = ", ".join(number(end, width) for end in (self.low, self.high))
        text = f"x{self.name} in [{ends}] at {100 * self.confidence_level:g} %"
        text += f" ({self.nfev} runs, {len(self.value) - 1} conditional fits)"
        return f"{text}. {self.message}" if self.message else text


@dataclass(slots=True)
class _Side:
    """The search for one end: values and profile t so far, from the estimate outwards."""

    value: list[float]
    t: list[float]
    x: list[Array] = field(default_factory=list)
    end: float = np.nan
    message: str = ""
    nfev: int = 0


@dataclass(frozen=True, slots=True)
class Profiler:
    """What a profile is made from.

    Attributes
    ----------
    x : array, shape (m,)
        The estimate.
    covariance : array, shape (m, m)
    sum_of_squares, variance : float
        At the estimate; of a residual, in the same unit.
    low, high : array, shape (m,)
        Bounds.
    fit : callable
        ``fit(start, j)``: a `ConditionalFit` with parameter j where ``start`` has it.
    """

    x: Array
    covariance: Array
    sum_of_squares: float
    variance: float
    low: Array
    high: Array
    fit: Callable[[Array, int], ConditionalFit]

    def profile(self, j: int, name: str, level: float, quantile: float) -> Profile:
        """Both ends for parameter j, where the profile t is the quantile."""
        sides = [self._side(j, sign, quantile) for sign in (-1.0, 1.0)]
        low, high = sides
        value = np.array([*low.value[::-1], *high.value[1:]])
        t = np.array([*low.t[::-1], *high.t[1:]])
        messages = dict.fromkeys(side.message for side in sides if side.message)
        return Profile(
            name, low.end, high.end, level, value, t,
            np.array([*low.x[::-1], *high.x[1:]]), low.nfev + high.nfev, "; ".join(messages),
        )  # fmt: skip

    def _side(self, j: int, sign: float, quantile: float) -> _Side:
        """Secant steps of t, which is nearly straight, and bisection where they leave it."""
        side = _Side([float(self.x[j])], [0.0], [self.x])
        bound = float(self.low[j] if sign < 0 else self.high[j])
        sd = float(np.sqrt(self.covariance[j, j]))
        inside, outside = 0.0, np.inf  # distances known to be so
        distance = quantile * sd
        for _ in range(MOST_FITS):
            at_bound = sign * (bound - self.x[j]) <= distance
            value = bound if at_bound else float(self.x[j] + sign * distance)
            distance = abs(value - float(self.x[j]))
            if distance <= inside:
                side.end = bound
                return side
            found = self._at(j, value, side)
            if found is None:  # too far for the runs; nearer by what is known to be inside
                side.message = f"runs fail from {number(value, sd)} on"
                outside = distance
                distance = 0.5 * (inside + outside)
                continue
            t = self._t(found)
            if t is None:
                side.message = (
                    f"a lower sum of squares was found at {number(value, sd)}: fit again from "
                    "there (its parameters are in .x)"
                )
                return side
            self._keep(side, value, sign * t, found)
            if abs(t - quantile) <= NEAR * quantile:
                side.end = float(self.x[j] + sign * self._crossing(side, quantile))
                return side
            if t < quantile:
                if at_bound:
                    side.end, side.message = bound, ""
                    return side
                inside = distance
            else:
                outside, side.message = distance, ""
            distance = self._next(side, quantile, inside, outside)
        if np.isinf(outside):
            side.end = sign * np.inf
            side.message = f"the sum of squares does not rise enough as far as {number(value, sd)}"
        elif not side.message:
            side.end = float(self.x[j] + sign * distance)
        return side

    def _at(self, j: int, value: float, side: _Side) -> ConditionalFit | None:
        """The conditional fit at a value; None where no run succeeded.

        From where the nearest one and the covariance lead; where that is too far off, from the
        nearest one itself.
        """
        nearest = int(np.argmin(np.abs(np.array(side.value) - value)))
        along = self.covariance[:, j] / self.covariance[j, j]
        for share in (1.0, 0.0):
            start = side.x[nearest] + share * along * (value - side.value[nearest])
            start = np.clip(start, self.low, self.high)
            start[j] = value
            found = self.fit(start, j)
            side.nfev += found.nfev
            if np.isfinite(found.sum_of_squares):
                return found
        return None

    def _t(self, found: ConditionalFit) -> float | None:
        """Profile t; None where the sum of squares is clearly lower than that of the fit."""
        rise = (found.sum_of_squares - self.sum_of_squares) / self.variance
        return None if rise < -NEAR else float(np.sqrt(max(rise, 0.0)))

    @staticmethod
    def _keep(side: _Side, value: float, t: float, found: ConditionalFit) -> None:
        """In the order of the distance from the estimate."""
        distance = [abs(v - side.value[0]) for v in side.value]
        at = int(np.searchsorted(distance, abs(value - side.value[0])))
        side.value.insert(at, value)
        side.t.insert(at, t)
        side.x.insert(at, found.x)

    @staticmethod
    def _crossing(side: _Side, quantile: float) -> float:
        """The distance at which a straight line through two values of t has the quantile."""
        t = np.abs(side.t)
        distance = np.abs(np.array(side.value) - side.value[0])
        above = int(np.argmax(t >= quantile)) if (t >= quantile).any() else len(t) - 1
        a, b = above - 1, above
        slope = (t[b] - t[a]) / (distance[b] - distance[a])
        return float(distance[a] + (quantile - t[a]) / slope) if slope > 0 else np.inf

    def _next(self, side: _Side, quantile: float, inside: float, outside: float) -> float:
        """A distance at which t is nearer to the quantile."""
        guess = self._crossing(side, quantile)
        if np.isinf(outside):
            return float(np.clip(guess, 1.05 * inside, STRETCH * inside))
        width = outside - inside
        return float(np.clip(guess, inside + 0.05 * width, outside - 0.05 * width))
