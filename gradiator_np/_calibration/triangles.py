"""Triangular factors: what they tell of rank without singular values, at a tenth of the time."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from gradiator_np._typing import Array


def triangle(jac: Array) -> Array:
    """R of J = QR, whose products are J's, at most m rows."""
    return np.asarray(np.linalg.qr(jac, mode="r")) if len(jac) > jac.shape[1] else jac


def regular_inverse(r: Array, tol: float) -> Array | None:
    """Inverse of an upper triangle, where its condition number is surely below 1 / tol.

    By |R|_F |R^-1|_F, which is at least the ratio of the largest singular value to the least one.
    None where that is more, or where R is not square.
    """
    if r.shape[0] != r.shape[1] or not np.diagonal(r).all():
        return None
    inverse = np.asarray(lapack.dtrtri(r)[0])
    with np.errstate(over="ignore", invalid="ignore"):
        known = np.linalg.norm(r) * np.linalg.norm(inverse) * tol < 1.0
    return inverse if known else None
