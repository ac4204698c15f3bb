"""The contract between a design and the estimator: offsets out, values in, a Solution at the end.

A plan is pure: it never calls ``fun``, reads no file and draws random numbers only from the
generator that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._typing import Array, Mask
from gradiator_np.designs._displacements import AxisDisplacements, Displacements
from gradiator_np.solvers._solution import Solution


@dataclass(frozen=True, slots=True)
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
    eps: float
    rng: np.random.Generator
    replace: bool = True
    noise: Array | None = None
    bounded: bool = True
    noise_dof: Array | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """All samples so far, in the order in which they were asked for; none of it can be written to.

    Attributes
    ----------
    moves : AxisDisplacements or Displacements
        Displacements from x that were really made (``(x + h) - x``, or what the caller reported),
        of the kind that the plan asked for; with ``streams`` only where runs got seeds by them.
    values : array, shape (k, B, n)
        Outputs; nan where an output failed or has not been told yet.
    done : array of bool, shape (k,)
        False where the row has not been told yet.
    y : array, shape (B, n)
        The value at the centre; nan in outputs that failed.
    clean : bool
        Every row is done, and every value finite, y included.
    """

    moves: AxisDisplacements | Displacements
    values: NDArray[Any]
    done: Mask
    y: NDArray[Any]
    clean: bool = False

    def first(self, k: int) -> Rows:
        """The first k rows."""
        return Rows(self.moves.first(k), self.values[:k], self.done[:k], self.y)

    @property
    def offsets(self) -> Array:
        """Displacements of a plan that asks for offsets, shape (k, B, m)."""
        assert isinstance(self.moves, Displacements)
        return self.moves.offsets


@lru_cache(maxsize=64, typed=True)
def constant(value: float, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of one number; shared, hence read-only."""
    return np.broadcast_to(value, shape)


def per_input(value: Any, shape: tuple[int, ...], what: str) -> Array:
    """A number, one for each input, or one for each input of each point, as (B, m)."""
    a = checks.numeric(value, what)
    if a.ndim and a.size not in (shape[1], shape[0] * shape[1]):
        raise ValueError(
            f"{what} has {a.size} entries, but x has {shape[1]} inputs; give a number, or one for "
            "each of them"
        )
    return np.array(np.broadcast_to(a if a.ndim == 0 else a.reshape(-1, shape[1]), shape), float)


class Design(Protocol):
    """Where to look: options, shared by all problems.

    Attributes
    ----------
    needs_value : bool
        Whether a plan has to know the value at x before it asks.
    draws : bool
        Whether a plan draws random numbers.
    """

    needs_value: ClassVar[bool]
    draws: ClassVar[bool]

    def start(self, problem: Problem, learned: Any = None) -> Plan:
        """A plan for one problem; ``learned`` is what a plan for another point has ``learned``."""


class Plan(Protocol):
    """A design at work on one problem."""

    @property
    def name(self) -> str:
        """Words for the design."""

    @property
    def learned(self) -> Any:
        """What helps a plan for another point; None where there is nothing."""

    def ask(self, rows: Rows) -> AxisDisplacements | Displacements | NDArray[Any] | None:
        """What to run next: moves along inputs, or offsets (k, B, m); None where nothing more is.

        Called only when every earlier row is done. Moves are complex for the complex step. One
        plan asks for one kind. They are copied.
        """

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from the rows told so far; may be called at any time."""

    @property
    def step(self) -> Array:
        """The step of each input, shape (B, m), in units of x; nan where it has none."""
