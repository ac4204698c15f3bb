"""The uncertainty of the inputs, from a covariance matrix or from standard deviations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._structure import Layout, matrix_of
from gradiator_np._typing import Array

#: Asymmetry, and negative eigenvalues, of a correlation matrix that rounding explains: single
#: precision leaves some 1e-7.
ROUNDING = 1e-6


class InputErrors(NamedTuple):
    """Standard deviations (m,) of the inputs; correlations (m, m), None for independent ones."""

    std: Array
    correlations: Array | None

    def correlated(self, a: NDArray[Any]) -> NDArray[Any]:
        """R a, for a of shape (m,) or (m, r)."""
        return a if self.correlations is None else self.correlations @ a

    @classmethod
    def of(cls, cov_x: Any, std_x: Any, x: Layout) -> InputErrors:
        """From one of the two arguments.

        Raises
        ------
        ValueError
            Where both or none is given, for another shape, and for what is no covariance.
        """
        if (cov_x is None) == (std_x is None):
            raise ValueError(
                "give cov_x (a covariance matrix of the inputs) or std_x (their standard "
                "deviations, independent), one of the two"
            )
        if std_x is not None:
            return cls(deviations(std_x, x, "std_x"), None)
        return cls(*_decomposed(_matrix(cov_x, x), x))


def deviations(value: Any, layout: Layout, what: str, positive: bool = False) -> Array:
    """Standard deviations like x or y as a vector.

    Raises
    ------
    ValueError
        For those that are negative or not finite (or 0, where they must be ``positive``).
    """
    variable = what[-1]
    each = {"x": "inputs", "y": "outputs"}[variable]
    std = checks.like_x(value, layout, what, each)
    good = np.isfinite(std) & ((std > 0) if positive else (std >= 0))
    if not good.all():
        i = int(np.flatnonzero(~good)[0])
        wanted = "positive" if positive else "not negative"
        raise ValueError(
            f"{what} must be finite and {wanted}, got {std[i]} for {variable}{layout.names[i]}"
        )
    return std


def _matrix(cov_x: Any, x: Layout) -> Array:
    """The covariance as (m, m)."""
    a = matrix_of(_numbers(cov_x, "cov_x"), x, x, "cov_x")
    if a.dtype.kind == "c":
        raise TypeError("cov_x must be real, got complex numbers")
    return a.astype(np.float64)


def _numbers(value: Any, what: str) -> Any:
    """An array, or dicts of them, of numbers; a sparse matrix as it is."""
    if isinstance(value, Mapping):
        return {key: _numbers(item, f"{what}[{key!r}]") for key, item in value.items()}
    if hasattr(value, "toarray"):
        return value
    a = checks.numeric(value, what)
    if a.ndim == 1 and what == "cov_x":
        raise ValueError(
            f"cov_x has one axis, {a.shape}; it is a matrix, {2 * a.shape}: give standard "
            "deviations as std_x=, variances as std_x=np.sqrt(variances)"
        )
    return a


def _decomposed(cov: Array, x: Layout) -> tuple[Array, Array | None]:
    """Standard deviations and correlations of a covariance matrix."""
    variance = np.diagonal(cov)
    if not np.isfinite(cov).all() or (variance < 0).any():
        bad = ~np.isfinite(cov).all(1) | (variance < 0)
        raise ValueError(
            "cov_x must be finite, with variances of 0 or more on its diagonal: see the row of "
            + x.listed("x", np.flatnonzero(bad))
        )
    std = np.sqrt(variance)
    known = std > 0
    unit = np.where(known, std, 1.0)
    r = cov / unit[:, None] / unit
    beside = (cov != 0) & ~np.outer(known, known)
    uneven = np.abs(r - r.T) > ROUNDING
    for wrong, text in (
        (beside, "is not 0 though one of the two has variance 0; {0} was seen"),
        (uneven, "differs from its mirror image, {0} and {1}; make cov_x symmetric"),
    ):
        if wrong.any():
            i, j = map(int, np.argwhere(wrong)[0])
            pair = f"cov_x between x{x.names[i]} and x{x.names[j]} "
            raise ValueError(pair + text.format(cov[i, j], cov[j, i]))
    r = (r + r.T) / 2
    if not (r - np.diag(np.diagonal(r))).any():
        return std, None
    least = float(np.linalg.eigvalsh(r)[0])
    if least < -ROUNDING * len(r):
        raise ValueError(
            f"cov_x is no covariance: the least eigenvalue of its correlation matrix is "
            f"{least:.2g}, so a combination of inputs would have a negative variance; correlations "
            "that were rounded need more digits"
        )
    return std, r
