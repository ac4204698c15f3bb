"""A regression without known entries, prior and gaps: what is left to fit, and in which groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Mask
from gradiator_np.solvers._groups import OutputGroup
from gradiator_np.solvers._regression import RegressionProblem
from gradiator_np.solvers._solution import Constraints


@dataclass(frozen=True, slots=True)
class ReducedProblem:
    """What is left to fit, with one batch axis.

    Attributes
    ----------
    dx : array, shape (b, k, m)
    df : array, shape (b, k, n)
        What the known entries or the prior do not explain; 0 where missing.
    offset : array, shape (b, n, m) or (n, m), or None
        What is to be added to the fitted coefficients.
    weights : array, shape (b, k) or (b, k, n), or None
        0 where a sample is missing.
    free : array of bool, shape (n, m), or None
        Entries to fit.
    intercept, noise
        As in `RegressionProblem`.
    """

    dx: Array
    df: NDArray[Any]
    offset: NDArray[Any] | None
    weights: Array | None
    free: Mask | None
    intercept: bool
    noise: Array | None

    @classmethod
    def of(cls, problem: RegressionProblem) -> ReducedProblem:
        """Take known entries, prior and gaps out of the samples."""
        k, m = problem.dx.shape[-2:]
        n, b = problem.df.shape[-1], math.prod(problem.batch)
        dx, df = problem.dx.reshape(b, k, m), problem.df.reshape(b, k, n)
        weights, jac0 = problem.weights, problem.jac0
        if weights is not None:
            weights = weights.reshape((b, *weights.shape[len(problem.batch) :]))
        if jac0 is not None:
            jac0 = jac0.reshape(b, n, m)
        free, offset = _free_entries(problem.constraints or Constraints(), jac0)
        if offset is not None:
            df = df - dx @ offset.swapaxes(-1, -2)
        ok = np.isfinite(df)
        if not ok.all():
            df = np.where(ok, df, 0.0)
            if weights is None:
                weights = ok.astype(np.float64)
            else:
                weights = ok * (weights if weights.ndim == 3 else weights[:, :, None])
        return cls(dx, df, offset, weights, free, problem.intercept, problem.noise)

    def groups(self) -> list[OutputGroup]:
        """The outputs, parted by weights and inputs."""
        by_output = self.weights is not None and self.weights.ndim == 3
        if not by_output and self.free is None:
            return [OutputGroup(None, None, self.weights)]
        n = self.df.shape[2]
        labels = np.zeros((2, n), dtype=np.intp)
        if by_output:
            labels[0] = _labels(self.weights.reshape(-1, n))  # type: ignore[union-attr]
        if self.free is not None:
            labels[1] = _labels(self.free.T)
        kinds, label = np.unique(labels, axis=1, return_inverse=True)
        out = []
        for kind in range(kinds.shape[1]):
            outputs = np.flatnonzero(label.ravel() == kind)
            weights = self.weights
            if weights is not None and by_output:
                weights = np.ascontiguousarray(weights[:, :, outputs[0]])
            inputs = None if self.free is None else np.flatnonzero(self.free[outputs[0]])
            out.append(OutputGroup(outputs if kinds.shape[1] > 1 else None, inputs, weights))
        return out

    def select(self, group: OutputGroup) -> tuple[Array, NDArray[Any], Array | None]:
        """Inputs, outputs and noise of a group."""
        dx = self.dx if group.inputs is None else self.dx[:, :, group.inputs]
        if group.outputs is None:
            return dx, self.df, self.noise
        noise = None if self.noise is None else self.noise[group.outputs]
        return dx, self.df[:, :, group.outputs], noise


def _labels(columns: NDArray[Any]) -> NDArray[Any]:
    """A number per column; equal columns share it."""
    if (columns == columns[:, :1]).all():
        return np.zeros(columns.shape[1], dtype=np.intp)
    return np.unique(columns, axis=1, return_inverse=True)[1].ravel()


def _free_entries(
    constraints: Constraints, jac0: NDArray[Any] | None
) -> tuple[Mask | None, NDArray[Any] | None]:
    """Which entries are to be fitted, and what is added to them: prior, known values or 0."""
    free = constraints.sparsity
    known = constraints.known
    offset = jac0
    if known is not None:
        fixed = ~np.isnan(known)
        free = ~fixed if free is None else free & ~fixed
        offset = np.where(fixed, known, 0.0 if jac0 is None else jac0)
    if free is not None and offset is not None:
        held = free if known is None else free | ~np.isnan(known)
        offset = np.where(held, offset, 0.0)
    if free is not None and free.all():
        free = None
    return free, offset
