"""The state of a stream that fits its newest sample exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from gradiator_np._covariance import Covariance
from gradiator_np._streaming.trail import Trail
from gradiator_np._typing import Array
from gradiator_np.solvers._recursive.kaczmarz import cache_aligned, kaczmarz
from gradiator_np.solvers._solution import Solution


class KaczmarzState:
    """J alone: nothing is kept of the directions that were sampled."""

    needs_motion: ClassVar[bool] = True

    def __init__(self, jac: Array) -> None:
        self.jac = cache_aligned(jac)

    def add(self, dx: Array, df: Array) -> None:
        kaczmarz(
            self.jac,
            np.ascontiguousarray(np.atleast_2d(dx)),
            np.ascontiguousarray(np.atleast_2d(df)),
        )

    def follow(self, dx: Array, df: Array, trail: Trail, move: bool) -> None:
        self.add(dx, df)

    def solution(self, n_samples: int) -> Solution:
        n, m = self.jac.shape
        lost = np.full(n, np.nan)
        return Solution(
            coef=self.jac.copy(),
            cov=Covariance(lost, diag=np.full(m, np.nan)),
            dof=np.zeros(n),
            rank=np.asarray(min(n_samples, m), np.intp),
            cond=np.asarray(np.nan),
            residual=lost,
            message="Kaczmarz updates keep no record of directions: no error bars; rank is an "
            "upper bound",
        )

    def unknown(self, u: Array) -> Array:
        raise ValueError(
            "Kaczmarz updates keep no record of the directions they have seen: use "
            "mode='least-squares'"
        )

    def merge(self, other: KaczmarzState) -> None:
        raise ValueError(
            "the streams cannot be merged: Kaczmarz updates depend on the order of the samples; "
            "use mode='least-squares'"
        )

    def copy(self) -> KaczmarzState:
        return KaczmarzState(self.jac)

    def arrays(self) -> dict[str, Array]:
        return {"jac": self.jac}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        self.jac[:] = arrays["jac"]
