"""The record of runs: what was asked, what was reached, what came back, what failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
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
    """

    points: NDArray[Any]
    outputs: NDArray[Any]
    errors: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Rows with a finite value in every output."""
        k = len(self.points)
        return np.asarray(np.isfinite(self.outputs).reshape(k, -1).all(-1))


def last_line(text: str) -> str:
    """The last line of a traceback: what went wrong, without where."""
    return text.rsplit("\n", 1)[-1]


class SampleError(RuntimeError):
    """An estimation that could not go on; nothing that was evaluated is lost.

    Attributes
    ----------
    samples : Samples or None
        All runs made before the error.
    """

    def __init__(self, message: str, samples: Samples | None = None) -> None:
        super().__init__(message)
        self.samples = samples


class EvaluationError(SampleError):
    """``fun`` failed in a way that going on would not mend."""
