"""How loud one evaluation is: a few values next to x."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np._checks import EPS
from gradiator_np._second_derivatives.runs import CENTRE, Runs
from gradiator_np._typing import Array, Mask
from gradiator_np.designs._adaptive.model.quantization import printed_spacing

#: One, two or three columns more that leave less than these shares of the residuals describe them.
#: Of seven values of white noise one in 10^8, 10^6 and 10^5 has such (Beta((5 - c) / 2, c / 2) of
#: the squares).
NOTHING = (0.01, 0.01, 0.004)
#: A kink or a jump exceeds this share of what the slope changes over one scale: what is left of
#: rounded terms that cancel takes few values, and may look like a step.
SEEN = 1e-11
#: Where values next to x are on a curve, closer ones are run: so many times at most, each time by
#: this factor, down to so many spacings of floating-point numbers.
CLOSER, CLOSE, FINEST = 4, 64.0, 8.0
#: Pairs of the line are so many times as far from x each. White noise is the same at all distances;
#: where the values of all but the outermost pair agree so many times better with each other than
#: with it, f lives on a scale smaller than the line (of noise alone 1 in 10^5).
APART, AGREE = 16.0, 50.0
#: Residuals up to this many machine epsilons of the values are rounding.
ROUNDING = 100.0


class Level(NamedTuple):
    """Noise of each output.

    Attributes
    ----------
    noise : array, shape (n,)
        Standard deviation of one evaluation.
    dof : array, shape (n,)
    centre : array, shape (n,)
        Variance of the value at x, in units of that of one evaluation.
    loud : array of bool, shape (n,)
        Whether it is more than rounding.
    still : array of bool, shape (n,)
        Outputs that did not change.
    broken : array of bool, shape (n,)
        Outputs with a kink or a jump at x.
    size : array, shape (n,)
        The largest value next to x.
    extent : float
        The distance along the line, in units of the scale, over which curvature that shows next
        to x changes values by their size; inf where none shows.
    """

    noise: Array
    dof: Array
    centre: Array
    loud: Mask
    still: Mask
    broken: Mask
    size: Array
    extent: float = np.inf


def given(noise: Array, size: Array, eps: float) -> Level:
    """Noise that the caller knows, beside rounding."""
    floor = rounding(size, eps)
    n = len(noise)
    return Level(
        np.maximum(noise, floor), np.full(n, np.inf), np.ones(n), noise > ROUNDING * floor,
        np.zeros(n, bool), np.zeros(n, bool), size,
    )  # fmt: skip


def rounding(size: Array, eps: float) -> Array:
    """Standard deviation of rounding of values of some size, half an epsilon at most."""
    return np.maximum(size * eps / 2, np.finfo(float).tiny / EPS)


def reach(eps: float) -> float:
    """How far from x values are that tell the noise, in units of the scale."""
    return 3 * float(np.sqrt(eps))


def look(runs: Runs, along: Array, eps: float, count: int) -> Level:
    """The noise from ``count`` runs (even) on a line next to x; improves the value there.

    Values so close lie on a straight line but for their noise: count - 1 degrees of freedom. A
    curve, kink or jump that leaves next to nothing of the residuals is none of the noise.
    """
    spacing = reach(eps)
    finest = np.spacing(np.abs(runs.flat)).astype(float) / np.maximum(np.abs(along), 1e-300)
    least = FINEST * float(finest[along != 0].max(initial=0.0))
    extent = np.inf
    for _ in range(CLOSER):
        apart = APART ** -np.arange(count // 2, dtype=float)[::-1]
        if spacing * apart[0] < least:
            apart = np.arange(1, count // 2 + 1) / (count // 2)
        t = np.concatenate([-apart[::-1], apart])
        level, times, shift = _next_to(runs, t, spacing, along, eps)
        extent = min(extent, spacing * times if times else np.inf)
        if not times or spacing / CLOSE < least:
            break
        spacing /= CLOSE
    # Rounding is no white noise: its mean over neighbours is no better than one value.
    better = level.loud & ~level.broken
    at_x = runs.value(CENTRE)
    runs.replace_centre(np.where(better, at_x + shift, at_x))
    return level._replace(centre=np.where(better, level.centre, 1.0), extent=extent)


def _next_to(
    runs: Runs, t: Array, spacing: float, along: Array, eps: float
) -> tuple[Level, float, Array]:
    """What values at x + t along say; where curvature shows, which closer ones would lack, how many
    times as far it changes values by their size, or 0; and by how much the value at x is off."""
    at_x = runs.value(CENTRE)
    near = runs.at(t[:, None] * spacing * along)
    values, position = np.vstack([near, at_x]) - at_x, np.append(t, 0.0)
    n = len(at_x)
    fits = [Fit(0.0, np.inf, 1.0, 0.0, "", 0.0, 0.0)] * n
    size = np.nanmax(np.abs(np.vstack([near, at_x])), axis=0)
    floor = rounding(size, eps)
    for o in range(n):
        good = np.isfinite(values[:, o])
        if good.sum() >= 3:
            fits[o] = _best(position[good], values[good, o], ROUNDING * floor[o], spacing)
    noise, dof, centre, shift = (np.array(c) for c in list(zip(*fits))[:4])
    loud = noise > ROUNDING * floor
    broken = np.array([fit.shape == "broken" for fit in fits])
    level = Level(
        np.maximum(noise, floor), dof, centre, loud,
        (near == at_x).all(0), broken, size,
    )  # fmt: skip
    extents = [fit.extent(abs(there)) for fit, there in zip(fits, at_x) if fit.bend]
    return level, min(extents, default=0.0), shift


# Rounding of distant values in units of what shows next to x, where sums round alike: of 150 random
# smooth functions intervals hold 0.964 with it, and 2 calls are beyond five bars; without 0.924 and
# 5, of 150 that fail beyond 1.05 x 12 in place of 8.
ELSEWHERE = 2.0


class Fit(NamedTuple):
    """A curve through values next to x: residual noise, its degrees of freedom, variance and shift
    of the value at x, what it is beside a straight line, and by how much it bends over the line."""

    noise: float
    dof: float
    centre: float
    shift: float
    shape: str
    bend: float
    slope: float

    def extent(self, size: float) -> float:
        """Over how many lengths of the line curvature changes the value at x, or the slope, by its
        size; inf where both vanish at x, as at a minimum, and tell nothing."""
        if max(size, self.slope) <= self.bend:
            return np.inf
        return float(max(np.sqrt(size / self.bend), self.slope / self.bend))


def _best(t: Array, v: Array, small: float, spacing: float) -> Fit:
    """The simplest curve."""
    straight = _fit(t, v, [], "")
    if len(t) < len(NOTHING) + 4:
        return straight
    if straight.noise <= small:
        # Curvature over the line is as large as rounding where f bends over a scale: of 300 random
        # functions a straight line tells 3.4 times the rounding in the median, a parabola 1.06.
        quiet = _fit(t, v, [t**2], "")
        return quiet._replace(noise=ELSEWHERE * quiet.noise)
    bend, up, down = np.abs(t), 1.0 * (t >= 0), 1.0 * (t > 0)  # x is on one side of a jump
    curves: list[tuple[list[NDArray[Any]], str]] = [
        ([t**2], "bent"), ([t**2, t**3], "bent"), ([t**2, t**3, t**4], "bent"),
        ([bend], "broken"), ([up], "broken"), ([down], "broken"), ([bend, up], "broken"),
        ([bend, down], "broken"),
    ]  # fmt: skip
    for columns, shape in curves:
        fit = _fit(t, v, columns, shape)
        seen = shape == "bent" or straight.noise > SEEN * straight.slope / spacing
        if seen and fit.noise < NOTHING[len(columns) - 1] * straight.noise:
            return fit
    return _within(t, v) or straight


def _within(t: Array, v: Array) -> Fit | None:
    """What the pairs but the outermost say, where they see nothing of what that one does."""
    inner = np.abs(t) <= np.abs(t).max() / APART
    if inner.sum() < 4 or np.unique(v[inner]).size < inner.sum():
        return None  # rounded or printed values are the same where they are close
    fit = _fit(t[inner], v[inner], [], "")
    bend = float(np.abs(v[~inner].mean() - v[inner].mean()))
    return fit._replace(shape="bent", bend=bend) if bend > AGREE * fit.noise else None


def _fit(t: Array, v: Array, columns: list[NDArray[Any]], shape: str) -> Fit:
    basis = np.stack([np.ones_like(t), t, *columns], 1)
    coef = np.linalg.lstsq(basis, v, rcond=None)[0]
    dof = len(t) - basis.shape[1]
    rest = v - basis @ coef
    inverse = np.linalg.inv(basis.T @ basis)
    own = abs(float(coef[2])) if shape == "bent" else 0.0
    noise, centre, shift = np.sqrt(rest @ rest / dof), inverse[0, 0], coef[0]
    return Fit(
        float(noise), float(dof), float(centre), float(shift), shape, own, abs(float(coef[1]))
    )


def printed(runs: Runs, wide: Array, level: Level) -> Level:
    """The same, where values at full steps (k, n) show that outputs are printed or rounded."""
    # Digits are those of values as they are: units are powers of two.
    at_x, wide = runs.value(CENTRE) * runs.unit, wide * runs.unit
    wide = wide[np.isfinite(wide).all(1)]
    if not len(wide):
        return level
    with np.errstate(invalid="ignore"):
        spacing = printed_spacing(wide, at_x, level.still)
        single = (wide.astype(np.float32) == wide) | np.isnan(wide)
    short = single.all(0) & (at_x.astype(np.float32) == at_x) & (wide != at_x).any(0)
    of_single = np.spacing(np.abs(at_x).astype(np.float32)).astype(float)
    spacing = np.where((spacing == 0) & short, of_single, spacing) / runs.unit
    noise = np.maximum(level.noise, spacing / np.sqrt(12))
    found = spacing > 0
    return level._replace(
        noise=noise,
        loud=level.loud | found,
        dof=np.where(found & ~level.loud, np.inf, level.dof),
        broken=level.broken & ~found,
    )
