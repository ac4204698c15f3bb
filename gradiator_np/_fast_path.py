"""The fast path: a stencil on plain vectors with nothing out of the ordinary.

Most calls are like that, and for a function of a microsecond the glue between the rooms costs
more than the runs: 95 microseconds at m = n = 10, where SciPy takes 85 (`benchmarks.overhead`).
So the points of a stencil are run here in one go, and what only some callers look at
(covariances, samples, status) is left to an engine that gets the same rows when it is first
asked. Whatever is out of the ordinary, such as a run that fails, sends the call down the usual
way, with all that was run so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._calls import FAILING, Failure, is_jitted
from gradiator_np._engine import X_ITSELF, Engine
from gradiator_np._options import Options
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._samples import Samples
from gradiator_np._settings import TINY, Settings
from gradiator_np._signatures import complete, defaults
from gradiator_np._structure import Layout
from gradiator_np._typing import Array, Index
from gradiator_np.designs._finite_difference.evidence import is_short
from gradiator_np.designs._finite_difference.stencil import RULES, default_step
from gradiator_np.designs._finite_difference.weights import (
    combine,
    derivative_weights,
    highest_difference,
)
from gradiator_np.solvers._solution import Solution

Found = tuple[Array, Array, Array]

# All points of a stencil are held at once here, up to this many numbers.
MOST_NUMBERS = 2**20

# Outputs whose digits are looked at: a program that prints prints more than one of them.
LOOKED_AT = 2
# Outputs, of many, whose differences are looked at.
SEVERAL = 256
# An input this far below the largest may move too little to show.
# Squares of larger numbers overflow.
LARGE = 1e150
SMALL = 1e-6

# What the fast path knows of options that are not left at their defaults.
KNOWN: dict[str, Callable[[Any], bool]] = {
    "method": lambda value: isinstance(value, str) and value in RULES,
    "args": lambda value: type(value) is tuple,
    "kwargs": lambda value: isinstance(value, Mapping),
    "f0": lambda value: True,  # a strange one takes the usual way
    "on_error": lambda value: value == "drop",
}


def fast_path(fun: Callable[..., Any], point: checks.Point, options: Options) -> FastPath | None:
    """The fast path for calls whose options it knows; None for the others."""
    flat, layout = point
    method = options.get("method")
    usual = defaults(Options)
    for name, value in options.items():
        if name not in usual or not (
            value is usual[name] or (name in KNOWN and KNOWN[name](value))
        ):
            return None
    if not (
        method in RULES
        and layout.plain
        and flat.dtype is checks.FLOAT64
        and len(RULES[method].points) * flat.size**2 <= MOST_NUMBERS
        and callable(fun)
    ):
        return None
    return FastPath(
        fun, options.get("args", ()), dict(options.get("kwargs") or {}), method, flat.size,
        is_jitted(fun),
    )  # fmt: skip


class FastPath:
    """A function whose stencil is run in one go, for vectors x of one length.

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
        rule = RULES[method]
        self.multiples = np.array(rule.points)
        self.highest, self.gain = _contrasts(rule.points)
        self.relative = rule.relative_step(checks.EPS)
        self.moved = _moved(len(rule.points), m)
        self.stencil: Callable[..., Any] | None = None  # imports Numba: only where it is used
        self.run_all = self._compiled if jitted else self._python

    def run(self, point: checks.Point, value: Any = None) -> JacobianEstimate | PartialRun:
        """The estimate; or what has been run, where something out of the ordinary came up.

        ``value`` is ``fun(x)``, where it is known.
        """
        x = point.flat
        partial = PartialRun(value)
        size = np.abs(x)
        least = np.minimum.reduce(size)
        # An input that is 0 has no scale of its own, and one far below the others too short a step.
        if least < TINY or least < SMALL * np.maximum.reduce(size):
            return partial
        if value is None:
            try:
                value = partial.value = self.fun(x.copy(), *self.args, **self.kwargs)
            except FAILING as exc:
                partial.value = Failure(exc)
                return partial
            finally:
                partial.nfev = 1
        if type(value) is not np.ndarray or value.ndim != 1 or value.dtype is not checks.FLOAT64:
            return partial
        y = value.copy()
        partial.value = y
        found = self.run_all(x, y, partial) if y.size and checks.isfinite(y) else None
        if found is None:
            return partial
        step, values, coef = found
        if self._doubtful(step, y, values, coef):
            partial.results = list(values)
            return partial
        deferred = Deferred(point, self.method, y, values)
        return JacobianEstimate(
            LazySolution(coef, deferred),
            Frame(point.layout, deferred.y_layout, x, y, np.abs(step)),
            self.method, partial.nfev + len(values), 0, len(values) + 1, deferred,
        )  # fmt: skip

    def _doubtful(self, step: Array, y: Array, values: Array, coef: Array) -> bool:
        """Whether the usual way might say more than ok: values are short decimals, nothing
        answers, or the highest difference is as large as what the slope moves."""
        if any(map(is_short, values[-1, :LOOKED_AT].tolist())):
            return True
        if self.highest is None:
            return not coef.any()
        if y.size > SEVERAL:  # noise is in all of them, or in so many
            some = slice(None, None, y.size // SEVERAL)
            y, values, coef = y[some], values[:, some], coef[some]
        rest = self.highest @ (values - y).reshape(len(self.highest), -1)
        noise = np.maximum.reduce(np.abs(rest).reshape(coef.T.shape), axis=0)
        moved = np.abs(coef * step)
        if moved.max() > LARGE:
            return True
        signal = np.square(moved).sum(axis=-1)
        # A line's own difference and what all share, a median of few up to 1.5 of the largest.
        return bool((len(step) * np.square(4 * self.gain * noise) >= signal).any())

    def _python(self, x: Array, y: Array, partial: PartialRun) -> Found | None:
        """Steps, values and J by a loop of Python calls; None where it goes astray."""
        step = default_step(x, np.abs(x), self.relative)
        points = np.empty((self.moved.size, x.size))
        points[:] = x
        flat = points.reshape(-1)
        there = flat[self.moved] + (self.multiples[:, None] * step).reshape(-1)
        flat[self.moved] = there
        t = there.reshape(-1, x.size) - x
        values = np.empty((len(points), y.size))
        # Default steps are eps^(1/2) |x| at least: none rounds to nothing.
        if not self._loop(points, values, partial):
            return None
        if not checks.isfinite(values):
            partial.results = list(values)
            return None
        cube = values.reshape(*t.shape, 1, -1)
        try:
            coef = combine(derivative_weights(t[:, :, None]), cube, y[None])[0]
        except (FloatingPointError, RuntimeWarning):  # by the caller's np.seterr, or -W error
            coef = np.array(np.nan)
        return self._told(step, values, coef, partial)

    def _loop(self, points: Array, values: Array, partial: PartialRun) -> bool:
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
                    partial.results = [*values[:i], value]
                    return False
                values[i] = value
                i += 1
        except FAILING as exc:
            partial.results = [*values[:i], Failure(exc)]
        except BaseException as exc:
            partial.results, partial.interrupt = list(values[:i]), exc
        return i == len(values)

    def _compiled(self, x: Array, y: Array, partial: PartialRun) -> Found | None:
        """Steps, values and J in one compiled call."""
        if self.stencil is None:
            from gradiator_np.kernels import sampling, stencil

            try:
                self.args = sampling.positional(self.fun, self.args, self.kwargs)
            except TypeError:  # names that compiled calls do not take
                return None
            self.stencil, self.kwargs = stencil.stencil, {}
        try:
            found = self.stencil(self.fun, x, y, self.multiples, self.relative, self.args)
        except TypeError:  # what Numba cannot call, Python may
            return None
        if found.errors or not checks.isfinite(found.values):
            partial.results = list(found.values)
            for row, exc in found.errors.items():
                partial.results[row] = Failure(exc)
            return None
        return self._told(found.steps, found.values, found.coef, partial)

    @staticmethod
    def _told(step: Array, values: Array, coef: Array, partial: PartialRun) -> Found | None:
        """What was found; None where entries are no floats, which the usual way explains."""
        if checks.isfinite(coef):
            return step, values, coef
        partial.results = list(values)
        return None


@lru_cache(maxsize=len(RULES))
def _contrasts(points: tuple[int, ...]) -> tuple[Array | None, float]:
    """The highest difference of a line, where it has one, and the standard error of its response
    to a step in those of a run."""
    t = np.array(points, float)
    highest = highest_difference(t) if len(t) > 1 else None
    return highest, float(np.linalg.norm(derivative_weights(t)))


@lru_cache(maxsize=64)
def _moved(p: int, m: int) -> Index:
    """Which number of all points laid flat each row moves; shared, hence read-only."""
    moved = np.arange(p * m) * m + np.tile(np.arange(m), p)
    moved.flags.writeable = False
    return moved


class PartialRun:
    """What the fast path leaves to the usual way.

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
    """The rows of a fast path, for an engine that is made when somebody asks.

    Attributes
    ----------
    y_layout : Layout
    """

    def __init__(self, point: checks.Point, method: str, y: Array, values: Array) -> None:
        self.point, self.method, self.y, self.values = point, method, y, values
        self.y_layout = Layout(y.shape)

    @cached_property
    def engine(self) -> Engine:
        """The engine that would have asked for these rows, told of them."""
        known = complete({"method": self.method}, Options)
        engine = Engine(self.point, Settings.of(self.point, known))
        engine.expect(self.y_layout, checks.EPS)
        engine.tell(self.y[None], X_ITSELF)
        engine.advance()  # as ask() does, which would make the points once more
        engine.tell(self.values, engine.pending())
        return engine

    @cached_property
    def solution(self) -> Solution:
        return self.engine.estimate().solution

    @property
    def samples(self) -> Samples:
        return self.engine.samples


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
