"""Displacements from x as a plan asked for them and as floating-point numbers allow them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Index


@dataclass(frozen=True, slots=True, eq=False)
class AxisDisplacements:
    """Rows that each move one input, but for a few: k numbers instead of k x m.

    Attributes
    ----------
    columns : array of int, shape (k,)
        The input that each row moves.
    t : array, shape (k, B)
        How far, in units of x.
    drift : dict of int to array, shape (B, m)
        Rows that move others too, or whose point lies beside their axis: what is left beside ``t``.
    missed : bool
        Whether points other than those asked for were reached.
    """

    columns: Index
    t: NDArray[Any]
    drift: Mapping[int, Array] = field(default_factory=dict)
    missed: bool = False
    #: All rows share the random numbers of x, where ``fun`` takes a seed.
    streams: ClassVar[None] = None

    def __len__(self) -> int:
        return len(self.columns)

    def realised(self, x: NDArray[Any], limits: tuple[Array, Array] | None) -> AxisDisplacements:
        """With (x + t) - x in x's precision, within the limits, in place of ``t``: new memory."""
        if self.t.dtype.kind == "c":  # imaginary parts are exact
            return AxisDisplacements(self.columns.copy(), read_only(self.t.copy()), self.drift)
        at = x.take(self.columns, axis=1).T
        own = None if limits is None else [bound[:, self.columns].T for bound in limits]
        t = _realised(at, self.t, own)
        drift = {row: _realised(x, rest, limits) for row, rest in self.drift.items()}
        return AxisDisplacements(self.columns.copy(), read_only(t), drift)

    def points(self, x: NDArray[Any], rows: Index | slice) -> NDArray[Any]:
        """Points (r, B, m) of some rows, new memory."""
        t, columns = self.t[rows], self.columns[rows]
        dtype = np.result_type(x, t) if t.dtype.kind == "c" else x.dtype
        out = np.empty((len(t), *x.shape), dtype)
        out[:] = x
        for i, rest in self._beside(rows):
            out[i] = x + rest
        if len(x) == 1:  # a flat index is the quickest
            m = x.shape[1]
            flat, place = out.reshape(-1), np.arange(0, len(t) * m, m) + columns
            flat[place] = flat[place] + t[:, 0]
        else:
            each = np.arange(len(t))
            out[each, :, columns] = out[each, :, columns] + t
        return out

    def _beside(self, rows: Index | slice) -> Iterator[tuple[int, Array]]:
        """Places among some rows of those that have a drift, and what it is."""
        if self.drift:
            which = np.arange(len(self))[rows]
            for i in np.flatnonzero(np.isin(which, list(self.drift))).tolist():
                yield i, self.drift[int(which[i])]

    def dense(self, rows: Index | slice, m: int) -> Array:
        """Displacements (r, B, m) of all inputs in some rows."""
        return self.points(np.zeros((self.t.shape[1], m)), rows)

    def along(self, rows: Index, columns: Index) -> NDArray[Any]:
        """Displacements (r, B) of one input in each of some rows."""
        out = np.where((self.columns[rows] == columns)[:, None], self.t[rows], 0.0)
        for i, rest in self._beside(rows):
            if self.columns[rows[i]] != columns[i]:
                out[i] = rest[:, columns[i]]
        return out

    def take(self, rows: Index) -> AxisDisplacements:
        """Some rows; -1 is x itself."""
        moved = (rows >= 0)[:, None]
        drift = {i: rest for i, rest in self._beside(np.maximum(rows, 0)) if rows[i] >= 0}
        return AxisDisplacements(self.columns[rows], np.where(moved, self.t[rows], 0.0), drift)

    def reached(self, rows: Index, offsets: Array) -> AxisDisplacements:
        """Where those rows ended at x + offsets, shape (r, B, m)."""
        each, columns = np.arange(len(rows)), self.columns[rows]
        t, beside = self.t.copy(), offsets.copy()
        t[rows] = offsets[each, :, columns]
        beside[each, :, columns] = 0.0
        others = {row: rest for row, rest in self.drift.items() if row not in set(rows.tolist())}
        drift = {int(row): rest for row, rest in zip(rows, beside) if rest.any()}
        return AxisDisplacements(self.columns, read_only(t), {**others, **drift}, True)

    def first(self, k: int) -> AxisDisplacements:
        """The first k rows."""
        drift = {row: rest for row, rest in self.drift.items() if row < k}
        return AxisDisplacements(self.columns[:k], self.t[:k], drift, self.missed)

    def joined(self, other: AxisDisplacements) -> AxisDisplacements:
        """Followed by the rows of ``other``, which nobody has run yet."""
        columns = np.concatenate([self.columns, other.columns])
        t = read_only(np.concatenate([self.t, other.t]))
        later = {len(self) + row: rest for row, rest in other.drift.items()}
        return AxisDisplacements(columns, t, {**self.drift, **later}, self.missed)


@dataclass(frozen=True, slots=True, eq=False)
class Displacements:
    """Rows that move any inputs.

    Attributes
    ----------
    offsets : array, shape (k, B, m)
        In units of x.
    streams : array of int, shape (k,), or None
        Random stream of each row, where ``fun`` takes a seed; 0 is that of x, which all rows share
        in place of None.
    """

    offsets: Array
    streams: Index | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def t(self) -> Array:
        """What has to differ from 0 wherever it was asked to."""
        return self.offsets

    def realised(self, x: NDArray[Any], limits: tuple[Array, Array] | None) -> Displacements:
        """With (x + offset) - x in x's precision, within the limits: new memory."""
        return Displacements(read_only(_realised(x, self.offsets, limits)), self.streams)

    def points(self, x: NDArray[Any], rows: Index | slice) -> NDArray[Any]:
        """Points (r, B, m) of some rows, new memory."""
        return (x + self.offsets[rows]).astype(x.dtype, copy=False)

    def reached(self, rows: Index, offsets: Array) -> Displacements:
        """Where those rows ended at x + offsets, shape (r, B, m)."""
        all_offsets = self.offsets.copy()
        all_offsets[rows] = offsets
        return Displacements(read_only(all_offsets), self.streams)

    def first(self, k: int) -> Displacements:
        """The first k rows."""
        return Displacements(self.offsets[:k], None if self.streams is None else self.streams[:k])

    def joined(self, other: Displacements) -> Displacements:
        """Followed by the rows of ``other``."""
        offsets = read_only(np.concatenate([self.offsets, other.offsets]))
        if self.streams is None or other.streams is None:
            return Displacements(offsets)
        return Displacements(offsets, np.concatenate([self.streams, other.streams]))


def of_rows(offsets: Array) -> AxisDisplacements:
    """Rows that move any inputs, of offsets (k, B, m)."""
    k, batch, _ = offsets.shape
    return AxisDisplacements(np.zeros(k, np.intp), np.zeros((k, batch)), dict(enumerate(offsets)))


def _realised(x: NDArray[Any], t: Array, limits: Any) -> Array:
    """(x + t) - x in x's precision, within the limits."""
    there = (x + t).astype(x.dtype, copy=False)
    if limits is not None:
        there = np.clip(there, *limits).astype(x.dtype, copy=False)
    return np.asarray(np.subtract(there, x, dtype=np.float64))


def read_only(a: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be written to."""
    view = a.view()
    view.flags.writeable = False
    return view
