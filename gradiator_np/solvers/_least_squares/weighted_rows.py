"""Weighted, centred rows of one least-squares problem, and the errors of what is fitted to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._covariance import Covariance
from gradiator_np._typing import Array


@dataclass(frozen=True, slots=True)
class WeightedRows:
    """Weighted rows of one problem, all real: a complex output is two real ones.

    Attributes
    ----------
    x, f : array, shape (b, k, m) and (b, k, n or 2 n)
        Centred where there is an intercept, then multiplied by the roots of the weights.
    root : array, shape (b, k), or None
        Those roots.
    mean_x, mean_f : array, shape (b, m) and (b, n or 2 n), or None
        Weighted means that were taken off; None without an intercept.
    count, total : array, shape (b,)
        Samples present, and the sum of their weights.
    is_complex : bool
    """

    x: Array
    f: Array
    root: Array | None
    mean_x: Array | None
    mean_f: Array | None
    count: Array
    total: Array
    is_complex: bool

    @classmethod
    def of(
        cls, dx: Array, df: NDArray[Any], weights: Array | None, intercept: bool
    ) -> WeightedRows:
        is_complex = df.dtype.kind == "c"
        f = np.ascontiguousarray(df).view(np.float64) if is_complex else df
        b, k, _ = dx.shape
        count = total = np.full(b, float(k))
        if weights is not None:
            count, total = (weights > 0).sum(1).astype(np.float64), weights.sum(1)
        mean_x = mean_f = None
        if intercept:
            # From the first row, or rounding of a cloud far from 0 would pass for a direction.
            first = dx[:, :1]
            dx = dx - first
            shift, mean_f = _mean(dx, weights, total), _mean(f, weights, total)
            mean_x = first[:, 0] + shift
            dx -= shift[:, None]
            f = f - mean_f[:, None]
        root = None if weights is None else np.sqrt(weights)
        if root is not None:
            dx, f = dx * root[:, :, None], f * root[:, :, None]
        return cls(dx, f, root, mean_x, mean_f, count, total, is_complex)

    def joined(self, a: Array) -> NDArray[Any]:
        """Outputs of ``a``, shape (b, n or 2 n, ...), as complex numbers where they are."""
        if not self.is_complex:
            return a
        return np.asarray(a[:, 0::2] + 1j * a[:, 1::2])


def residual_scale(rss: Array, dof: Array, noise: Array | None) -> tuple[Array, Array]:
    """Noise of one sample and its degrees of freedom, each of the shape (b, n) of ``rss``.

    From the residual sums of squares, nan without a degree of freedom; or ``noise``, where it is
    given.
    """
    if noise is not None:
        return np.array(np.broadcast_to(noise, rss.shape)), np.full(rss.shape, np.inf)
    dof = np.maximum(dof, 0.0)
    scale = rss / np.where(dof > 0, dof, np.nan)
    return np.sqrt(scale, out=scale), np.broadcast_to(dof, rss.shape)


def value_stderr(cov: Covariance, mean_x: Array, total: Array) -> Array:
    """Standard error of the value at dx = 0, shape (b, n).

    ``mean_x`` (b, n or 1, m) is the weighted mean of the samples, ``total`` (b, n or 1) the sum
    of their weights; inf where dx = 0 lies outside of what the samples span.
    """
    assert cov.factor is not None
    factor = cov.factor if cov.per_output else cov.factor[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = 1 / total + np.square(np.vecmat(mean_x, factor)).sum(-1)
        out = cov.scale * np.sqrt(unit)
    return np.where((total == 0) | cov.undetermined_along(mean_x), np.inf, out)


def _mean(a: Array, weights: Array | None, total: Array) -> Array:
    """Weighted mean over the samples, shape (b, columns); 0 where no sample has weight."""
    if weights is None:
        return np.asarray(a.mean(1))
    return np.asarray(np.vecmat(weights, a) / np.where(total > 0, total, 1.0)[:, None])
