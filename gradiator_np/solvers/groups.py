"""Outputs that share one least-squares problem: the same inputs, weights and gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np.solvers.solution import Constraints

Array = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Group:
    """Outputs of one problem.

    Attributes
    ----------
    outputs : array of int, or None
        Which outputs; None for all.
    inputs : array of int, or None
        Which inputs they depend on; None for all.
    weights : array, shape (b, k), or None
        Weights of the samples, 0 where they are missing.
    """

    outputs: Index | None
    inputs: Index | None
    weights: Array | None


@dataclass(frozen=True, slots=True)
class Task:
    """Samples as one batch axis, without gaps, known entries or prior: what is left to fit.

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
    """

    dx: Array
    df: NDArray[Any]
    offset: NDArray[Any] | None
    weights: Array | None
    free: NDArray[np.bool_] | None

    @classmethod
    def of(
        cls,
        dx: Array,
        df: NDArray[Any],
        weights: Array | None,
        constraints: Constraints,
        jac0: NDArray[Any] | None,
    ) -> Task:
        """Take known entries, prior and gaps out of the samples (one batch axis everywhere)."""
        free, offset = _free_entries(constraints, jac0)
        if offset is not None:
            df = df - dx @ offset.swapaxes(-1, -2)
        ok = np.isfinite(df)
        if not ok.all():
            df = np.where(ok, df, 0.0)
            if weights is None:
                weights = ok.astype(np.float64)
            else:
                weights = ok * (weights if weights.ndim == 3 else weights[:, :, None])
        return cls(dx, df, offset, weights, free)

    def groups(self) -> list[Group]:
        """The outputs, parted by weights and inputs."""
        n = self.df.shape[2]
        labels = np.zeros((2, n), dtype=np.intp)
        by_output = self.weights is not None and self.weights.ndim == 3
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
            out.append(Group(outputs if kinds.shape[1] > 1 else None, inputs, weights))
        return out

    def select(self, group: Group) -> tuple[Array, NDArray[Any]]:
        """Inputs and outputs of a group."""
        dx = self.dx if group.inputs is None else self.dx[:, :, group.inputs]
        df = self.df if group.outputs is None else self.df[:, :, group.outputs]
        return dx, df


def _labels(columns: NDArray[Any]) -> NDArray[Any]:
    """A number per column; equal columns share it."""
    if (columns == columns[:, :1]).all():
        return np.zeros(columns.shape[1], dtype=np.intp)
    return np.unique(columns, axis=1, return_inverse=True)[1].ravel()


def _free_entries(
    constraints: Constraints, jac0: NDArray[Any] | None
) -> tuple[NDArray[np.bool_] | None, NDArray[Any] | None]:
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
