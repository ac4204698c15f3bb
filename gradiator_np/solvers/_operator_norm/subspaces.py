"""Linear sets of Jacobians: least squares over them, and what the samples leave open.

A structured fit searches A in a linear set (sparsity pattern, symmetry, both). Its residuals
fill an affine subspace ``R0 + V``, ``V = {A B}``, and all that an iteration over residuals needs
is the A whose product A B is the orthogonal projection of a given matrix on V.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from gradiator_np._checks import EPS
from gradiator_np._covariance import NULL_TOL
from gradiator_np._typing import Array, Mask
from gradiator_np.kernels.spectral import pattern_coefficients
from gradiator_np.solvers._least_squares.linear import stacked_lstsq

# Unknowns of a symmetric Jacobian with a pattern: their dense normal matrix is 32 MB at 2000.
MAX_ENTRIES = 2000


class Subspace(Protocol):
    """A linear set of (n, m) matrices A, seen through the samples."""

    rank: int
    """Unknowns that the samples determine."""
    unknowns: int
    cond: float
    """Condition of the scaled samples over what they determine: the worst row's."""

    def coef(self, residual: NDArray[Any]) -> NDArray[Any]:
        """The A of least norm whose A B is the projection of ``residual`` (n, k) on V."""

    def null(self) -> Array | None:
        """Directions (n, m, q) that row i of A may take unseen by any sample, or None."""


class PatternSpace:
    """Row i has the free entries ``free[i]``; all others are zero.

    The bases of the projection would take n k s numbers for s entries a row; their factors take
    n s^2 (and rows with equal patterns share one): a basis is ``dx[:, S_i] M_i``. An error of
    rounding in ``M_i^T (dx^T r)`` grows by the condition number of row i once, not twice, since
    M_i comes from an orthogonal factorisation.
    """

    def __init__(self, dx: Array, free: Mask) -> None:
        self._dx = dx
        n = free.shape[0]
        self._indptr = np.concatenate([[0], np.cumsum(free.sum(1))]).astype(np.int64)
        self._indices = np.nonzero(free)[1]
        self._start = np.zeros(n, dtype=np.int64)
        self._ranks = np.zeros(n, dtype=np.int64)
        self._nulls: list[tuple[int, Array]] = []
        self.cond, at = 1.0, 0
        seen: dict[bytes, int] = {}
        flat: list[Array] = []
        for i in range(n):
            key = free[i].tobytes()
            if key in seen:
                j = seen[key]
                self._start[i], self._ranks[i] = self._start[j], self._ranks[j]
                self._nulls.extend([(i, null) for row, null in self._nulls if row == j])
                continue
            seen[key] = i
            inputs = self._inputs(i)
            fit = stacked_lstsq(dx[None][:, :, inputs], np.empty((1, len(dx), 0)))
            factor = fit.factor[0][:, : fit.rank[0]]
            self.cond = np.fmax(self.cond, fit.cond[0])
            self._start[i], self._ranks[i] = at, factor.shape[1]
            if fit.null is not None:
                self._nulls.append((i, fit.null[0]))
            flat.append(factor.ravel())
            at += factor.size
        self._factors = np.concatenate(flat) if flat else np.zeros(0)
        self._shape = free.shape
        self.rank = int(self._ranks.sum())
        self.unknowns = int(self._indptr[-1])

    def _inputs(self, i: int) -> NDArray[np.intp]:
        return self._indices[self._indptr[i] : self._indptr[i + 1]]

    def coef(self, residual: NDArray[Any]) -> NDArray[Any]:
        inner = residual @ self._dx
        out = np.zeros_like(inner)
        scratch = np.zeros(int(self._ranks.max(initial=0)) + 1, dtype=inner.dtype)
        pattern_coefficients(
            inner,
            self._indptr,
            self._indices,
            self._start,
            self._ranks,
            self._factors,
            scratch,
            out,
        )
        return out

    def null(self) -> Array | None:
        if not self._nulls:
            return None
        out = np.zeros((*self._shape, max(null.shape[1] for _, null in self._nulls)))
        for i, null in self._nulls:
            out[i, self._inputs(i), : null.shape[1]] = null
        return out


class SymmetricSpace:
    """A = A^T, in the right singular basis of dx, where its normal equations are diagonal.

    With ``dx = P s V^T`` and ``A = V a V^T`` the projection minimises
    ``sum (a_ij s_j - t_ij)^2``, so ``a_ij = (t_ij s_j + t_ji s_i) / (s_i^2 + s_j^2)``.
    One-sided Jacobi (LAPACK gejsv) finds every singular value to full relative accuracy however
    far the inputs' scales lie apart, which bidiagonalisation does not.
    """

    def __init__(self, dx: Array) -> None:
        k, m = dx.shape
        # gejsv wants k >= m; rows of zeros change nothing.
        tall = dx if k >= m else np.concatenate([dx, np.zeros((m - k, m))])
        sing, left, right, work, _, failed = lapack.dgejsv(tall, joba=0, jobu=0, jobv=0)
        if failed:
            raise ValueError("the samples dx have no singular value decomposition: rescale them")
        sing = sing * (work[0] / work[1])
        # Relative to its own column: a small input is not a missing one.
        scale = np.linalg.norm(dx, axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        own = np.linalg.svd(dx / scale, compute_uv=False)
        r = int((own > max(k, m) * EPS * own.max(initial=0.0)).sum())
        if r < m and sing[r - 1] <= 10 * max(k, m) * EPS * sing[0]:
            raise ValueError(
                "the samples determine only part of the inputs, and the inputs' scales lie so "
                "far apart that a symmetric fit cannot tell which; add samples or rescale"
            )
        self._sing = np.where(np.arange(m) < r, sing, 0.0)
        self._left, self._right = left[:k], right
        total = np.square(self._sing)[:, None] + np.square(self._sing)
        self._inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
        q = m - r
        self.unknowns = m * (m + 1) // 2
        self.rank = self.unknowns - q * (q + 1) // 2
        self.cond = float(own[0] / own[r - 1]) if r else 1.0

    def coef(self, residual: NDArray[Any]) -> NDArray[Any]:
        t = (self._right.T @ (residual @ self._left)) * self._sing
        return np.asarray(self._right @ ((t + t.T) * self._inverse) @ self._right.T)

    def null(self) -> Array | None:
        lost = self._right[:, self._sing == 0]
        if not lost.shape[1]:
            return None
        # Row i of N K N^T is a combination of N's columns, unless N misses output i.
        touched = np.linalg.norm(lost, axis=1) > NULL_TOL
        return np.asarray(np.where((touched[:, None] & touched)[:, :, None], lost, 0.0))


class SymmetricPatternSpace:
    """A = A^T with the free entries ``free`` (symmetric), by normal equations of its entries.

    Entries above the diagonal, p of them, are scaled to columns of unit length first. Squaring
    limits the condition number to 1e7; directions beyond it count as undetermined.
    """

    def __init__(self, dx: Array, free: Mask) -> None:
        self._dx = dx
        i, j = np.nonzero(np.triu(free))
        p = len(i)
        if p > MAX_ENTRIES:
            raise ValueError(
                f"a symmetric Jacobian with {p} unknown entries and known others needs a dense "
                f"matrix of {p} x {p}, and {MAX_ENTRIES} is the limit; give up either the "
                "symmetry or the pattern"
            )
        gram = dx.T @ dx
        off = i != j
        normal = gram[np.ix_(j, j)] * (i[:, None] == i)
        normal += gram[np.ix_(j, i)] * ((i[:, None] == j) & off)
        normal += gram[np.ix_(i, j)] * ((j[:, None] == i) & off[:, None])
        normal += gram[np.ix_(i, i)] * ((j[:, None] == j) & off[:, None] & off)
        norm = np.sqrt(np.diag(normal))
        scale = np.where(norm > 0, norm, 1.0)
        lam, vec = np.linalg.eigh(normal / scale[:, None] / scale)
        keep = lam > 10 * p * EPS * lam.max(initial=0.0)
        self._factor = vec[:, keep] / np.sqrt(lam[keep]) / scale[:, None]
        self._lost = vec[:, ~keep] / scale[:, None]
        self._i, self._j, self._off = i, j, off
        self.unknowns, self.rank = p, int(keep.sum())
        self.cond = float(np.sqrt(lam[-1] / lam[keep][0])) if keep.any() else 1.0

    def coef(self, residual: NDArray[Any]) -> NDArray[Any]:
        inner = residual @ self._dx
        gradient = inner[self._i, self._j] + inner[self._j, self._i] * self._off
        out = np.zeros_like(inner)
        self._fill(out, self._factor @ (self._factor.T @ gradient))
        return out

    def null(self) -> Array | None:
        if not self._lost.shape[1]:
            return None
        m = self._dx.shape[1]
        out = np.zeros((m, m, self._lost.shape[1]))
        self._fill(out, self._lost)
        return np.where(np.abs(out) > NULL_TOL * np.abs(out).max((0, 1)), out, 0.0)

    def _fill(self, out: NDArray[Any], entries: NDArray[Any]) -> None:
        out[self._i, self._j] = entries
        out[self._j, self._i] = entries
