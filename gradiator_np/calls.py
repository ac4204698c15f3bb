"""One run of the user's function: its arguments, its random stream, its failure as a text."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from gradiator_np.structure import Layout

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
    root : int or None
        What all streams derive from; drawn where it is None.
    """

    # Names under which NumPy's users expect a Generator rather than an int.
    GENERATORS = ("rng", "generator", "random_state")

    def __init__(self, name: str, root: int | None) -> None:
        self.name = name
        self.root = np.random.SeedSequence(root).entropy

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
