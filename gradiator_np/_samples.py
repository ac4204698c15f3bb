"""The record of runs: what was asked, what was reached, what came back, what failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._checks import numeric
from gradiator_np._typing import Mask


@dataclass(frozen=True, slots=True, repr=False)
class Samples:
    """Every run that was made, failed ones included; rows are runs in the order asked for.

    Attributes
    ----------
    points : array, shape (k, m)
        Inputs as one flat row per run (the batch axes, where there are any, in front of m).
    outputs : array, shape (k, n)
        Outputs; nan where an output failed.
    errors : dict of int to str
        For rows whose run raised: the traceback, or the caller's words.

    Examples
    --------
    >>> from gradiator_np import jacobian
    >>> samples = jacobian(lambda x: x**2, [1.0, 2.0], method="3-point").samples
    >>> len(samples), samples.points[0], samples.outputs[0], samples.errors
    (5, array([1., 2.]), array([1., 4.]), {})
    """

    points: NDArray[Any]
    outputs: NDArray[Any]
    errors: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("points", "outputs"):
            if not isinstance(getattr(self, name), np.ndarray):
                object.__setattr__(self, name, numeric(getattr(self, name), name))
        if len(self.points) != len(self.outputs):
            raise ValueError(
                f"{len(self.points)} points and {len(self.outputs)} outputs; give one row of each "
                "for every run"
            )

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        points, outputs = self.points.shape[1:], self.outputs.shape[1:]
        return (
            f"Samples({len(self)} runs, points of shape {points}, outputs of shape {outputs}, "
            f"{len(self) - int(self.ok.sum())} failed)"
        )

    @property
    def ok(self) -> Mask:
        """Rows with a finite value in every output."""
        k = len(self.points)
        return np.asarray(np.isfinite(self.outputs).reshape(k, -1).all(-1))


def last_line(text: str) -> str:
    """The last line of a traceback: what went wrong, without where."""
    return text.rsplit("\n", 1)[-1]


def attach(exc: BaseException, samples: Samples) -> None:
    """Give an exception the runs made before it: nothing is lost, whatever ended the work."""
    if getattr(exc, "samples", None) is not None:
        return
    try:
        exc.samples = samples  # type: ignore[attr-defined]
        exc.add_note(f"{len(samples)} evaluations made before this are in .samples")
    except AttributeError:  # an exception with __slots__
        pass


class SampleError(RuntimeError):
    """An estimation that could not go on; nothing that was evaluated is lost.

    Attributes
    ----------
    samples : Samples or None
        All runs made before the error.

    Examples
    --------
    >>> from math import nan
    >>> from gradiator_np import SampleError, gradiator
    >>> f = gradiator(lambda x: x[:1] if x[1] == 2.0 else [nan], method="3-point")
    >>> try:
    ...     f.vjp([1.0, 2.0], [1.0])  # nothing but x[1] = 2 has a value
    ... except SampleError as error:
    ...     print(len(error.samples) >= 5)
    True
    """

    def __init__(self, message: str, samples: Samples | None = None) -> None:
        super().__init__(message)
        self.samples = samples


class EvaluationError(SampleError):
    """``fun`` failed in a way that going on would not mend.

    Examples
    --------
    >>> from gradiator_np import EvaluationError, jacobian
    >>> try:
    ...     jacobian(lambda x: x.missing, [1.0, 2.0])
    ... except EvaluationError as error:
    ...     print(type(error.__cause__).__name__)
    AttributeError
    """
