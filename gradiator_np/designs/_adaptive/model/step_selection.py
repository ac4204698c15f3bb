"""Which steps the next pairs of an input should have: Bayesian experimental design on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Index
from gradiator_np.designs._adaptive.model.differences import (
    SIDED_NOISE,
    SIDED_REACH,
    slope_basis,
)
from gradiator_np.designs._adaptive.model.likelihood import noise_over_slope, sharpness
from gradiator_np.designs._adaptive.model.posterior import Posterior
from gradiator_np.designs._adaptive.model.prior import TAIL, TERMS, States, likeliest, normalise
from gradiator_np.kernels import line_model

# Steps of the pairs that are still to come, relative to the largest.
SHAPES: dict[int, list[list[float]]] = {
    1: [[1.0]],
    2: [[1, 0.8], [1, 0.65], [1, 0.5], [1, 0.35], [1, 0.2], [1, 0.1], [1, 0.03]],
    3: [[1, 1, 0.7], [1, 1, 0.5], [1, 0.5, 0.5], [1, 0.67, 0.33], [1, 0.8, 0.4], [1, 0.3, 0.1]],
    4: [
        [1, 1, 1, 0.6],
        [1, 0.75, 0.5, 0.25],
        [1, 1, 0.5, 0.5],
        [1, 0.5, 0.5, 0.5],
        [1, 0.8, 0.5, 0.2],
        [1, 0.5, 0.25, 0.1],
    ],
}
# Candidates of the largest step, per decade: a step 20 % off costs 2 % of the error.
GRID = 6
# Steps are chosen as if higher terms that set in early were rarer by this factor than the estimate
# takes them to be: at noise of 1e-8 that saves a fifth of the error, and error bars stay careful.
EARLY_TERMS = 0.25
# Quantile of the length at which a function bends that terms left out are reckoned with.
EARLIEST = 0.1
# Exponent of the variance that a design minimises the mean of: about the mean log error. The mean
# variance itself lets the tail of rho choose steps five times too short.
POWER = 0.1
# No input's pairs all have one step: that costs 10 % where f is linear, and otherwise shows that
# it is not (on Mancino's function, nearly linear, equal steps were wrong by 100 standard errors).
APART = 1.24


@dataclass(frozen=True, slots=True)
class StepChoice:
    """The next pairs of k inputs.

    Attributes
    ----------
    t : array, shape (k,)
        Largest step; nan where no pair fits between the bounds.
    side : array of int, shape (k,)
        0 for central pairs, +1 or -1 for one-sided rules.
    shape : list of lists of float
        Steps relative to the largest.
    """

    t: Array
    side: Index
    shape: list[list[float]]


@dataclass(frozen=True, slots=True)
class StepLimits:
    """What the steps of k inputs have to keep to, in units of t, shape (k,) each.

    Attributes
    ----------
    min_step, max_step : array
        Of central pairs; ``max_step`` is 0 where none fits.
    range : array
        Widest step up to which the function was seen to be smooth.
    up, down : array
        Room to the bounds.
    reach : array
        Where runs have failed.
    side : array of int
        Not 0 where only one side works.
    near : array of bool
        Next to a bound, or where only one side works: one-sided rules are candidates, too.
    """

    min_step: Array
    max_step: Array
    range: Array
    up: Array
    down: Array
    reach: Array
    side: Index
    near: NDArray[np.bool_]


def select_steps(known: Posterior, limits: StepLimits, ahead: int) -> StepChoice:
    """Steps, sides and shapes of the next ``ahead`` pairs of each line."""
    early = TAIL[known.states.tail] < 1
    weights = normalise(known.weights * np.where(early, EARLY_TERMS, 1.0))
    low = np.maximum(limits.min_step, 1e-9)
    cap = np.minimum(limits.max_step, limits.range)
    pair = _best(known, weights, ahead, cap, low, 1.0)
    side = np.where(limits.up >= limits.down, 1, -1)
    side = np.where(limits.side != 0, limits.side, side)
    t, shape = pair[:, 0].copy(), pair[:, 1]
    chosen = np.zeros(t.size, np.intp)
    if limits.near.any():
        # next to a bound a one-sided rule may reach further than a pair
        reach = np.minimum(np.where(side > 0, limits.up, limits.down), 2 * limits.reach) / 2
        cap = np.minimum(SIDED_REACH * reach, limits.range)
        single = _best(known, weights, ahead, cap, low, SIDED_NOISE)
        fits = reach >= limits.min_step
        one = limits.near & (
            (limits.side != 0) | np.isnan(pair[:, 0]) | (fits & (single[:, 2] < pair[:, 2]))
        )
        t = np.where(one, single[:, 0] / SIDED_REACH, t)
        shape = np.where(one, single[:, 1], shape)
        chosen = np.where(one, side, 0)
    return StepChoice(t, chosen, [SHAPES[ahead][int(h)] for h in np.nan_to_num(shape)])


def reach_of_terms(known: Posterior) -> Array:
    """The step of each line at which the first term that the model leaves out is as large as the
    noise of a slope by all its pairs, if the function bends as early as it may.

    Bars know noise and the terms of the model: steps beyond this would have errors of neither.
    """
    pairs = np.maximum(known.differences.n_pairs, 1)
    ratio = noise_over_slope(known.noise, known.slope) / np.sqrt(pairs)
    length = known.states.bend_length(known.weights, EARLIEST)
    return np.asarray(length * (ratio / length) ** (1 / (2 * TERMS + 3)))


def _best(
    known: Posterior, weights: Array, ahead: int, cap: Array, low: Array, factor: float
) -> Array:
    """Step, shape and mean log variance of the best design of each line, shape (k, 3)."""
    view, states = known.differences, known.states
    out = np.full((cap.size, 3), np.nan)
    open_ = np.flatnonzero(cap > 0)
    if not open_.size:
        return out
    t, held, weights, cap = view.t[open_], view.noise_factor[open_], weights[open_], cap[open_]
    sided = view.sided[open_]
    ratio = noise_over_slope(known.noise, known.slope)[open_]
    # no state that counts wants less than a third of its own best step
    near = states.bend_length(weights, 0.01)
    low = np.minimum(np.maximum(low[open_], 0.3 * np.cbrt(ratio) * near), cap)
    grid = np.linspace(0.0, 1.0, int(GRID * np.log10(np.max(cap / low))) + 2)
    # inputs that know the same share one design
    key = np.column_stack([np.nan_to_num(t), sided, ratio, cap, low, held, weights])
    seen: dict[bytes, int] = {}
    inverse = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in key])
    first = np.unique(inverse, return_index=True)[1]
    best = best_steps(
        t[first], held[first], sided[first], factor, ratio[first], weights[first], states,
        low[first], cap[first], grid, np.array(SHAPES[ahead], float),
    )  # fmt: skip
    out[open_] = best[inverse]
    return out


def best_steps(
    t: Array, factor: Array, sided: NDArray[np.bool_], new_factor: float, ratio: Array,
    weights: Array, states: States, low: Array, cap: Array, grid: Array, shapes: Array,
) -> Array:  # fmt: skip
    """The step and the shape of the next pairs of each line.

    Minimises sum_s w_s (V_s / V_s*)^POWER over V_s, the variance of the slope that the pairs in
    hand and the new ones leave under state s, and V_s*, the least that any candidate would leave.
    Both are at b = 1.

    Parameters
    ----------
    t, factor : array, shape (L, P)
        Pairs in hand, nan where there is none, and their noise factors.
    sided : array of bool, shape (L, P)
        Which of them are one-sided.
    new_factor : float
        Noise factor of the new ones, which tells whether they are one-sided.
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
    new_sided = np.full((m, every.shape[1] - width), new_factor == SIDED_NOISE)
    basis = slope_basis(every, np.concatenate([sided, new_sided], axis=1), TERMS)
    mean = np.zeros((*pick.shape, 1 + grid.size * len(shapes)))
    variance = np.ones(mean.shape)
    line_model.fit(
        np.where(np.isfinite(basis), basis, 0.0),
        every * np.sqrt(2 / noisy),
        np.where(np.isfinite(every), 0.0, np.nan),
        np.ones(m),
        np.ones(m),
        0.0,
        sharpness(ratio[:, None], np.ones((m, 1)), states.kappa[pick]),
        states.sd_slope(basis.shape[-1]),
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
    relative = np.exp(POWER * (logs - logs.min(axis=2, keepdims=True)))
    cost = np.einsum("lc,lca->la", share, relative)
    steps = new.reshape(m, -1, shapes.shape[1])
    held = np.isfinite(t)
    nearest = np.minimum(steps.min(axis=2), np.where(held, t, np.inf).min(axis=1)[:, None])
    furthest = np.maximum(steps.max(axis=2), np.where(held, t, 0.0).max(axis=1)[:, None])
    several = np.asarray(held.any(axis=1) | (shapes.shape[1] > 1))[:, None]
    cost = np.where(several & (furthest < APART * nearest), 1e6 * cost, cost)
    best, line = cost.argmin(axis=1), np.arange(m)
    mean_log = np.einsum("lc,lc->l", share, logs[line, :, best])
    return np.column_stack([largest[line, best // len(shapes)], best % len(shapes), mean_log])
