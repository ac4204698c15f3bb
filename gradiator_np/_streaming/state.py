"""What a stream holds of its samples: the face that both kinds of it show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self

from gradiator_np._streaming.trail import Trail
from gradiator_np._typing import Array
from gradiator_np.solvers._solution import Solution


class StreamState(Protocol):
    """The estimate of J after the samples so far; what comes in has been checked."""

    needs_motion: ClassVar[bool]
    """Whether a row of zero displacement cannot be taken."""

    @property
    def jac(self) -> Array:
        """The Jacobian (n, m); may be the state's own array."""

    def add(self, dx: Array, df: Array) -> None:
        """Take one row, (m,) and (n,), or rows, (k, m) and (k, n)."""

    def follow(self, dx: Array, df: Array, trail: Trail, move: bool) -> None:
        """Take the difference from the present point of a trail, dx not zero."""

    def solution(self, n_samples: int) -> Solution:
        """J, its covariance and what limits them, after ``n_samples`` rows."""

    def unknown(self, u: Array) -> Array:
        """How much of the directions u (..., m) no sample has shown, from 0 to 1."""

    def merge(self, other: Self) -> None:
        """Add all rows that another state with the same options has seen."""

    def copy(self) -> Self:
        """An independent copy."""

    def arrays(self) -> dict[str, Array]:
        """All that ``restore`` needs, options aside."""

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Become the state that ``arrays`` came from; options are equal already."""
