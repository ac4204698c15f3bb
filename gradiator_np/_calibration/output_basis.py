"""What runs returned, in an orthonormal basis that grows with them: k numbers a run, not n.

All that a search asks of residuals but for single ones, sums of squares and products with J, is the
same in any orthonormal basis, and k runs of n residuals span k dimensions at most.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradiator_np._checks import EPS
from gradiator_np._typing import Array

#: Fewer residuals than this cost less than their basis does.
LEAST_RESIDUALS = 1000
#: Numbers in one block of the basis, but for eight vectors at least.
BLOCK = 2**20
#: Columns of a block that are worked on at once.
PIECE = 2**15
#: Passes of Gram-Schmidt: each but the last one halved what was left. (Two are enough where the
#: vector is independent of the others to working precision: Giraud et al., Numer. Math. 101
#: (2005) 87.)
MOST_PASSES = 4


@dataclass
class OutputBasis:
    """Orthonormal vectors of n numbers, made from what runs returned, one after the other.

    In blocks: one array that grows would be copied, at twice the memory.

    Attributes
    ----------
    n : int
    rank : int
    """

    n: int
    rank: int = 0
    _blocks: list[Array] = field(default_factory=list)

    @property
    def is_worth_it(self) -> bool:
        """Whether coordinates are clearly fewer than what they stand for."""
        return self.n >= LEAST_RESIDUALS and 2 * (self.rank + 1) <= self.n

    def add(self, residuals: Array) -> Array:
        """Coordinates (r,) of one run (n,), whose part outside of the others' span joins them."""
        rest, coordinates = residuals.copy(), np.zeros(self.rank + 1)
        first = size = float(np.linalg.norm(rest))
        for _ in range(MOST_PASSES):
            before, found = size, self.project(rest)
            self._subtract(rest, found)
            coordinates[:-1] += found
            size = float(np.linalg.norm(rest))
            if size > 0.5 * before or size <= EPS * first:
                break
        if size <= EPS * first:  # nothing is left but rounding
            return coordinates[:-1]
        coordinates[-1] = size
        rest /= size
        self._append(rest)
        return coordinates

    def _subtract(self, rest: Array, found: Array) -> None:
        """The part with these coordinates, in pieces that stay in the cache."""
        start = 0
        for block in self._filled():
            some = found[start : start + len(block)]
            start += len(block)
            for at in range(0, self.n, PIECE):
                rest[at : at + PIECE] -= some @ block[:, at : at + PIECE]

    def project(self, vectors: Array) -> Array:
        """Coordinates (..., r) of vectors (..., n)."""
        parts = [vectors @ block.T for block in self._filled()]
        return np.concatenate(parts, axis=-1) if parts else np.zeros((*vectors.shape[:-1], 0))

    def lift(self, coordinates: Array) -> Array:
        """Vectors (..., n) of coordinates (..., r)."""
        out, start = np.zeros((*coordinates.shape[:-1], self.n)), 0
        for block in self._filled():
            some = coordinates[..., start : start + len(block)]
            out += some @ block[: some.shape[-1]]  # the basis may have grown since
            start += len(block)
        return out

    def _append(self, vector: Array) -> None:
        size = max(8, BLOCK // self.n)
        at = self.rank % size
        if not at:
            self._blocks.append(np.empty((size, self.n)))
        self._blocks[-1][at] = vector
        self.rank += 1

    def _filled(self) -> list[Array]:
        """The blocks, of the last one what is filled."""
        if not self._blocks:
            return []
        *full, last = self._blocks
        return [*full, last[: self.rank - len(full) * len(last)]]


@dataclass(frozen=True)
class Rows:
    """What models are made from: residuals of some runs, or their coordinates.

    Attributes
    ----------
    values : array, shape (k, p)
        Residuals; or coordinates, and a last column of 0 for all dimensions that no run has seen.
    multiplicity : array, shape (p,)
        How many dimensions a column stands for: 1 but for that last one.
    basis : OutputBasis or None
        Whose coordinates they are.
    """

    values: Array
    multiplicity: Array
    basis: OutputBasis | None = None

    @classmethod
    def of(cls, residuals: list[Array]) -> Rows:
        """The residuals (n,) themselves."""
        values = np.array(residuals)
        return cls(values, np.ones(values.shape[1]))

    @classmethod
    def reduced(cls, coordinates: list[Array], basis: OutputBasis) -> Rows:
        values = np.zeros((len(coordinates), basis.rank + 1))
        for row, each in zip(values, coordinates):
            row[: len(each)] = each
        multiplicity = np.ones(basis.rank + 1)
        multiplicity[-1] = basis.n - basis.rank
        return cls(values, multiplicity, basis)
