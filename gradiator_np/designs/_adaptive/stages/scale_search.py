"""Inputs next to 0: does 1e-9 live there, or is it a coordinate that happens to be small?

An input that lives at 1e-14 (a saturation current) answers to a change by its own size, one that
lies there by accident does not. Runs lead away from 0, so that the sign of x is kept until
something answers.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import Moves
from gradiator_np.designs._adaptive.state import WIDEST, AxisState, Budget, FunctionProfile

# Inputs this much smaller than the others are asked.
NEAR_ZERO = 1e-3
# A change of so many standard deviations of the noise is an answer; one of so many leaves noise no
# more than 1e-4 of a slope.
ANSWER, ENOUGH = 5.0, 1e4
# Factor from one run to the next.
GROWTH = 100.0
# Further pairs of an input that was found.
AGAIN = 2


@dataclass(frozen=True, slots=True)
class ScaleSearchResult:
    """The profile, the axes and the budget with new units of the ``rescaled`` inputs."""

    profile: FunctionProfile
    axes: AxisState
    budget: Budget
    rescaled: tuple[int, ...] = ()


def search_scales(
    context: Context, profile: FunctionProfile, axes: AxisState, budget: Budget
) -> Generator[Moves, None, ScaleSearchResult]:
    """Find the scale of inputs whose answer noise hides at steps of the size of x."""
    found = ScaleSearchResult(profile, axes, budget)
    if not profile.noisy:
        return found
    x, log = context.problem.x, context.log
    size = np.abs(x)
    most = np.where(size > 0, _typical(size) / np.where(size > 0, size, 1.0), 0.0)
    most = most.max(axis=0)[context.inputs]
    small = (most > 1 / NEAR_ZERO) & (log.scale == size).all(axis=0)[context.inputs]
    for k in np.flatnonzero(small & ~axes.inactive):
        j = int(context.inputs[k])
        factor, runs = yield from _grow(context, found, j, float(most[k]))
        if factor == 1:
            continue  # what lives there pays for the look
        log.rescale(j, factor)
        cap = float(min(log.up[j], log.down[j], WIDEST))
        cap = cap if cap >= log.resolution[j] else 0.0
        least = min(4 * log.resolution[j], cap if cap > 0 else log.room[j] / 2)
        profile = found.profile
        if log.pilot == j:
            profile = replace(profile, slope=factor * profile.slope)
        found = ScaleSearchResult(
            profile,
            found.axes.at(k, max_step=cap, min_step=least),
            # the pilot told nothing of how f bends along it
            found.budget.more(runs + 2 * AGAIN),
            (*found.rescaled, j),
        )
    return found


def _grow(
    context: Context, found: ScaleSearchResult, j: int, most: float
) -> Generator[Moves, None, tuple[float, int]]:
    """By how much the scale of input j has to grow for its answer to clear the noise, and the
    runs that this took."""
    log, noise, m = context.log, found.profile.noise, context.inputs.size
    sign = 1.0 if context.problem.x[0, j] > 0 else -1.0
    most = min(most, float(log.up[j] if sign > 0 else log.down[j]))
    t = good = 1.0
    runs = 0
    while t <= most:
        runs += 1
        if found.budget.more(runs).left(log) <= 2 * m:
            break
        yield log.request_group(np.array([j]), np.array([t]), sign)
        change = log.values()[-1] - log.f0
        signal = np.abs(change) / (np.sqrt(2.0) * noise)
        if not np.isfinite(signal).any():
            break
        loudest, good = float(np.nanmax(signal)), t
        if loudest > ENOUGH or (t == 1 and loudest > ANSWER) or t == most:
            break
        t = min(GROWTH * t, most)
    return good, runs


def _typical(size: Array) -> Array:
    """Median |x| of the other inputs at each point (B, 1); 1 where there is no other."""
    m = size.shape[1]
    if m == 1:
        return np.ones((len(size), 1))
    return np.median(size, axis=1, keepdims=True)
