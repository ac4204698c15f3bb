"""Standard errors through a composition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._covariance import Covariance
from gradiator_np._results import words_of
from gradiator_np._structure import Layout, blocks
from gradiator_np._text import entry_lines
from gradiator_np._typing import Array


class Part(NamedTuple):
    """An estimated stage between what comes after and before it: the error left dJ right."""

    left: NDArray[Any]
    cov: Covariance
    right: NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class ChainEstimate:
    """The Jacobian of a chain with standard errors that went through the chain.

    Errors of different stages are independent; those of a stage are propagated by its covariance
    to first order. What the noise of a value does to the point of the next stage is left out: it
    is of second order.

    Attributes
    ----------
    y : array
        The value of the chain.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import Chain
    >>> chain = Chain(np.array([[1.0, 2.0], [3.0, 4.0]]), lambda x: x**2, noise=1e-3)
    >>> estimate = chain.estimate(np.ones(2))
    >>> estimate.jac.shape, bool((estimate.stderr > 0).all())
    ((2, 2), True)
    """

    _matrix: NDArray[Any]
    _parts: tuple[Part, ...]
    _x_layout: Layout
    _y_layout: Layout
    y: Any

    def __repr__(self) -> str:
        words = words_of(self._y_layout, self._x_layout, ".jac, .stderr")
        n, m = self._matrix.shape
        head = f"ChainEstimate: {n} outputs x {m} inputs ({len(self._parts)} stages estimated)"
        return "\n".join([head, *entry_lines(self._matrix, np.sqrt(self._variance()), words)])

    @property
    def jac(self) -> Any:
        """The Jacobian, shape ``y.shape + x.shape``."""
        return blocks(self._matrix, self._y_layout, self._x_layout)

    @property
    def stderr(self) -> Any:
        """One standard error of each entry; 0 where every stage is exact."""
        return blocks(np.sqrt(self._variance()), self._y_layout, self._x_layout)

    def _variance(self) -> Array:
        """Of every entry, shape (n, m)."""
        var = np.zeros(self._matrix.shape)
        for left, cov, right in self._parts:
            var += _weighted(np.abs(left) ** 2, cov.jvp_variance(np.ascontiguousarray(right.T)).T)
        return var

    def jvp(self, u: Any) -> Any:
        """J u for u of the shape of x."""
        flat = self._direction(u, self._x_layout, "u")
        return self._y_layout.unflatten(self._matrix @ flat)

    def vjp(self, v: Any) -> Any:
        """v^T J for v of the shape of y (no conjugate)."""
        flat = self._direction(v, self._y_layout, "v")
        return self._x_layout.unflatten(flat @ self._matrix)

    def jvp_stderr(self, u: Any) -> Any:
        """Standard error of ``jvp(u)``."""
        flat = self._direction(u, self._x_layout, "u")
        var = np.zeros(len(self._matrix))
        for left, cov, right in self._parts:
            var += _weighted(np.abs(left) ** 2, cov.jvp_variance(right @ flat)[:, None])[:, 0]
        return self._y_layout.unflatten(np.sqrt(var))

    def vjp_stderr(self, v: Any) -> Any:
        """Standard error of ``vjp(v)``."""
        flat = self._direction(v, self._y_layout, "v")
        var = np.zeros(self._matrix.shape[1])
        for left, cov, right in self._parts:
            weights = np.abs(flat @ left)[None] ** 2
            var += _weighted(weights, cov.jvp_variance(np.ascontiguousarray(right.T)).T)[0]
        return self._x_layout.unflatten(np.sqrt(var))

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
