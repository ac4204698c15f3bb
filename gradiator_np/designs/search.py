"""The search for the step of the next pairs of a line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.lines import States, likeliest, sharpness
from gradiator_np.kernels import lines as kernels

Array = NDArray[np.float64]

# Exponent of the variance that a design minimises the mean of: about the mean log error. The mean
# variance itself lets the tail of rho choose steps five times too short.
POWER = 0.1
# No input's pairs all have one step: that costs 10 % where f is linear, and otherwise shows that
# it is not (on Mancino's function, nearly linear, equal steps were wrong by 100 standard errors).
APART = 1.24


def best_steps(
    t: Array, factor: Array, new_factor: float, ratio: Array, weights: Array, states: States,
    low: Array, cap: Array, grid: Array, shapes: Array,
) -> Array:  # fmt: skip
    """The step and the shape of the next pairs of each line.

    Minimises sum_s w_s (V_s / V_s*)^POWER over V_s, the variance of g that the pairs in hand and
    the new ones leave under state s, and V_s*, the least that any candidate would leave. Both are
    at b = 1.

    Parameters
    ----------
    t, factor : array, shape (L, P)
        Pairs in hand, nan where there is none, and their noise factors.
    new_factor : float
        Noise factor of the new ones.
    ratio : array, shape (L,)
        Noise over slope.
    weights : array, shape (L, S)
    low, cap : array, shape (L,)
        Limits of the steps.
    grid : array, shape (G,)
        Exponents of the candidates' largest steps, cap (low / cap)^grid: 0 is cap, 1 is low.
    shapes : array, shape (H, k)
        Steps of a candidate relative to its largest.

    Returns
    -------
    array, shape (L, 3)
        Step, index of the shape, mean of log V_s.
    """
    pick, share = likeliest(weights)
    m, width = t.shape
    largest = cap[:, None] * (low / cap)[:, None] ** grid
    new = np.maximum(largest[:, :, None, None] * shapes, low[:, None, None, None])
    every = np.concatenate([t, new.reshape(m, -1)], axis=1)
    noisy = np.concatenate([factor, np.full((m, every.shape[1] - width), new_factor)], axis=1)
    mean = np.zeros((*pick.shape, 1 + grid.size * len(shapes)))
    variance = np.ones(mean.shape)
    kernels.fit(
        np.square(every),
        every * np.sqrt(2 / noisy),
        np.where(np.isfinite(every), 0.0, np.nan),
        np.ones(m),
        np.ones(m),
        0.0,
        sharpness(ratio[:, None], np.ones((m, 1)), states.kappa[pick]),
        states.sd_odd,
        pick,
        width,
        shapes.shape[1],
        mean,
        variance,
        np.zeros(pick.shape),
    )
    # nothing is worse than an answer of the size of the slope, or of what noise leaves at the
    # widest step
    worst = (1 + np.square(ratio / cap))[:, None, None]
    variance = variance[:, :, 1:]
    logs = np.log(variance / (1 + variance / worst))
    cost = np.einsum(
        "lc,lca->la", share, np.exp(POWER * (logs - logs.min(axis=2, keepdims=True)))
    )  # fmt: skip
    steps = new.reshape(m, -1, shapes.shape[1])
    held = np.isfinite(t)
    nearest = np.minimum(steps.min(axis=2), np.where(held, t, np.inf).min(axis=1)[:, None])
    furthest = np.maximum(steps.max(axis=2), np.where(held, t, 0.0).max(axis=1)[:, None])
    several = np.asarray(held.any(axis=1) | (shapes.shape[1] > 1))[:, None]
    cost = np.where(several & (furthest < APART * nearest), 1e6 * cost, cost)
    best, line = cost.argmin(axis=1), np.arange(m)
    mean_log = np.einsum("lc,lc->l", share, logs[line, :, best])
    return np.column_stack(
        [largest[line, best // len(shapes)], best % len(shapes), mean_log]
    )  # fmt: skip
