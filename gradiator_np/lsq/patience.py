"""When a search has nothing left to gain."""

from __future__ import annotations

import numpy as np

#: Iterations in a row without hope of progress before the search ends.
CALM = 4
#: Noise of the sum of squares, relative to it, from which on the whole patience is needed.
LOUD = 1e-3
#: Gain, in standard deviations of the noise of the sum of squares, that is worth a run.
WORTH = 0.25
#: Gain, relative to the sum of squares, that is worth a run.
LEAST = 1e-8
#: Runs without a better sum of squares before the search ends, and ten per parameter and one.
STALE = 30


class Patience:
    """Counts iterations without hope.

    Attributes
    ----------
    checked : bool
        A run next to the centre has confirmed that nothing is to be gained there.
    """

    def __init__(self, m: int) -> None:
        self.stale = max(STALE, STALE * (m + 1) // 3)
        self.calm = self.idle = self.since = 0
        self.best = np.inf
        self.checked = False

    def renew(self, runs: int) -> None:
        """Start counting anew."""
        self.calm = self.idle = 0
        self.since = runs

    def spent(
        self, size: float, noise: float, hope: float, near: float, runs: int, width: int
    ) -> bool:
        """One iteration more; whether there were enough without hope.

        Parameters
        ----------
        size, noise : float
            Sum of squares by the model, and its standard deviation for one run.
        hope, near : float
            What could be gained at most, anywhere and within the trust radius.
        runs, width : int
            Runs so far, and in the last round: two and more tell twice as much as one.
        """
        floor = WORTH * noise + LEAST * size
        told = min(width, 2)
        self.calm = self.calm + told if hope <= floor else 0
        self.idle = self.idle + told if near <= floor else 0
        if size < self.best - floor:
            self.best, self.since, self.checked = size, runs, False
        enough = CALM if noise > LOUD * size else CALM // 2
        return self.calm >= enough or self.idle >= 2 * enough or runs - self.since > self.stale
