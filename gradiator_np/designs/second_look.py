"""What all pairs together say of the noise, and what does not fit a smooth function."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from gradiator_np.designs.levels import Noise
from gradiator_np.designs.lines import States
from gradiator_np.designs.pairs import UNLIKELY, Lines

Array = NDArray[np.float64]

# Contrasts in which curvature has more than this share of the variance say nothing of noise.
CURVED = 0.2
# Mean square of the contrasts of one line, in units of the noise known before, beyond which they
# are no noise: chance alone exceeds 9 in 3e-3 of single contrasts.
LOUDEST = 9.0
# Share of the cases in which a normal law exceeds UNLIKELY, the square of a contrast.
CHANCE = 5e-4
# One-sided slopes that differ by more than the slope itself call for a second look, and even
# parts that stand out of their noise (sd sqrt 6) by this factor.
BROKEN, CLEAR_OF_NOISE = 0.5, 5.0


def _contrasts(view: Lines, states: States) -> Iterator[tuple[Array, Array, Array]]:
    """Contrasts (L, N) of neighbouring pairs of every line, their variance at unit noise (L, N)
    and the variance that curvature gives them at unit slope under each state (L, S): nan where
    there is none."""
    view = _sorted(view)
    t, factor, size, odd, even = view.t, view.factor, view.size, view.odd, view.even
    q = 2 * np.arange(1, states.sd_odd.shape[1] + 1)
    for k in range(1, t.shape[1]):
        near, far = t[:, k - 1, None], t[:, k, None]
        # odd: D(near) - D(far)
        curve = np.square(near**q - far**q) @ np.square(states.sd_odd).T
        one, two = size[:, k - 1], size[:, k]
        spread = factor[:, k - 1, None] * one / (2 * near**2)
        spread = spread + factor[:, k, None] * two / (2 * far**2)
        yield odd[:, k - 1] - odd[:, k], spread, curve
        # even: E(near) - (near / far)^2 E(far)
        ratio = (near / far) ** 2
        curve = np.square(2 * (near**q - ratio * far**q)) @ np.square(states.sd_even).T
        spread = 2 * (one + two * ratio**2) + 4 * (1 - ratio) ** 2
        pairs = (factor[:, k - 1, None] == 1) & (factor[:, k, None] == 1)
        contrast = even[:, k - 1] - ratio * even[:, k]
        yield np.where(pairs, contrast, np.nan), spread, curve


def _sorted(view: Lines) -> Lines:
    """The pairs of every line from the nearest to the widest."""
    order = np.argsort(np.where(np.isfinite(view.t), view.t, np.inf), axis=1)
    line = np.arange(len(order))[:, None]
    parts = (view.t, view.factor, view.size, view.odd, view.even)
    return Lines(*(a[line, order] for a in parts))


def _second(view: Lines, states: States) -> Iterator[tuple[Array, Array, Array]]:
    """The same of three neighbouring pairs: slope and cubic term are taken out of D."""
    view = _sorted(view)
    q = 2 * np.arange(1, states.sd_odd.shape[1] + 1)
    for k in range(2, view.t.shape[1]):
        t = view.t[:, k - 2 : k + 1]
        near, middle, far = (t**2).T
        weight = np.stack([far - middle, near - far, middle - near], axis=1)
        weight /= np.where(far > near, far - near, np.nan)[:, None]
        noise = view.factor[:, k - 2 : k + 1] * np.square(weight / t) / 2
        curve = np.einsum("lp,lpq->lq", weight, t[..., None] ** q)
        yield (
            np.einsum("lp,lpn->ln", weight, view.odd[:, k - 2 : k + 1]),
            np.einsum("lp,lpn->ln", noise, view.size[:, k - 2 : k + 1]),
            np.square(curve) @ np.square(states.sd_odd).T,
        )


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
    for contrast, spread, per_state in _contrasts(view, states):
        curve = _mean(weights, per_state) * np.square(slope)
        z2 = np.square(contrast / level) / spread
        good = np.isfinite(z2) & (curve < CURVED * np.square(level) * spread)
        count = np.maximum(good.sum(axis=1), 1)
        # a curvature that the states did not see coming is out of all proportion
        fair = np.where(good, z2, 0.0).sum(axis=1) / count < LOUDEST
        noise.add(np.where(good & fair[:, None], contrast, np.nan), spread)


def surprise(level: Array, view: Lines, states: States, weights: Array, slope: Array) -> float:
    """Mean square of all contrasts in units of what noise and curvature explain; 1 if none."""
    total, count = 0.0, 0
    for contrast, spread, per_state in _contrasts(view, states):
        curve = _mean(weights, per_state) * np.square(slope)
        z2 = np.square(contrast) / (np.square(level) * spread + curve)
        good = np.isfinite(z2)
        total, count = total + float(z2[good].sum()), count + int(good.sum())
    return total / count if count else 1.0


def _mean(weights: Array, curve: Array) -> Array:
    """Mean over states, shape (L, 1)."""
    return np.asarray(np.einsum("ls,ls->l", weights, curve)[:, None])


def contradicted(
    view: Lines, states: States, level: Array, slope: Array, weights: Array
) -> NDArray[np.bool_]:
    """Entries (L, N) whose pairs differ by what no state that their input may be in explains."""
    out = np.zeros(slope.shape, bool)
    top = weights.argmax(axis=1)[:, None]
    for contrast, spread, per_state in chain(_contrasts(view, states), _second(view, states)):
        noise, b2, square = np.square(level) * spread, np.square(slope), np.square(contrast)
        least = noise + b2 * np.take_along_axis(per_state, top, axis=1)
        line, output = np.nonzero(square > UNLIKELY * least)
        var = noise[line, output, None] + b2[line, output, None] * per_state[line]
        tail = erfc(np.abs(contrast[line, output, None]) / np.sqrt(2 * var))
        rare = np.einsum("es,es->e", weights[line], tail) < CHANCE
        out[line[rare], output[rare]] = True
    return out


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
