"""Pairs that reach beyond the terms of the model: what a fit of all of these leaves of them."""

from __future__ import annotations

import numpy as np
from scipy.special import chdtri

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.model.posterior import Posterior
from gradiator_np.designs._adaptive.model.prior import TERMS

# Rests of noise alone are larger in so many entries, which then lose their widest pairs in vain.
CHANCE = 5e-4
# Mean square of the rest, in units of the noise, that an estimate of the noise may miss.
MISSED = 4.0
# Share of the step up to which a fit leaves noise that is relied on: at it what the terms leave out
# may be as large as noise, and here, of order 10, it is a tenth of that.
SHORTER = 0.8


def reach_of_fit(known: Posterior) -> Array:
    """The step (L, N) up to which the pairs of an entry are noise and the terms of the model; inf
    where all are, or where there are no more pairs than terms.

    With more pairs than terms all that the model knows of is fitted: its error bars hold noise
    alone, and an output that bends earlier than its input does for others would be wrong by any
    number of them.
    """
    view = known.differences
    basis = view.basis(TERMS)
    need = basis.shape[-1] + 2
    out = np.full(known.slope.shape, np.inf)
    noise = np.broadcast_to(known.noise, known.slope.shape)
    works = np.isfinite(view.slope).any(axis=2) & np.isfinite(view.t)
    for line in np.flatnonzero(works.sum(axis=1) >= need):
        order = np.flatnonzero(works[line])
        order = order[np.argsort(view.t[line, order])]
        t = view.t[line, order]
        ratio = view.noise_factor[line, order] * np.nanmean(view.noise_ratio[line, order], axis=1)
        root = t * np.sqrt(2 / ratio)
        y = root[:, None] * view.slope[line, order] / noise[line]
        columns = root[:, None] * np.column_stack([np.ones(t.size), basis[line, order]])
        who = np.flatnonzero(np.isfinite(y).all(axis=0))
        for count in range(t.size, need - 1, -1):
            who = who[_leaves_more(columns[:count], y[:count, who])]
            if not who.size:
                break
            out[line, who] = SHORTER * t[count - 2]
        out[line] = np.maximum(out[line], t[need - 2])
    return out


def _leaves_more(columns: Array, y: Array) -> Array:
    """Which of several right-hand sides (k, n) a fit leaves more of than noise."""
    size = np.abs(columns).max(axis=0)
    q = np.linalg.qr(columns / np.where(size > 0, size, 1.0))[0]
    rest = np.square(y - q @ (q.T @ y)).sum(axis=0)
    free = columns.shape[0] - columns.shape[1]
    return np.asarray(rest > max(MISSED * free, chdtri(free, CHANCE)))
