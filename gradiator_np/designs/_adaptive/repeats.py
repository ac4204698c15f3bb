"""Runs that failed and were run again at their point."""

from __future__ import annotations

import numpy as np

from gradiator_np._typing import Index
from gradiator_np.designs._displacements import AxisDisplacements
from gradiator_np.designs._protocol import Rows

#: Stands for the run at x among rows.
AT_X = -1


class Repeats:
    """Which of the rows that were told stand in for a failed one.

    Attributes
    ----------
    mended : bool
        Whether an output that had failed was there in a repetition: then runs fail by chance.
    """

    def __init__(self) -> None:
        self.mended = False
        self._of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._of)

    def at_x(self) -> int:
        """How often the run at x was repeated."""
        return list(self._of.values()).count(AT_X)

    def add(self, first: int, rows: Index) -> None:
        """What is told from row ``first`` on repeats these rows, counted without repetitions."""
        self._of.update(zip(range(first, first + rows.size), rows.tolist()))

    def merged(self, told: Rows) -> Rows:
        """The rows, and the value at x, without repetitions; outputs that failed are taken from
        these."""
        if not self._of:
            return told
        known = len(told.done)
        own = np.array([k for k in range(known) if k not in self._of], np.intp)
        values, y = told.values[own], told.y.copy()
        for k, row in self._of.items():
            if k < known:
                into = y if row == AT_X else values[row]
                lost = ~np.isfinite(into)
                into[lost] = told.values[k][lost]
                self.mended |= bool(np.isfinite(into[lost]).any())
        assert isinstance(told.moves, AxisDisplacements)
        return Rows(told.moves.take(own), values, told.done[own], y)
