"""The choice of least norm among dependent inputs, which is no business of the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def keep_determined(root: Array, v: Array, sigma: Array, unit: Array, null: Array) -> None:
    """Keep inputs that the samples determine out of the choice of least norm, in place.

    Rounding leaves 1e-16 of them in the null space, and where their unit is 1e16 times that of a
    dependent input, least norm would trade on it: a residual of 2.1 in place of 1.2 for inputs
    of 1e8 (twice), 1e4 and 1e-9.

    Parameters
    ----------
    root : array, shape (b, m, r)
        G with ``(u sigma v^T / unit)^+ = G u^T``, rewritten where inputs are undetermined in part.
    v, sigma, unit : array, shape (b, m, r), (b, r) and (b, m)
    null : array, shape (b, m, m - r)
        Null vectors in the inputs' units: exact zeros for determined inputs.
    """
    touched = (null != 0).any(2)
    for i in np.flatnonzero(~touched.all(1)):
        t = touched[i]
        root[i] = unit[i][:, None] * v[i] / sigma[i]
        others = np.linalg.qr(null[i, t] / unit[i, t, None], mode="complete")[0]
        others = others[:, null.shape[2] :]
        # Rows differ in size as units do: sorted, Householder QR is accurate row by row.
        order = np.argsort(unit[i, t])
        q, r = np.linalg.qr((others / unit[i, t, None])[order])
        least = np.empty_like(q)
        least[order] = q @ np.linalg.solve(r.T, others.T @ v[i, t])
        root[i, t] = least / sigma[i]
