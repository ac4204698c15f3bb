"""Steps that differ from those in hand, and round ones for programs that read decimals."""

from __future__ import annotations

from itertools import chain

import numpy as np

from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.model.differences import round_digit
from gradiator_np.designs._adaptive.state import AxisState, FunctionProfile

# Every other pair of a random function is drawn in by this much: at one step alone nothing tells
# truncation from slope.
ASIDE = 0.7
# What rounding makes of a step, as a share of it.
SAME = 1e-9


def unused_step(
    context: Context, profile: FunctionProfile, axes: AxisState, k: int, t: float,
    taken: list[float],
) -> float:  # fmt: skip
    """A step near t not yet used on the k-th free input, round where the function is deterministic.

    A repeat of a deterministic run is bitwise equal and looks like a sign of no noise; a program
    that rounds its inputs to a decimal grid sees a round step exactly as meant.
    """
    j = int(context.inputs[k])
    side = int(axes.side[k])
    # of one input alone: whole arrays would cost m^2
    widest = min(axes.max_step[k], axes.range[k])
    low, high = min(axes.min_step[k], t), context.log.fitting(j, side) if side else widest
    used = context.log.steps(j) + taken
    if profile.random:
        near = [other for other in used if 0.99 * ASIDE < other / t < 1.01]
        return t * ASIDE if len(near) % 2 and t * ASIDE >= low else t
    scale = abs(float(context.log.scale[0, j]))
    smaller, larger = t * 0.85 ** np.arange(200), t / 0.85 ** np.arange(1, 40)
    fit = np.concatenate([smaller[smaller >= low], larger[larger <= high]])
    least, most = low * (1 - SAME), high * (1 + SAME)
    rounded = (float(round_digit(np.array(step * scale))) / scale for step in fit)
    for step in chain((step for step in rounded if least <= step <= most), fit):
        if all(abs(step / other - 1) > 1e-6 for other in used):
            return float(step)
    return t
