"""The second question: do wide steps show the slope that small ones do, or that of a trend?"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.evaluation_log import Moves
from gradiator_np.designs._adaptive.model.local_behaviour import (
    departure,
    falls_off,
    is_bend,
    is_one_sided,
)
from gradiator_np.designs._adaptive.model.scale_consistency import (
    FULL_UP,
    WIDE,
    consistent,
    is_minor,
    relative_weights,
    shortest_clear,
    wiggle,
)
from gradiator_np.designs._adaptive.stages.pilot_line import PilotLine

# A pair between the small and the wide ones, and how far a slope may depart there for its pair to
# be of use.
SHORT, DEPARTS = 1e-3 * FULL_UP, 1e-2
# Multiples of it that tell bends from jumps.
BETWEEN = (3.0, 10.0)
# How much faster a slope may have begun to depart than where it is seen to have: one that goes as
# 1 / (1 + t^2) and is down to a quarter.
BEGAN = 4.0


@dataclass(frozen=True, slots=True)
class ScaleComparison:
    """What wide steps said.

    Attributes
    ----------
    agree : bool
        Whether slopes at small and at wide steps agree.
    amplitude : array, shape (N,), or None
        Size of the wiggle about the trend whose slope J is to be; None where it is not.
    min_step : float
        Smallest step that shows the trend.
    discrepancy : array, shape (N,), or None
        By how much the slope at wide steps is off that at small ones, along the direction, where
        neither can be preferred.
    """

    agree: bool = True
    amplitude: Array | None = None
    min_step: float = 0.0
    discrepancy: Array | None = None


def compare_rough(line: PilotLine, noise: Array) -> Generator[Moves, None, ScaleComparison]:
    """Compare the slopes of a function with ``noise`` (N,) at small and at wide steps."""
    if line.max_step < 2 * WIDE:
        return ScaleComparison()
    small = shortest_clear(line.view, noise)
    if small is None:
        return ScaleComparison()
    start = float(line.view.t[0, small])
    line.allow(4)
    yield from line.pairs([WIDE / 2, WIDE])
    if consistent(line.view, line.view.at(start), noise):
        return ScaleComparison()
    if (yield from _bends_between(line, noise, start)):
        line.log.exclude_above(line.log.pilot, 1.01 * BETWEEN[-1] * SHORT)
        return ScaleComparison()
    line.allow(4)
    yield from line.pairs([WIDE / 4, 2 * WIDE])
    slope = line.at(start)[0]
    for short in (WIDE / 4, WIDE / 2):
        found = wiggle(line.view, short, slope, noise)
        if found.shared:
            line.log.exclude_below(line.log.pilot, 0.99 * short)
            return ScaleComparison(False, found.amplitude, short)
    gap = np.nan_to_num(line.at(WIDE / 2)[0] - slope)
    line.log.exclude_steps(line.log.pilot, (WIDE / 4, WIDE / 2, 2 * WIDE))
    return ScaleComparison(False, discrepancy=gap)


def _bends_between(line: PilotLine, noise: Array, start: float) -> Generator[Moves, None, bool]:
    """Whether slopes depart from those at ``start`` as the squares of the steps long before 0.05,
    and by more than ``noise`` (N,) explains: then it is the function that bends, and the pairs up
    to there hold its slope.

    Asked only where what departs at the next wider pair would show.
    """
    near, far = (k * SHORT for k in BETWEEN)
    base = max(start, SHORT)
    sd = noise / np.sqrt(2.0) * np.hypot(1 / base, 1 / near)
    unsure = 5 * (far / near) ** 2 * sd
    wider = float(line.view.t[0, line.view.at(WIDE / 2)])
    foretold = BEGAN * (far / wider) ** 2 * np.abs(line.at(wider)[0] - line.at(start)[0])
    if base > near / 2 or not (foretold > unsure).any():
        return False
    line.release(6)
    yield from line.pairs([base, near, far])
    slope, other = line.at(base)[0], line.at(far)[0]
    weight, off = relative_weights(slope, other), other - slope
    seen = bool((np.abs(off) > unsure).any())
    return seen and is_bend(line.at(near)[0] - slope, off, far / near, sd, weight)


def compare_smooth(
    line: PilotLine, noise: Array, start: float
) -> Generator[Moves, None, ScaleComparison]:
    """Compare the slopes of a function that is smooth at steps up to ``start``.

    J is the slope at small steps unless wide ones agree on another and the wiggle between is small
    beside the function's own change. Pairs beyond the reach of the slope are left out.
    """
    log, alive = line.log, np.isfinite(line.log.f0)
    line.allow(4)
    yield from line.pairs([WIDE, WIDE / 2])
    slope = line.at(start)[0].copy()
    view = line.view
    wide = view.slope[0, view.t[0] > WIDE / 4][:, alive]
    finite = len(wide) > 1 and bool(np.isfinite(wide).all())
    if finite and consistent(view, view.at(start), noise):
        return ScaleComparison()
    line.allow(4)
    yield from line.pairs([SHORT, WIDE / 4])
    found = ScaleComparison(False)
    if finite and not line.side:
        found = yield from _trend(line, noise, start, slope)
    if found.amplitude is not None:
        log.exclude_below(log.pilot, 0.99 * found.min_step)
        return found
    sd = noise / (np.sqrt(2.0) * start)
    size = np.maximum(line.sizes(2 * start), 1e-300)
    typical = np.median(np.abs(slope[alive]) / size[alive]) * size

    def holds(t: float) -> bool:
        other = line.at(t)[0][alive]
        off = departure(slope[alive], other, sd[alive], typical[alive])
        return bool(np.isfinite(other).all() and off.max(initial=0.0) <= DEPARTS)

    widest = SHORT
    if not holds(SHORT):
        # how fast the function bends shows where it has hardly begun to
        widest = float(np.sqrt(start * SHORT))
        line.allow(2)
        yield from line.pairs([widest])
        widest = widest if holds(widest) else start
    log.exclude_above(log.pilot, 1.01 * widest)
    return found


def _trend(
    line: PilotLine, noise: Array, start: float, slope: Array
) -> Generator[Moves, None, ScaleComparison]:
    """What pairs at 0.05, 0.1 and 0.2 say against the ``slope`` at small steps, up to ``start``.

    A bend on the scale of x departs from it as t^2, and is no doubt; nor is what happens on one
    side of x.
    """
    short = WIDE / 4
    other = line.at(short)[0]
    weight = relative_weights(slope, other)
    sudden = _is_one_sided(line, SHORT, start, slope, weight)
    smooth = start if sudden else SHORT
    if _is_one_sided(line, short, smooth, slope, weight):
        return ScaleComparison(False)
    near = line.at(SHORT)[0] - slope
    bends = is_bend(near, other - slope, short / SHORT, noise / (np.sqrt(2.0) * SHORT), weight)
    found = wiggle(line.view, short, slope, noise)
    if bends and not found.shared:
        return ScaleComparison(False)
    line.allow(4)
    yield from line.pairs([k * SHORT for k in BETWEEN])
    steps = np.array([SHORT, *(k * SHORT for k in BETWEEN), short])
    off = np.array([line.at(t)[0] - slope for t in steps])
    jumps = falls_off(steps, off, weight, sudden)
    size = np.sqrt((weight * np.square(np.nan_to_num(off))).sum(axis=1))
    first = int(np.argmax(size > DEPARTS))
    if not jumps and _is_one_sided(line, steps[first], smooth, slope, weight):
        return ScaleComparison(False)
    minor = is_minor(line.view, short, slope, found.amplitude)
    if found.shared and minor:
        return ScaleComparison(False, found.amplitude, short)
    if found.shared or jumps or minor:
        return ScaleComparison(False, discrepancy=np.nan_to_num(line.at(WIDE / 2)[0] - slope))
    return ScaleComparison(False)


def _is_one_sided(line: PilotLine, t: float, smooth: float, slope: Array, weight: Array) -> bool:
    """Whether all that differs at a step t from what the pair at a ``smooth`` one foretells, terms
    of second and third order, happened on one side of x."""
    view = line.view
    near, far = view.at(smooth), view.at(t)
    # the pairs that the budget and the domain allowed
    t = float(view.t[0, far])
    square = (t / view.t[0, near]) ** 2 if near != far else 0.0
    change = view.slope[0, far] - slope - square * (view.slope[0, near] - slope)
    return is_one_sided(t, change, view.second[0, far] - square * view.second[0, near], weight)
