"""Inputs next to 0: does 1e-9 live there, or is it a coordinate that happens to be small?"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.mending import Mending
from gradiator_np.designs.pilot import CAP

Array = NDArray[np.float64]

# Inputs this much smaller than the others are asked.
NEAR_ZERO = 1e-3
# A change of so many standard deviations of the noise is an answer; one of so many leaves noise no
# more than 1e-4 of a slope.
ANSWER, ENOUGH = 5.0, 1e4
# Factor from one run to the next.
GROWTH = 100.0
# Further pairs of an input that was found.
AGAIN = 2


class Growing(Mending):
    """The part of a plan that finds the scale of inputs that noise hides at |x|.

    An input that lives at 1e-14 (a saturation current) answers to a change by its own size, one
    that lies there by accident does not. Runs lead away from 0, so that the sign of x is kept
    until something answers.
    """

    #: Inputs whose scale was found.
    grown: list[int]

    def _grown_words(self) -> str:
        if not self.grown:
            return ""
        which = ", ".join(str(j) for j in self.grown[:5]) + (", ..." if self.grown[5:] else "")
        return (
            f"; noise hides what inputs {which} do at steps of the size of x, and theirs reach "
            "beyond it: give x_scale or max_step where that is too far"
        )

    def _grow(self) -> Generator[Array, None, None]:
        assert self.learned is not None
        if not self.learned.noisy:
            return
        size = np.abs(self.problem.x)
        most = np.where(size > 0, _typical(size) / np.where(size > 0, size, 1.0), 0.0)
        most = most.max(axis=0)[self.inputs]
        small = (most > 1 / NEAR_ZERO) & (self.problem.scale == size).all(axis=0)[self.inputs]
        for k in np.flatnonzero(small & ~self.inert):
            before = self.extra
            factor = yield from self._scale_up(int(k), float(most[k]))
            if factor == 1:
                # what lives there pays for the look
                self.extra = before
            else:
                self._rescale(int(k), factor)
                # the pilot told nothing of how f bends along it
                self.extra += 2 * AGAIN
                self.grown.append(int(self.inputs[k]))

    def _scale_up(self, k: int, most: float) -> Generator[Array, None, float]:
        """By how much the scale of one input has to grow for its answer to clear the noise."""
        assert self.learned is not None
        book, j = self.book, int(self.inputs[k])
        sign = 1.0 if self.problem.x[0, j] > 0 else -1.0
        most = min(most, float(book.up[j] if sign > 0 else book.down[j]))
        t = good = 1.0
        while t <= most:
            self.extra += 1
            if self._evals() + 2 * self.inputs.size >= self._most_evals():
                break
            yield book.request_group(np.array([j]), np.array([t]), sign)
            change = book.values(self.rows)[-1] - book.f0
            heard = np.abs(change) / (np.sqrt(2.0) * self.learned.noise)
            if not np.isfinite(heard).any():
                break
            loudest, good = float(np.nanmax(heard)), t
            if loudest > ENOUGH or (t == 1 and loudest > ANSWER) or t == most:
                break
            t = min(GROWTH * t, most)
        return good

    def _rescale(self, k: int, factor: float) -> None:
        """Measure one input in a unit that many times as large."""
        assert self.learned is not None
        book, j = self.book, int(self.inputs[k])
        book.rescale(j, factor)
        cap = float(min(book.up[j], book.down[j], CAP))
        self.cap[k] = cap if cap >= book.least[j] else 0.0
        self.floor[k] = min(4 * book.least[j], self.cap[k] if cap > 0 else book.room[j] / 2)
        if book.pilot == j:
            self.learned = replace(self.learned, slope=factor * self.learned.slope)


def _typical(size: Array) -> Array:
    """Median |x| of the other inputs at each point (B, 1); 1 where there is no other."""
    m = size.shape[1]
    if m == 1:
        return np.ones((len(size), 1))
    return np.median(size, axis=1, keepdims=True)
