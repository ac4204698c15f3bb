"""Profile intervals: how far a parameter may go until no choice of the others makes up for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from gradiator_np._text import number
from gradiator_np._typing import Array

#: A fit this close to where t is to have the quantile, by the line through its neighbours, relative
#: to the distance from the estimate, ends the search for an end. (By t itself ends were off by a
#: quarter of a standard error where t levels off.)
NEAR = 0.02
#: Conditional fits on one side at most.
MOST_FITS = 12
#: Largest factor by which a trial goes further out than the last one.
STRETCH = 3.0
#: A profile t below this share of what a straight line promises is looked at half-way before it is
#: believed: the others may have found another valley.
MISSED = 0.5
#: And one that is so many times what is wanted is fitted again from another start.
TOO_HIGH = 1.5


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
        the parameter goes, as far as bounds and constraints let it where it stops there, nan where
        conditional fits failed.
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

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import least_squares
    >>> t, y = np.linspace(0.3, 4, 8), np.array([0.45, 0.95, 0.97, 1.21, 1.35, 1.15, 1.48, 1.35])
    >>> fit = least_squares(lambda x: x[0] * (1 - np.exp(-x[1] * t)) - y, [1.0, 1.0])
    >>> profile = fit.profile(1)
    >>> round(profile.low, 2), round(profile.high, 2)
    (0.72, 2.13)
    >>> value, rise = profile.curve()  # ready to plot; profile.value and .rise are the fits
    >>> value.shape, bool(rise.min() < 1e-3)
    ((200,), True)
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

    @property
    def rise(self) -> Array:
        """Of the least sum of squares above its minimum, in variances of a residual: t^2, (k,).

        Of chi-squared where ``sigma`` is the error of the data.
        """
        return np.square(self.t)

    def curve(self, count: int = 200) -> tuple[Array, Array]:
        """Values of the parameter (count,), evenly between the outermost fits, and the rise there.

        By the monotone cubic interpolant of the profile t, which is nearly straight.

        Raises
        ------
        ValueError
            Where there is no conditional fit.
        """
        if len(self.value) < 2:
            raise ValueError(
                f"no conditional fit has succeeded: {self.message or 'x at its limit'}"
            )
        value = np.linspace(self.value[0], self.value[-1], count)
        return value, np.square(PchipInterpolator(self.value, self.t)(value))

    def __repr__(self) -> str:
        best = float(self.value[self.t == 0][0])
        ends = ", ".join(number(end, abs(end - best) / 4) for end in (self.low, self.high))
        text = f"x{self.name} in [{ends}] at {100 * self.confidence_level:g} %"
        text += f" ({self.nfev} runs, {len(self.value) - 1} conditional fits)"
        return f"{text}. {self.message}" if self.message else text


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
    extent : callable
        ``extent(j)``: how far parameter j may go.
    fit : callable
        ``fit(start, j)``: a `ConditionalFit` with parameter j where ``start`` has it, the others
        from there or from what is next to it.
    """

    x: Array
    covariance: Array
    sum_of_squares: float
    variance: float
    extent: Callable[[int], tuple[float, float]]
    fit: Callable[[Array, int], ConditionalFit]

    def profile(self, j: int, name: str, level: float, quantile: float) -> Profile:
        """Both ends for parameter j, where the profile t is the quantile."""
        low, high = (_Side(self, j, sign, quantile) for sign in (-1.0, 1.0))
        for side in (low, high):
            side.search()
        messages = dict.fromkeys(side.message for side in (low, high) if side.message)
        x = np.array([*low.x[::-1], *high.x[1:]])
        t = np.array([*(-t for t in low.t[::-1]), *high.t[1:]])
        return Profile(
            name, low.end, high.end, level, x[:, j], t + 0.0, x, low.nfev + high.nfev,
            "; ".join(messages),
        )  # fmt: skip


class _Side:
    """The search for one end: conditional fits, from the estimate outwards.

    Attributes
    ----------
    distance, t : list of float
        Of the fits that are believed, ascending distances from the estimate.
    x : list of array, shape (m,)
    end : float
    message : str
    nfev : int
    """

    def __init__(self, of: Profiler, j: int, sign: float, quantile: float) -> None:
        self.distance, self.t, self.x = [0.0], [0.0], [of.x]
        self.end, self.message, self.nfev = np.nan, "", 0
        self._of, self._j, self._sign, self._quantile = of, j, sign, quantile
        self._bound = of.extent(j)[0 if sign < 0 else 1]
        self._room = sign * (self._bound - float(of.x[j]))
        self._outside = np.inf  # the least distance that is known to be too far

    def _value(self, distance: float) -> float:
        """Of the parameter; the bound itself where that is as far."""
        if distance >= self._room:
            return self._bound
        return float(self._of.x[self._j] + self._sign * distance)

    def search(self) -> None:
        """Secant steps of t, which is nearly straight, and bisection where they leave it."""
        sd = float(np.sqrt(self._of.covariance[self._j, self._j]))
        distance = self._quantile * sd
        for _ in range(MOST_FITS):
            distance = min(distance, self._room)
            inside = self._inside
            if distance <= inside:  # at the bound
                self.end = self._value(distance)
                return
            found = self._fit(distance)
            if found and found[0] < MISSED * min(self._line(distance), self._quantile):
                middle = 0.5 * (inside + distance)
                between = self._fit(middle)
                if between is None or between[0] > found[0]:
                    found, distance = between, middle
                else:
                    self._take(middle, between)
            self._take(distance, found)
            if self.message.startswith("a lower"):
                return
            if len(self.t) > 1 and self._is_near(crossing := self._crossing()):
                self.end = self._value(crossing)
                return
            if self._levels_off:
                break
            distance = self._next()
        if np.isfinite(self._outside):
            self.end = np.nan if self.message else self._value(distance)
        else:
            self.end = self._sign * np.inf
            far = number(self._value(self.distance[-1]), sd)
            self.message = f"the sum of squares does not rise enough as far as {far}"

    def _fit(self, distance: float) -> tuple[float, Array] | None:
        """Profile t and the parameters there; None where no run succeeded.

        From where the last two fits inside of the interval lead, at first the covariance. Where
        that is too far off, or t comes out far above a straight line, from the last one as well:
        the others may have been caught in another valley.
        """
        of, j, value = self._of, self._j, self._value(distance)
        inside = [i for i, d in enumerate(self.distance) if d <= self._inside]
        near, x = self.distance[inside[-1]], self.x[inside[-1]]
        along = self._sign * of.covariance[:, j] / of.covariance[j, j]
        if len(inside) > 1:
            along = (x - self.x[inside[-2]]) / (near - self.distance[inside[-2]])
        found: list[ConditionalFit] = []
        for share in (1.0, 0.0):
            start = x + share * along * (distance - near)
            start[j] = value
            found.append(of.fit(start, j))
            self.nfev += found[-1].nfev
            if self._rise(found[-1]) <= np.square(
                TOO_HIGH * max(self._quantile, self._line(distance))
            ):
                break
        best = min(found, key=lambda fit: fit.sum_of_squares)
        rise = self._rise(best)
        if np.isinf(rise):
            self.message = f"runs fail from {value:.6g} on"
            return None
        if rise < -NEAR:
            self.message = (
                f"a lower sum of squares was found at {value:.6g}: fit again from there "
                "(its parameters are in .x)"
            )
        return float(np.sqrt(max(rise, 0.0))), best.x

    def _rise(self, fit: ConditionalFit) -> float:
        """Of the sum of squares over its value at the estimate, in variances of a residual."""
        return float((fit.sum_of_squares - self._of.sum_of_squares) / self._of.variance)

    def _line(self, distance: float) -> float:
        """What t would be on a straight line through the last fit that is inside."""
        inside = self._inside
        if not inside:
            return float(distance / np.sqrt(self._of.covariance[self._j, self._j]))
        return self.t[self.distance.index(inside)] / inside * distance

    def _take(self, distance: float, found: tuple[float, Array] | None) -> None:
        """Keep a fit, in the order of its distance."""
        if found is None:
            self._outside = min(self._outside, distance)
            return
        if distance in self.distance:
            return
        at = int(np.searchsorted(self.distance, distance))
        self.distance.insert(at, distance)
        self.t.insert(at, found[0])
        self.x.insert(at, found[1])
        if found[0] >= self._quantile:
            self._outside = min(self._outside, distance)

    @property
    def _inside(self) -> float:
        """The largest distance that is known to be within the interval."""
        known = zip(self.distance, self.t)
        return max(d for d, t in known if t < self._quantile and d < self._outside)

    @property
    def _levels_off(self) -> bool:
        """Whether t, at distances that grow by the same factor, ends below the quantile.

        By the limit of the geometric series of its last steps (Aitken).
        """
        if len(self.t) < 4 or np.isfinite(self._outside):
            return False
        first, second, last = np.diff(self.t[-4:])
        stretched = np.diff(np.log(self.distance[-3:])).min() > 0.9 * np.log(STRETCH)
        if not stretched or not 0 <= last < second < first:
            return False
        return bool(self.t[-1] + last * last / (second - last) < (1 - NEAR) * self._quantile)

    def _crossing(self) -> float:
        """The distance at which a straight line through two values of t has the quantile."""
        t, distance = np.array(self.t), np.array(self.distance)
        above = int(np.argmax(t >= self._quantile)) if t.max() >= self._quantile else len(t) - 1
        a, b = max(above - 1, 0), max(above, 1)
        slope = (t[b] - t[a]) / (distance[b] - distance[a])
        return float(distance[a] + (self._quantile - t[a]) / slope) if slope > 0 else np.inf

    def _is_near(self, crossing: float) -> bool:
        """Whether a fit is next to where t has the quantile."""
        return any(abs(distance - crossing) <= NEAR * crossing for distance in self.distance[1:])

    def _next(self) -> float:
        """A distance at which t is nearer to the quantile."""
        if len(self.t) == 1:
            return 0.5 * self._outside
        guess = self._crossing()
        inside = self._inside
        if np.isinf(self._outside):
            return float(np.clip(guess, 1.05 * inside, STRETCH * inside))
        width = self._outside - inside
        return float(np.clip(guess, inside + 0.05 * width, self._outside - 0.05 * width))
