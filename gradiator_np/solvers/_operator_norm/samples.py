"""Samples for a norm that couples the outputs: dropped and weighted whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._covariance import Covariance
from gradiator_np._status import Status
from gradiator_np._typing import Array, Mask
from gradiator_np.solvers._operator_norm.subspaces import Subspace
from gradiator_np.solvers._regression import RegressionProblem
from gradiator_np.solvers._solution import Solution


@dataclass(frozen=True, slots=True)
class NormSamples:
    """Samples of which each counts as a whole.

    Attributes
    ----------
    x, y : array, shape (..., k, m) and (..., k, n)
        Displacements; y is 0 where a sample is dropped.
    weight : array, shape (..., k)
        Square roots of the weights, 0 where a sample is dropped.
    mean_x, mean_y : array, shape (..., m) and (..., n), or None
        Weighted means where a value at dx = 0 is fitted.
    """

    x: Array
    y: NDArray[Any]
    weight: Array
    mean_x: Array | None
    mean_y: NDArray[Any] | None

    @classmethod
    def of(cls, problem: RegressionProblem) -> NormSamples:
        """Drop samples that failed in any output, take roots of the weights, and the means."""
        x, y, weights = problem.dx, problem.df, problem.weights
        if 0 in x.shape or 0 in y.shape:
            raise ValueError(f"there is nothing to fit: dx is {x.shape}, df is {y.shape}")
        weight = np.ones(y.shape[:-1]) if weights is None else np.sqrt(weights)
        failed = np.isnan(y).any(-1)
        if failed.any():
            y = np.where(failed[..., None], 0.0, y)
            weight = np.where(failed, 0.0, weight)
        if not (weight > 0).any(-1).all():
            raise ValueError("every sample failed or has weight 0; nothing is left to fit")
        if not problem.intercept:
            return cls(x, y, weight, None, None)
        part = np.square(weight)[..., None]
        part = part / part.sum(-2, keepdims=True)
        # From the first row: rounding of a cloud far from 0 would pass for a direction.
        first = x[..., :1, :]
        mean_x = first[..., 0, :] + (part * (x - first)).sum(-2)
        return cls(x, y, weight, mean_x, (part * y).sum(-2))

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.shape[-1], self.x.shape[-1]

    def scaled(self, jac: NDArray[Any] | None) -> tuple[Array, NDArray[Any]]:
        """sqrt(w) dx and sqrt(w) (df - jac dx); about their means where a value is fitted.

        The part of the residual along the weights can be made zero by the intercept alone, and
        no norm of the rest profits from it: centring removes the intercept from the problem.
        """
        x, y = self.x, self.y
        if self.mean_x is not None and self.mean_y is not None:
            x, y = x - self.mean_x[..., None, :], y - self.mean_y[..., None, :]
        if jac is not None:
            y = y - x @ jac.swapaxes(-1, -2)
        if (self.weight == 1).all():
            return x, y
        return x * self.weight[..., None], y * self.weight[..., None]

    def solution(
        self, coef: NDArray[Any], free: Mask, space: Subspace, info: dict[str, Any]
    ) -> Solution:
        """Wrap up a structured fit: misfit, value at the centre, what is determined."""
        (n, m), null = self.shape, space.null()
        value = value_stderr = None
        if self.mean_x is not None and self.mean_y is not None:
            value, value_stderr = self.mean_y - coef @ self.mean_x, np.full(n, np.nan)
        used = self.weight > 0
        miss = self.y[used] - self.x[used] @ coef.T - (0.0 if value is None else value)
        message = (
            ""
            if null is None
            else (
                "the samples leave entries open, those whose stderr is inf: add samples that move "
                "along their inputs"
            )
        )
        return Solution(
            coef,
            Covariance(
                np.full(n, np.nan), extra=np.where(free, np.nan, 0.0), null=null, per_output=True
            ),
            dof=np.zeros(n),
            rank=np.asarray(m if null is None else m - int(null.any(1).sum(-1).max())),
            cond=np.asarray(space.cond),
            residual=np.sqrt(np.square(np.abs(miss)).mean(0)),
            value=value,
            value_stderr=value_stderr,
            status=Status.OK if null is None else Status.UNDETERMINED,
            message=message,
            info=info,
        )
