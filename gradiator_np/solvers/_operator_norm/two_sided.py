"""A Jacobian between two known stages: least operator norm of D A E - C in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np._checks import EPS, numeric


def parrott(left: ArrayLike, right: ArrayLike, target: ArrayLike) -> tuple[NDArray[Any], float]:
    r"""Minimise ``||left @ A @ right - target||_2`` over A.

    In the singular bases of D = left and E = right only the block of the target that both reach
    is free, and the least norm of a 2 x 2 block matrix with one free block is the larger norm of
    its fixed column and its fixed row (Parrott). With H the target in those bases the residual's
    free block becomes

    .. math:: -H_{12} (\mu^2 I - H_{22}^H H_{22})^{-1} H_{22}^H H_{21}.

    Least squares, ``D^+ C E^+``, makes that block zero, which is optimal only where
    ``H_12``, ``H_21`` or ``H_22`` vanishes.

    Parameters
    ----------
    left : array_like, shape (p, n)
        D, the Jacobian of what follows.
    right : array_like, shape (m, q)
        E, the Jacobian (or displacements as columns) of what comes before.
    target : array_like, shape (p, q)
        C.

    Returns
    -------
    coef : array, shape (n, m)
        A minimiser; its part outside of what D and E reach is zero.
    value : float
        The minimum, in units of the target.

    Raises
    ------
    ValueError
        If shapes disagree or an entry is not finite.

    References
    ----------
    .. [1] C. Davis, W. M. Kahan, H. F. Weinberger, Norm-preserving dilations and their
       applications to optimal error bounds, SIAM J. Numer. Anal. 19 (1982), 445-469.
    .. [2] S. Parrott, On a quotient norm and the Sz.-Nagy-Foias lifting theorem, J. Funct. Anal.
       30 (1978), 311-328.

    Examples
    --------
    The second column is out of reach; the first is brought below it, not to its least squares:

    >>> from gradiator_np.solvers import parrott
    >>> coef, value = parrott([[1.0], [1.0]], [[1.0, 0.0]], [[1.0, 2.0], [3.0, 4.0]])
    >>> coef.round(3), round(value, 3)
    (array([[2.333]]), 4.472)
    """
    d, e, c = numeric(left, "left"), numeric(right, "right"), numeric(target, "target")
    if d.ndim != 2 or e.ndim != 2 or c.shape != (len(d), e.shape[-1]):
        raise ValueError(
            f"left (p, n), right (m, q) and target (p, q) do not fit together: got shapes "
            f"{d.shape}, {e.shape} and {c.shape}"
        )
    for a, what in ((d, "left"), (e, "right"), (c, "target")):
        if not np.isfinite(a).all():
            raise ValueError(f"{what} must be finite, but has a nan or inf; drop that row")
    u, d_inverse, r = _range(d)
    w, e_inverse, s = _range(e.conj().T)
    h = u.conj().T @ c @ w
    column = np.concatenate([h[:r, s:], h[r:, s:]])
    mu = max(_norm(column), _norm(h[r:]))
    p, sing, qh = np.linalg.svd(h[r:, s:], full_matrices=False)
    # Contractions K and L with H12 = K (mu^2 - s^2)^(1/2) and H21 = (mu^2 - s^2)^(1/2) L in
    # H22's singular basis. Where s reaches mu both sides vanish; dividing by no less than the
    # numerator's own norm keeps what rounding leaves of 0 / 0 a contraction.
    gap = np.sqrt(np.maximum(mu - sing, 0.0)) * np.sqrt(mu + sing)
    k, l = h[:r, s:] @ qh.conj().T, p.conj().T @ h[r:, :s]
    k = k / _nonzero(np.maximum(gap, np.linalg.norm(k, axis=0)))
    l = l / _nonzero(np.maximum(gap, np.linalg.norm(l, axis=1)))[:, None]
    free = -(k * sing) @ l
    # The residual is C - D A E, so D A E fills the free block with H11 - free.
    return d_inverse @ (h[:r, :s] - free) @ e_inverse.conj().T, mu


def _range(a: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], int]:
    """U whose first r columns span a's range, X with ``a @ X = U[:, :r]``, and the rank r.

    Columns are scaled first: their units decide nothing about the rank.
    """
    norm = np.linalg.norm(a, axis=0)
    scale = np.where(norm > 0, norm, 1.0)
    u, sing, vh = np.linalg.svd(a / scale, full_matrices=True)
    r = int((sing > max(a.shape) * EPS * sing.max(initial=0.0)).sum())
    return u, vh[:r].conj().T / sing[:r] / scale[:, None], r


def _norm(a: NDArray[Any]) -> float:
    return float(np.linalg.norm(a, 2)) if a.size else 0.0


def _nonzero(a: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(a > 0, a, 1.0)
