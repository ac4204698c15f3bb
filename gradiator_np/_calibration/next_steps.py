"""Steps of one round: the model's own, those that improve it, and those that confirm the end."""

from __future__ import annotations

import numpy as np

from gradiator_np._calibration.geometry import (
    NEXT_TO_CENTER,
    confirming_step,
    downhill_steps,
    narrowing_steps,
    step_along,
)
from gradiator_np._calibration.iterate import Iterate
from gradiator_np._calibration.proposal import TrialStep
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._typing import Array

#: A run improves J where the expected loss by its errors exceeds this many predicted decreases.
MOST_LOSS = 10.0
#: With so many parameters the model is made again after each run; with more all runs that J needs
#: go at once: own time is that of the models. (Of 20 fits at a noise of 1e-2, m = 24 to 84, they
#: took 0.11 to 0.49 of the models and 0.72 to 1.76 of the runs, 0.98 in the mean, and ended 0.06 to
#: 0.62 standard deviations of the noise of the sum of squares above its least one, 0.10 to 0.43 one
#: by one; of 12 without noise, m = 24 and 42, 0.25 to 0.6 of the models, 1.02 to 1.33 of the runs.)
ONE_BY_ONE = 20


class NextSteps:
    """Chooses between a trial step and runs for J; counts those that were made in a row."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._for_geometry = 0  # rounds in a row
        self._downhill_steps = 0

    def restart(self) -> None:
        """Count anew."""
        self._for_geometry = 0

    def steps(
        self, it: Iterate, region: TrustRegion, most: int, left: int, widths: Array | None
    ) -> tuple[list[Array], TrialStep | None]:
        """Steps to run, and what the first of them promises where it is the model's own.

        Parameters
        ----------
        most, left : int
            Runs at once where there is a choice, and those that the budget has.
        widths : array, shape (m,), or None
            Wanted half widths, where nothing but the intervals is left to improve.
        """
        if not most:
            return [], None
        if widths is not None:
            return narrowing_steps(it, region, widths, most), None
        least = min(1.0, it.model.difference_step)
        too_short = it.length < 1e-3 * least or it.predicted_decrease <= 0
        uncertain = it.loss.jac > MOST_LOSS * it.predicted_decrease
        if too_short or (uncertain and self._for_geometry < len(it.x)):
            due = self._due(it, most, left)
            self._for_geometry += due
            length = region.in_radii(region.difference_step)
            return self._downhill(it, region, length, due), None
        self._for_geometry = 0
        # Side by side: the same direction shorter and longer, then what J knows least.
        lengths = (0.4 * it.length, 1.6 * it.length)[: most - 1]
        steps = [it.step, *(step_along(it.step, size, *region.box(it.x)) for size in lengths)]
        steps += self._downhill(it, region, 0.5, max(0, most - 3))
        return steps, TrialStep(it.predicted_decrease, it.length, least)

    def _due(self, it: Iterate, most: int, left: int) -> int:
        """Runs that improve J before a step is worth more."""
        if len(it.x) <= ONE_BY_ONE:
            return most
        return max(most, min(it.loss.due(MOST_LOSS * it.predicted_decrease), left))

    def _downhill(self, it: Iterate, region: TrustRegion, length: float, most: int) -> list[Array]:
        steps = downhill_steps(it, region, length, most, self._downhill_steps)
        self._downhill_steps += len(steps)
        return steps

    def confirming(self, it: Iterate, region: TrustRegion, share: float, most: int) -> list[Array]:
        """A run that confirms the end; next to the centre one on either side of it.

        ``share``: how far it goes, in difference steps; 0 for none.
        """
        if not share:
            return []
        step = confirming_step(it, region, share, self._rng)
        if share != NEXT_TO_CENTER:
            return [step]
        unit = region.unit
        inside = [u for u in (-step, 2.0 * step) if region.contains(it.x + unit * u)]
        return [step, *inside[:1]][:most]
