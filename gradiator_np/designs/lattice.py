"""Programs that print or round: the decimal grid that the values of an output lie on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Values of more significant digits count as not rounded: float64 holds almost 16 of them, and at
# ten what its last bits add to an integer mantissa, 1e10 eps / 2 = 1.1e-6, is far below NEAR.
DIGITS = 10
# A double at random passes for one of ten digits with probability 2 NEAR.
NEAR = 1e-5
# A grid of less than this share of an output is not told from its rounding errors.
FINE = 1e-12
# Differences are multiples of a spacing to EXACT of the largest; a divisor above COARSE of it is no
# chance: 1e-4 for each difference.
EXACT, COARSE = 1e-10, 1e-6
# d different integers share a factor g by chance with probability g^(1 - d); below this it is the
# program's own.
CHANCE = 1e-3


def quantum(values: Array, at: Array) -> Array:
    """Spacing near ``at`` of the grid that all values of each output lie on; 0 where none.

    Significant digits ("%.6e") and decimals (``round(y, 3)``) both leave values with short decimal
    forms; multiples of 0.05 are found from their common factor.

    Parameters
    ----------
    values : array, shape (k, n)
        Values of each output; what is not finite is left out.
    at : array, shape (n,)
        Where the spacing is wanted: that of significant digits grows with the value.

    Notes
    -----
    Exact arithmetic on decimal inputs (2 x at x = 2.00000001) looks rounded too. The caller has to
    see that the values do not follow their inputs as closely as a smooth function's would.
    """
    finite = np.isfinite(values) & (values != 0)
    size = np.where(finite, np.abs(values), 1.0)
    exponent = np.floor(np.log10(size))
    mantissa = size / 10.0**exponent
    rounded = (~finite | _whole(mantissa, DIGITS)).all(axis=0) & finite.any(axis=0)
    out = np.zeros(values.shape[1])
    which = np.flatnonzero(rounded & np.isfinite(at))
    if which.size:
        finite, exponent, mantissa = finite[:, which], exponent[:, which], mantissa[:, which]
        out[which] = _spacing(finite, exponent, mantissa, at[which])
    return out


def printed(values: Array, at: Array, rise: Array, expected: Array) -> Array:
    """Spacing near ``at`` of the outputs of a program that prints or rounds; 0 of the others.

    Parameters
    ----------
    values : array, shape (k, n)
    at : array, shape (n,)
    rise, expected : array, shape (n,)
        Change of each output over a small step, and what wider steps say it should be.
    """
    spacing = quantum(values, at)
    dead = rise == 0
    other = dead & (spacing == 0)
    if other.any():
        spacing[other] = _alike(divisor(values[:, other]))
    size = 10.0 ** np.floor(np.log10(np.where(at == 0, 1.0, np.abs(at))))
    seen = (spacing > FINE * size) & (expected != 0)
    # an output that follows its inputs is exact, not rounded; one among several may cancel
    proven = seen & (np.abs(rise) < 1.5 * spacing)
    proven &= np.abs(rise - expected) > 0.5 * np.abs(expected)
    if 2 * proven.sum() <= seen.sum():
        return np.zeros(spacing.shape)
    # where one output is printed, so are all that look like it or stand still: to as many decimals,
    # or to as many digits, whichever the proven ones share; a constant shows too few digits
    own, share = spacing[proven], spacing[proven] / size[proven]
    decimals, digits = np.full(size.shape, np.median(own)), np.median(share) * size * (at != 0)
    apart = np.ptp(np.log(own)) - np.ptp(np.log(share))
    typical = np.maximum(decimals, digits) if apart == 0 else digits if apart > 0 else decimals
    likely = np.where(spacing > 0, np.minimum(spacing, typical), typical)
    return np.asarray(np.where(proven, spacing, np.where(dead | (spacing > 0), likely, 0.0)))


def _alike(spacing: Array) -> Array:
    """Few values may have a divisor of their own: the spacing that all are multiples of."""
    least = spacing[spacing > 0].min(initial=np.inf)
    times = spacing / least
    multiple = (spacing > 0) & (np.abs(times - np.rint(times)) < NEAR)
    return np.asarray(np.where(multiple, least, spacing))


def divisor(values: Array) -> Array:
    """Largest spacing (n,) of a grid of any kind that holds all values; 0 where there is none.

    By Euclid's algorithm on differences, which ends at EXACT of the largest where they have no
    common divisor.
    """
    values = np.where(np.isfinite(values), values, values[0])
    gaps = np.abs(values[1:] - values[0])
    most = gaps.max(axis=0, initial=0.0)
    least = EXACT * most
    out, top = np.zeros(most.shape), np.zeros(most.shape)
    for gap in gaps:
        a, b = np.maximum(out, gap), np.minimum(out, gap)
        while (b > least).any():
            go = b > least
            rest = np.where(go, np.fmod(a, np.where(go, b, 1.0)), 0.0)
            # just short of a whole multiple
            rest = np.where(go & (b - rest <= least), 0.0, rest)
            a, b = np.where(go, b, a), np.where(go, rest, b)
        # the divisor has the errors of all quotients; as a share of the largest it has none
        top = np.maximum(top, gap)
        out = top / np.maximum(np.rint(top / np.where(a > 0, a, 1.0)), 1.0)
    # one difference alone divides itself
    several = ((gaps > least) & (np.abs(gaps - most) > least)).any(axis=0)
    return np.where(several & (out > COARSE * most), out, 0.0)


def _whole(mantissa: Array, digits: int) -> NDArray[np.bool_]:
    """Whether so many significant digits say it all."""
    scaled = mantissa * 10.0 ** (digits - 1)
    return np.asarray(np.abs(scaled - np.rint(scaled)) < NEAR * 10.0 ** (digits - DIGITS) + 1e-12)


def _spacing(finite: NDArray[np.bool_], exponent: Array, mantissa: Array, at: Array) -> Array:
    """Spacing of values (k, n) of at most ``DIGITS`` digits."""
    short = np.array([_whole(mantissa, d) for d in range(1, DIGITS + 1)])
    digits = np.where(finite, 1 + np.argmax(short, axis=0), 0)
    decimals = np.where(finite, digits - 1 - exponent, -np.inf).max(axis=0)
    fixed = 10.0**-decimals
    top = np.where(finite, exponent, -np.inf).max(axis=0)
    # beyond 2^53 steps of the finest grid: significant digits over a wide range, no common factor
    narrow = decimals + top < 15
    steps = np.where(finite & narrow, np.rint(mantissa * 10.0 ** (exponent + decimals)), 0.0)
    steps = np.sort(steps.astype(np.int64), axis=0)
    distinct = 1 + (np.diff(steps, axis=0) > 0).sum(axis=0)
    factor = np.maximum(np.gcd.reduce(steps, axis=0), 1).astype(float)
    fixed = np.where(factor ** (1.0 - distinct) < CHANCE, fixed * factor, fixed)
    size = np.where(at == 0, 10.0**top, np.abs(at))
    return np.asarray(
        np.maximum(fixed, 10.0 ** (np.floor(np.log10(size)) - digits.max(axis=0) + 1))
    )
