"""Which inputs matter more than others, as far as error bars settle it."""

from __future__ import annotations

import numpy as np

from gradiator_np._covariance import Row
from gradiator_np._typing import Array, Index, Mask


def ranks(value: Array) -> Index:
    """Rank of each |value|, 1 for the largest; nan last."""
    order = np.argsort(-np.abs(value), kind="stable")
    out = np.empty(len(value), np.intp)
    out[order] = np.arange(1, len(value) + 1)
    return out


def rank_intervals(value: Array, row: Row, known: Mask, t: float) -> tuple[Index, Index]:
    """Least and largest rank of each |value| that error bars leave open, (m,) each.

    ``row``: the covariance of the values; ``known``: those that have one. The order of two is
    settled where both their difference and their sum are beyond ``t`` standard errors from 0: at
    |a| = |b| one of the two is 0, so that either order is called settled by chance at the rate of
    that one test.
    """
    m = len(value)
    value = np.where(known, value, 0.0)
    unit = np.broadcast_to(row.unit, m)
    factor = np.broadcast_to(row.factor, (m, row.factor.shape[1])) * unit[:, None]
    variance = row.diag * np.square(unit) + np.square(factor).sum(1)
    above, below = np.zeros(m, np.intp), np.zeros(m, np.intp)
    for k in np.flatnonzero(known):
        shared, both = 2 * (factor @ factor[k]), variance + variance[k]
        apart = np.abs(value - value[k]) > t * np.sqrt(np.maximum(both - shared, 0))
        apart &= np.abs(value + value[k]) > t * np.sqrt(np.maximum(both + shared, 0))
        apart &= known
        apart[k] = False
        larger = np.abs(value) > abs(value[k])
        above[k], below[k] = np.sum(apart & larger), np.sum(apart & ~larger)
    return above + 1, m - below
