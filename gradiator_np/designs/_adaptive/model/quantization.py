"""Programs that print or round: the decimal grid that the values of an output lie on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array

# Values of more significant digits count as not rounded where nothing but their form tells: at ten
# digits what the last bits of a double add to an integer mantissa, 1e10 eps / 2 = 1.1e-6, is far
# below NEAR, and a double at random passes with probability 2 NEAR.
DIGITS = 10
NEAR = 1e-5
# Where chance is reckoned with, doubles of so many digits are told from exact values.
MOST_DIGITS = 15
# Probability below which the digits of an output are no chance.
NO_CHANCE = 1e-6
# Powers of ten up to this one are exact.
EXACT_POWER = 22
# Differences are multiples of a spacing to EXACT of the largest; a divisor above COARSE of it is no
# chance: 1e-4 for each difference.
EXACT, COARSE = 1e-10, 1e-6
# d different integers share a factor g by chance with probability g^(1 - d); below this it is the
# program's own.
CHANCE = 1e-3
EPS = np.finfo(float).eps
# Rounding errors of values that are equal.
ULPS = 10.0


def has_few_digits(values: Array, at: Array) -> NDArray[np.bool_]:
    """Outputs (n,) whose values (k, n) have fewer decimal digits than chance allows.

    A double v has no more than d digits by chance with probability ulp(v) / 10^(e - d + 1), e being
    its decimal exponent; those of different values multiply. What equals ``at`` (n,), or an earlier
    value, but for rounding, tells nothing.

    Notes
    -----
    Exact arithmetic on decimal inputs (2 x at x = 2.00000001) leaves few digits too: the values
    have to be those at steps of full length.
    """
    size = np.abs(values)
    told = np.isfinite(values) & (size > 0)
    seen = np.concatenate([np.abs(at)[None], size])
    for k in range(len(values)):
        told[k] &= ~(np.abs(seen[: k + 1] - size[k]) <= ULPS * np.spacing(size[k])).any(axis=0)
    v = np.where(told, size, 1.0)
    exponent = np.floor(np.log10(v)).astype(int)
    best = np.ones(at.size)
    # read from decimals exactly, or by arithmetic that is off by an ulp or two
    for ulps in (0, 2):
        digits = np.where(told, _digits(v, exponent, ulps), 0)
        decimals = np.where(told, digits - exponent, -400)
        for common in (digits.max(axis=0) - exponent, decimals.max(axis=0) + 0 * exponent):
            share = (1 + 2 * ulps) * np.spacing(v) * 10.0 ** (common - 1.0)
            chance = np.where(told, np.minimum(share, 1.0), 1.0).prod(axis=0)
            known = (digits <= MOST_DIGITS).all(axis=0)
            best = np.where(known, np.minimum(best, MOST_DIGITS * chance), best)
    return np.asarray((best < NO_CHANCE) & told.any(axis=0))


def _digits(v: Array, exponent: NDArray[np.intp], ulps: int) -> NDArray[np.intp]:
    """Significant digits of positive numbers, ``MOST_DIGITS`` + 1 for all that have more."""
    decimals = np.arange(MOST_DIGITS).reshape(-1, *(1,) * v.ndim) - exponent
    power = 10.0 ** np.abs(decimals)
    up = decimals >= 0
    whole = np.rint(np.where(up, v * power, v / power))
    # a quotient of two exact numbers is the double nearest to the decimal, as reading it gives
    off = np.abs(np.where(up, whole / power, whole * power) - v)
    near = off <= (ulps + (np.abs(decimals) > EXACT_POWER)) * np.spacing(v)
    return np.where(near.any(axis=0), 1 + near.argmax(axis=0), MOST_DIGITS + 1)


def decimal_spacing(values: Array, at: Array, most: int = DIGITS) -> Array:
    """Spacing near ``at`` of the grid that all values of each output lie on; 0 where none.

    Significant digits ("%.6e") and decimals (``round(y, 3)``) both leave values with short decimal
    forms; multiples of 0.05 are found from their common factor.

    Parameters
    ----------
    values : array, shape (k, n)
        Values of each output; what is not finite is left out.
    at : array, shape (n,)
        Where the spacing is wanted: that of significant digits grows with the value.
    most : int
        Digits up to which a value counts as short.
    """
    finite = np.isfinite(values) & (values != 0)
    size = np.where(finite, np.abs(values), 1.0)
    exponent = np.floor(np.log10(size))
    mantissa = size / 10.0**exponent
    rounded = (~finite | _whole(mantissa, most)).all(axis=0) & finite.any(axis=0)
    out = np.zeros(values.shape[1])
    which = np.flatnonzero(rounded & np.isfinite(at))
    if which.size:
        finite, exponent, mantissa = finite[:, which], exponent[:, which], mantissa[:, which]
        out[which] = _spacing(finite, exponent, mantissa, at[which], most)
    return out


def printed_spacing(values: Array, at: Array, still: NDArray[np.bool_]) -> Array:
    """Spacing near ``at`` of the outputs of a program that prints or rounds; 0 of the others.

    Parameters
    ----------
    values : array, shape (k, n)
        At steps of full length.
    at : array, shape (n,)
    still : array of bool, shape (n,)
        Outputs that stood still at the smallest step.
    """
    sure = has_few_digits(values, at)
    out = np.zeros(at.shape)
    if not sure.any():
        return out
    with_base = np.concatenate([at[None], values])
    out[sure] = decimal_spacing(with_base[:, sure], at[sure], MOST_DIGITS)
    others = still & ~sure
    if not others.any() or 2 * sure.sum() <= (~still).sum():
        return out
    # what stands still where others are rounded is rounded too: to a spacing that its own values
    # show, or to as many decimals or digits, whichever the others share
    size = decade(at)
    sure &= out > 0
    own, share = out[sure], out[sure] / size[sure]
    if not own.size:
        return out
    decimals, digits = np.full(size.shape, np.median(own)), np.median(share) * size * (at != 0)
    apart = np.ptp(np.log(own)) - np.ptp(np.log(share))
    typical = np.maximum(decimals, digits) if apart == 0 else digits if apart > 0 else decimals
    shown = _alike(divisor(with_base[:, others]))
    likely = np.where(shown > 0, np.minimum(shown, typical[others]), typical[others])
    out[others] = likely
    return out


def digit_growth(values: Array, at: Array, spacing: Array) -> Array:
    """The power of ten (n,) at ``at`` that the spacing of each output grows with; 0 where it is the
    same everywhere, as values (k, n) of more digits than those near ``at`` show."""
    size = decade(at)
    v = np.where(np.isfinite(values), np.abs(values), 0.0)
    times = decade(v) / size
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = v / (spacing * times)
        finer = (times > 1.5) & (v > 0) & (np.abs(steps - np.rint(steps)) > 0.01)
    grows = (spacing > 0) & (at != 0) & ~finer.any(axis=0)
    return np.where(grows, size, 0.0)


def decade(a: Array) -> Array:
    """The power of ten just below the size of every number, 1 for 0."""
    size = np.where(np.isfinite(a) & (a != 0), np.abs(a), 1.0)
    return np.asarray(10.0 ** np.floor(np.log10(size)))


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
    # division by a power of ten leaves an error of some ulps
    return np.asarray(np.abs(scaled - np.rint(scaled)) <= 3 * EPS * scaled)


def _spacing(
    finite: NDArray[np.bool_], exponent: Array, mantissa: Array, at: Array, most: int
) -> Array:
    """Spacing of values (k, n) of at most so many digits."""
    short = np.array([_whole(mantissa, d) for d in range(1, most + 1)])
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
