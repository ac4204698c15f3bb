"""Many small least-squares problems at once, by Householder QR.

The innermost loop runs over problems, not over samples: ``lanes`` problems lie side by side in
the scratch array, so every operation is a vector operation without reordering a sum.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]


@njit(cache=True, nogil=True, error_model="numpy")
def lstsq_batch(
    dx: Array,
    df: Array,
    coef: Array,
    factor: Array,
    rss: Array,
    cond: Array,
    lanes: int,
    power: int,
) -> None:
    """Solve ``dx coef^T ~ df`` in the sense of least squares, problem by problem.

    Parameters
    ----------
    dx : array, shape (b, k, m)
        Samples as rows, k >= m.
    df : array, shape (b, k, n)
    coef : array, shape (b, n, m)
        Out: the solutions. Not finite where the columns of dx are dependent.
    factor : array, shape (b, m, m)
        Out: the upper triangle of F with F F^T = (dx^T dx)^-1; its lower one is left alone.
    rss : array, shape (b, n)
        Out: residual sums of squares.
    cond : array, shape (b, 2)
        Out: condition number of dx with columns scaled to norm 1, first an estimate in the 2-norm
        (from below), then the upper bound ``||R||_F ||R^-1||_F``; inf or nan where singular.
    lanes : int
        How many problems are solved side by side; any positive number gives the same result.
    power : int
        Steps of power iteration behind the estimate of the condition number.
    """
    n_batch, k, m = dx.shape
    n = df.shape[2]
    a = np.empty((m + n, k, lanes))
    inv = np.empty((m, m, lanes))
    scale = np.empty((m, lanes))
    t = np.empty((3, lanes))
    v = np.empty((m, lanes))
    for start in range(0, n_batch, lanes):
        w = min(lanes, n_batch - start)
        _load(dx, df, start, w, a, scale, t)
        for j in range(m):
            _reflect(a, j, w, t)
        _invert(a, m, w, inv)
        _condition(a, inv, start, w, power, cond, t, v)
        for c in range(n):
            for l in range(w):
                t[0, l] = 0.0
            for i in range(m, k):
                for l in range(w):
                    t[0, l] += a[m + c, i, l] * a[m + c, i, l]
            for l in range(w):
                rss[start + l, c] = t[0, l]
            # R x = Q^T df by columns, in place.
            for j in range(m - 1, -1, -1):
                for l in range(w):
                    a[m + c, j, l] /= a[j, j, l]
                for i in range(j):
                    for l in range(w):
                        a[m + c, i, l] -= a[j, i, l] * a[m + c, j, l]
                for l in range(w):
                    coef[start + l, c, j] = a[m + c, j, l] * scale[j, l]
        for i in range(m):
            for j in range(i, m):
                for l in range(w):
                    factor[start + l, i, j] = inv[j, i, l] * scale[i, l]


@njit(cache=True, nogil=True, error_model="numpy")
def _load(dx: Array, df: Array, start: int, w: int, a: Array, scale: Array, t: Array) -> None:
    """Copy w problems into lanes, columns of dx scaled to norm 1; ``scale`` is what they took."""
    k, m = dx.shape[1:]
    n = df.shape[2]
    for l in range(w):
        for i in range(k):
            for j in range(m):
                a[j, i, l] = dx[start + l, i, j]
            for j in range(n):
                a[m + j, i, l] = df[start + l, i, j]
    for j in range(m):
        # By the largest entry first: squares of 1e200 or 1e-200 leave the range of floats.
        for l in range(w):
            t[0, l] = 0.0
            t[1, l] = 0.0
        for i in range(k):
            for l in range(w):
                t[0, l] = max(t[0, l], abs(a[j, i, l]))
        for l in range(w):
            t[0, l] = 1.0 / t[0, l] if t[0, l] > 0.0 else 1.0
        for i in range(k):
            for l in range(w):
                x = a[j, i, l] * t[0, l]
                t[1, l] += x * x
        for l in range(w):
            scale[j, l] = t[0, l] / np.sqrt(t[1, l]) if t[1, l] > 0.0 else 1.0
        for i in range(k):
            for l in range(w):
                a[j, i, l] *= scale[j, l]


@njit(cache=True, nogil=True, error_model="numpy")
def _reflect(a: Array, j: int, w: int, t: Array) -> None:
    """Apply the Householder reflection that clears column j below its diagonal."""
    k = a.shape[1]
    for l in range(w):
        t[0, l] = 0.0
    for i in range(j, k):
        for l in range(w):
            t[0, l] += a[j, i, l] * a[j, i, l]
    for l in range(w):
        norm = np.sqrt(t[0, l])
        head = a[j, j, l]
        beta = -norm if head > 0.0 else norm
        # H = I - v v^T / (norm (norm + |head|)) with v = column - beta e_j.
        t[1, l] = 1.0 / (norm * (norm + abs(head))) if norm > 0.0 else 0.0
        t[2, l] = beta
        a[j, j, l] = head - beta
    for c in range(j + 1, a.shape[0]):
        for l in range(w):
            t[0, l] = 0.0
        for i in range(j, k):
            for l in range(w):
                t[0, l] += a[j, i, l] * a[c, i, l]
        for l in range(w):
            t[0, l] *= t[1, l]
        for i in range(j, k):
            for l in range(w):
                a[c, i, l] -= t[0, l] * a[j, i, l]
    for l in range(w):
        a[j, j, l] = t[2, l]


@njit(cache=True, nogil=True, error_model="numpy")
def _invert(a: Array, m: int, w: int, inv: Array) -> None:
    """Inverse of the upper triangle R[i, j] = a[j, i]: inv[j, i] for i <= j."""
    for j in range(m):
        for l in range(w):
            inv[j, j, l] = 1.0 / a[j, j, l]
        for i in range(j - 1, -1, -1):
            for l in range(w):
                inv[j, i, l] = 0.0
            for p in range(i + 1, j + 1):
                for l in range(w):
                    inv[j, i, l] -= a[p, i, l] * inv[j, p, l]
            for l in range(w):
                inv[j, i, l] *= inv[i, i, l]


@njit(cache=True, nogil=True, error_model="numpy")
def _condition(
    a: Array, inv: Array, start: int, w: int, power: int, cond: Array, t: Array, v: Array
) -> None:
    """Condition numbers of R: by ``power`` steps of power iteration, and the Frobenius bound."""
    m = inv.shape[0]
    for l in range(w):
        t[0, l] = 0.0
        t[1, l] = 0.0
    for j in range(m):
        for i in range(j + 1):
            for l in range(w):
                t[0, l] += inv[j, i, l] * inv[j, i, l]
                t[1, l] += a[j, i, l] * a[j, i, l]
    for l in range(w):
        cond[start + l, 1] = np.sqrt(t[0, l] * t[1, l])
    _growth(a, m, w, power, t, v)
    for l in range(w):
        cond[start + l, 0] = t[0, l]
    _growth(inv, m, w, power, t, v)
    for l in range(w):
        cond[start + l, 0] *= t[0, l]


@njit(cache=True, nogil=True, error_model="numpy")
def _growth(r: Array, m: int, w: int, power: int, t: Array, v: Array) -> None:
    """Leave in t[0] the 2-norm of the triangle R[i, j] = r[j, i], from below."""
    for j in range(m):
        for l in range(w):
            # Any start that no structured problem is orthogonal to.
            v[j, l] = 1.0 + 0.37 * ((j * 7) % 11 - 5) / 11.0
    for _ in range(power):
        for l in range(w):
            t[1, l] = 0.0
            t[2, l] = 0.0
        # y = R v overwrites v from the top, then z = R^T y from the bottom.
        for i in range(m):
            for l in range(w):
                v[i, l] *= r[i, i, l]
            for j in range(i + 1, m):
                for l in range(w):
                    v[i, l] += r[j, i, l] * v[j, l]
            for l in range(w):
                t[1, l] += v[i, l] * v[i, l]
        for j in range(m - 1, -1, -1):
            for l in range(w):
                v[j, l] *= r[j, j, l]
            for i in range(j):
                for l in range(w):
                    v[j, l] += r[j, i, l] * v[i, l]
            for l in range(w):
                t[2, l] += v[j, l] * v[j, l]
        for l in range(w):
            t[0, l] = np.sqrt(t[2, l] / t[1, l])
            t[2, l] = 1.0 / np.sqrt(t[2, l])
        for j in range(m):
            for l in range(w):
                v[j, l] *= t[2, l]
