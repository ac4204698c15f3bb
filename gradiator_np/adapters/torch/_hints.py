"""What a training loop is told once, where it pays for more than it needs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from gradiator_np._differentiable.point import DifferentiablePoint

#: Rows from which a look at one of them costs little beside a gradient, a run for each number.
ROWS = 8


def hint_at_batches(point: DifferentiablePoint) -> None:
    """Warn where the rows of x and y are independent points that nobody said are.

    One run tells: with the second row in place of the first, only the first row of y changes, and
    is the second.
    """
    owner = point.owner
    if owner.batch_dims or point.exact or len(point.args) != 1:
        return
    if isinstance(point.value, tuple | Mapping):
        return
    x, y = np.asarray(point.args[0]), np.asarray(point.value)
    if x.ndim < 2 or not y.ndim or len(x) != len(y) or len(x) < ROWS:
        return
    if owner.context or owner.options.get("vectorized") or np.array_equal(y[0], y[1]):
        return
    moved = x.copy()
    moved[0] = x[1]
    owner.counts.fun += 1
    try:
        there = np.asarray(owner.fun(moved))
    except Exception:  # two equal rows are no point of this function
        return
    alike = there.shape == y.shape and np.array_equal(there[1:], y[1:])
    if alike and np.array_equal(there[0], y[1]):
        warnings.warn(
            f"the {len(x)} rows of x are independent points: with batch_dims=1 a gradient "
            f"takes the runs of {x[0].size} numbers, not of {x.size}",
            stacklevel=2,
        )
