"""The step at which truncation meets noise, input by input, from a handful of values.

H.-J. M. Shi, Y. Xie, M. Q. Xuan and J. Nocedal, Adaptive finite-difference interval estimation
for noisy derivative-free optimization, SIAM J. Sci. Comput. 44 (2022) A2302.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array

# A testing ratio in [LOW, HIGH] is accepted (paper, section 2: r = 1.5 and 6 about the ideal 3).
LOW, HIGH = 1.5, 6.0
MAX_ROUNDS = 40
# Steps end at one scale of x, unless noise is more than this share of y: an input that happens to
# lie at 1e-9 is told from one that lives there by its response alone.
MAX_NOISE_SHARE = 0.1
# Then they grow while noise costs more than this share of the slope ...
SLOPE_ACCURACY = 1e-6
# ... or until so many scales have brought no answer at all.
MAX_SCALES_SILENT = 10.0
START = 2 / np.sqrt(3)


class StepOutcome(StrEnum):
    """How the search for the step of one input ended."""

    OK = "ok"
    #: No curvature shows up to the largest step: any step up to it will do.
    LINEAR = "linear"
    #: The function does not answer to this input within its noise.
    NO_ANSWER = "no_answer"
    #: Even the smallest step shows more curvature than noise, or the function fails around x.
    NOT_SMOOTH = "not_smooth"
    #: Fixed by its bounds.
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class SearchRule:
    """A contrast that vanishes on what the difference quotient gets right.

    Attributes
    ----------
    at : tuple of float
        Its points, in steps.
    weights : tuple of float
        Their weights; that of the centre is minus their sum.
    factor : float
        What the step is raised or lowered by, so that points are met again.
    """

    at: tuple[float, ...]
    weights: tuple[float, ...]
    factor: float


#: |f(4h) - 4 f(h) + 3 f(0)| / (8 sigma), which is about 6 h^2 f'' / (8 sigma).
FORWARD = SearchRule((1.0, 4.0), (-4.0, 1.0), 4.0)
#: |f(3h) - 3 f(h) + 3 f(-h) - f(-3h)| / (8 sigma), which is about h^3 f''' / sigma.
CENTRAL = SearchRule((1.0, -1.0, 3.0, -3.0), (-3.0, 3.0, 1.0, -1.0), 3.0)


class StepSearch:
    """Ask/tell search for the steps of all inputs side by side.

    Several outputs are whitened by their noise and the ratio is their root mean square, so that
    the step minimises the total error in units of noise.

    Parameters
    ----------
    y : array, shape (n,)
        The value at x.
    noise : array, shape (n,)
        Standard deviation of one evaluation; rounding of y where that is larger.
    scale : array, shape (m,)
        Unit of each input, for the first step.
    up, down : array, shape (m,)
        Room to the bounds; inf where there is none.
    central : bool
        Steps for central differences, otherwise for forward ones (backward ones where the room
        ahead is less).

    Attributes
    ----------
    step : array, shape (m,)
        Signed where ``central`` is False; nan for fixed inputs.
    ratio : array, shape (m,)
    found : array of str, shape (m,)
        Values of ``StepOutcome``.
    """

    def __init__(
        self,
        y: NDArray[Any],
        noise: Array,
        scale: Array,
        up: Array,
        down: Array,
        *,
        central: bool,
    ) -> None:
        m = len(scale)
        self.rule = CENTRAL if central else FORWARD
        self.y, self.scale = y, scale
        self.noise = np.maximum(noise, np.finfo(float).eps / 2 * np.abs(y))
        self.noise = np.where(self.noise > 0, self.noise, np.finfo(float).tiny)
        room = np.minimum(up, down) if central else np.maximum(up, down)
        self.sign = np.where(np.full(m, central) | (up >= down), 1.0, -1.0)
        # Values of both sizes: the root mean square of relative noise, at most 1.
        size = np.sqrt(np.mean(np.square(np.abs(y))))
        share = np.sqrt(np.mean(self.noise**2)) / size if size > 0 else 1.0
        reach = scale if share < MAX_NOISE_SHARE else np.full(m, np.inf)
        self.most = np.minimum(room / max(self.rule.at), reach)
        self.step = np.minimum(START * np.sqrt(min(share, 1.0)) * scale, self.most)
        self.low, self.high = np.zeros(m), np.full(m, np.inf)
        self.ratio = np.full(m, np.nan)
        self.found = np.full(m, "", dtype="U10")
        fixed = self.most <= 0
        self.found[fixed], self.step[fixed] = StepOutcome.FIXED, np.nan
        self.values: list[dict[float, NDArray[Any]]] = [{} for _ in range(m)]
        self._rounds = 0

    def ask(self) -> tuple[NDArray[np.intp], Array] | None:
        """Inputs (q,) and displacements (q,) to run next; None at the end."""
        wanted = [
            (j, t)
            for j in np.flatnonzero(self.found == "").tolist()
            for t in self._points(j)
            if t not in self.values[j]
        ]
        if not wanted:
            return None
        self._asked = wanted
        return np.array([j for j, _ in wanted], dtype=np.intp), np.array([t for _, t in wanted])

    def tell(self, values: NDArray[Any]) -> None:
        """Take the values (q, n) of what ``ask`` asked for."""
        for (j, t), value in zip(self._asked, values):
            self.values[j][t] = value
        self._rounds += 1
        for j in np.flatnonzero(self.found == "").tolist():
            # Rounds whose points are all known already need no asking.
            while self.found[j] == "" and all(t in self.values[j] for t in self._points(j)):
                self._move(j)

    def _points(self, j: int) -> list[float]:
        h = float(self.step[j] * self.sign[j])
        return [float(h * a) for a in self.rule.at]

    def _contrast(self, j: int) -> tuple[float, float]:
        """The testing ratio, and the largest change of the values in units of their noise."""
        rises = np.array([self.values[j][t] - self.y for t in self._points(j)])
        contrast = np.abs(np.tensordot(np.array(self.rule.weights), rises, 1)) / (8 * self.noise)
        rise = np.abs(rises).max(0) / self.noise
        return float(np.sqrt(np.mean(contrast**2))), float(np.sqrt(np.mean(rise**2)))

    def _move(self, j: int) -> None:
        """Accept the step of one input, or change it."""
        h, factor = self.step[j], self.rule.factor
        ratio, rise = self._contrast(j)
        self.ratio[j] = ratio
        if not np.isfinite(ratio) or ratio > HIGH:
            self.high[j] = h
        elif ratio < LOW:
            self.low[j] = h
            far = h / self.scale[j]
            answers = rise > 3
            if (
                h >= self.most[j]
                or (far > 1 and rise * SLOPE_ACCURACY > 1)
                or (far > MAX_SCALES_SILENT and not answers)
            ):
                self.found[j] = StepOutcome.LINEAR if answers else StepOutcome.NO_ANSWER
                return
        else:
            self.found[j] = StepOutcome.OK
            return
        low, high = self.low[j], self.high[j]
        if self._rounds >= MAX_ROUNDS or (low > 0 and high < low * 1.05):
            self._give_up(j, ratio)
        elif np.isinf(high):
            self.step[j] = min(h * factor, self.most[j])
        elif low == 0:
            self.step[j] = h / factor
            if self.step[j] < np.finfo(float).eps * self.scale[j]:
                self._give_up(j, ratio)
        else:
            self.step[j] = np.sqrt(low * high)

    def _give_up(self, j: int, ratio: float) -> None:
        """No step has an acceptable ratio: a jump, a kink or a region that fails begins there."""
        self.found[j] = StepOutcome.NOT_SMOOTH
        if self.low[j] > 0:
            self.step[j] = self.low[j]
        self.ratio[j] = ratio
