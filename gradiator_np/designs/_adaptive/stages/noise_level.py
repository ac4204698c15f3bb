"""Noise of a function that is not smooth at small steps, from contrasts along the pilot's line."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.evaluation_log import Moves
from gradiator_np.designs._adaptive.model.likelihood import noise_over_slope
from gradiator_np.designs._adaptive.model.noise import (
    SECOND_NOISE,
    NoiseEstimator,
    NoiseLevel,
)
from gradiator_np.designs._adaptive.model.scale_consistency import FULL_UP, WIDE
from gradiator_np.designs._adaptive.stages.pilot_line import PilotLine

# An outlier's second difference in units of what others lead to expect.
FAR_OFF = 100.0
# By how much noise has to grow from the smallest step to the next to count as another one.
LOUDER = 3.0
# Steps next to x that differ by this factor see other noise and the same slope.
CLOSE = 0.5
# Multiples of the step of a staircase: at round ones a decimal grid would show no error.
UNEVEN = 13.7, 29.3


def level_of(line: PilotLine, noise: NoiseEstimator) -> NoiseLevel:
    """The noise that the caller knows, at least rounding, or else what the contrasts say."""
    known = line.context.known_noise
    if known is None:
        return noise.level()
    return NoiseLevel(np.maximum(known, noise.least), np.full(known.size, np.inf))


def measure_noise(line: PilotLine, noise: NoiseEstimator) -> Generator[Moves, None, NoiseEstimator]:
    """Run f(x) again, and pairs where noise and curvature are both small; ``noise`` holds what the
    smallest step said."""
    r = min(float(noise_over_slope(level_of(line, noise).noise, noise.size)), 1.0)
    # wide enough to clear the noise of a slope, short enough to hide curvature in it
    tau = FULL_UP * float(np.clip(0.1 * r ** (1 / 3), 1e-5, 0.02))
    tau = max(tau, line.smallest if line.context.min_step > 0 else 0.0)
    yield from line.pairs([tau, 2 * tau, WIDE, WIDE / 2], again=True)
    if line.random:
        first = line.smallest
        _leave_out_outliers(line)
        if line.smallest > first:
            noise = noise.cleared()
        quiet = _second_smallest(np.abs(line.view.second[0]))
        hit = (np.abs(line.repetition) > FAR_OFF * quiet) & (quiet > 0)
        if hit.mean() <= 0.5:
            noise = noise.add(line.repetition, 2.0)
        noise = yield from _next_to_x(line, noise, tau)
    return _with_contrasts(line, noise, tau, 2 * tau)


def _next_to_x(
    line: PilotLine, noise: NoiseEstimator, tau: float
) -> Generator[Moves, None, NoiseEstimator]:
    """With the slope at the smallest step, which noise sets alone: that at ``tau`` is what the
    function adds. Where nothing worked there, another pair next to x says as much."""
    if line.side:
        # one-sided rules share all three of their values with their second difference
        return noise
    near = [line.smallest]
    if not np.isfinite(line.at(tau)[0]).any() and near[0] < tau / CLOSE:
        near.append(near[0] / CLOSE)
        line.allow(2)
        yield from line.pairs(near)
        noise = noise.add(line.at(near[1])[1], SECOND_NOISE)
    view = line.view
    worked = np.flatnonzero(np.isfinite(view.slope[0]).any(axis=1))
    view = view.take_pairs(worked).sorted()
    of_slope = view.noise_factor[0] / (2 * np.square(view.t[0]))
    for k in range(min(len(near), worked.size - 1)):
        contrast = view.slope[0, k] - view.slope[0, k + 1]
        noise = noise.add(contrast, of_slope[k] + of_slope[k + 1])
    return noise


def _leave_out_outliers(line: PilotLine) -> None:
    """Leave out pairs whose second differences are far above what noise and curvature make them, in
    most outputs: noise is as large as the second smallest of the others' at most, and curvature as
    what a wider pair shows, by the squares of the steps; of the widest as narrower pairs do."""
    while True:
        view = line.view
        t, bend = view.t[0], np.abs(view.second[0])
        alive = np.isfinite(bend).all(axis=0) & (bend > 0).all(axis=0)
        if t.size < 4 or not alive.any():
            return
        bend = bend[:, alive]
        excess = np.zeros(t.size)
        for k in range(t.size):
            others = np.arange(t.size) != k
            curved = bend[others] * np.square(t[k] / t[others])[:, None]
            wider = t[others] > t[k]
            curved = curved[wider].min(axis=0) if wider.any() else np.median(curved, axis=0)
            expected = np.maximum(_second_smallest(bend[others]), curved)
            excess[k] = np.median(bend[k] / expected)
        worst = int(np.argmax(excess))
        if excess[worst] < FAR_OFF:
            return
        line.log.exclude_steps(line.log.pilot, (float(t[worst]),))


def _second_smallest(a: Array) -> Array:
    """Of every column (N,) of the second differences of some pairs: noise is no louder."""
    return np.asarray(np.sort(a, axis=0)[min(1, len(a) - 1)])


def measure_staircase(
    line: PilotLine, noise: NoiseEstimator, step: float
) -> Generator[Moves, None, NoiseEstimator]:
    """The same where nothing answers below a ``step``: rounded or integer inputs."""
    t, twice = (k * step for k in UNEVEN)
    if line.spare < 1:
        line.allow(2)
    yield from line.pairs([t, twice, WIDE, 5 * twice])
    if line.view.at(t) == line.view.at(twice):
        # no run was left for the second, or no room
        t = step if step < WIDE else WIDE
    if line.view.at(t) == line.view.at(twice):
        return _of_one_pair(line, noise.cleared(), t)
    return _with_contrasts(line, noise.cleared(), t, twice)


def _of_one_pair(line: PilotLine, noise: NoiseEstimator, t: float) -> NoiseEstimator:
    """With the second difference of the pair at t; with its change of f where that is 0, since both
    ends may be one spacing away; without outputs that stand still, which tell nothing."""
    slope, second = line.at(t)
    of_slope = line.view.noise_factor[0, line.view.at(t)] / 2
    unit = np.where(second != 0, second / np.sqrt(SECOND_NOISE), slope * t / np.sqrt(of_slope))
    return noise.add(np.where(unit != 0, unit, np.nan), 1.0)


def _with_contrasts(
    line: PilotLine, noise: NoiseEstimator, t: float, twice: float
) -> NoiseEstimator:
    """Noise at the scale that will be used: quiet programs at 1e-8 may be loud at 1e-4."""
    view = line.view
    a, b = view.at(t), view.at(twice)
    if a == b:
        return noise
    ta, tb = view.t[0, a], view.t[0, b]
    r2, of_pair = (ta / tb) ** 2, view.noise_factor[0] / (2 * view.t[0] ** 2)
    bend = view.second[0, a] - r2 * view.second[0, b]
    slopes, bends = of_pair[a] + of_pair[b], 2 * (1 + r2**2) + 4 * (1 - r2) ** 2
    if line.side:
        # one-sided rules share f0 in their slopes, too; twice the step has the weight 1
        slopes, bends = slopes - 9 / (ta * tb), 5 * (1 + r2**2) + (1 - r2) ** 2
    # an output that stands still tells nothing of its noise unless its spacing is known
    moved = noise.printed | ((view.slope[0] != 0) | (view.second[0] != 0))[[a, b]].any(axis=0)
    wider = noise.cleared()
    for contrast, variance in ((view.slope[0, a] - view.slope[0, b], slopes), (bend, bends)):
        wider = wider.add(np.where(moved, contrast, np.nan), variance)
    old, new = level_of(line, noise).noise, wider.level().noise
    if not noise.count.any() or np.exp(np.mean(np.log(new / old))) > LOUDER:
        return wider
    return noise.merge(wider)
