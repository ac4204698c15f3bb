"""Which inputs matter more than others, as far as error bars settle it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from gradiator_np._covariance import Row
from gradiator_np._typing import Array, Index, Mask

#: Numbers (outputs times inputs) that are handled at a time.
PART = 2**14


def ranks(value: Array) -> Index:
    """Rank of each |value| among the last axis, 1 for the largest; nan last."""
    order = np.argsort(-np.abs(value), axis=-1, kind="stable")
    out = np.empty(value.shape, np.intp)
    place = np.broadcast_to(np.arange(1, value.shape[-1] + 1), value.shape)
    np.put_along_axis(out, order, place, -1)
    return out


def rank_intervals(
    value: Array, rows: Iterator[Row], unit: Array, known: Mask, t: Array
) -> tuple[Index, Index]:
    """Least and largest rank of each |value| that error bars leave open, (n, m) each.

    The order of two values of a row is settled where both their difference and their sum are beyond
    ``t`` standard errors from 0: at |a| = |b| one of the two is 0, so that either order is
    called settled by chance at the rate of that one test.

    Parameters
    ----------
    value : array, shape (n, m)
    rows : iterator of Row
        The covariance of each row of values, to be multiplied by ``unit``, shape (n, m).
    known : array of bool, shape (n, m)
        Those that have one.
    t : array, shape (n,)
    """
    n, m = value.shape
    low, high = np.empty((n, m), np.intp), np.empty((n, m), np.intp)
    step = max(1, PART // m)
    for start in range(0, n, step):
        part = slice(start, start + step)
        some = list(islice(rows, step))
        scale = np.where(known[part], _stacked([r.unit for r in some], m) * unit[part], 0.0)
        factor = scale[..., None] * np.stack(
            [np.broadcast_to(r.factor, (m, r.factor.shape[1])) for r in some]
        )
        variance = _stacked([r.diag for r in some], m) * np.square(scale)
        variance += np.square(factor).sum(-1)
        low[part], high[part] = _open(value[part], variance, factor, known[part], t[part, None])
    return low, high


def _stacked(rows: list[Array], m: int) -> Array:
    return np.stack([np.broadcast_to(row, m) for row in rows])


def _open(
    value: Array, variance: Array, factor: Array, known: Mask, t: Array
) -> tuple[Index, Index]:
    """`rank_intervals` of some rows at once, one input after the other."""
    m = value.shape[1]
    value = np.where(known, value, 0.0)
    above, below = np.zeros(value.shape, np.intp), np.zeros(value.shape, np.intp)
    for k in np.flatnonzero(known.any(0)):
        own = slice(k, k + 1)
        shared = 2 * np.matvec(factor, factor[:, k])
        both = variance + variance[:, own]
        apart = np.abs(value - value[:, own]) > t * np.sqrt(np.maximum(both - shared, 0))
        apart &= np.abs(value + value[:, own]) > t * np.sqrt(np.maximum(both + shared, 0))
        apart &= known & known[:, own]
        apart[:, k] = False
        larger = np.abs(value) > np.abs(value[:, own])
        above[:, k], below[:, k] = (apart & larger).sum(1), (apart & ~larger).sum(1)
    return above + 1, m - below
