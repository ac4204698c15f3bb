"""Runs that failed and were run again at their point."""

from __future__ import annotations

import numpy as np

from gradiator_np._typing import Index
from gradiator_np.designs._displacements import Displacements
from gradiator_np.designs._protocol import Rows


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

    def add(self, first: int, rows: Index) -> None:
        """What is told from row ``first`` on repeats these rows, counted without repetitions."""
        self._of.update(zip(range(first, first + rows.size), rows.tolist()))

    def merged(self, told: Rows) -> Rows:
        """The rows without repetitions; outputs that failed are taken from these."""
        if not self._of:
            return told
        known = len(told.done)
        own = np.array([k for k in range(known) if k not in self._of], np.intp)
        values = told.values[own]
        for k, row in self._of.items():
            if k < known:
                lost = ~np.isfinite(values[row])
                values[row][lost] = told.values[k][lost]
                self.mended |= bool(np.isfinite(values[row][lost]).any())
        return Rows(Displacements(told.offsets[own]), values, told.done[own], told.y)
