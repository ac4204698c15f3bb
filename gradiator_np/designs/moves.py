"""Displacements from x as a plan asked for them and as floating-point numbers allow them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class AxisMoves:
    """Rows that each move one input: k numbers instead of k x m.

    Attributes
    ----------
    columns : array of int, shape (k,)
        The input that each row moves.
    t : array, shape (k, B)
        How far, in units of x; what was really made once the estimator has realised it.
    drift : dict of int to array, shape (B, m)
        Rows whose point was reached beside their axis: what is left beside ``t``.
    missed : bool
        Whether points other than those asked for were reached.
    """

    __slots__ = ("columns", "drift", "missed", "t")

    def __init__(self, columns: NDArray[np.intp], t: NDArray[Any]) -> None:
        self.columns = columns
        self.t = t
        self.drift: dict[int, Array] = {}
        self.missed = False

    def __len__(self) -> int:
        return len(self.columns)

    def realise(self, x: NDArray[Any], limits: tuple[Array, Array] | None) -> NDArray[Any]:
        """Replace ``t`` by (x + t) - x in x's precision, within the limits; return what it was."""
        wanted = self.t
        at = x.take(self.columns, axis=1).T
        if wanted.dtype.kind == "c":
            return wanted  # imaginary parts are exact
        there = (at + wanted).astype(x.dtype, copy=False)
        if limits is not None:
            lower, upper = limits[0][:, self.columns].T, limits[1][:, self.columns].T
            there = np.clip(there, lower, upper).astype(x.dtype, copy=False)
        self.t = (there - at).astype(np.float64, copy=False)  # exact: they are close
        return wanted

    def points(self, x: NDArray[Any], rows: NDArray[np.intp] | slice) -> NDArray[Any]:
        """Points (r, B, m) of some rows, new memory."""
        t, columns = self.t[rows], self.columns[rows]
        dtype = np.result_type(x, t) if t.dtype.kind == "c" else x.dtype
        out = np.empty((len(t), *x.shape), dtype)
        out[:] = x
        if len(x) == 1:  # a flat index is the quickest
            m = x.shape[1]
            out.reshape(-1)[np.arange(0, len(t) * m, m) + columns] += t[:, 0].astype(
                dtype, copy=False
            )
        else:
            out[np.arange(len(t)), :, columns] += t.astype(dtype, copy=False)
        if self.drift:
            for i, row in enumerate(np.arange(len(self))[rows]):
                if row in self.drift:
                    out[i] += self.drift[row].astype(out.dtype)
        return out

    def reach(self, row: int, offset: Array) -> None:
        """Row ``row`` ended at x + offset, shape (B, m)."""
        self.missed = True
        j = self.columns[row]
        self.t[row] = offset[:, j]
        rest = offset.copy()
        rest[:, j] = 0.0
        if rest.any():
            self.drift[row] = rest

    def extend(self, other: AxisMoves) -> None:
        """Append the rows of ``other``."""
        self.columns = np.concatenate([self.columns, other.columns])
        self.t = np.concatenate([self.t, other.t])


class FreeMoves:
    """Rows that move any inputs.

    Attributes
    ----------
    offsets : array, shape (k, B, m)
    """

    __slots__ = ("offsets",)

    def __init__(self, offsets: Array) -> None:
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def t(self) -> Array:
        """What has to differ from 0 wherever it was asked to."""
        return self.offsets

    def realise(self, x: NDArray[Any], limits: tuple[Array, Array] | None) -> Array:
        """Replace offsets by (x + offset) - x in x's precision; return what they were."""
        wanted = self.offsets
        there = (x + wanted).astype(x.dtype, copy=False)
        if limits is not None:
            there = np.clip(there, *limits).astype(x.dtype, copy=False)
        self.offsets = np.subtract(there, x, dtype=np.float64)
        return wanted

    def points(self, x: NDArray[Any], rows: NDArray[np.intp] | slice) -> NDArray[Any]:
        """Points (r, B, m) of some rows, new memory."""
        return (x + self.offsets[rows]).astype(x.dtype, copy=False)

    def reach(self, row: int, offset: Array) -> None:
        """Row ``row`` ended at x + offset, shape (B, m)."""
        self.offsets[row] = offset

    def extend(self, other: FreeMoves) -> None:
        """Append the rows of ``other``."""
        self.offsets = np.concatenate([self.offsets, other.offsets])
