"""Inputs to which nothing answers: inactive, or on a grid coarser than the step."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from gradiator_np._typing import Index
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import Moves, PairRequest
from gradiator_np.designs._adaptive.state import CLEAR, AxisState, Budget, FunctionProfile


def find_inactive(
    context: Context, profile: FunctionProfile, axes: AxisState, budget: Budget
) -> Generator[Moves, None, tuple[AxisState, bool]]:
    """Move all silent inputs at once as far as they may go, then those that answer one by one.

    Returns
    -------
    axes : AxisState
        With ``inactive`` inputs, and with the grid of others as ``jitter`` and ``min_step``.
    gridded : bool
        Whether there are such others: their pairs are forgotten, and they need two.
    """
    log, inputs = context.log, context.inputs
    silent = _silent(context, profile, axes, np.arange(inputs.size))
    if not silent.size or budget.left(log) < 1:
        return axes, False
    yield log.request_group(inputs[silent], axes.max_step[silent])
    if not log.group_answers():
        return axes.at(silent, inactive=True), False
    low = np.array([max(log.steps(int(j))) for j in inputs[silent]])
    high = axes.max_step[silent]
    yield log.request([PairRequest(int(inputs[k]), t) for k, t in zip(silent, high)])
    still = _silent(context, profile, axes, silent)
    axes = axes.at(still, inactive=True)
    live = ~np.isin(silent, still)
    silent, low, high = silent[live], low[live], high[live]
    # where it begins, by bisection in log t
    while (high > 4 * low).any() and budget.left(log) >= 6 * silent.size:
        middle = np.sqrt(low * high)
        yield log.request([PairRequest(int(inputs[k]), t) for k, t in zip(silent, middle)])
        answers = np.array([log.answers(int(inputs[k])) for k in silent])
        high, low = np.where(answers, middle, high), np.where(answers, low, middle)
    for k, t in zip(silent, high):
        # a coarse grid that the widest step clears by little is told by its jitter
        axes = axes.at(k, min_step=min(CLEAR * t, axes.max_step[k]), jitter=t)
        log.exclude_below(int(inputs[k]), 0.99 * axes.min_step[k])
    return axes.at(silent, n_pairs=0), True


def _silent(context: Context, profile: FunctionProfile, axes: AxisState, who: Index) -> Index:
    """Which of these inputs no output has answered to."""
    view = context.log.differences(context.inputs[who], profile.growth)
    answers = (np.nan_to_num(view.slope) != 0) | (np.nan_to_num(view.second) != 0)
    seen = np.isfinite(view.slope).any(axis=(1, 2))
    silent = seen & ~answers.any(axis=(1, 2)) & (axes.side[who] == 0) & ~axes.inactive[who]
    return np.asarray(who[silent])
