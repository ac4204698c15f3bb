"""Axes that vmap put in front of arrays: points, and directions at one point."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
        self._operands = [self._spread(a, has) for a, has in zip(operands, axes, strict=True)]

    def _spread(self, a: Array, has: tuple[bool, ...]) -> Array:
        """An operand with all axes, those of points first, of length 1 where it has none."""
        own = a.shape[sum(has) :]
        left = iter(a.shape)
        a = a.reshape((*(next(left) if h else 1 for h in has), *own))
        rest = range(len(has), a.ndim)
        return a.transpose((*self.points, *self.directions, *rest))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return iter(np.ndindex(*(self.sizes[i] for i in self.points)))

    def varies(self, k: int) -> bool:
        """Whether operand k differs between points."""
        return any(n > 1 for n in self._operands[k].shape[: len(self.points)])

    def at(self, k: int, where: tuple[int, ...]) -> Array:
        """Operand k at one point, its axes of directions (of length 1, maybe) in front."""
        a = self._operands[k]
        return np.asarray(a[tuple(min(i, n - 1) for i, n in zip(where, a.shape))])

    def single(self, k: int, where: tuple[int, ...]) -> Array:
        """Operand k at one point, the first where it has several there."""
        a = self.at(k, where)
        return np.asarray(a[(0,) * len(self.directions)])

    def several(self, k: int, where: tuple[int, ...]) -> Array:
        """Directions at one point on one leading axis; on none where there are no such axes."""
        a, lead = self.at(k, where), [self.sizes[i] for i in self.directions]
        own = a.shape[len(lead) :]
        if not lead:
            return a
        return np.broadcast_to(a, (*lead, *own)).reshape((math.prod(lead), *own))

    def all_points(self, k: int, own: tuple[int, ...]) -> Array:
        """Operand k at all points, on one leading axis; its first direction where it has any."""
        a = self._operands[k]
        a = a[(slice(None),) * len(self.points) + (0,) * len(self.directions)]
        lead = tuple(self.sizes[i] for i in self.points)
        return np.broadcast_to(a, lead + own).reshape((self.count, *own))

    def all_directions(self, k: int, own: tuple[int, ...]) -> Array:
        """Directions at all points: (several, points) in front, without several where none are."""
        a = self._operands[k]
        lead = tuple(self.sizes[i] for i in (*self.points, *self.directions))
        each = math.prod(lead[len(self.points) :])
        a = np.broadcast_to(a, lead + own).reshape((self.count, each, *own)).swapaxes(0, 1)
        return np.ascontiguousarray(a if self.directions else a[0])

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
