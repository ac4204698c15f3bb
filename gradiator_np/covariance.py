"""What turns noise into error bars of J, of J u and of v^T J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A null vector is orthonormal in scaled inputs; what rounding leaves of an entry that is truly
# zero is some m * eps, so anything below this is no part of the direction.
NULL_TOL = 1e-10
SPAN_TOL = 1e-7


@dataclass(frozen=True, slots=True)
class Covariance:
    r"""Covariance of the rows of an estimated Jacobian.

    Row i of J (the derivative of output i with respect to all inputs) has covariance

    .. math:: s_i^2 (\mathrm{diag}(d) + F F^T) + \mathrm{diag}(e_i)

    and rows of different outputs are independent. All leading axes are batch axes.

    Attributes
    ----------
    scale : array, shape (..., n)
        Standard deviation of one evaluation, per output, in units of y; nan where nothing tells
        it: the error bars are then nan as well.
    diag : array, shape (..., m) or (..., n, m), or None
        Variance of an entry at unit noise, in 1 / x^2, independent between inputs.
    factor : array, shape (..., m, r) or (..., n, m, r), or None
        Square-root factor F of what inputs share, such as the noise of a common base point.
    extra : array, shape (..., n, m), or None
        Variance of an entry that is not noise (truncation), in (y per x)^2.
    null : array, shape (..., m, q) or (..., n, m, q), or None
        Directions in which no sample tells anything: the variance of J u is infinite unless
        u is orthogonal to all of them. Entries of rounding size must be exact zeros.
    per_output : bool
        Whether ``diag``, ``factor`` and ``null`` carry the output axis n.
    lost : array of bool, shape (..., n, m) or (..., 1, m), or None
        Entries that no sample determines: ``null`` along coordinates, without its memory.
    loading : array, shape (..., n, r), or None
        What output i multiplies the columns of a shared ``factor`` with: noise that differs from
        sample to sample, where each column stands for one sample.
    span : array, shape (..., m, r), or None
        In place of ``null`` where r is far below m: orthonormal basis of the directions that the
        samples show, in inputs divided by ``unit``. The variance of J u is infinite unless
        u / unit lies in it. Shared by all outputs.
    unit : array, shape (..., m), or None
    """

    scale: Array
    diag: Array | None = None
    factor: Array | None = None
    extra: Array | None = None
    null: Array | None = None
    per_output: bool = False
    lost: NDArray[np.bool_] | None = None
    loading: Array | None = None
    span: Array | None = None
    unit: Array | None = None

    def variance(self) -> Array:
        """Variance of every entry, shape (..., n, m): inf where undetermined."""
        s2 = np.square(self.scale)[..., None]
        unit = None if self.diag is None else self._rows(self.diag, 1)
        if self.factor is not None:
            if self.loading is None:
                # einsum makes no copy of the squares: a quarter of the time for small batches.
                shared = self._rows(np.einsum("...r,...r->...", self.factor, self.factor), 1)
            else:
                shared = np.square(self.loading) @ np.square(self.factor).swapaxes(-1, -2)
            unit = shared if unit is None else unit + shared
        var = np.zeros_like(s2) if unit is None else s2 * unit
        if self.extra is not None:
            var = var + self.extra
        if self.null is not None:
            var = np.where(self._rows((self.null != 0).any(-1), 1), np.inf, var)
        if self.lost is not None:
            var = np.where(self.lost, np.inf, var)
        if self.span is not None:
            # 1 - |row|^2 is the squared part of an input outside of the span; SPAN_TOL squared
            # is above its rounding.
            shown = np.einsum("...r,...r->...", self.span, self.span) > 1 - SPAN_TOL**2
            var = np.where(shown[..., None, :], var, np.inf)
        return np.asarray(var)

    def stderr(self) -> Array:
        """One standard error of every entry, shape (..., n, m)."""
        var = self.variance()
        return np.sqrt(var, out=var)

    def jvp_variance(self, u: Array) -> Array:
        """Variance of J u for tangents u of shape (..., m): shape (..., n)."""
        var = np.square(self.scale) * self._quadratic(u)
        if self.extra is not None:
            var = var + np.einsum("...nm,...m->...n", self.extra, u * u)
        if self.null is not None:
            var = np.where(self._undetermined(u), np.inf, var)
        if self.lost is not None:
            var = np.where((self.lost & (u[..., None, :] != 0)).any(-1), np.inf, var)
        if self.span is not None:
            var = np.where(self.outside(u)[..., None], np.inf, var)
        return np.asarray(var)

    def outside(self, u: Array) -> NDArray[np.bool_]:
        """Whether tangents u (..., m) have a part outside of ``span``, shape (...)."""
        assert self.span is not None
        assert self.unit is not None
        scaled = u / self.unit
        along = np.matvec(self.span, np.vecmat(scaled, self.span))
        rest = np.linalg.norm(scaled - along, axis=-1)
        return np.asarray(rest > SPAN_TOL * np.linalg.norm(scaled, axis=-1))

    def vjp_variance(self, v: Array) -> Array:
        """Variance of v^T J for cotangents v of shape (..., n): shape (..., m)."""
        # Outputs are independent: entry variances add up, weighted by v^2. An output with
        # v_i = 0 takes no part, so its inf must not turn into 0 * inf = nan.
        var = self.variance()
        v2 = np.square(v)[..., None]
        terms = np.multiply(v2, var, where=v2 != 0, out=np.zeros(np.broadcast(v2, var).shape))
        return np.asarray(terms.sum(-2))

    def product_variance(self, v: Array, u: Array) -> Array:
        """Variance of the scalar v^T J u, shape (...)."""
        var = self.jvp_variance(u)
        v2 = np.square(v)
        terms = np.multiply(v2, var, where=v2 != 0, out=np.zeros(np.broadcast(v2, var).shape))
        return np.asarray(terms.sum(-1))

    def _rows(self, a: NDArray[Any], trailing: int) -> NDArray[Any]:
        """Give ``a`` an output axis before its last ``trailing`` axes."""
        return a if self.per_output else np.expand_dims(a, -1 - trailing)

    def _quadratic(self, u: Array) -> Array:
        """u^T (diag(d) + F F^T) u, shape (..., n) or (..., 1)."""
        w = u[..., None, :] if self.per_output else u
        out = np.zeros(w.shape[:-1])
        if self.diag is not None:
            out = out + (self.diag * w * w).sum(-1)
        if self.factor is not None:
            along = (self.factor * w[..., None]).sum(-2)
            if self.loading is not None:
                return np.asarray(
                    out[..., None] + np.square(along[..., None, :] * self.loading).sum(-1)
                )
            out = out + np.square(along).sum(-1)
        return np.asarray(out if self.per_output else out[..., None])

    def _undetermined(self, u: Array) -> NDArray[np.bool_]:
        """Whether u has a part in ``null``, shape (..., n) or (..., 1)."""
        assert self.null is not None
        w = u[..., None, :] if self.per_output else u
        terms = self.null * w[..., None]
        # Free of units: a sum that cancels to rounding is orthogonal.
        lost = (np.abs(terms.sum(-2)) > NULL_TOL * np.abs(terms).sum(-2)).any(-1)
        return np.asarray(lost if self.per_output else lost[..., None])
