"""J against the pilot: J times its direction has to be the slope that was seen along it.

An input whose pairs stepped over a narrow feature is found by bisection of the direction and
measured anew at small steps. What one input does says nothing of another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from gradiator_np._typing import Array, Index
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import PILOT, Moves
from gradiator_np.designs._adaptive.model.mixture import NORMAL_95, mixture
from gradiator_np.designs._adaptive.model.scale_consistency import WIDE, relative_weights
from gradiator_np.designs._adaptive.stages.pilot import PilotResult
from gradiator_np.designs._adaptive.stages.pilot_line import PilotLine
from gradiator_np.designs._adaptive.stages.rounds import request_pairs
from gradiator_np.designs._adaptive.stages.small_scale import small_step
from gradiator_np.designs._adaptive.state import AxisState, Budget, FunctionProfile

# Standard deviations beyond which J contradicts the pilot, and the share of the row within which it
# does not: truncation of the pilot's pair.
MISSES, NEGLIGIBLE = 6.0, 1e-9
# Share of the inputs that may be found to be at fault; among few, some more.
WIDESPREAD = 0.25
# Share of a discrepancy that the inputs at fault have to explain.
EXPLAINED = 0.75
# Of two or three inputs one often has most of a program's wiggle as well.
SEVERAL = 4


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether J agrees with the pilot.

    Attributes
    ----------
    axes : AxisState
        With inputs measured anew.
    unexplained : array, shape (N, m)
        What no input was found for, as an error of every entry; 0 where all is explained.
    """

    axes: AxisState
    unexplained: Array


def verify(
    context: Context, profile: FunctionProfile, axes: AxisState, pilot: PilotResult, budget: Budget
) -> Generator[Moves, None, Verification]:
    """Hold J against what small steps of the pilot showed: the widest where wide steps agree, all
    together where they do not."""
    nothing = np.zeros((profile.noise.size, context.inputs.size))
    step = _reference(context, profile, axes, pilot.line)
    if step is None or pilot.posterior is None:
        return Verification(axes, nothing)
    seen = pilot.line.at(step)[0]
    sd = np.maximum(profile.noise, 2 * context.problem.eps * np.abs(np.nan_to_num(context.log.f0)))
    sd = sd / (np.sqrt(2.0) * step)
    if np.isfinite(profile.max_step):
        found = mixture(pilot.posterior)
        seen, sd = found.mean.T.ravel(), np.hypot(sd, found.half_width.T.ravel() / NORMAL_95)
    check = _Check(context, profile, axes, step, seen, sd)
    if not check.is_off(check.miss, check.everyone, 1.0):
        return Verification(axes, nothing)
    return (yield from check.trace(budget))


def _reference(
    context: Context, profile: FunctionProfile, axes: AxisState, line: PilotLine
) -> float | None:
    """The widest of the small steps of the pilot; None where there is none to hold J against."""
    unfit = profile.noisy or line.side or context.log.pilot != PILOT or not line.takes_part().any()
    if unfit or (axes.side != 0).any():
        return None
    t = line.view.t[0]
    t = t[np.isfinite(t) & (t < 1.01 * small_step(context.problem.eps))]
    if not t.size or (axes.min_step > t.max()).any():
        return None
    return float(t.max())


class _Check:
    """One comparison of J with the pilot, and the bisection that follows where they differ."""

    def __init__(
        self, context: Context, profile: FunctionProfile, axes: AxisState, step: float, seen: Array,
        sd: Array,
    ) -> None:  # fmt: skip
        self.context, self.profile, self.axes, self.step = context, profile, axes, step
        found = context.slopes(profile, axes)
        log = context.log
        along = np.repeat(log.direction, log.f0.size // log.batch, axis=0)[:, context.inputs]
        self.parts = along * found.mean
        spread = np.where(along != 0, np.square(along * found.half_width / NORMAL_95), 0.0)
        self.spread = np.where(np.isfinite(spread), spread, 0.0)
        self.row = np.abs(self.parts).sum(axis=1)
        self.seen, self.sd = seen, sd
        self.miss = np.nan_to_num(seen - self.parts.sum(axis=1))
        self.everyone = np.arange(context.inputs.size)

    def is_off(self, miss: Array, group: Index, times: float) -> bool:
        """Whether what a group of inputs misses is more than noise and bars allow; the noise is
        that of so many pairs."""
        variance = times * np.square(self.sd) + self.spread[:, group].sum(axis=1)
        return bool((np.abs(miss) > MISSES * np.sqrt(variance) + NEGLIGIBLE * self.row).any())

    def trace(self, budget: Budget) -> Generator[Moves, None, Verification]:
        """Find the inputs that explain the miss, and measure them at small steps."""
        log, inputs, nothing = self.context.log, self.context.inputs, 0 * self.parts
        if budget.left(log) < 2:
            return Verification(self.axes, self._shared(self.miss, self.everyone))
        # what was seen has to be there at another step within the reach of the slope: else it is
        # rough, or inputs are rounded
        wider = 3 * self.step
        yield log.request_part(inputs, wider if wider < self.profile.max_step else self.step / 3)
        again = np.nan_to_num(log.part_slope() - self.parts.sum(axis=1))
        weight = relative_weights(self.seen, self.row)
        share = np.sum(weight * self.miss * again) / np.sum(weight * np.square(self.miss))
        if not 0.5 < share < 2:
            return Verification(self.axes, nothing)
        found = yield from bisect(
            self.context, self.parts, self.miss, self.step, self.is_off, budget,
            max(WIDESPREAD * inputs.size, 4), reserve=4,
        )  # fmt: skip
        if found is None:
            return Verification(self.axes, self._shared(self.miss, self.everyone))
        # two pairs each, or one where no more runs are left
        left = max(budget.left(log), 0) // 2
        each = 1 if left < 2 * len(found.at_fault) else 2
        fit, lost = left // each, nothing
        for miss, group in found.at_fault[fit:] + found.open:
            lost = np.hypot(lost, self._shared(miss, group))
        who = np.array([group[0] for _, group in found.at_fault[:fit]], np.intp)
        axes = yield from self._measure(np.sort(who), each)
        return Verification(axes, lost)

    def _measure(self, who: Index, each: int) -> Generator[Moves, None, AxisState]:
        """So many pairs at small steps of each of these inputs, in place of those they had."""
        log, axes = self.context.log, self.axes
        if not who.size:
            return axes
        for j in self.context.inputs[who]:
            log.exclude_above(int(j), 0.0)
        most = np.maximum(self.step, axes.min_step[who])
        axes = axes.at(who, narrow=True, range=most, n_pairs=0)
        for _ in range(each):
            axes = yield from request_pairs(self.context, self.profile, axes, who, each)
        return axes

    def _shared(self, miss: Array, group: Index) -> Array:
        """A miss as an error of the entries of a group: signs are random, so that what k slopes
        miss together, each does by 1 / sqrt(k) of."""
        out = np.zeros(self.parts.shape)
        out[:, group] = np.abs(miss)[:, None] / np.sqrt(group.size)
        return out


def explain_discrepancy(
    context: Context, profile: FunctionProfile, axes: AxisState, line: PilotLine, budget: Budget
) -> Generator[Moves, None, bool]:
    """Whether few inputs explain by what slopes at small and at wide steps differ: then it is the
    function that bends along them. A program wiggles in all inputs."""
    log, inputs = context.log, context.inputs
    if profile.discrepancy is None or profile.noisy or inputs.size < SEVERAL:
        return False
    along = np.repeat(log.direction, log.f0.size // log.batch, axis=0)[:, inputs]
    parts = along * context.slopes(profile, axes).mean
    row = np.abs(parts).sum(axis=1)
    weight = relative_weights(row, row)
    miss = profile.discrepancy * line.length
    least = (1 - EXPLAINED) ** 2 * float(weight @ np.square(miss))

    def is_off(part: Array, group: Index, times: float) -> bool:
        return float(weight @ np.square(part)) > least

    found = yield from bisect(
        context, parts, miss, WIDE / 2, is_off, budget, max(WIDESPREAD * inputs.size, 1)
    )
    return found is not None and not found.open


@dataclass(frozen=True, slots=True)
class Bisection:
    """The inputs at fault.

    Attributes
    ----------
    at_fault, open : list of (array, shape (N,), array of int)
        By how much single inputs, among the free ones, are off, and groups of them that the budget
        left undivided.
    """

    at_fault: list[tuple[Array, Index]]
    open: list[tuple[Array, Index]]


def bisect(
    context: Context,
    parts: Array,
    miss: Array,
    t: float,
    is_off: Callable[[Array, Index, float], bool],
    budget: Budget,
    most: float,
    reserve: int = 0,
) -> Generator[Moves, None, Bisection | None]:
    """The inputs that explain why slopes along the pilot's direction are off by ``miss`` (N,) from
    the sum of ``parts`` (N, m), by pairs at t along halves of a group that is off; None where they
    are more than ``most``. ``is_off`` takes what a group is off by, the group, and the number of
    pairs whose noise is in it. So many runs are kept in ``reserve`` for each input found.
    """  # fmt: skip
    log, inputs = context.log, context.inputs
    groups = [(miss, np.arange(inputs.size), 1.0)]
    at_fault, left = list[tuple[Array, Index]](), list[tuple[Array, Index]]()
    while groups:
        off = [group for group in groups if is_off(*group)]
        if len(at_fault) + len(off) > most:
            return None
        groups = []
        for missed, group, times in off:
            if group.size == 1:
                at_fault.append((missed, group))
            elif budget.left(log) < 2 + reserve * len(at_fault):
                left.append((missed, group))
            else:
                half = group[: group.size // 2]
                yield log.request_part(inputs[half], t)
                one = np.nan_to_num(log.part_slope() - parts[:, half].sum(axis=1))
                groups += [(one, half, 1.0), (missed - one, group[half.size :], times + 1)]
    return Bisection(at_fault, left)
