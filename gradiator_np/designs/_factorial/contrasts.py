"""What the rows of a directional design say before any fit: replicates, odd and even parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._covariance import Covariance
from gradiator_np._typing import Array, Mask
from gradiator_np.solvers._solution import Solution

# Step t of a pair: o(t) = a t + b t^3 with t = 1, 2 and noise of equal size in both. Combinations
# of (o(1), o(2)) that estimate a; their variances are 65/36 and 1/5 of that of one odd part.
EXTRAPOLATED = np.array([8.0, -1.0]) / 6  # free of b
PLAIN = np.array([1.0, 2.0]) / 5  # least squares with b = 0


@dataclass(frozen=True, slots=True)
class Means:
    """Averages over replicates of one contrast.

    Attributes
    ----------
    mean : array, shape (..., n)
        nan where no replicate is finite.
    count : array, shape (..., n)
        Finite replicates.
    scatter : array, shape (..., n)
        Sum of squared deviations from the mean.
    """

    mean: NDArray[Any]
    count: Array
    scatter: Array


def average(a: NDArray[Any]) -> Means:
    """Average over the leading axis, without what is not finite."""
    good = np.isfinite(a)
    count = good.sum(0).astype(float)
    mean = np.where(good, a, 0).sum(0) / np.where(count, count, np.nan)
    scatter = np.square(np.abs(np.where(good, a - np.where(count, mean, 0), 0))).sum(0)
    return Means(mean, count, scatter)


def odd_part(plus: NDArray[Any], minus: NDArray[Any]) -> NDArray[Any]:
    """(f+ - f-) / 2: the slope, and no even order of curvature; noise variance sigma^2 / 2."""
    return np.asarray((plus - minus) / 2)


def even_part(plus: NDArray[Any], minus: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """(f+ + f-) / 2 - y: curvature, and no slope; y is subtracted first, so both are exact."""
    return np.asarray(((plus - y) + (minus - y)) / 2)


def upper_tail(ratio: Array, dfn: Array | float, dfd: Array | float) -> Array:
    """P(F >= ratio) of Fisher's F; chi^2 where ``dfd`` is infinite, nan without degrees."""
    from scipy.special import chdtrc, fdtrc

    dfn, dfd = np.broadcast_arrays(np.asarray(dfn, float), np.asarray(dfd, float))
    ok = (dfn > 0) & (dfd > 0)
    n1, n2 = np.where(ok, dfn, 1.0), np.where(ok & np.isfinite(dfd), dfd, 1.0)
    p = np.where(np.isinf(dfd), chdtrc(n1, n1 * ratio), fdtrc(n1, n2, ratio))
    return np.asarray(np.where(ok, p, np.nan))


class OneSided:
    """Inputs on or next to a bound: rows at h and 2h inward, apart from the design.

    J = (4 f(h) - f(2h) - 3 f(0)) / (2h), of second order, with variance 26/4 sigma^2 / h^2, of
    which 9/4 is the base that all of these inputs share.

    Attributes
    ----------
    inputs : array of int, shape (q,)
        Inputs that are one-sided at some of the B points.
    h : array, shape (B, m)
        Signed steps; 0 where the input is not one-sided at that point.
    """

    #: Variance at unit noise, h = 1.
    VARIANCE = 26 / 4

    def __init__(self, h: Array) -> None:
        self.h = h
        self.inputs = np.flatnonzero((h != 0).any(0))

    def offsets(self) -> Array:
        """Rows (2 q, B, m): all inputs at h, then all at 2h."""
        q, (b, m) = len(self.inputs), self.h.shape
        out = np.zeros((q, b, m))
        out[np.arange(q), :, self.inputs] = self.h[:, self.inputs].T
        return np.concatenate([out, 2 * out])

    def insert(self, solution: Solution, offsets: Array, means: Means, y: NDArray[Any]) -> Solution:
        """Put these entries into a solution whose samples never moved these inputs.

        Parameters
        ----------
        solution : Solution
            Batch axes (B,).
        offsets : array, shape (2 q, B, m)
        means : Means
            Shape (2 q, B, n).
        y : array, shape (B, n)
        """
        q = len(self.inputs)
        b, m = self.h.shape
        rises = means.mean - y
        near, far = rises[:q], rises[q:]
        t = offsets[np.arange(2 * q), :, np.tile(self.inputs, 2)][..., None]  # (2q, B, 1)
        t1, t2 = t[:q], t[q:]
        here = (t1 != 0) & (t2 != 0)
        s1, s2 = np.where(here, t1, 1.0), np.where(here, t2, 2.0)
        w1, w2 = s2 / (s1 * (s2 - s1)), -s1 / (s2 * (s2 - s1))
        slope = w1 * near + w2 * far
        known = here & np.isfinite(slope)
        coef = solution.coef.copy()
        where = np.zeros(coef.shape, dtype=bool)  # one-sided here
        lost = np.zeros(coef.shape, dtype=bool)
        where[:, :, self.inputs] = np.broadcast_to(here, slope.shape).transpose(1, 2, 0)
        lost[:, :, self.inputs] = (here & ~known).transpose(1, 2, 0)
        coef[:, :, self.inputs] += np.where(known, slope, 0).transpose(1, 2, 0)
        # Fewest replicates over outputs: the covariance is one for all of them.
        count = np.maximum(means.count.min(-1, keepdims=True), 1)
        own, shared = np.zeros((b, m)), np.zeros((b, m))
        unit = w1**2 / count[:q] + w2**2 / count[q:]
        own[:, self.inputs] = np.where(here, unit, 0)[..., 0].T
        shared[:, self.inputs] = np.where(here, w1 + w2, 0)[..., 0].T
        cov = _merge(solution.cov, where[:, 0], own, shared, lost)
        rank = solution.rank + (known.any(-1)).sum(0)
        return replace(solution, coef=coef, cov=cov, rank=rank)


def _merge(cov: Covariance, where: Mask, own: Array, shared: Array, lost: Mask) -> Covariance:
    """Give the entries ``where`` (B, m) the variance own + shared^2, correlated by ``shared``."""
    known = where[:, None, :]
    left = None if cov.lost is None else cov.lost & ~known
    rows = where
    if cov.per_output:
        rows, own, shared = known, own[:, None, :], shared[:, None, :]
    factor, loading, span = shared[..., None], cov.loading, cov.span
    if cov.factor is not None:
        factor = np.broadcast_to(factor, (*cov.factor.shape[:-1], 1))
        factor = np.concatenate([cov.factor, factor], -1)
    if loading is not None:
        loading = np.concatenate([loading, np.ones_like(loading[..., :1])], -1)
    if span is not None:  # no sample has moved these inputs: their axes are orthogonal to it
        span = np.concatenate([span, np.eye(where.shape[1]) * where[:, None, :]], -1)
    return replace(
        cov,
        diag=own if cov.diag is None else cov.diag + own,
        factor=factor,
        null=None if cov.null is None else np.where(rows[..., None], 0.0, cov.null),
        lost=lost if left is None else left | lost,
        loading=loading,
        span=span,
    )
