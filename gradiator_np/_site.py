"""A function at one point, for those who look around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._evaluate import Evaluator
from gradiator_np._options import ProbeOptions
from gradiator_np._settings import scale_of
from gradiator_np._signatures import complete
from gradiator_np._structure import Layout
from gradiator_np._typing import Array


class Site:
    """A function, a point, the value there, and the room around it.

    Parameters
    ----------
    evaluate : Evaluator
        Which has learned ``y``.
    point : Point
        Without batch axes.
    y : array, shape (n,)
        The value there.
    x_scale, bounds
        As in ``jacobian``.

    Attributes
    ----------
    x, scale, up, down : array, shape (m,)
        The point, units of the inputs, and the room that bounds leave.
    nfev : int
        Evaluations at other points.
    """

    def __init__(
        self, evaluate: Evaluator, point: checks.Point, y: NDArray[Any], x_scale: Any, bounds: Any
    ) -> None:
        self.flat, self.x_layout = point
        self.evaluate, self.y = evaluate, y
        self.x = self.flat.astype(np.float64)
        lower, upper = checks.bounds(bounds, self.flat, self.x_layout)
        self.up, self.down = upper - self.x, self.x - lower
        self.scale = scale_of(self.x, x_scale, self.x_layout)
        self.eps = float(np.finfo(self.flat.dtype).eps)
        self.nfev = 0
        self.y_layout: Layout = evaluate.kept_layout

    @classmethod
    def of(cls, fun: Callable[..., Any], x: Any, options: ProbeOptions) -> Site:
        """``fun`` at x, which is run."""
        known = complete(options, ProbeOptions)
        x_scale, bounds = known.pop("x_scale"), known.pop("bounds")
        point = checks.point(x)
        evaluate = Evaluator(fun, point.layout, **known)
        site = cls(evaluate, point, evaluate.first(point.flat), x_scale, bounds)
        site.nfev = 1
        return site

    def at(self, offsets: Array) -> NDArray[Any]:
        """Values (k, n) at x + offsets (k, m); nan where a run failed. With the seed of x."""
        points = (self.x + offsets).astype(self.flat.dtype)
        points = np.clip(points, self.x - self.down, self.x + self.up)
        out = self.evaluate(points, streams=np.zeros(len(points), np.intp))
        self.nfev += out.done
        return np.where(np.isfinite(out.values), out.values, np.nan)
