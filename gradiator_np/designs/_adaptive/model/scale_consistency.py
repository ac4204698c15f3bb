"""Slopes at two scales: is the slope at small steps the slope of the trend?

Event-driven integrators, moving meshes, iteration counts and wiggles are smooth at small steps,
with a slope that is up to 20 % and more off the trend. All functions take the differences of one
line; norms over outputs weigh each by its slope.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.model.differences import CentralDifferences

# Factors that make a step one of full length: at a round x an exact polynomial would take values
# of few digits at round steps, as if it were printed. Eight digits are not enough, since an input
# that is 0 takes the step's own.
FULL_UP, FULL_DOWN = 1.0031688274301957, 0.9968315912740193
# The widest pair: where a function bends on the scale of x, this shows it.
WIDE = 0.2 * FULL_DOWN
# Relative error at which a slope is good enough to contradict another.
CLEAR_SLOPE = 3e-3
# Share of the change between two wide pairs that their extrapolation may miss.
SMOOTH = 0.25
# Share of the discrepancy by which the wide pairs may differ among themselves (ignition of
# hydrogen, a sigmoid, has 0.33).
SHARED = 0.25
# Share of that which a term of fifth order does not explain.
FIFTH = 0.1
# Relative error of a slope below which no error bar is at stake that the status could save.
AT_STAKE = 1e-4
# Wiggles of fewer radians per unit t are seen by the wide pairs themselves.
FASTEST = 30.0
# What departs from the slope at small steps with an amplitude above this share of the change of the
# function is the function's; and the share of a discrepancy that may lie in outputs whose slope it
# is most of.
RIPPLE, MODEST = 0.03, 0.3


def shortest_clear(view: CentralDifferences, noise: Array) -> int | None:
    """The pair of the shortest step whose slope stands well out of the noise (N,)."""
    t = view.t[0]
    sd = noise / np.where(t > 1e-6, np.sqrt(2.0) * t, np.nan)[:, None]
    size = np.nan_to_num(np.abs(view.slope[0, view.at(WIDE)]))
    size = size + 1e-2 * size.max()
    ratio = sd[:, size > 0] / size[size > 0]
    clear = (ratio < CLEAR_SLOPE).mean(axis=1) if ratio.size else np.zeros(t.size)
    usable = np.flatnonzero((clear > 0.5) & (t < WIDE / 4))
    return int(usable[np.argmin(t[usable])]) if usable.size else None


def consistent(view: CentralDifferences, small: int, noise: Array) -> bool:
    """Whether slope, second and third derivative at a small step are those of the wide pairs.

    A wiggle of w radians per unit t changes f'' by w times what it changes the slope, and
    f''' by w^2 times: where these agree, so do the slopes. Over 148 points of 37 classical
    problems only Osborne's second, which bends at 0.08, is taken for a wiggle.
    """
    t, slope, second = view.t[0], view.slope[0], view.second[0]
    a, b = view.at(WIDE / 2), view.at(WIDE)
    if a == b or not np.isfinite(slope[[a, b]]).any():
        return True
    g = slope[small]
    weight = relative_weights(g, slope[b])
    ta, tb, ts, tiny = t[a] ** 2, t[b] ** 2, t[small] ** 2, int(np.nanargmin(t))
    least = AT_STAKE**2 * _sum(weight * g**2)

    def differs(off: Array, sd: Array, change: Array, share: float, tell: float) -> bool:
        seen = _sum(weight * np.maximum(np.square(off) - 9 * sd**2, 0.0))
        return bool(seen > share**2 * _sum(weight * change**2) and seen > tell**2 * least)

    # the wide pairs extrapolated to 0 with a cubic term, against what is there; a function
    # that bends at rho leaves (0.1 / rho)^2 of the change from one to the other
    third = (slope[b] - slope[a]) / (tb - ta)
    off = g - (slope[a] - third * ta)
    if differs(off, noise * np.sqrt(1 / ts + 2 / ta), slope[b] - slope[a], SMOOTH, 1.0):
        return False
    bend, wider = second[a] / (2 * ta), second[b] / (2 * tb)
    off_bend = second[small] / (2 * ts) - (tb * bend - ta * wider) / (tb - ta)
    # three times over: the noise is a guess from one contrast, and is divided by 1e-10 here
    if differs(off_bend, 3 * np.sqrt(1.5) * noise / ts, wider - bend, SMOOTH, FASTEST / 2):
        return False
    if tiny == small:
        return True
    # what a fifth-order term leaves in the slope follows from what it leaves in f'''
    share = ta * tb / (ta + tb)
    # three times over as well: divided by 1e-14
    sd = 3 * share * noise / (np.sqrt(2.0) * t[tiny] * ts)
    off_third = share * (third - (g - slope[tiny]) / ts)
    return not differs(off - off_third, sd, off, FIFTH, 5.0)


@dataclass(frozen=True, slots=True)
class Wiggle:
    """What departs from a trend.

    Attributes
    ----------
    amplitude : array, shape (N,)
    shared : bool
        Whether there is a trend: wide pairs agree on it, and small ones contradict it.
    """

    amplitude: Array
    shared: bool


def wiggle(view: CentralDifferences, short: float, g: Array, noise: Array) -> Wiggle:
    """The wiggle about a trend that pairs at ``short``, 2 and 4 times that agree on and the small
    steps' slopes ``g`` (N,) contradict."""
    at = [view.at(short * k) for k in (1, 2, 4)]
    if len(set(at)) < 3:
        return Wiggle(noise, False)
    (d1, d2, d4), (e1, e2, e4) = view.slope[0, at], view.second[0, at]
    trend = (4 * d2 - d4) / 3
    # both contrasts cancel a quadratic and a cubic term; their coefficients of t^4 and t^6
    # are small, and 1.2 and 2.04 bring them to the noise of one run
    res = d1 - 1.25 * d2 + 0.25 * d4
    even = (e1 - 0.3125 * e2 + e4 / 64) / 2.04
    # a wiggle that repeats within ``short`` is this loud at least
    least = np.maximum(noise, 0.1 * short * np.abs(g - trend))
    level = np.sqrt(np.maximum((np.square(1.2 * short * res) + even**2) / 2, least**2))
    sd = 0.475 * level / short
    weight = relative_weights(g, view.slope[0, view.at(WIDE)])
    discrepancy = weight * np.square(g - trend)

    def norm(a: Array) -> float:
        return float(_sum(weight * np.square(a)))

    # a smooth function with a term in t^4 gives 3.53, always
    if norm(g - trend) <= 16 * norm(sd):
        return Wiggle(level, False)
    shared = (
        # a trend is what wide pairs share: a sigmoid's slopes fall from pair to pair
        max(norm(res), norm(d2 - d1)) < SHARED**2 * norm(g - trend)
        and _sum(discrepancy * weight * sd**2) < 0.01 * _sum(discrepancy)
        and _sum(discrepancy * weight * g**2) < 9 * _sum(discrepancy * weight * trend**2)
    )
    return Wiggle(level, shared)


def is_minor(view: CentralDifferences, short: float, g: Array, amplitude: Array) -> bool:
    """Whether a wiggle is small beside the change of the function over the wide pairs, and changes
    most slopes by less than half: then it is the program's, not the function's."""
    wide = [view.at(short * k) for k in (2, 4)]
    t = view.t[0, wide, None]
    change = np.max(np.abs(view.slope[0, wide]) * t + np.abs(view.second[0, wide]) / 2, axis=0)
    trend = view.slope[0, view.at(2 * short)]
    weight = relative_weights(g, trend)
    quarrel = weight * np.square(g - trend)
    if _sum(np.square(amplitude) * weight) > RIPPLE**2 * _sum(weight * np.square(change)):
        return False
    mostly = np.abs(g - trend) > 0.5 * np.fmax(np.abs(g), np.abs(trend))
    return _sum(np.where(mostly, quarrel, 0.0)) < MODEST * _sum(quarrel)


def relative_weights(g: Array, d: Array) -> Array:
    """What makes outputs comparable: one over the square of the larger of two slopes (N,), of one
    of a hundredth of the others at least."""
    size = np.fmax(np.square(d), np.square(g))
    size = np.nan_to_num(size)
    return np.asarray(1 / (size + 1e-4 * size.mean() + 1e-100))


def _sum(a: Array) -> float:
    """Sum of what is finite."""
    return float(np.where(np.isfinite(a), a, 0.0).sum())
