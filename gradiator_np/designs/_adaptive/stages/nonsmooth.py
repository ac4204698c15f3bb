"""Kinks and jumps at x, where the slopes to its two sides differ."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import Moves, PairRequest
from gradiator_np.designs._adaptive.failed_runs import SHRINK
from gradiator_np.designs._adaptive.model.differences import CentralDifferences
from gradiator_np.designs._adaptive.state import AxisState, Budget, FunctionProfile

Entries = NDArray[np.bool_]

# One-sided slopes that differ by more than the slope itself call for a second look, and second
# differences that stand out of their noise (sd sqrt 6) by this factor.
BROKEN, CLEAR_OF_NOISE = 0.5, 5.0
# Kinks are looked for in steps this much shorter than the length at which f bends.
SHORT = 0.05


def find_kinks(
    context: Context, profile: FunctionProfile, axes: AxisState, budget: Budget
) -> Generator[Moves, None, Entries]:
    """Entries (m, N) whose slopes to the two sides of x differ, by pairs at shorter steps.

    Where the pilot saw the function smooth at small steps, there are none.
    """
    if not (profile.noisy or profile.nonsmooth):
        return np.zeros((context.inputs.size, profile.noise.size), bool)
    log, known, view = (
        context.log,
        context.infer(profile, axes).pooled,
        context.differences(profile),
    )
    # few contrasts tell a noise within a factor: Student's quantile in place of the normal one
    quantile = stdtrit(np.maximum(profile.dof, 1.0), ndtr(CLEAR_OF_NOISE))
    noise, t = known.noise * quantile / CLEAR_OF_NOISE, view.nearest()[0]
    suspect = broken(view, noise, known.slope) & np.isfinite(log.f0)
    # a step that reaches where the function bends anyway tells nothing
    bend = float(context.states.bend_length(profile.typical_prior))
    short = SHORT * bend if profile.noisy else SHORT
    slow = _shrinks_slowly(view, noise)
    suspect &= (t < short)[:, None] | slow | profile.nonsmooth
    # nor does one below which the function is rough
    suspect &= (t / SHRINK >= axes.min_step)[:, None]
    kinks = np.zeros(suspect.shape, bool)
    who = np.flatnonzero(suspect.any(axis=1) & (axes.side == 0) & ~axes.inactive)
    if not who.size:
        return kinks
    if budget.left(log) < 2 * who.size:
        # no second look can be afforded: noise may have made a suspect, rounding does not
        return suspect & (slow | (not profile.noisy))
    inputs = context.inputs[who]
    yield log.request([PairRequest(int(j), s / SHRINK) for j, s in zip(inputs, t[who])])
    after = log.differences(inputs, profile.growth)
    kinks[who] = suspect[who] & _stays_broken(view.take(who), after, noise)
    return kinks


def broken(view: CentralDifferences, noise: Array, slope: Array) -> Entries:
    """Entries (L, N) whose slopes to the two sides of x differ by as much as the slope itself.

    In the nearest pair: there a smooth function has a second difference of second order.
    """
    t, d, second = view.nearest()
    size = np.maximum(np.abs(d), slope)
    seen = np.abs(second) > CLEAR_OF_NOISE * np.sqrt(6.0) * noise
    return np.asarray(seen & (np.abs(second) > 2 * BROKEN * t[:, None] * size))


def _shrinks_slowly(view: CentralDifferences, noise: Array) -> Entries:
    """Entries (L, N) whose second difference shrinks like a kink's from one pair in hand to a
    nearer one."""
    t0, _, e0 = view.nearest()
    rest = np.where(view.t > t0[:, None] * 1.5, view.t, np.inf)
    at, line = np.argmin(rest, axis=1), np.arange(t0.size)
    t1, e1 = rest[line, at], view.second[line, at]
    slower: Entries = _slower(t0, e0, t1, e1, noise) & np.isfinite(t1)[:, None]
    return slower


def _stays_broken(before: CentralDifferences, after: CentralDifferences, noise: Array) -> Entries:
    """Entries whose second difference shrinks more slowly than a curvature's from ``before`` to
    ``after``."""
    t0, _, e0 = before.nearest()
    t1, _, e1 = after.nearest()
    return _slower(t1, e1, t0, e0, noise)


def _slower(t: Array, e: Array, t1: Array, e1: Array, noise: Array) -> Entries:
    """Whether the second difference e at t is more than a curvature leaves of e1 at t1 > t.

    A curvature shrinks with t^2, a kink with t, a jump not at all; the line is drawn between the
    first two.
    """
    expected = np.abs(e1) * ((t / t1) ** 1.5)[:, None]
    return np.asarray(np.abs(e) > expected + CLEAR_OF_NOISE * np.sqrt(6.0) * noise)
