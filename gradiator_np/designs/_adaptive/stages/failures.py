"""Where a run failed: ask again, nearer, or on the side that works."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from gradiator_np._typing import Index
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import EvaluationLog, Moves, PairRequest
from gradiator_np.designs._adaptive.failed_runs import (
    SHRINK,
    clear_room,
    is_erratic,
    is_innermost,
    latest_pair,
    share_of_failures,
)
from gradiator_np.designs._adaptive.repeats import AT_X
from gradiator_np.designs._adaptive.stages.unused_step import unused_step
from gradiator_np.designs._adaptive.state import AxisState, Budget, FunctionProfile

# A failed pair is asked for again as often as this.
TRIES = 8
# Where runs fail by chance they are repeated until this share of them is left, and at most as often
# as leaves it of six in ten. That they do so is seen where a repetition works: so many are tried.
LEFT, MOST, PROBES = 0.01, 9, 4


def repeat_failed(context: Context, budget: Budget, first: int) -> Generator[Moves, None, None]:
    """Repeat the failed runs among the rows from ``first`` on, and that at x, where runs fail by
    chance, and not beyond the end of a domain."""
    log = context.log
    tries = 0
    while context.problem.replace:
        lost = log.failed()
        lost = lost[lost >= first]
        if not np.isfinite(log.f0).all() and log.repeats.at_x() < _repeats(log):
            lost = np.append(AT_X, lost)
        by_chance = log.repeats.mended
        if lost.size and not by_chance:
            lost = lost[: _suspicious(log, lost)]
        if budget.max_nfev is not None:
            lost = lost[: max(budget.left(log), 0)]
        if not lost.size or tries >= _repeats(log):
            return
        tries += 1
        yield log.repeat(lost)
        if log.repeats.mended and not by_chance:
            # what was taken for the end of a domain is none
            first = tries = 0


def _repeats(log: EvaluationLog) -> int:
    """How often a failed run is repeated at most."""
    share = float(np.clip(share_of_failures(log), 0.3, 0.99))
    return min(int(np.ceil(np.log(LEFT) / np.log(share))) - 1, MOST)


def _suspicious(log: EvaluationLog, lost: Index) -> bool:
    """Whether what was ``lost`` is likely to have been so by chance, or is so near to x that the
    rest hangs on it; looked at a few times."""
    tried = len(log.repeats)
    hangs = tried == 0 and (AT_X in lost or is_innermost(log))
    return tried < PROBES and (hangs or is_erratic(log))


def replace_failed(
    context: Context, profile: FunctionProfile, axes: AxisState, who: Index, budget: Budget
) -> Generator[Moves, None, AxisState]:
    """Replace the failed pairs of these inputs, within the caller's limit of runs if there is one;
    limits and sides as they turn out to be."""
    log = context.log
    for _ in range(TRIES if context.problem.replace else 0):
        lost = _lost(context, profile, who)
        if budget.max_nfev is not None:
            lost = lost[: max(budget.left(log), 0) // 2]
        if not lost.size:
            break
        wanted = []
        for k in lost:
            j = int(context.inputs[k])
            last = latest_pair(log, j)
            t, works = last.t, last.works
            if last.side == 0 and works != 0:
                # its far run is the one that worked
                t = t / 2
                axes = axes.at(k, side=works, failure_limit=t, max_step=min(axes.max_step[k], t))
                wanted.append(PairRequest(j, t, works))
                continue
            if last.side != 0 and clear_room(log, j, -last.side) >= 2 * t:
                axes = axes.at(k, side=-last.side)
            else:
                t = t / SHRINK
                axes = axes.at(k, failure_limit=t)
            axes = axes.at(k, max_step=min(axes.max_step[k], t))
            step = unused_step(context, profile, axes, k, t, [])
            wanted.append(PairRequest(j, step, int(axes.side[k])))
        yield log.request(wanted)
    return axes


def _lost(context: Context, profile: FunctionProfile, who: Index) -> Index:
    """Inputs for which some output has no slope although it has a value at x."""
    view = context.log.differences(context.inputs[who], profile.growth)
    alive = np.isfinite(context.log.f0)
    if not alive.any():
        alive = np.asarray(np.isfinite(view.slope).any(axis=(0, 1)))
    missing = np.asarray(~np.isfinite(view.slope).any(axis=1))
    return who[missing[:, alive].any(axis=1)]
