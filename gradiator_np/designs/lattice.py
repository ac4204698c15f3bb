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
