"""Samples that keep coming, and the nearest of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gradiator_np._samples import Samples
from gradiator_np._typing import Array, Index

# Rows that wait for the tree to be built anew are searched one by one.
WAITING = 256


class SampleStore:
    """Samples of one function in the order in which they came; adding one is cheap.

    Attributes
    ----------
    scale : array, shape (m,), or None
        Unit of each input, for distances; to be set before these are asked for.
    """

    def __init__(self, scale: Array | None = None) -> None:
        self.scale = scale
        self._points: Array = np.empty((0, 0))
        self._values: NDArray[Any] = np.empty((0, 0))
        self._size = 0
        self._tree: cKDTree | None = None

    def __len__(self) -> int:
        return self._size

    @property
    def points(self) -> Array:
        """Inputs, shape (k, m)."""
        return self._points[: self._size]

    @property
    def values(self) -> NDArray[Any]:
        """Outputs, shape (k, n)."""
        return self._values[: self._size]

    @property
    def samples(self) -> Samples:
        """A copy of all."""
        return Samples(self.points.copy(), self.values.copy())

    def add(self, x: Array, y: NDArray[Any]) -> None:
        """Keep samples x (k, m), y (k, n).

        Raises
        ------
        ValueError
            For other numbers of inputs or outputs than before.
        """
        if self._size and (x.shape[1], y.shape[1]) != (self.points.shape[1], self.values.shape[1]):
            raise ValueError(
                f"samples of {x.shape[1]} inputs and {y.shape[1]} outputs after those of "
                f"{self.points.shape[1]} and {self.values.shape[1]}: one function keeps its shape"
            )
        need = self._size + len(x)
        if need > len(self._points):  # grow by doubling: adding one row stays cheap
            points = np.empty((max(64, 2 * need), x.shape[1]))
            kind = np.result_type(y, self._values) if self._size else y.dtype
            values = np.empty((len(points), y.shape[1]), kind)
            if self._size:
                points[: self._size], values[: self._size] = self.points, self.values
            self._points, self._values = points, values
        elif np.result_type(y, self._values) != self._values.dtype:
            self._values = self._values.astype(np.result_type(y, self._values))
        self._points[self._size : need], self._values[self._size : need] = x, y
        self._size = need

    def nearest(self, x: Array, count: int) -> Index:
        """Rows of the samples nearest to x (m,), nearest first."""
        assert self.scale is not None
        built = 0 if self._tree is None else self._tree.n
        if self._size - built > WAITING:
            self._tree = cKDTree(self.points / self.scale)
            built = self._size
        count = min(self._size, count)
        rows = np.arange(built, self._size)
        if self._tree is not None:
            _, found = self._tree.query(x / self.scale, min(count, built))
            rows = np.concatenate([np.atleast_1d(found), rows])
        far = np.square((self._points[rows] - x) / self.scale).sum(1)
        return np.asarray(rows[np.argsort(far, kind="stable")[:count]], np.intp)
