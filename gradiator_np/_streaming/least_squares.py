"""The state of a stream that averages noise: recursive least squares in square-root form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import ClassVar

import numpy as np

from gradiator_np._streaming.trail import Trail, follow
from gradiator_np._typing import Array
from gradiator_np.solvers._recursive.square_root import BLOCK, Posterior, SquareRoot, solution_of
from gradiator_np.solvers._solution import Solution


class LeastSquaresState:
    """A square-root factor of all rows, and a buffer of those that wait to be factored.

    Parameters
    ----------
    m, n : int
        Inputs and outputs.
    forgetting : float
    prior_scale : array, shape (m,), or None
    jac0 : array, shape (n, m), or None
        Taken off the rows when they are factored, and added to the fit.
    noise : array, shape (n,), or None
    """

    needs_motion: ClassVar[bool] = False

    def __init__(
        self,
        m: int,
        n: int,
        *,
        forgetting: float,
        prior_scale: Array | None,
        jac0: Array | None,
        noise: Array | None,
    ) -> None:
        self._root = SquareRoot.zeros(m, n, forgetting)
        self._prior = None if prior_scale is None else prior_scale.copy()
        self._jac0 = jac0
        self._noise = noise
        self._dx = np.empty((BLOCK, m), order="F")
        self._df = np.empty((BLOCK, n), order="F")
        self._held = 0
        self._posterior: Posterior | None = None

    def add(self, dx: Array, df: Array) -> None:
        self._posterior = None
        start = self._held
        stop = start + (1 if dx.ndim == 1 else len(dx))
        if stop <= BLOCK:
            self._dx[start:stop] = dx
            self._df[start:stop] = df
            self._held = stop
            if stop == BLOCK:
                self._flush()
        else:
            self._flush()
            self._absorb(dx, df)

    def _flush(self) -> None:
        """Factor the rows that wait in the buffer."""
        if self._held:
            held, self._held = self._held, 0
            self._absorb(self._dx[:held], self._df[:held])

    def _absorb(self, dx: Array, df: Array) -> None:
        self._root.absorb(dx, df if self._jac0 is None else df - dx @ self._jac0.T)

    def follow(self, dx: Array, df: Array, trail: Trail, move: bool) -> None:
        follow(self, dx, df, trail, move)

    def innovation(self, dx: Array, df: Array) -> Array | None:
        if self._noise is None or not self._noise.all():
            return None
        if self.posterior().unknown(dx) > 0.5:
            return np.full(len(df), np.nan)
        return np.square((df - dx @ self.jac.T) / self._noise)

    def step(
        self, dx: Array, df: Array, weight: float, inflation: Array | None, growth: float
    ) -> None:
        self._flush()
        self._root.rescale(growth**2)
        if inflation is not None:
            self._root.inflate(inflation)
            if self._prior is not None:
                self._prior /= np.sqrt(1 + self._prior**2 * inflation)
        self.add(math.sqrt(weight) * dx, math.sqrt(weight) * df)
        self._flush()

    def posterior(self) -> Posterior:
        """The posterior of J after all rows; kept until the next row."""
        if self._posterior is None:
            self._flush()
            self._posterior = self._root.posterior(self._prior)
        return self._posterior

    @property
    def jac(self) -> Array:
        coef = self.posterior().coef * self._root.unit[:, None]
        return coef if self._jac0 is None else coef + self._jac0

    def solution(self, n_samples: int) -> Solution:
        found = solution_of(self._root, self.posterior(), noise=self._noise)
        return replace(found, coef=self.jac.copy())

    def unknown(self, u: Array) -> Array:
        return self.posterior().unknown(u)

    def merge(self, other: LeastSquaresState) -> None:
        other._flush()
        self._flush()
        self._root.merge(other._root)
        self._posterior = None

    def copy(self) -> LeastSquaresState:
        new = copy(self)
        new._root = self._root.copy()
        new._dx, new._df = self._dx.copy(order="F"), self._df.copy(order="F")
        new._prior = None if self._prior is None else self._prior.copy()
        return new

    def arrays(self) -> dict[str, Array]:
        self._flush()
        root = self._root
        counts = np.array([root.total, root.degrees, root.squares])
        own = {"r": root.r, "z": root.z, "ssr": root.ssr, "unit": root.unit, "counts": counts}
        return own if self._prior is None else own | {"prior": self._prior}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        root = self._root
        root.r[:], root.z[:], root.ssr[:] = arrays["r"], arrays["z"], arrays["ssr"]
        root.unit[:] = arrays["unit"]
        root.total, root.degrees, root.squares = map(float, arrays["counts"])
        if self._prior is not None:
            self._prior[:] = arrays["prior"]
