"""The contract between a design and the estimator: offsets out, values in, a Solution at the end.

A plan is pure: it never calls ``fun``, reads no file and draws random numbers only from the
generator that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.moves import AxisMoves, FreeMoves
from gradiator_np.solvers.solution import Solution

Array = NDArray[np.float64]


@dataclass(slots=True)
class Problem:
    """What a plan knows before it asks.

    B independent points (``batch_dims``; B = 1 otherwise) are moved at once, each by an offset of
    its own; one evaluation answers for all of them.

    Attributes
    ----------
    x : array, shape (B, m)
        The centre.
    y : array, shape (B, n)
        The value there, complex where ``fun`` is; nan in outputs that failed.
    lower, upper : array, shape (B, m)
        Bounds; no offset may leave them. lower == upper marks a fixed input.
    scale : array, shape (B, m)
        The unit of steps: |x|, or the caller's ``x_scale``; where both are 0, the median nonzero
        |x| of that point, else 1. Positive.
    known_scale : array of bool, shape (B, m)
        False where ``scale`` is only that last guess.
    eps : float
        Relative precision of the coarser of x and y (machine epsilon of float64 or float32).
    rng : Generator
        The only source of randomness.
    replace : bool
        Whether failed rows are to be replaced (``on_error="adapt"``) or just dropped.
    noise : array, shape (n,), or None
        Standard deviation of one evaluation, where the caller knows it.
    bounded : bool
        False where ``lower`` and ``upper`` are infinite throughout.
    noise_dof : array, shape (B, n), or None
        Degrees of freedom of ``noise``, which then has that shape too; None where it is exact.
    """

    x: Array
    y: NDArray[Any]
    lower: Array
    upper: Array
    scale: Array
    known_scale: NDArray[np.bool_]
    eps: float
    rng: np.random.Generator
    replace: bool = True
    noise: Array | None = None
    bounded: bool = True
    noise_dof: Array | None = None


@dataclass(slots=True)
class Rows:
    """All samples so far, in the order in which they were asked for.

    Attributes
    ----------
    moves : AxisMoves or FreeMoves
        Displacements from x that were really made (``(x + h) - x``, or what the caller reported),
        of the kind that the plan asked for.
    values : array, shape (k, B, n)
        Outputs; nan where an output failed or has not been told yet.
    done : array of bool, shape (k,)
        False where the row has not been told yet.
    y : array, shape (B, n)
        The value at the centre; nan in outputs that failed.
    clean : bool
        Every row is done, and every value finite, y included.
    """

    moves: AxisMoves | FreeMoves
    values: NDArray[Any]
    done: NDArray[np.bool_]
    y: NDArray[Any]
    clean: bool = False

    @property
    def offsets(self) -> Array:
        """Displacements of a plan that asks for offsets, shape (k, B, m)."""
        assert isinstance(self.moves, FreeMoves)
        return self.moves.offsets


class Plan(Protocol):
    """A design at work on one problem."""

    @property
    def name(self) -> str:
        """Words for the design."""

    def ask(self, rows: Rows) -> AxisMoves | NDArray[Any] | None:
        """What to run next: moves along inputs, or offsets (k, B, m); None where nothing more is.

        Called only when every earlier row is done. Moves are complex for the complex step. One
        plan asks for one kind.
        """

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from the rows told so far; may be called at any time."""

    @property
    def step(self) -> Array:
        """The step of each input, shape (B, m), in units of x; nan where it has none."""
