"""Axes that vmap put in front of arrays: points, and directions at one point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Batch:
    """Operands with axes in front, each of them a batch of points or several directions.

    Parameters
    ----------
    axes : sequence of tuple of bool
        Which axes each operand has.
    operands : sequence of array
    points : sequence of int
        The operands whose axes hold points; what only others have are directions.

    Attributes
    ----------
    sizes : tuple of int
        Of all axes.
    points, directions : tuple of int
        Which axes hold what.
    """

    def __init__(
        self, axes: Sequence[tuple[bool, ...]], operands: Sequence[Array], points: Sequence[int]
    ) -> None:
        self.sizes = lead_sizes(axes, [a.shape for a in operands])
        every = range(len(self.sizes))
        self.points = tuple(i for i in every if any(axes[k][i] for k in points))
        self.directions = tuple(i for i in every if i not in self.points)
        self.count = math.prod(self.sizes[i] for i in self.points)
        self._rows, self._row_of = [], []
        lead = tuple(self.sizes[i] for i in self.points)
        for a, has in zip(operands, axes, strict=True):
            rows, row_of = self._flat_points(self._spread(a, has), lead)
            self._rows.append(rows)
            self._row_of.append(row_of)

    def _spread(self, a: Array, has: tuple[bool, ...]) -> Array:
        """An operand with all axes, those of points first, of length 1 where it has none."""
        if not has:
            return a
        own = a.shape[sum(has) :]
        left = iter(a.shape)
        a = a.reshape((*(next(left) if h else 1 for h in has), *own))
        rest = range(len(has), a.ndim)
        return a.transpose((*self.points, *self.directions, *rest))

    def _flat_points(self, a: Array, lead: tuple[int, ...]) -> tuple[Array, Sequence[int]]:
        """An operand with its axes of points as one, and which of its rows each point has."""
        mine, rest = a.shape[: len(lead)], a.shape[len(lead) :]
        rows = a.reshape((math.prod(mine), *rest))
        if mine == lead:
            return rows, range(self.count)
        numbers = np.arange(len(rows)).reshape(mine)
        return rows, np.broadcast_to(numbers, lead).ravel().tolist()

    def where(self, i: int) -> tuple[int, ...]:
        """The place of point i along each of the axes of points."""
        lead = [self.sizes[i] for i in self.points]
        return tuple(int(k) for k in np.unravel_index(i, lead)) if lead else ()

    def varies(self, k: int) -> bool:
        """Whether operand k differs between points."""
        return len(self._rows[k]) > 1

    def singles(self, k: int) -> list[Array]:
        """Operand k at each point, the first where it has several there."""
        first = self._rows[k][(slice(None),) + (0,) * len(self.directions)]
        return self._at_each(k, first)

    def severals(self, k: int) -> list[Array]:
        """Directions at each point on one leading axis; on none where there are no such axes."""
        rows, lead = self._rows[k], tuple(self.sizes[i] for i in self.directions)
        if lead:
            own = rows.shape[1 + len(lead) :]
            rows = np.broadcast_to(rows, (len(rows), *lead, *own))
            rows = rows.reshape((len(rows), math.prod(lead), *own))
        return self._at_each(k, rows)

    def _at_each(self, k: int, rows: Array) -> list[Array]:
        arrays = [np.asarray(row) for row in rows]
        return [arrays[r] for r in self._row_of[k]]

    def where_any(self, k: int) -> NDArray[np.bool_]:
        """For each point whether operand k is anything but 0 there."""
        rows = self._rows[k]
        return self._each_point(k, np.asarray(rows.any(axis=tuple(range(1, rows.ndim)))))

    def where_lost(self, k: int) -> NDArray[np.bool_]:
        """For each point whether operand k is nan there, all of it."""
        rows = self._rows[k]
        return self._each_point(k, np.asarray(np.isnan(rows).all(axis=tuple(range(1, rows.ndim)))))

    def all_points(self, k: int) -> Array:
        """Operand k at all points, on one leading axis; its first direction where it has any."""
        return self._each_point(k, self._rows[k][(slice(None),) + (0,) * len(self.directions)])

    def _each_point(self, k: int, rows: NDArray[Any]) -> NDArray[Any]:
        """What belongs to the rows of operand k, for each point."""
        return rows if len(rows) == self.count else rows[np.asarray(self._row_of[k], dtype=int)]

    def all_directions(self, k: int, own: tuple[int, ...]) -> Array:
        """Directions at all points: (several, points) in front, without several where none are."""
        a = self._each_point(k, self._rows[k])
        lead = tuple(self.sizes[i] for i in self.directions)
        if not lead:
            return np.ascontiguousarray(a)
        a = np.broadcast_to(a, (self.count, *lead, *own))
        a = a.reshape((self.count, math.prod(lead), *own)).swapaxes(0, 1)
        return np.ascontiguousarray(a)

    def in_order(self, a: Array) -> Array:
        """A result with its axes in the order of vmap."""
        order = np.argsort([*self.points, *self.directions])
        return a.transpose((*order, *range(len(order), a.ndim)))


def lead_sizes(
    axes: Sequence[tuple[bool, ...]], shapes: Sequence[tuple[int, ...]]
) -> tuple[int, ...]:
    """Lengths of the axes in front, from operands that have them."""
    sizes = [1] * (len(axes[0]) if axes else 0)
    for has, shape in zip(axes, shapes, strict=True):
        left = iter(shape)
        for i, h in enumerate(has):
            if h:
                sizes[i] = next(left)
    return tuple(sizes)


class Rows:
    """Arrays of several points, put together one point at a time: copied, since ``fun`` may use
    its buffers again.

    Attributes
    ----------
    columns : list of array, or None
        What was put, points on a leading axis; None before the first.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.columns: list[Array] | None = None

    def put(self, i: int, arrays: Sequence[Any]) -> None:
        """The arrays at point i; in the type that holds all of what came, if types differ."""
        if self.columns is None:
            arrays = [np.asarray(a) for a in arrays]
            self.columns = [np.empty((self.count, *a.shape), a.dtype) for a in arrays]
        for k, (column, item) in enumerate(zip(self.columns, arrays, strict=True)):
            a = np.asarray(item)
            if a.shape != column.shape[1:]:  # an assignment would spread it silently
                raise ValueError(
                    f"fun returned the shape {a.shape} at a point of a batch, and "
                    f"{column.shape[1:]} at an earlier one"
                )
            if a.dtype != column.dtype:
                column = self.columns[k] = column.astype(np.result_type(column, a))
            column[i] = a
