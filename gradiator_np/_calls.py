"""One run of the user's function: its arguments, its random stream, its failure as a text."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._samples import EvaluationError
from gradiator_np._structure import Layout

# What a failing run may raise: a simulator's sys.exit() must not end its caller.
FAILING = (Exception, SystemExit)


class Failure:
    """A run that raised, in place of its value."""

    __slots__ = ("exc", "text")

    def __init__(self, exc: BaseException | None, text: str | None = None) -> None:
        self.exc = exc
        self.text = text_of(exc) if text is None and exc is not None else str(text)


class Seeds:
    """Random streams for a function that takes a seed.

    Parameters
    ----------
    name : str
        The argument of ``fun`` that takes it.
    root : int
        What all streams derive from.
    """

    # Names under which NumPy's users expect a Generator rather than an int.
    GENERATORS = ("rng", "generator", "random_state")

    def __init__(self, name: str, root: int) -> None:
        self.name = name
        self.root = root

    def of(self, stream: int) -> dict[str, Any]:
        """The argument for one stream: the same number or sequence each time."""
        sequence = np.random.SeedSequence(self.root, spawn_key=(int(stream),))
        if self.name in self.GENERATORS:
            return {self.name: np.random.default_rng(sequence)}
        return {self.name: int(sequence.generate_state(1)[0])}


class Call:
    """The user's function on one flat row; picklable if the function is."""

    def __init__(
        self, fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
        x_layout: Layout, cut_is_error: bool, seeds: Seeds | None,
    ) -> None:  # fmt: skip
        self.fun, self.args, self.kwargs = fun, args, kwargs
        self.x_layout, self.cut_is_error, self.seeds = x_layout, cut_is_error, seeds

    def run(self, item: Any) -> Any:
        """Run one row, or one (row, random stream)."""
        if self.seeds is not None:
            row, stream = item
            x = row if self.x_layout.plain else self.x_layout.unflatten(row)
            return self.fun(x, *self.args, **self.kwargs, **self.seeds.of(stream))
        row = item
        x = row if self.x_layout.plain else self.x_layout.unflatten(row)
        if not self.cut_is_error:
            return self.fun(x, *self.args, **self.kwargs)
        # Complex step: an assignment into a real array would drop the derivative silently.
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            return self.fun(x, *self.args, **self.kwargs)

    def __call__(self, item: Any) -> tuple[Any, str | None]:
        """For workers: an exception comes back as text, so that one run cannot cost others."""
        try:
            return self.run(item), None
        except FAILING as exc:
            return None, text_of(exc)


def text_of(exc: BaseException) -> str:
    # The first frame is this file's: users want theirs.
    trace = exc.__traceback__.tb_next if exc.__traceback__ else None
    return "".join(traceback.format_exception(type(exc), exc, trace)).strip()


def is_jitted(fun: object) -> bool:
    """Whether ``fun`` is a Numba-jitted function, without importing Numba to find out."""
    return type(fun).__module__.startswith("numba.")


def failed_at_x(exc: BaseException | None, vectorized: bool = False) -> EvaluationError:
    """The error for a run at x itself that raised."""
    what = "".join(traceback.format_exception_only(exc)).strip()
    named = isinstance(exc, (IndexError, KeyError, AttributeError))
    return EvaluationError(
        f"fun failed at x itself ({what}); it is called as fun("
        f"{'points, shape (k, *x.shape): rows' if vectorized else 'x'}, *args, **kwargs)"
        f"{' with a plain array (give x as a dict where fun uses names)' if named else ''}. "
        "Nothing can be estimated around a point where fun has no value"
    )


def only_value(value: Any) -> Any:
    """The value of a vectorized call on one point."""
    if isinstance(value, Mapping):
        return {name: only_value(item) for name, item in value.items()}
    a = checks.numeric(value, "fun(points)")
    if a.ndim == 0 or a.shape[0] != 1:
        raise ValueError(
            "a vectorized fun takes points of shape (k, *x.shape) and returns (k, *y.shape), but "
            f"for k = 1 it returned shape {a.shape} (SciPy's columns are the other way: transpose "
            "them)"
        )
    return value[0] if isinstance(value, np.ndarray) else a[0]  # with its own type
