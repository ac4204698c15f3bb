"""Contrasts of neighbouring pairs: what they say of the noise, and what does not fit the model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.model.differences import UNLIKELY, CentralDifferences
from gradiator_np.designs._adaptive.model.noise import NoiseEstimator
from gradiator_np.designs._adaptive.model.posterior import Posterior
from gradiator_np.designs._adaptive.model.prior import States

Contrasts = Iterator[tuple[Array, Array, Array]]

# Contrasts in which curvature has more than this share of the variance say nothing of noise.
CURVED = 0.2
# Share of the states whose curvature is reckoned with.
HARDLY_MORE = 0.8
# Mean square of the contrasts of one line, in units of the noise known before, beyond which they
# are no noise: chance alone exceeds 9 in 3e-3 of single contrasts.
LOUDEST = 9.0
# Share of the cases in which a normal law exceeds UNLIKELY, the square of a contrast.
CHANCE = 5e-4


def _first_order(view: CentralDifferences, states: States) -> Contrasts:
    """Contrasts (L, N) of neighbouring pairs of every line, their variance at unit noise (L, N)
    and the variance that curvature gives them at unit slope under each state (L, S): nan where
    there is none."""
    view = view.sorted()
    t, factor, ratio = view.t, view.noise_factor, view.noise_ratio
    # An output that does not read an input stands still along it, which tells nothing of the noise
    # that rounding makes of those it reads: of 60 outputs, each of 3 of 40 inputs, that are
    # differences of terms 10^3 times as large, every J had bars 300 times too small.
    still = ~(np.nan_to_num(view.slope).any(axis=1) | np.nan_to_num(view.second).any(axis=1))
    q = 2 * np.arange(1, states.sd_odd.shape[1] + 1)
    for k in range(1, t.shape[1]):
        near, far = t[:, k - 1, None], t[:, k, None]
        # D(near) - D(far)
        curve = np.square(near**q - far**q) @ np.square(states.sd_odd).T
        one, two = ratio[:, k - 1], ratio[:, k]
        spread = factor[:, k - 1, None] * one / (2 * near**2)
        spread = spread + factor[:, k, None] * two / (2 * far**2)
        yield np.where(still, np.nan, view.slope[:, k - 1] - view.slope[:, k]), spread, curve
        # E(near) - (near / far)^2 E(far)
        square = (near / far) ** 2
        curve = np.square(2 * (near**q - square * far**q)) @ np.square(states.sd_even).T
        spread = 2 * (one + two * square**2) + 4 * (1 - square) ** 2
        pairs = (factor[:, k - 1, None] == 1) & (factor[:, k, None] == 1)
        contrast = view.second[:, k - 1] - square * view.second[:, k]
        yield np.where(pairs & ~still, contrast, np.nan), spread, curve


def _second_order(view: CentralDifferences, states: States) -> Contrasts:
    """The same of three neighbouring pairs: slope and cubic term are taken out of D."""
    view = view.sorted()
    q = 2 * np.arange(1, states.sd_odd.shape[1] + 1)
    for k in range(2, view.t.shape[1]):
        t = view.t[:, k - 2 : k + 1]
        near, middle, far = (t**2).T
        weight = np.stack([far - middle, near - far, middle - near], axis=1)
        weight /= np.where(far > near, far - near, np.nan)[:, None]
        noise = view.noise_factor[:, k - 2 : k + 1] * np.square(weight / t) / 2
        curve = np.einsum("lp,lpq->lq", weight, t[..., None] ** q)
        yield (
            np.einsum("lp,lpn->ln", weight, view.slope[:, k - 2 : k + 1]),
            np.einsum("lp,lpn->ln", noise, view.noise_ratio[:, k - 2 : k + 1]),
            np.square(curve) @ np.square(states.sd_odd).T,
        )


def _curvature(known: Posterior, per_state: Array) -> Array:
    """Variance (L, N) of a contrast by curvature: what a share ``HARDLY_MORE`` of the states stays
    below. Their mean says nothing: states that bend at 1e-5 have a weight of 1e-4 and a variance of
    1e60, and would explain any contrast."""
    order = np.argsort(per_state, axis=1)
    reached = np.take_along_axis(known.weights, order, axis=1).cumsum(axis=1) >= HARDLY_MORE
    at = np.take_along_axis(order, reached.argmax(axis=1)[:, None], axis=1)
    return np.asarray(np.take_along_axis(per_state, at, axis=1) * np.square(known.slope))


def pool(noise: NoiseEstimator, known: Posterior) -> NoiseEstimator:
    """Add the contrasts of neighbouring pairs of every input to ``noise``.

    Those in which curvature has a part are left out, by the noise as known before.
    """
    level = known.noise
    for contrast, spread, per_state in _first_order(known.differences, known.states):
        curve = _curvature(known, per_state)
        z2 = np.square(contrast / level) / spread
        good = np.isfinite(z2) & (curve < CURVED * np.square(level) * spread)
        count = np.maximum(good.sum(axis=1), 1)
        # a curvature that the states did not see coming is out of all proportion
        fair = np.where(good, z2, 0.0).sum(axis=1) / count < LOUDEST
        noise = noise.add(np.where(good & fair[:, None], contrast, np.nan), spread)
    return noise


def surprise(known: Posterior) -> float:
    """Mean square of all contrasts in units of what noise and curvature explain; 1 if none."""
    total, count = 0.0, 0
    for contrast, spread, per_state in _first_order(known.differences, known.states):
        z2 = np.square(contrast) / (np.square(known.noise) * spread + _curvature(known, per_state))
        good = np.isfinite(z2)
        total, count = total + float(z2[good].sum()), count + int(good.sum())
    return total / count if count else 1.0


def inconsistent(known: Posterior) -> NDArray[np.bool_]:
    """Entries (L, N) whose pairs differ by what no state that their input may be in explains."""
    view, states, weights, slope = known.differences, known.states, known.weights, known.slope
    out = np.zeros(slope.shape, bool)
    top = weights.argmax(axis=1)[:, None]
    for contrast, spread, per_state in chain(
        _first_order(view, states), _second_order(view, states)
    ):
        noise, b2, square = np.square(known.noise) * spread, np.square(slope), np.square(contrast)
        least = noise + b2 * np.take_along_axis(per_state, top, axis=1)
        line, output = np.nonzero(square > UNLIKELY * least)
        var = noise[line, output, None] + b2[line, output, None] * per_state[line]
        tail = erfc(np.abs(contrast[line, output, None]) / np.sqrt(2 * var))
        rare = np.einsum("es,es->e", weights[line], tail) < CHANCE
        out[line[rare], output[rare]] = True
    return out
