"""Run the user's function at points: in a loop, compiled, vectorized, or by workers.

A run that fails becomes a row of nan and a text; nothing that another run returned is lost.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._calls import (
    FAILING,
    Call,
    Failure,
    Seeds,
    failed_at_x,
    is_jitted,
    only_value,
    text_of,
)
from gradiator_np._progress import ticker
from gradiator_np._samples import last_line
from gradiator_np._structure import Layout
from gradiator_np._typing import Index
from gradiator_np._workers import workers_of

# This many failures in a row at the start, all alike, are a bug in fun and no failing run.
ALIKE = 3


@dataclass(frozen=True, slots=True)
class Run:
    """How a function is run.

    Parameters
    ----------
    progress : bool or callable
        True shows a bar (package tqdm); a callable is called as ``progress(done, total)``.

    Examples
    --------
    >>> from gradiator_np import Run, jacobian
    >>> seen = []
    >>> run = Run(progress=lambda done, total: seen.append((done, total)))
    >>> jac = jacobian(lambda x: x**2, [1.0, 2.0], method="2-point", run=run).jac
    >>> seen
    [(1, 2), (2, 2)]
    """

    progress: bool | Callable[[int, int], object] = False


@dataclass(slots=True)
class Outcome:
    """What came back: ``values`` (k, ..., n), nan where failed; ``errors`` by row.

    ``done`` rows of ``values`` are filled: fewer than k where it stopped early. ``reshaped`` is
    the first row whose value has another shape than that at x.
    """

    values: NDArray[Any] = field(default_factory=lambda: np.empty(0))
    errors: dict[int, str] = field(default_factory=dict)
    done: int = 0
    cause: BaseException | None = None
    reshaped: int | None = None


class Evaluator:
    """The user's function over flat points.

    Parameters
    ----------
    fun, args, kwargs, vectorized, workers, run
        As in ``jacobian``.
    x_layout : Layout
    seeds : Seeds or None
        Where ``fun`` takes a seed: each row then comes with its random stream.
    complex_step : bool
        Points are complex and a result cut to real is an error.
    lift : callable or None
        From the points that a design moves to points of ``fun``, flat, all rows at once; may be
        exchanged between calls. That at x is run as it is.
    contract : callable or None
        From flat values of ``fun`` to what is kept of them, row by row on arrival: a VJP never
        stores J.
    precision : float
        What is known of the attribute.

    Attributes
    ----------
    y_layout : Layout or None
        Of the first value; a later one of another shape is a failed run.
    counts : bool
        Whether the first value was of whole numbers.
    precision : float
        Machine epsilon of the coarsest type in the first value.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        x_layout: Layout,
        *,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        vectorized: bool = False,
        workers: Any = 1,
        run: Run | None = None,
        complex_step: bool = False,
        lift: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
        contract: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
        seeds: Seeds | None = None,
        precision: float = 0.0,
    ) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be callable, got {type(fun).__name__} {fun!r:.60}")
        if not (kwargs is None or isinstance(kwargs, Mapping)):
            raise TypeError(f"kwargs must be a dict of named arguments, got {kwargs!r:.60}")
        if not (run is None or isinstance(run, Run)):
            raise TypeError(f"run must be a Run, such as Run(progress=True), got {run!r:.60}")
        if not isinstance(args, tuple):
            args = (args,)  # SciPy's habit: one extra argument need not be a tuple
        self.x_layout = x_layout
        self.y_layout: Layout | None = None
        self.dtype: np.dtype[Any] = np.dtype(np.float64)
        self.precision = precision
        self.counts = False
        self.vectorized = vectorized
        self.run = run
        self._kept, self._kept_dtype = 0, self.dtype
        self.complex_step = complex_step
        self.lift, self._contract = lift, contract
        self._like: Any = None
        self._call = Call(fun, args, dict(kwargs or {}), x_layout, complex_step, seeds)
        self._workers = workers_of(workers, self._call)
        # Complex points compile fun anew, for what one complex-step Jacobian would gain.
        self._jitted = (
            is_jitted(fun)
            and self._workers is None
            and not vectorized
            and not complex_step
            and seeds is None
            and x_layout.fields is None
        )

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._workers is not None:
            self._workers.close()

    @property
    def in_turn(self) -> bool:
        """Whether ``fun`` gets one point after the other, here, and nobody counts parts."""
        return self._workers is None and not self.vectorized and self.run is None

    # -- the first value ---------------------------------------------------------------------

    def first(self, flat: NDArray[Any]) -> NDArray[Any]:
        """The value at x, flat: fixes the layout and dtype of all that follow.

        Raises
        ------
        EvaluationError
            Where fun raises there; from the original exception.
        TypeError, ValueError
            Where it returns no numbers, or none of the batch axes.
        """
        try:
            own = flat[None].copy() if self.vectorized else flat.copy()
            value = self._call.run(own if self._call.seeds is None else (own, 0))
        except FAILING as exc:
            raise failed_at_x(exc, self.vectorized) from exc
        if self.vectorized:
            value = only_value(value)
        return self.learn(value)

    def learn(self, value: Any) -> NDArray[Any]:
        """Take ``value`` as the value at x: fixes layout and dtype of all that follow."""
        batch_dims = len(self.x_layout.batch)
        self._like = value if self._jitted else None
        self.y_layout, flat = output(value, batch_dims)
        self.precision = max(self.precision, checks.precision(value))
        self.counts = np.asarray(value).dtype.kind in "biu"
        if self.y_layout.batch != self.x_layout.batch:
            raise ValueError(
                f"fun(x) has shape {np.shape(value)}, but batch_dims={batch_dims} makes its "
                f"leading axes those of x, {self.x_layout.batch}"
            )
        complex_values = self.complex_step or flat.dtype.kind == "c"
        self.dtype = np.dtype(np.complex128 if complex_values else np.float64)
        kept = self.contracted(flat)
        self._kept, self._kept_dtype = kept.shape[-1], np.result_type(kept, self.dtype)
        return flat.copy()  # fun may return its own buffer, and overwrite it at the next call

    @property
    def value_size(self) -> int:
        """Numbers in one value of ``fun``, batch axes included."""
        return 1 if self.y_layout is None else self.y_layout.size * math.prod(self.y_layout.batch)

    @property
    def kept_layout(self) -> Layout:
        """The layout of what is kept of a value."""
        assert self.y_layout is not None
        return (
            self.y_layout if self._contract is None else Layout((self._kept,), self.y_layout.batch)
        )

    def contracted(self, y: NDArray[Any]) -> NDArray[Any]:
        """What is kept of flat values."""
        return y if self._contract is None else self._contract(y)

    # -- many values -------------------------------------------------------------------------

    def __call__(
        self,
        points: NDArray[Any],
        *,
        out: Outcome | None = None,
        stop: str = "never",
        replay: Iterator[Any] | None = None,
        streams: Index | None = None,
    ) -> Outcome:
        """Run points (k, batch.., m), which fun may overwrite.

        ``out`` takes what comes back, of a call that an exception ends (Ctrl-C) too. ``streams``:
        their random streams, where fun takes seeds. ``replay``: what the first of them returned,
        where they have been run already. ``stop``: "alike" ends where the first few all fail
        alike, "first" at the first failure, "never" goes on.
        """
        out = Outcome() if out is None else out
        if self.lift is not None:
            points = self.lift(points)
        k, layout = len(points), self.kept_layout
        out.values = np.empty((k, *layout.batch, self._kept), self._kept_dtype)
        if self.vectorized:
            self._vectorized(points, out, 0, k, stop)
        elif streams is None or self._call.seeds is None:
            self._rows(points, out, stop, replay)
        else:
            self._rows(list(zip(points, streams.tolist())), out, stop, replay)
        return out

    def _rows(self, rows: Any, out: Outcome, stop: str, replay: Iterator[Any] | None) -> None:
        """One run for each row; results are taken in the order of the rows."""
        values, layout = out.values, self.y_layout
        assert layout is not None
        shape = layout.batch + (layout.shape or ()) if layout.fields is None else None
        flat_shape = (*layout.batch, layout.size)
        scalar, straight = shape == (), shape == flat_shape
        kinds = "fc" if self.dtype.kind == "c" else "f"
        if self.complex_step:
            kinds = "c"
        contract = self._contract
        tick = ticker(self.run.progress, len(rows)) if self.run is not None else None
        if (
            self._jitted
            and tick is None
            and replay is None
            and layout.fields is None
            and self._compiled(rows, out)
        ):
            return
        if self._workers is not None:
            results = self._workers(rows)
        elif self.x_layout.plain and not self.complex_step and self._call.seeds is None:
            results = _loop(self._call, rows, replay or iter(()))
        else:
            results = map(self._safe, rows)
        for i, value in enumerate(results):
            if type(value) is np.ndarray and value.shape == shape and value.dtype.kind in kinds:
                flat = value if straight else value.reshape(flat_shape)
                values[i] = flat if contract is None else contract(flat)
            elif scalar and isinstance(value, float) and "f" in kinds and contract is None:
                values[i, 0] = value
            else:
                self._store(out, i, value)
            out.done = i + 1
            if tick is not None:
                tick(i + 1)
            if stop == "first" and not np.isfinite(values[i]).all():
                if self._workers is None:
                    return
                self._workers.end()
                stop = "never"
            if stop == "alike" and len(out.errors) == ALIKE == i + 1 and _alike(out.errors):
                return

    def _store(self, out: Outcome, i: int, value: Any) -> None:
        """Put a value of any kind into row i, or say why it does not fit."""
        assert self.y_layout is not None
        out.values[i] = np.nan
        if type(value) is Failure:
            out.errors[i] = value.text
            out.cause = out.cause or value.exc
            return
        try:
            same = self.y_layout.same(value)
            layout, flat = output(
                self.y_layout.arrange(value) if same else value, len(self.x_layout.batch)
            )
        except (TypeError, ValueError) as exc:
            out.errors[i] = str(exc)
            return
        if not same:
            out.errors[i] = f"fun returned shape {layout.shapes}, at x {self.y_layout.shapes}"
            out.reshaped = i if out.reshaped is None else out.reshaped
        elif self.complex_step and flat.dtype.kind != "c":
            out.errors[i] = (
                "fun returned real values for a complex input (float(), abs(), .real or a real "
                "array inside?): the complex step needs an analytic fun that keeps the imaginary "
                "part; use method='3-point'"
            )
        elif flat.dtype.kind == "c" and self.dtype.kind != "c":
            out.errors[i] = "fun returned complex values here but real ones at x"
        else:
            out.values[i] = self.contracted(flat)

    def _compiled(self, rows: NDArray[Any], out: Outcome) -> bool:
        """All runs of a jitted function inside compiled code; False where that cannot be."""
        from gradiator_np.kernels import sampling

        call, x_layout = self._call, self.x_layout
        try:
            args = sampling.positional(call.fun, call.args, call.kwargs)
            done = sampling.sample(call.fun, x_layout.unflatten(rows), args, like=self._like)
        except (sampling.Unsupported, TypeError):
            self._jitted = False  # what Numba cannot call, Python may
            return False
        flat = done.values.reshape(len(rows), *x_layout.batch, -1)
        out.values = self.contracted(flat)
        out.done = len(rows)
        for row, exc in done.errors.items():
            out.errors[row] = text_of(exc)
            out.cause = out.cause or exc
        return True

    def _safe(self, row: Any) -> Any:
        try:
            return self._call.run(row)
        except FAILING as exc:
            return Failure(exc)

    # -- vectorized --------------------------------------------------------------------------

    def _vectorized(
        self, points: NDArray[Any], out: Outcome, start: int, end: int, stop: str
    ) -> bool:
        """One call for many points; where it fails, halves find the rows that are to blame.

        Whether to go on.
        """
        part = points[start:end]
        try:
            value = self._call.run(part.copy() if end - start < len(points) else part)
            # A view, or an array that fun holds as well, may change at its next call; one that
            # nobody else refers to is ours as it is.
            ours = type(value) is np.ndarray and value.flags.owndata and sys.getrefcount(value) <= 2
            flat = self._stacked(value, end - start, ours)
        except FAILING as exc:
            if end - start == 1:
                out.values[start], out.errors[start] = np.nan, text_of(exc)
                out.cause = out.cause or exc
                out.done += 1
                alike = len(out.errors) == ALIKE == out.done and _alike(out.errors)
                return not (stop == "first" or (stop == "alike" and alike))
            middle = (start + end) // 2
            return self._vectorized(points, out, start, middle, stop) and self._vectorized(
                points, out, middle, end, stop
            )
        out.done += end - start
        flat = self.contracted(flat)
        if flat.shape == out.values.shape and flat.dtype == out.values.dtype:
            out.values = flat
        else:
            out.values[start:end] = flat
        return True

    def _stacked(self, value: Any, k: int, ours: bool) -> NDArray[Any]:
        """The values of a vectorized call, flat, of our own memory."""
        layout = self.y_layout
        assert layout is not None
        if layout.fields is not None and isinstance(value, Mapping):
            value = {name: checks.numeric(item, f"fun(points)[{name!r}]")
                     for name, item in value.items()}  # fmt: skip
        else:
            value = checks.numeric(value, "fun(points)")
            want = (k, *layout.batch, *(layout.shape or ()))
            if value.shape != want:
                raise ValueError(
                    f"fun returned shape {value.shape} for {k} points; expected {want}"
                )
        flat = layout.flatten(value, 1)
        if len(flat) != k:
            raise ValueError(f"fun returned {len(flat)} values for {k} points")
        if flat.dtype.kind == "c" and self.dtype.kind != "c":
            raise TypeError("fun returned complex values here but real ones at x")
        if self.complex_step and flat.dtype.kind != "c":
            raise TypeError("fun returned real values for a complex input; use method='3-point'")
        return np.array(flat, dtype=self.dtype, copy=None if ours else True)


def _loop(call: Call, rows: NDArray[Any], replay: Iterator[Any]) -> Iterator[Any]:
    """The plain loop, with as little as possible between evaluations."""
    fun, args, kwargs = call.fun, call.args, call.kwargs
    known = 0
    for value in islice(replay, len(rows)):
        known += 1
        yield value
    for row in rows[known:]:
        try:
            yield fun(row, *args, **kwargs)
        except FAILING as exc:
            yield Failure(exc)


def _alike(errors: dict[int, str]) -> bool:
    return len({last_line(text) for text in errors.values()}) == 1


def output(value: Any, batch_dims: int) -> tuple[Layout, NDArray[Any]]:
    """Layout of a value of fun, and the value flat, as float64 or complex128."""
    if type(value) is not np.ndarray and isinstance(value, Mapping):
        value = {
            k: (v if isinstance(v, Mapping) else checks.numeric(v, f"fun(x)[{k!r}]"))
            for k, v in value.items()
        }
        if not value:
            raise ValueError("fun(x) is an empty dict: there is nothing to differentiate")
    else:
        value = checks.numeric(checks.returned(value, "fun(x)"), "fun(x)")
    layout = Layout.of(value, batch_dims)
    if layout.size == 0:
        raise ValueError(f"fun(x) is empty (shape {np.shape(value)}): nothing to differentiate")
    return layout, layout.flatten(value)
