"""The express lane: a stencil on plain vectors with nothing out of the ordinary.

Most calls are like that, and for a function of a microsecond the glue between the rooms costs
more than the runs: 95 microseconds at m = n = 10, where SciPy takes 85 (`benchmarks.overhead`).
So the points of a stencil are run here in one go, and what only some callers look at
(covariances, samples, status) is left to an estimator that gets the same rows when it is first
asked. Whatever is out of the ordinary, such as a run that fails, sends the call down the usual
way, with all that was run so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import checks
from gradiator_np.calls import FAILING, Failure
from gradiator_np.designs.stencil import CENTRAL, ORDERS, default_step
from gradiator_np.estimator import JacobianEstimator
from gradiator_np.results import JacobianEstimate
from gradiator_np.samples import Samples
from gradiator_np.settings import TINY
from gradiator_np.solvers.solution import Solution
from gradiator_np.solvers.stencil import solve_lines
from gradiator_np.structure import Layout

Array = NDArray[np.float64]
Found = tuple[Array, Array, Array]


class Express:
    """A function on its express lane, for vectors x of one length.

    Parameters
    ----------
    fun : callable
    args, kwargs : tuple, dict
        Passed on to ``fun``.
    method : str
        A stencil.
    m : int
        Number of inputs.
    jitted : bool
        Whether ``fun`` runs inside compiled code.
    """

    def __init__(
        self, fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
        method: str, m: int, jitted: bool,
    ) -> None:  # fmt: skip
        self.fun, self.args, self.kwargs, self.method = fun, args, kwargs, method
        self.order = ORDERS[method]
        self.multiples = CENTRAL[self.order][:, None]
        self.moved = _moved(self.order, m)
        self.rule = CENTRAL[self.order]
        self.stencil: Callable[..., Any] | None = None  # imports Numba: only where it is used
        self.relative = checks.EPS64 ** (1 / (self.order + 1))
        self.run_all = self._compiled if jitted else self._python

    def run(self, point: checks.Point, value: Any = None) -> JacobianEstimate | Left:
        """The estimate; or what has been run, where something out of the ordinary came up.

        ``value`` is ``fun(x)``, where it is known.
        """
        x = point.flat
        left = Left(value)
        if np.minimum.reduce(np.abs(x)) < TINY:  # an input that is 0 has no scale of its own
            return left
        if value is None:
            try:
                value = left.value = self.fun(x.copy(), *self.args, **self.kwargs)
            except FAILING as exc:
                left.value = Failure(exc)
                return left
            finally:
                left.nfev = 1
        if type(value) is not np.ndarray or value.ndim != 1 or value.dtype is not checks.FLOAT64:
            return left
        y = value.copy()
        left.value = y
        found = self.run_all(x, y, left) if y.size and checks.isfinite(y) else None
        if found is None:
            return left
        step, values, coef = found
        deferred = Deferred(point, self.method, y, values)
        return JacobianEstimate(
            LazySolution(coef, deferred), point.layout, deferred.y_layout, x, y, np.abs(step),
            self.method, deferred, left.nfev + len(values), 0, len(values) + 1,
        )  # fmt: skip

    def _python(self, x: Array, y: Array, left: Left) -> Found | None:
        """Steps, values and J by a loop of Python calls; None where it goes astray."""
        step = default_step(x, np.abs(x), checks.EPS64, self.order)
        points = np.empty((self.moved.size, x.size))
        points[:] = x
        flat = points.reshape(-1)
        there = flat[self.moved] + (self.multiples * step).reshape(-1)
        flat[self.moved] = there
        t = there.reshape(self.order, -1) - x
        values = np.empty((len(points), y.size))
        # Default steps are eps^(1/2) |x| at least: none rounds to nothing.
        if not self._loop(points, values, left):
            return None
        if not checks.isfinite(values):
            left.results = list(values)
            return None
        cube = values.reshape(*t.shape, 1, -1)
        return step, values, solve_lines(t[:, :, None], cube, y[None], False)[0][0]

    def _loop(self, points: Array, values: Array, left: Left) -> bool:
        """Run all points; False where one run is out of the ordinary."""
        fun, args, kwargs, shape = self.fun, self.args, self.kwargs, values.shape[1:]
        i = 0
        try:
            for row in points:
                value = fun(row, *args, **kwargs)
                if (
                    type(value) is not np.ndarray
                    or value.shape != shape
                    or value.dtype is not checks.FLOAT64
                ):
                    left.results = [*values[:i], value]
                    return False
                values[i] = value
                i += 1
        except FAILING as exc:
            left.results = [*values[:i], Failure(exc)]
        except BaseException as exc:
            left.results, left.interrupt = list(values[:i]), exc
        return i == len(values)

    def _compiled(self, x: Array, y: Array, left: Left) -> Found | None:
        """Steps, values and J in one compiled call."""
        if self.stencil is None:
            from gradiator_np.kernels import sampling, stencil

            try:
                self.args = sampling.positional(self.fun, self.args, self.kwargs)
            except TypeError:  # names that compiled calls do not take
                return None
            self.stencil, self.kwargs = stencil.stencil, {}
        try:
            found = self.stencil(self.fun, x, y, self.rule, self.relative, self.args)
        except TypeError:  # what Numba cannot call, Python may
            return None
        if found.errors or not checks.isfinite(found.values):
            left.results = list(found.values)
            for row, exc in found.errors.items():
                left.results[row] = Failure(exc)
            return None
        return found.steps, found.values, found.coef


@lru_cache(maxsize=64)
def _moved(order: int, m: int) -> NDArray[np.intp]:
    """Which number of all points laid flat each row moves; shared, hence read-only."""
    moved = np.arange(order * m) * m + np.tile(np.arange(m), order)
    moved.flags.writeable = False
    return moved


class Left:
    """What an express lane leaves to the usual way.

    Attributes
    ----------
    value : object
        ``fun(x)``, or the ``Failure`` of that run; None where it has not been run.
    results : list
        What the first rows of the stencil returned, failures included.
    interrupt : BaseException or None
        What ended the work after these (Ctrl-C).
    nfev : int
        Runs at x itself: 1, or 0 where its value was known.
    """

    __slots__ = ("interrupt", "nfev", "results", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.results: list[Any] = []
        self.interrupt: BaseException | None = None
        self.nfev = 0

    def replay(self) -> Iterator[Any]:
        """The results once more, as if they came in now."""
        yield from self.results
        if self.interrupt is not None:
            raise self.interrupt


class Deferred:
    """The rows of an express lane, for an estimator that is made when somebody asks.

    Attributes
    ----------
    y_layout : Layout
    """

    def __init__(self, point: checks.Point, method: str, y: Array, values: Array) -> None:
        self.point, self.method, self.y, self.values = point, method, y, values
        self.y_layout = Layout(y.shape)

    @cached_property
    def estimator(self) -> JacobianEstimator:
        """The estimator that would have asked for these rows, told of them."""
        estimator = JacobianEstimator(self.point, method=self.method)
        estimator.set_value(self.y, self.y_layout)
        ids, _ = estimator.request()
        estimator.record(ids, self.values[:, None, :], {})
        return estimator

    @cached_property
    def solution(self) -> Solution:
        return self.estimator.estimate().solution

    @property
    def samples(self) -> Samples:
        return self.estimator.samples


class LazySolution(Solution):
    """A Solution of which only ``coef`` has been computed."""

    __slots__ = ("_deferred",)

    def __init__(self, coef: Array, deferred: Deferred) -> None:
        object.__setattr__(self, "coef", coef)
        object.__setattr__(self, "_deferred", deferred)

    def __getattr__(self, name: str) -> Any:
        # Slots that were never set come here, and so do names that no Solution has.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._deferred.solution, name)

    def __reduce__(self) -> Any:
        return LazySolution, (self.coef, self._deferred)
