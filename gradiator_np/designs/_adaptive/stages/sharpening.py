"""What is left of the default's evaluations goes where error bars are of no use."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import Moves
from gradiator_np.designs._adaptive.model.mixture import NORMAL_95
from gradiator_np.designs._adaptive.stages.failures import replace_failed
from gradiator_np.designs._adaptive.stages.rounds import request_pairs
from gradiator_np.designs._adaptive.state import AxisState, Budget, FunctionProfile

# A standard error of this share of the row is good enough for a function without noise.
ENOUGH = 2e-5
# Further pairs of an input.
MOST = 3


def sharpen(
    context: Context, profile: FunctionProfile, axes: AxisState, kinked: NDArray[np.bool_],
    budget: Budget,
) -> Generator[Moves, None, AxisState]:  # fmt: skip
    """Ask for further pairs of inputs whose error bars are wide for a function without noise, but
    of ``kinked`` (m,) ones, where no pair tells more."""
    if profile.noisy or context.tolerance:
        return axes
    for _ in range(MOST):
        found = context.slopes(profile, axes)
        row = np.sqrt(np.square(found.mean).sum(axis=1, keepdims=True))
        known = np.isfinite(found.half_width) & (row > 0)
        share = np.zeros(known.shape)
        np.divide(found.half_width / NORMAL_95, row, out=share, where=known)
        share = share.max(axis=0, initial=0.0)
        who = np.flatnonzero((share > ENOUGH) & ~axes.inactive & ~kinked)
        most = max(budget.left(context.log) // 2, 0)
        who = np.sort(who[np.argsort(-share[who], kind="stable")][:most])
        if not who.size:
            break
        axes = yield from request_pairs(context, profile, axes, who, 1)
        axes = yield from replace_failed(context, profile, axes, who, budget)
    return axes
