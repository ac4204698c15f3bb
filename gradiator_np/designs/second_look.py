"""What all pairs together say of the noise, and what does not fit a smooth function."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.levels import Noise
from gradiator_np.designs.lines import States
from gradiator_np.designs.pairs import Lines

Array = NDArray[np.float64]

# Contrasts in which curvature has more than this share of the variance say nothing of noise.
CURVED = 0.2
# Mean square of the contrasts of one line, in units of the noise known before, beyond which they
# are no noise: chance alone exceeds 9 in 3e-3 of single contrasts.
LOUDEST = 9.0
# One-sided slopes that differ by more than the slope itself call for a second look, and even
# parts that stand out of their noise (sd sqrt 6) by this factor.
BROKEN, CLEAR_OF_NOISE = 0.5, 5.0


def _contrasts(
    view: Lines, states: States, weights: Array, slope: Array
) -> Iterator[tuple[Array, Array, Array]]:
    """Contrasts (L, N) of neighbouring pairs of every line, their variance at unit noise (L, 1)
    and the variance that curvature gives them (L, N): nan where there is none."""
    order = np.argsort(np.where(np.isfinite(view.t), view.t, np.inf), axis=1)
    t = np.take_along_axis(view.t, order, axis=1)
    factor = np.take_along_axis(view.factor, order, axis=1)
    size = np.take_along_axis(view.size, order[:, :, None], axis=1)
    odd = np.take_along_axis(view.odd, order[:, :, None], axis=1)
    even = np.take_along_axis(view.even, order[:, :, None], axis=1)
    q = 2 * np.arange(1, states.sd_odd.shape[1] + 1)
    b2 = np.square(slope)
    for k in range(1, t.shape[1]):
        near, far = t[:, k - 1, None], t[:, k, None]
        # odd: D(near) - D(far)
        curve = _mean_square(weights, states.sd_odd, near**q - far**q)
        one, two = size[:, k - 1], size[:, k]
        spread = factor[:, k - 1, None] * one / (2 * near**2)
        spread = spread + factor[:, k, None] * two / (2 * far**2)
        yield odd[:, k - 1] - odd[:, k], spread, curve[:, None] * b2
        # even: E(near) - (near / far)^2 E(far)
        ratio = (near / far) ** 2
        curve = _mean_square(weights, states.sd_even, 2 * (near**q - ratio * far**q))
        spread = 2 * (one + two * ratio**2) + 4 * (1 - ratio) ** 2
        pairs = (factor[:, k - 1, None] == 1) & (factor[:, k, None] == 1)
        contrast = even[:, k - 1] - ratio * even[:, k]
        yield np.where(pairs, contrast, np.nan), spread, curve[:, None] * b2


def pool(
    noise: Noise, level: Array, view: Lines, states: States, weights: Array, slope: Array
) -> None:
    """Add the contrasts of neighbouring pairs of every input to ``noise``.

    Parameters
    ----------
    noise : Noise
    level : array, shape (N,)
        The noise as known before, which decides how much of a contrast is curvature.
    view : Lines
        Pairs, repetitions apart.
    states, weights, slope
        As in ``AutoPlan.infer``.
    """
    for contrast, spread, curve in _contrasts(view, states, weights, slope):
        z2 = np.square(contrast / level) / spread
        good = np.isfinite(z2) & (curve < CURVED * np.square(level) * spread)
        count = np.maximum(good.sum(axis=1), 1)
        # a curvature that the states did not see coming is out of all proportion
        fair = np.where(good, z2, 0.0).sum(axis=1) / count < LOUDEST
        noise.add(np.where(good & fair[:, None], contrast, np.nan), spread)


def surprise(level: Array, view: Lines, states: States, weights: Array, slope: Array) -> float:
    """Mean square of all contrasts in units of what noise and curvature explain; 1 if none."""
    total, count = 0.0, 0
    for contrast, spread, curve in _contrasts(view, states, weights, slope):
        z2 = np.square(contrast) / (np.square(level) * spread + curve)
        good = np.isfinite(z2)
        total, count = total + float(z2[good].sum()), count + int(good.sum())
    return total / count if count else 1.0


def _mean_square(weights: Array, sd: Array, powers: Array) -> Array:
    """Mean over states of sum_q (sd_q powers_q)^2, shape (L,)."""
    with np.errstate(over="ignore"):
        return np.asarray(np.einsum("ls,sq,lq->l", weights, np.square(sd), np.square(powers)))


def broken(view: Lines, level: Array, slope: Array) -> NDArray[np.bool_]:
    """Entries (L, N) whose slopes to the two sides of x differ by as much as the slope itself.

    In the nearest pair: there a smooth function has an even part of second order.
    """
    t, odd, even = nearest(view)
    size = np.maximum(np.abs(odd), slope)
    seen = np.abs(even) > CLEAR_OF_NOISE * np.sqrt(6.0) * level
    return np.asarray(seen & (np.abs(even) > 2 * BROKEN * t[:, None] * size))


def nearest(view: Lines) -> tuple[Array, Array, Array]:
    """Step, D and E of the pair with the smallest step of each line."""
    at = np.argmin(np.where(np.isfinite(view.t), view.t, np.inf), axis=1)
    line = np.arange(at.size)
    return view.t[line, at], view.odd[line, at], view.even[line, at]


def shrinks_slowly(view: Lines, level: Array) -> NDArray[np.bool_]:
    """Entries (L, N) whose even part shrinks like a kink from one pair in hand to a nearer one."""
    t0, _, e0 = nearest(view)
    rest = np.where(view.t > t0[:, None] * 1.5, view.t, np.inf)
    at, line = np.argmin(rest, axis=1), np.arange(t0.size)
    t1, e1 = rest[line, at], view.even[line, at]
    expected = np.abs(e1) * ((t0 / t1) ** 1.5)[:, None]
    slow = np.abs(e0) > expected + CLEAR_OF_NOISE * np.sqrt(6.0) * level
    return np.asarray(slow & np.isfinite(t1)[:, None])


def stays_broken(before: Lines, after: Lines, level: Array) -> NDArray[np.bool_]:
    """Entries whose even part shrinks more slowly than a curvature from ``before`` to ``after``.

    A curvature shrinks with t^2, a kink with t, a jump not at all; the line is drawn between the
    first two.
    """
    t0, _, e0 = nearest(before)
    t1, _, e1 = nearest(after)
    expected = np.abs(e0) * ((t1 / t0) ** 1.5)[:, None]
    return np.asarray(np.abs(e1) > expected + CLEAR_OF_NOISE * np.sqrt(6.0) * level)
