"""Standard errors through a composition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np import checks
from gradiator_np.covariance import Covariance
from gradiator_np.structure import Layout, blocks

Array = NDArray[np.float64]


class Part(NamedTuple):
    """An estimated stage between what comes after and before it: the error left dJ right."""

    left: NDArray[Any]
    cov: Covariance
    right: NDArray[Any]


@dataclass(frozen=True, eq=False)
class ChainEstimate:
    """The Jacobian of a chain with standard errors that went through the chain.

    Errors of different stages are independent; those of a stage are propagated by its covariance
    to first order. What the noise of a value does to the point of the next stage is left out: it
    is of second order.

    Attributes
    ----------
    matrix : array, shape (n, m)
        The Jacobian as a flat array.
    parts : tuple of Part
        The estimated stages.
    x_layout, y_layout : Layout
        How flat arrays and the user's values correspond.
    y : array
        The value of the chain.
    """

    matrix: NDArray[Any]
    parts: tuple[Part, ...]
    x_layout: Layout
    y_layout: Layout
    y: Any

    @property
    def jac(self) -> Any:
        """The Jacobian, shape ``y.shape + x.shape``."""
        return blocks(self.matrix, self.y_layout, self.x_layout)

    @property
    def stderr(self) -> Any:
        """One standard error of each entry; 0 where every stage is exact."""
        var = np.zeros(self.matrix.shape)
        for left, cov, right in self.parts:
            var += _weighted(np.abs(left) ** 2, _variance(cov, right.T).T)
        return blocks(np.sqrt(var), self.y_layout, self.x_layout)

    def jvp(self, u: Any) -> Any:
        """J u for u of the shape of x."""
        flat = self._direction(u, self.x_layout, "u")
        return self.y_layout.unflatten(self.matrix @ flat)

    def vjp(self, v: Any) -> Any:
        """v^T J for v of the shape of y (no conjugate)."""
        flat = self._direction(v, self.y_layout, "v")
        return self.x_layout.unflatten(flat @ self.matrix)

    def jvp_stderr(self, u: Any) -> Any:
        """Standard error of ``jvp(u)``."""
        flat = self._direction(u, self.x_layout, "u")
        var = np.zeros(len(self.matrix))
        for left, cov, right in self.parts:
            var += _weighted(np.abs(left) ** 2, _variance(cov, right @ flat)[:, None])[:, 0]
        return self.y_layout.unflatten(np.sqrt(var))

    def vjp_stderr(self, v: Any) -> Any:
        """Standard error of ``vjp(v)``."""
        flat = self._direction(v, self.y_layout, "v")
        var = np.zeros(self.matrix.shape[1])
        for left, cov, right in self.parts:
            weights = np.abs(flat @ left)[None] ** 2
            var += _weighted(weights, _variance(cov, right.T).T)[0]
        return self.x_layout.unflatten(np.sqrt(var))

    def _direction(self, value: Any, layout: Layout, what: str) -> NDArray[Any]:
        flat, lead = checks.direction(value, layout, what)
        if lead:
            raise ValueError(f"{what} has shape {np.shape(value)}; give one at a time here")
        return flat


def _weighted(weights: Array, var: Array) -> Array:
    """weights @ var, where a weight of 0 silences an unknown (inf, nan) error."""
    known = np.isfinite(var)
    out = weights @ np.where(known, var, 0.0)
    reached = (weights != 0).astype(np.float64)
    out[reached @ np.isinf(var) > 0] = np.inf
    out[reached @ np.isnan(var) > 0] = np.nan
    return np.asarray(out)


def _variance(cov: Covariance, u: NDArray[Any]) -> Array:
    """Variance of dJ u for tangents (..., m); of real and imaginary part together."""
    var = cov.jvp_variance(np.ascontiguousarray(u.real, dtype=np.float64))
    if u.dtype.kind == "c":
        var = var + cov.jvp_variance(np.ascontiguousarray(u.imag))
    return var
