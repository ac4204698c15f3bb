"""Batches: each point of a leading axis on its own, and what its points tell of the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradiator_np._differentiable.inputs import own, own_output, rows_of, stacked
from gradiator_np._settings import TINY, scale_of
from gradiator_np._structure import Layout
from gradiator_np._typing import Array


def scale_in_batch(x: Array, layout: Layout) -> Any:
    """The unit of steps of a batch, like x: |x|, unless x is near 0 by accident.

    Parameters
    ----------
    x : array, shape batch + (m,)
    layout : Layout
        With its batch axes.

    Returns
    -------
    like x, or None
        None where |x| serves as it is.

    Notes
    -----
    ``jacobian`` treats the points of a batch as strangers, with steps of |x| at each. Those of a
    training batch are samples of one law: a point far below the others is next to 0 by accident,
    and steps of its size drown in rounding. Its unit is what the lower quartile and the median of
    log |x|, continued by as much again, say: a seventh of the median where x is normal, an eighth
    where it is uniform from 0 on. Where it is spread evenly over decades that is the smallest
    point, and so it is of two or three points: nothing changes. Measured with 256 normal points
    in float32, slopes of tanh(A x): errors up to 0.15 by "2-point" and 0.01 by the default with
    |x|, 2e-3 and 4e-4 with this.
    """
    size = np.abs(x.reshape(-1, layout.size)).astype(np.float64)
    if len(size) < 2:
        return None
    unit = np.maximum(size, _least_size(size))
    if (unit == size).all():
        return None
    return layout.unflatten(scale_of(unit.reshape(x.shape), None, layout))


def _least_size(size: Array) -> Array:
    """The size of each input (m,) below which a point of the batch (B, m) is near 0 by chance."""
    count, m = size.shape
    with np.errstate(divide="ignore"):
        logs = np.sort(np.log(size), axis=0)  # 0 first: it tells no size
    zeros = np.count_nonzero(size < TINY, axis=0)
    least, columns = np.zeros(m), np.flatnonzero(zeros < count)
    zeros, logs = zeros[columns], logs[:, columns]

    def quantile(share: float) -> Array:
        at = zeros + share * (count - zeros - 1)
        low = at.astype(np.intp)
        high = np.minimum(low + 1, count - 1)
        below, above = (np.take_along_axis(logs, i[None], 0)[0] for i in (low, high))
        return np.asarray(below + (at - low) * (above - below))

    # not an ulp above the smallest point, whose steps its own size chooses
    least[columns] = np.exp(2 * quantile(0.25) - quantile(0.5)) * (1 - 1e-12)
    return least


class Each:
    """Calls a function for each point of a leading axis and stacks what comes back."""

    def __init__(self, moved: tuple[int, ...], context: bool) -> None:
        self.moved = moved
        self.context = context

    def values(self, fun: Callable[..., Any]) -> Callable[..., Any]:
        """``fun(*x)``, with its contexts as a list."""

        def over(*x: Any) -> Any:
            if not self.context:
                return stacked([own_output(fun(*point)) for point in self._points(x)])
            out = [own(fun(*point)) for point in self._points(x)]
            return stacked([own_output(y) for y, _ in out]), [context for _, context in out]

        return over

    def products(self, fun: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """``fun(x, *direction, *context)``, a derivative."""
        if fun is None:
            return None

        def over(x: Any, *rest: Any, **told: Any) -> Any:
            several = isinstance(x, tuple)
            points = self._points(x if several else (x,))
            rows = list(zip(*map(rows_of, rest), strict=True))
            directions = rows if rest else [()] * len(points)
            return stacked(
                [
                    own(fun(point if several else point[0], *row, **told))
                    for point, row in zip(points, directions, strict=True)
                ]
            )

        return over

    def nested(self, fun: Callable[..., Any]) -> Callable[..., Any]:
        """``fun((x, v), w)``, a derivative of a derivative."""

        def over(at: Any, w: Any) -> Any:
            x, v = at
            several = isinstance(x, tuple)
            points = self._points(x if several else (x,))
            rows = zip(points, rows_of(v), rows_of(w), strict=True)
            return stacked([own(fun((p if several else p[0], a), b)) for p, a, b in rows])

        return over

    def _points(self, x: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        each = iter(zip(*(rows_of(x[j]) for j in self.moved), strict=True))
        return [
            tuple(row[self.moved.index(j)] if j in self.moved else a for j, a in enumerate(x))
            for row in each
        ]
