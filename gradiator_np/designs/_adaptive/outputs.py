"""What a run returned, as real numbers whose squares neither overflow nor vanish."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array

# Sizes of inputs and outputs whose variances, relative to rounding, do not underflow, and whose
# squared variances do not overflow. Outputs below are 0, runs above have failed.
TINY, HUGE = 1e-130, 1e60


def real_outputs(values: NDArray[Any]) -> Array:
    """Outputs of all points of a batch, (..., B, n), as real numbers (..., N), new memory."""
    if np.iscomplexobj(values):
        values = np.concatenate([values.real, values.imag], axis=-1)
    flat = values.reshape(*values.shape[:-2], values.shape[-2] * values.shape[-1])
    return np.array(flat, float, order="C")


def within_range(values: Array) -> None:
    """Mark what is too large as failed, and what is too small as 0."""
    size = np.abs(values)
    values[~(size < HUGE)] = np.nan
    values[size < TINY] = 0.0
