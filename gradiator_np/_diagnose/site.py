"""A function at one point, for those who look around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._evaluate import Evaluator
from gradiator_np._options import ProbeOptions
from gradiator_np._settings import scale_of
from gradiator_np._signatures import complete
from gradiator_np._status import Status, warn
from gradiator_np._structure import Layout, enumerated
from gradiator_np._typing import Array


class Finding(Protocol):
    """What a search around x ends with."""

    @property
    def status(self) -> Status: ...
    @property
    def message(self) -> str: ...


Found = TypeVar("Found", bound=Finding)


class Site:
    """A function, a point, the value there, and the room around it."""

    def __init__(self, fun: Callable[..., Any], x: Any, options: ProbeOptions) -> None:
        known = complete(options, ProbeOptions)
        x_scale, bounds = known.pop("x_scale"), known.pop("bounds")
        self.flat, self.x_layout = checks.point(x)
        self.evaluate = Evaluator(fun, self.x_layout, **known)
        self.x = self.flat.astype(np.float64)
        lower, upper = checks.bounds(bounds, self.flat, self.x_layout)
        self.up, self.down = upper - self.x, self.x - lower
        self.scale = scale_of(self.x, x_scale, self.x_layout)
        self.eps = float(np.finfo(self.flat.dtype).eps)
        self.y = self.evaluate.first(self.flat)
        self.nfev = 1
        assert self.evaluate.y_layout is not None
        self.y_layout: Layout = self.evaluate.y_layout

    def at(self, offsets: Array) -> NDArray[Any]:
        """Values (k, n) at x + offsets (k, m); nan where a run failed."""
        points = (self.x + offsets).astype(self.flat.dtype)
        out = self.evaluate(np.clip(points, self.x - self.down, self.x + self.up))
        self.nfev += out.done
        return np.where(np.isfinite(out.values), out.values, np.nan)


def findings(
    found: NDArray[Any], words: Mapping[Any, tuple[Status, str]], names: Sequence[str]
) -> tuple[Status, str]:
    """What was found of which entries in words.

    Parameters
    ----------
    found : array of str, shape (q,)
    words : dict
        The status and the text of each finding that is worth words, the worst first.
    names : sequence of q str
    """
    status, parts = Status.OK, []
    for finding, (worse, text) in words.items():
        which = [names[i] for i in np.flatnonzero(found == finding).tolist()]
        if which:
            parts.append(f"{enumerated(which)}: {text}")
            status = worse if status is Status.OK else status
    return status, "; ".join(parts)


def warned(result: Found) -> Found:
    """The result, with a warning where it could not tell all that was asked."""
    if result.status is not Status.OK:
        warn(result.message, result)
    return result
