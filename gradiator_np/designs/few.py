"""The line model with one or two pairs, in closed form: sums of positive terms, which lose nothing.

All variances are in units of b^2. Shapes: ... rows, Q terms, S states; p = t^2, t^4, .. (..., Q),
``terms`` are the prior variances (..., Q, S), v the variances of the noise (..., S).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def powers(t: Array, terms: int) -> Array:
    """t^2, t^4, .. along a new last axis."""
    return np.asarray(np.square(t)[..., None] ** np.arange(1, terms + 1))


def contrast(p1: Array, p2: Array, v1: Array, v2: Array, terms: Array) -> Array:
    """Variance of D1 - D2."""
    return np.asarray(v1 + v2 + np.square(p1 - p2) @ terms)


def _determinant(p1: Array, p2: Array, v1: Array, v2: Array, terms: Array) -> Array:
    """Determinant of the covariance of two sums of terms and noise (Cauchy and Binet)."""
    q, r = np.triu_indices(p1.shape[-1], 1)
    cross = p1[..., q] * p2[..., r] - p1[..., r] * p2[..., q]
    out = v1 * v2 + v1 * (np.square(p2) @ terms) + v2 * (np.square(p1) @ terms)
    return np.asarray(out + np.square(cross) @ (terms[..., q, :] * terms[..., r, :]))


def two_slopes(p1: Array, p2: Array, v1: Array, v2: Array, terms: Array) -> tuple[Array, Array]:
    """Weight of D1 in the estimate of g from D1 and D2, and its variance."""
    spread = contrast(p1, p2, v1, v2, terms)
    weight = (v2 - (p2 * (p1 - p2)) @ terms) / spread
    return weight, _determinant(p1, p2, v1, v2, terms) / spread


def normal(y: Array, variance: Array) -> Array:
    """Log-likelihood of y (...), up to a constant."""
    return np.asarray(-0.5 * (np.log(variance) + np.square(y)[..., None] / variance))


def two_normals(
    y1: Array, y2: Array, p1: Array, p2: Array, v1: Array, v2: Array, shared: Array, terms: Array
) -> Array:  # fmt: skip
    """The same of two sums of terms and noise, of which the variance ``shared`` (...) is common."""
    y1, y2, shared = y1[..., None], y2[..., None], shared[..., None]
    square = v2 * np.square(y1) + v1 * np.square(y2) + shared * np.square(y1 - y2)
    square = square + np.square(p2 * y1 - p1 * y2) @ terms
    det = _determinant(p1, p2, v1, v2, terms)
    det = det + shared * contrast(p1, p2, v1, v2, terms)
    return np.asarray(-0.5 * (np.log(det) + square / det))
