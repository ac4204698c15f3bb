"""What the values of a stencil say of noise: their highest difference, and the grid they lie on.

A stencil has one sample more than its rule needs to fit a polynomial through: the divided
difference of the highest order that the points of a line allow holds noise, and a derivative
beyond the rule's order, which for a smooth function is less than the truncation that error bars
hold anyway. All inputs share the noise, but not the derivative, so the median over inputs tells.
Values of fewer digits than chance allows are printed or rounded, even where they stand still.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Mask
from gradiator_np.designs._adaptive.model.quantization import has_few_digits, printed_spacing

# Median of a chi-square with one degree of freedom.
MEDIAN = 0.455
# Of k lines the quietest shows less than sigma / (100 k) once in 125 times.
WEAKEST = 100.0
# Rounding of a value, and of what it was made from, stays below so many times eps of its size.
ROUNDING = 100.0
# A response below this many of its standard errors is hidden.
SEEN = 2.0
# Noise below that share of a value is told from curvature at a zero of f.
VERTEX = 0.01
# A second difference counts as a bend from this square of its noise on: 2.7 % of straight lines.
# Truncation is so many times what a geometric series says: with 1, intervals held 0.79 to 0.86 of
# sines and tanh over steps of 0.05 to 0.3, with 2 they hold 0.87 to 0.91 (0.26 to 0.36 without).
BEYOND = 5.0
GEOMETRIC = 2.0
# Changes of so many roundings of the largest value are none.
STILL = 4.0
# Values that decide on digits: the product of their chances is out of question long before.
ENOUGH = 32
# What single precision holds is below.
LARGE = 1e38
# Digits above which printing cannot be told from rounding by a look at one value.
LOOK = 13


class Evidence(NamedTuple):
    """Noise of one evaluation, as a stencil shows it; arrays of shape (B, n).

    Attributes
    ----------
    noise : array
        Standard deviation; 0 where nothing shows any, nan where nothing could.
    dof : array
        Its degrees of freedom: inf where it was read from the grid of printed values.
    spacing : array
        Of that grid near the value at x; 0 where there is none.
    size : array
        The largest value.
    """

    noise: Array
    dof: Array
    spacing: Array
    size: Array


def evidence(
    rest: NDArray[Any] | None, change: Array, there: Array, values: NDArray[Any],
    y: NDArray[Any], eps: float,
) -> Evidence:  # fmt: skip
    """Noise from the highest differences of all lines, and from the form of the values.

    Parameters
    ----------
    rest : array, shape (B, n, m), or None
        Highest difference of each line, in units of one evaluation's noise; nan where unknown.
    change : array, shape (B, n, m)
        The largest change along each line.
    there : array, shape (k, B)
        The moved coordinate of every sample.
    values : array, shape (k, B, n)
    y : array, shape (B, n)
    eps : float
        Relative precision of the values.
    """
    size = largest(values, y)
    noise, dof = np.full(y.shape, np.nan), np.zeros(y.shape)
    if rest is not None:
        with np.errstate(over="ignore"):
            square = np.square(np.abs(rest))
        # what is far below rounding is what weights leave of a difference that is 0
        nothing = np.square(1e-3 * eps * size)[..., None]
        square = np.where(square <= nothing, 0.0, square)
        # A line that stands still says nothing of the noise.
        told = np.isfinite(square) & (change > 0)
        count = told.sum(-1)
        seen = np.sqrt(_shared(np.where(told, square, np.nan), count))
        rounding = eps * size
        noise = np.maximum(seen, rounding)
        # half a degree for each line: they share the run at x, and a median wastes a third
        dof = np.where(seen > rounding, np.maximum(1.0, count / 2), np.inf)
    rows = _some(len(values))
    spacing = np.maximum(_grid(values, y), _single(there[rows], values[rows], y))
    if spacing.any():
        # Exact arithmetic on short decimals leaves short decimals: steps of a hundredth have some.
        exact = np.nan_to_num(noise) <= ROUNDING * eps * size
        short = has_few_digits(there[rows], np.full(there.shape[1], np.nan))
        spacing = np.where(exact & short[:, None], 0.0, spacing)
        printed = spacing / np.sqrt(12)
        more = printed > np.nan_to_num(noise)
        noise, dof = np.where(more, printed, noise), np.where(more, np.inf, dof)
    return Evidence(noise, dof, spacing, size)


def largest(values: NDArray[Any], y: NDArray[Any]) -> Array:
    """The size of the largest value of each output, (B, n); what failed left out."""
    every = np.abs(np.concatenate([values, y[None]]))
    return np.asarray(np.max(np.where(np.isfinite(every), every, 0.0), axis=0))


def hidden(found: Evidence, coef: NDArray[Any], variance: Array, step: Array, bend: Array,
           eps: float) -> Mask:  # fmt: skip
    """Outputs (B, n) whose response to a step is lost in noise.

    Parameters
    ----------
    coef, variance : array, shape (B, n, m)
        J, and the share of noise in its variance; inf where nothing is known.
    step : array, shape (B, m)
        0 where fixed.
    bend : array, shape (B,)
        Relative to the value, the highest difference that curvature alone may have. What is
        noise must be above; and where that is not 0 (three points cannot tell a parabola at its
        vertex from noise) well below the value, since f itself may be 0 there but for curvature.
    """
    unit = np.square(np.abs(step))[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        noise = (np.where(np.isfinite(variance), variance, 0.0) * unit).sum(-1)
        signal = (np.square(np.abs(coef)) * unit).sum(-1)
        share = found.noise / found.size
    clear = (share > np.maximum(ROUNDING * eps, bend[:, None])) & (
        (bend == 0)[:, None] | (share < VERTEX)
    )
    return np.asarray((SEEN**2 * noise > signal) & (clear | (found.spacing > 0)))


def truncation(
    low: Array, rest: NDArray[Any], coef: NDArray[Any], step: Array, noise: Array
) -> Array:
    """Variance (B, n, m) of what rules of two points beside x miss, from their second differences.

    Those tell of the second derivative, and the rule misses the third: f is taken for a geometric
    series along each line, whose ratio is its own or that of all outputs along that input, the
    larger one. (Its own alone is 0 at a point of inflection.) 0 for lines that tell of no bend.

    Parameters
    ----------
    low, rest, coef : array, shape (B, n, m)
        Size of the difference to the one-sided rule (nan where there is none), the second
        difference in units of one evaluation's noise (nan beside a point that a rig missed: all of
        ``low`` counts there), and J.
    step : array, shape (B, m)
    noise : array, shape (B, n)
        Rounding included.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        noisy = np.square(np.abs(rest)) <= BEYOND * np.square(noise)[..., None]
        bend = np.where(noisy | np.isnan(low), 0.0, low)
        slope, unit = np.abs(coef), np.abs(step)[:, None, :]
        whole = np.linalg.norm(slope * unit, axis=-1, keepdims=True)
        change, curved = (np.where(whole > 0, a * unit / whole, 0.0) for a in (slope, bend))
        shared = np.square(curved).sum(1) / np.square(change).sum(1)
        by_own = bend * np.minimum(bend / slope, 1.0)
        by_all = slope * np.minimum(shared, 1.0)[:, None, :]
        missed = np.fmax(np.nan_to_num(by_own), np.nan_to_num(by_all))
        return np.asarray(np.square(GEOMETRIC * missed))


def too_long(coef: NDArray[Any], step: Array, scale: Array, noise: Array, told: Mask) -> Mask:
    """Entries (B, n, m) of which a one-sided difference would miss more than its noise, if f bends
    on the scale of x: where the second derivative is the first over that scale.

    Parameters
    ----------
    coef : array, shape (B, n, m)
    step, scale : array, shape (B, m)
        Of the differences, and of x.
    noise : array, shape (B, n)
        Rounding included.
    told : array of bool, shape (B, n, m)
        Lines whose own values tell of bends.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        missed = np.abs(coef) * (np.square(step) / (2 * scale))[:, None, :]
        return np.asarray((np.nan_to_num(missed) > noise[..., None]) & ~told)


def too_short(
    found: Evidence, coef: NDArray[Any], change: NDArray[Any], step: Array, eps: float
) -> Mask:
    """Inputs (B, m) over whose steps no output moves beyond its rounding, and which could not
    have been seen unless they were far stronger than the others.

    Parameters
    ----------
    change : array, shape (B, n, m)
        The largest change of each output along the line of an input.
    """
    size = found.size[..., None]
    known = np.isfinite(change).any(1)
    weak = known & ~(change > STILL * eps * size).any(1) & (step != 0)
    row = np.sqrt(np.where(weak[:, None, :], 0.0, np.square(np.abs(coef))).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        strongest = np.nan_to_num(row / found.size, posinf=0.0).max(-1, initial=0.0)[:, None]
        return np.asarray(weak & (strongest > 0) & (SEEN * eps > np.abs(step) * strongest))


def _shared(size: Array, count: NDArray[np.intp]) -> Array:
    """A variance that all inputs share, from ``count`` squares among (..., m), nan last.

    Their median, which one input that bends leaves alone; of two the mean. Noise would be in
    every line, so it is not far above the smallest square either.
    """
    rising = np.sort(size, axis=-1)
    below, above = np.maximum(count - 1, 0)[..., None] // 2, count[..., None] // 2
    ends = [
        np.take_along_axis(rising, np.minimum(i, size.shape[-1] - 1), -1) for i in (below, above)
    ]
    median = (ends[0] + ends[1])[..., 0] / (2 * np.where(count > 2, MEDIAN, 1.0))
    # differences of a grid are 0 by chance
    least = np.min(np.where(size > 0, size, np.inf), axis=-1, initial=np.inf)
    most = np.square(WEAKEST * np.maximum(count, 1)) * least
    return np.asarray(np.where(count > 0, np.minimum(median, most), 0.0))


def is_short(value: float) -> bool:
    """Whether few decimal digits or single precision say it all: it may have been rounded."""
    printed = float(f"{value:.{LOOK - 1}e}") == value
    return printed or (abs(value) < LARGE and float(np.float32(value)) == value)


def _grid(values: NDArray[Any], y: NDArray[Any]) -> Array:
    """Spacing (B, n) of the decimal grid that values lie on; 0 where there is none."""
    out = np.zeros(y.shape)
    if values.dtype.kind == "c" or y.dtype.kind == "c" or not len(values):
        return out
    flat, at = values.reshape(len(values), -1), y.reshape(-1)
    maybe = np.isfinite(at)
    for row in (at, flat[0], flat[-1]):
        which = np.flatnonzero(maybe)
        maybe[which] &= _maybe_short(row[which])
    which = np.flatnonzero(maybe)
    if which.size:
        some, here = flat[np.ix_(_some(len(flat)), which)], at[which]
        still = (flat[:, which] == here).all(axis=0)
        out.reshape(-1)[which] = printed_spacing(some, here, still)
    return out


def _single(there: Array, values: NDArray[Any], y: NDArray[Any]) -> Array:
    """Spacing (B, n) of values that single precision holds, at points that it does not; or 0."""
    if values.dtype.kind == "c" or y.dtype.kind == "c" or not len(values):
        return np.zeros(y.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        long = (there != there.astype(np.float32)).mean(0) > 0.5  # (B,)
        held = (values == values.astype(np.float32)).all(0) & (y == y.astype(np.float32))
        spacing = np.spacing(np.abs(y).astype(np.float32)).astype(float)
    return np.where(held & long[:, None] & (values != y).any(0), spacing, 0.0)


def _some(k: int) -> NDArray[np.intp]:
    """``ENOUGH`` of k rows, the first and the last among them."""
    return np.unique(np.linspace(0, k - 1, ENOUGH).astype(np.intp)) if k else np.arange(0)


def _maybe_short(v: Array) -> Mask:
    """Whether ``LOOK`` digits say it all, or a value says nothing; by chance one in 25."""
    size = np.where(np.isfinite(v) & (v != 0), np.abs(v), 1.0)
    scaled = size / 10.0 ** (np.floor(np.log10(size)) - (LOOK - 1))
    return np.asarray(np.abs(scaled - np.rint(scaled)) < 0.02)
