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
# d different integers share a factor g by chance with probability g^(1 - d); below this it is the
# program's own.
CHANCE = 1e-3
# That values on a finer grid are all on a coarser one, which another output has.
RARE = 0.02
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
    few = np.asarray(told.any(axis=0))
    for k in range(len(values)):  # the first value or two tell of most that they have more
        which = np.flatnonzero(few & told[k])
        few[which] = _digits(v[k, which], exponent[k, which], 2) <= MOST_DIGITS
    told, v, exponent = told[:, few], v[:, few], exponent[:, few]
    best = np.ones(v.shape[1])
    # read from decimals exactly, or by arithmetic that is off by an ulp or two
    for ulps in (0, 2):
        digits = np.where(told, _digits(v, exponent, ulps), 0)
        decimals = np.where(told, digits - exponent, -400)
        for common in (digits.max(axis=0) - exponent, decimals.max(axis=0) + 0 * exponent):
            share = (1 + 2 * ulps) * np.spacing(v) * 10.0 ** (common - 1.0)
            chance = np.where(told, np.minimum(share, 1.0), 1.0).prod(axis=0)
            known = (digits <= MOST_DIGITS).all(axis=0)
            best = np.where(known, np.minimum(best, MOST_DIGITS * chance), best)
    few[few] = best < NO_CHANCE
    return few


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
        Outputs that did not change at some pair.

    Notes
    -----
    Few digits tell by themselves. Multiples of a spacing that is no power of ten tell only where
    the output stood still: steps that are multiples of each other leave multiples where a function
    is linear.
    """
    few = has_few_digits(values, at)
    with_base = np.concatenate([at[None], values])
    out, grid = np.zeros(at.shape), np.zeros(at.shape)
    if few.any():
        out[few] = decimal_spacing(with_base[:, few], at[few], MOST_DIGITS)
    if still.any() or few.any():
        grid = divisor(with_base)
    out = np.where(few, out, np.where(still, grid, 0.0))
    sure = out > 0
    if not sure.any() or 2 * sure.sum() <= (~still).sum():
        return out
    # where most are rounded all are: to a spacing that their own values show, or to as many
    # decimals or digits, whichever the others share
    size, own = decade(at), _alike(out[sure], with_base[:, sure], few[sure])
    out[sure] = own
    share = own / size[sure]
    decimals, digits = np.full(size.shape, np.median(own)), np.median(share) * size * (at != 0)
    apart = np.ptp(np.log(own)) - np.ptp(np.log(share))
    alike = abs(apart) < NEAR
    typical = np.maximum(decimals, digits) if alike else digits if apart > 0 else decimals
    gaps = np.abs(np.nan_to_num(values - at))
    gaps = np.where(gaps > ULPS * np.spacing(np.abs(at)), gaps, np.inf).min(axis=0, initial=np.inf)
    typical = np.minimum(typical, gaps)
    return np.where(sure, out, np.where(grid > 0, grid, np.where(still, typical, 0.0)))


def digit_growth(values: Array, at: Array, spacing: Array) -> Array:
    """The power of ten (n,) at ``at`` that the spacing of each output grows with; 0 where it is the
    same everywhere, as values (k, n) of more digits than those near ``at`` show."""
    size = decade(at)
    # multiples of anything else are as far apart everywhere
    decimal = np.abs(spacing / decade(spacing) - 1) < NEAR
    v = np.where(np.isfinite(values), np.abs(values), 0.0)
    times = decade(v) / size
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = v / (spacing * times)
        finer = (times > 1.5) & (v > 0) & (np.abs(steps - np.rint(steps)) > 0.01)
    grows = decimal & (spacing > 0) & (at != 0) & ~finer.any(axis=0)
    return np.where(grows, size, 0.0)


def decade(a: Array) -> Array:
    """The power of ten just below the size of every number, 1 for 0."""
    size = np.where(np.isfinite(a) & (a != 0), np.abs(a), 1.0)
    return np.asarray(10.0 ** np.floor(np.log10(size)))


def _alike(spacing: Array, values: Array, few: NDArray[np.bool_]) -> Array:
    """Spacings (n,) of outputs that may share that of the output with most different values
    (k, n): without ``few`` digits they may have a factor more by chance, and decimals are a finer
    grid than their own."""
    gaps = np.sort(np.abs(np.nan_to_num(values - values[0], posinf=0, neginf=0)), axis=0)
    distinct = (np.diff(gaps, axis=0) > 0.5 * spacing).sum(axis=0)
    common = spacing[np.argmax(distinct)]
    steps, times = gaps / common, spacing / common
    on_grid = (np.abs(steps - np.rint(steps)) <= 0.01 * np.minimum(steps, 1.0)).all(axis=0)
    coarser = ~few & (np.maximum(times, 1.0) ** (1.0 - distinct) > CHANCE)
    finer = np.minimum(times, 1.0) ** distinct < RARE
    return np.asarray(np.where(on_grid & np.where(times > 1, coarser, finer), common, spacing))


def divisor(values: Array) -> Array:
    """Largest spacing (n,) of a grid of any kind that holds all values; 0 where there is none, or
    chance would do.

    By Euclid's algorithm on differences from the first value (k, n), the smallest first: each is a
    multiple of a spacing by chance with probability twice its own rounding over the spacing, and
    the first may be any of its multiples.
    """
    values = np.where(np.isfinite(values), values, values[0])
    gaps = np.sort(np.abs(values[1:] - values[0]), axis=0)
    rounding = ULPS * np.spacing(np.abs(values).max(axis=0))
    tells = np.diff(gaps, axis=0, prepend=0.0) > rounding
    top, out = np.zeros(rounding.shape), np.zeros(rounding.shape)
    for gap, new in zip(gaps, tells):
        # what the multiples seen so far leave of rounding, times the quotient
        error = rounding * (1 + gap / np.where(top > 0, top, np.inf))
        a, b = np.where(new, gap, out), np.where(new, out, 0.0)
        # what is left of multiples of a spacing d after Euclid is off by b / d errors at most
        least = error + np.sqrt(b * error)
        while (go := b > least).any():
            rest = np.where(go, np.fmod(a, np.where(go, b, 1.0)), 0.0)
            # just short of a whole multiple
            rest = np.where(go & (b - rest <= least), 0.0, rest)
            a, b = np.where(go, b, a), np.where(go, rest, b)
        # the divisor has the errors of all quotients; as a share of the largest it has none
        top = np.where(new, gap, top)
        out = top / np.maximum(np.rint(top / np.where(a > 0, a, np.inf)), 1.0)
    some, error = np.where(out > 0, out, 1.0), 2 * rounding
    holds = (np.abs(gaps - np.rint(gaps / some) * some) <= error).all(axis=0)
    first = np.where(tells, gaps, np.inf).min(axis=0, initial=np.inf)
    chance = np.where(tells & (gaps > first), np.minimum(2 * error / some, 1.0), 1.0)
    sure = (out > 0) & holds & (chance.prod(axis=0) * first / some < NO_CHANCE)
    return np.where(sure & ~_alike_but_for_rounding(values, rounding), out, 0.0)


def _alike_but_for_rounding(values: Array, rounding: Array) -> NDArray[np.bool_]:
    """Outputs (n,) of whose neighbouring values (k, n) half or more differ by their last bits,
    and the others are equal.

    Rounded numbers that are alike are equal, but where the program adds several of them. A parabola
    about its minimum, at steps that are powers of the root of 2, is on multiples as well, alike on
    both sides but for rounding.
    """
    apart = np.diff(np.sort(values, axis=0), axis=0)
    alike = (apart > 0) & (apart <= rounding)
    return np.asarray(alike.sum(axis=0) >= np.maximum((apart == 0).sum(axis=0), 1))


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
