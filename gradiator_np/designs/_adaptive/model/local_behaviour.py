"""What differences at small steps say of a function there: smooth, a kink, a jump, or noise.

With D(t) and E(t), the central and the second difference at t, where f is smooth D departs from
the slope at x as t^2 and E grows as t^2; at a kink E grows as t, at a jump not at all, and noise
knows no law. An event on one side of x alone, a kink, a jump or the end of a domain at some
distance, changes f on that side by the same amount in both: E = 2 t (D - f') at every step beyond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array

Outputs = NDArray[np.bool_]

# By how much what follows a law may miss it.
LAW = 0.4, 2.5
# Share of a departure that the law need not foretell: a sine leaves 0.22 at twice its radian.
BEND = 0.5
# Departures that fall by this factor from one step to the next; those that are seen, and those of
# functions that may have bent.
FALLS, DEPARTS, BENT = 2.0, 1e-2, 0.3
# What follows a law exactly misses it by less than this share.
EXACT = 0.1


@dataclass(frozen=True, slots=True)
class Law:
    """Outputs (N,) by the law that their second differences at two steps follow.

    Attributes
    ----------
    falls : array of bool
        At least as fast as the squares of the steps, or to rounding: smooth.
    kinked, jumped : array of bool
        In proportion to the step; not at all.
    """

    falls: Outputs
    kinked: Outputs
    jumped: Outputs


def law_of_seconds(wide: Array, near: Array, ratio: float, rounding: Array) -> Law:
    """The law of second differences (N,) at a step and at ``ratio`` (below 1) times it, where
    those of at most ``rounding`` say nothing."""
    wide, near = np.abs(wide), np.abs(near)
    share = near / np.maximum(wide, 1e-300)
    clear = (wide > rounding) & np.isfinite(near)
    # a tenth of what a kink leaves
    falls = near <= np.maximum(rounding, 0.1 * ratio * wide)
    kinked = clear & ~falls & (np.abs(share / ratio - 1) < EXACT)
    return Law(falls, kinked, clear & ~falls & (np.abs(share - 1) < EXACT))


def departure(slope: Array, other: Array, sd: Array, typical: Array) -> Array:
    """Relative change (N,) of a slope beyond five standard deviations ``sd``; that of an output
    whose slope vanishes along the direction is relative to a hundredth of a ``typical`` one."""
    size = np.fmax(np.abs(slope), np.abs(other)) + 5 * sd + 1e-2 * typical + 1e-300
    return np.nan_to_num(np.maximum(np.abs(slope - other) - 5 * sd, 0.0) / size)


def follows_squares(near: Array, far: Array, ratio: float, sd: Array) -> bool:
    """Whether departures (N,) of slopes from that at x, at a step and at one ``ratio`` times as
    wide, are in proportion to the squares of the steps, in most outputs where they are seen."""
    seen = np.abs(far) > 10 * sd
    if not seen.any():
        return True
    expected = far[seen] / ratio**2
    off = np.maximum(np.abs(near[seen] - expected) - 5 * sd[seen], 0.0)
    return bool((off <= (LAW[1] - 1) * np.abs(expected)).mean() > 0.5)


def grows_as_squares(near: Array, far: Array, ratio: float, least: Array, size: Array) -> bool:
    """Whether second differences (N,) at a step, and at one ``ratio`` times as wide, grow with the
    squares, in most outputs where they are seen and large beside ``size``."""
    seen = (np.abs(near) > least / 4) & (np.abs(far) > np.maximum(least, size))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = far / near / ratio**2
    return bool(seen.any() and ((share > LAW[0]) & (share < LAW[1]))[seen].mean() > 0.5)


def is_bend(near: Array, far: Array, ratio: float, sd: Array, weight: Array) -> bool:
    """Whether departures (N,) of slopes at a wide step are those that a pair at a near one, with
    errors ``sd``, foretells in proportion to the squares."""
    miss = np.maximum(np.abs(far - ratio**2 * near) - 5 * ratio**2 * sd, 0.0)
    ok = np.isfinite(miss)
    return bool((weight * np.square(miss))[ok].sum() < BEND**2 * (weight * far * far)[ok].sum())


def falls_off(t: Array, off: Array, weight: Array, sudden: bool) -> bool:
    """Whether departures (K, N) of slopes at growing steps t (K,) are those over jumps.

    Over bends and kinks slopes depart ever further as steps grow; over jumps, as of the steps that
    a solver accepts, suddenly, and then by less and less. A function that has bent may come back.
    ``sudden`` tells that the first departure, before which there is none to compare with, is one.
    """
    size = np.sqrt((weight * np.square(np.nan_to_num(off))).sum(axis=1))
    falls = (size[:-1] > FALLS * size[1:]) & (size[:-1] > DEPARTS)
    lawful = np.append(not sudden, size[1:] <= LAW[1] * np.square(t[1:] / t[:-1]) * size[:-1])
    return bool((falls & ~(lawful[:-1] & (size[:-1] > BENT))).any())


def is_one_sided(t: float, change: Array, second: Array, weight: Array) -> bool:
    """Whether all that differs at a step t from the slope at x happened on one side of x: then the
    ``second`` difference (N,) is twice t times the ``change`` of the slope (N,), or its negative.
    """
    shift = 2 * t * change
    ok = np.isfinite(shift) & np.isfinite(second)
    off = np.square(np.abs(second) - np.abs(shift))
    total = float(np.sum((weight * np.square(shift))[ok]))
    return bool(total > 0 and float(np.sum((weight * off)[ok])) < EXACT**2 * total)
