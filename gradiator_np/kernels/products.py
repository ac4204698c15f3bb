"""Products with stacks of Jacobians: J u and v^T J for every J of a stack.

Loops beat BLAS only where a matrix is too small for a call of its own. Measured with Numba 0.68
and OpenBLAS on one core (``benchmarks.kernels``), 1000 square matrices: time of ``np.matmul``
over that of the kernel, for float64 in the first two columns and complex128 in the others.

=====  ====  ====  ====  ====
size   J u   v^TJ  J u   v^TJ
=====  ====  ====  ====  ====
2x2    7.1   6.2   5.0   4.1
4x4    4.6   3.2   2.3   2.0
8x8    2.1   1.6   1.1   1.0
12x12  1.2   1.0   0.7   0.6
16x16  0.8   0.7   0.6   0.5
=====  ====  ====  ====  ====

So `jvp` and `vjp` take the kernels up to 64 entries a matrix, and BLAS above.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

SMALL = 64  # entries of one Jacobian up to which the loops win (table above)


@njit(cache=True, nogil=True, error_model="numpy")
def jvp_kernel(jac: NDArray[Any], u: NDArray[Any], out: NDArray[Any]) -> None:
    """out[b, t, i] = sum_j jac[b, i, j] u[b, t, j]: (B, n, m), (B, q, m) -> (B, q, n)."""
    for b in range(jac.shape[0]):
        for t in range(u.shape[1]):
            for i in range(jac.shape[1]):
                out[b, t, i] = 0
                acc = out[b, t, i]
                for j in range(jac.shape[2]):
                    acc += jac[b, i, j] * u[b, t, j]
                out[b, t, i] = acc


@njit(cache=True, nogil=True, error_model="numpy")
def vjp_kernel(jac: NDArray[Any], v: NDArray[Any], out: NDArray[Any]) -> None:
    """out[b, t, j] = sum_i v[b, t, i] jac[b, i, j]: (B, n, m), (B, q, n) -> (B, q, m)."""
    for b in range(jac.shape[0]):
        for t in range(v.shape[1]):
            for j in range(jac.shape[2]):
                out[b, t, j] = 0
                acc = out[b, t, j]
                for i in range(jac.shape[1]):
                    acc += v[b, t, i] * jac[b, i, j]
                out[b, t, j] = acc


def jvp(jac: NDArray[Any], u: NDArray[Any]) -> NDArray[Any]:
    """J u for a stack of Jacobians.

    Parameters
    ----------
    jac : array, shape (B, n, m)
    u : array, shape (B, q, m)
        q tangents for each Jacobian.

    Returns
    -------
    array, shape (B, q, n)
        float64, or complex128 where an argument is complex.
    """
    if jac.shape[1] * jac.shape[2] > SMALL:
        return np.asarray(u @ jac.transpose(0, 2, 1))
    jac, u, out = _prepared(jac, u, jac.shape[1])
    jvp_kernel(jac, u, out)
    return out


def vjp(jac: NDArray[Any], v: NDArray[Any]) -> NDArray[Any]:
    """v^T J for a stack of Jacobians (no conjugate).

    Parameters
    ----------
    jac : array, shape (B, n, m)
    v : array, shape (B, q, n)
        q cotangents for each Jacobian.

    Returns
    -------
    array, shape (B, q, m)
        float64, or complex128 where an argument is complex.
    """
    if jac.shape[1] * jac.shape[2] > SMALL:
        return np.asarray(v @ jac)
    jac, v, out = _prepared(jac, v, jac.shape[2])
    vjp_kernel(jac, v, out)
    return out


def _prepared(
    jac: NDArray[Any], vectors: NDArray[Any], size: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Both of one dtype and C-contiguous, one specialisation a dtype, and room for the result."""
    dtype = np.complex128 if "c" in (jac.dtype.kind, vectors.dtype.kind) else np.float64
    jac = np.ascontiguousarray(jac, dtype)
    vectors = np.ascontiguousarray(vectors, dtype)
    return jac, vectors, np.empty((*vectors.shape[:2], size), dtype)
