"""When units of parameters are looked for, and what was found."""

from __future__ import annotations

import numpy as np

from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.geometry import DISPLACEMENT
from gradiator_np._calibration.local_model import LocalModel
from gradiator_np._calibration.scale_search import (
    SILENT,
    ScaleSearch,
    after_bad_trial,
    after_displacements,
    at_the_end,
    displaced,
    for_silent,
    measurable,
)
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._calibration.uncertainty import silent
from gradiator_np._typing import Array, Mask

#: A change of this share of the residuals at the end is none worth mentioning.
FAINT = 1e-6


class Units:
    """The search for units, by its occasions, each of which comes once.

    Attributes
    ----------
    running : ScaleSearch or None
    found : array, shape (m,)
        Units that differ from the first guess, nan elsewhere.
    elsewhere : array, shape (m,)
        Values at which parameters answer that do not where the search ended, nan elsewhere.
    """

    def __init__(self, m: int, wanted: bool) -> None:
        self.running: ScaleSearch | None = None
        self.found, self.elsewhere = np.full(m, np.nan), np.full(m, np.nan)
        self._wanted, self._begun = wanted, set[str]()
        self._first = 0  # behind the id of the last displacement

    def after_displacements(self, log: FitLog, region: TrustRegion) -> None:
        """Displacements that were too short."""
        if self._is_new("displacements"):
            self._first = len(log.points)
            self.running = after_displacements(log, region, self._first)

    def after_bad_trial(self, center: int, model: LocalModel, log: FitLog, movable: Mask) -> None:
        """Displacements that leapt, where a step that rests on them alone went wrong."""
        if center < self._first and self._is_new("trial"):
            floor = measurable(log, _noise(model, log))
            self.running = after_bad_trial(log, movable, self._first, floor)

    def at_the_end(
        self, center: int, model: LocalModel, gone: Mask, region: TrustRegion, log: FitLog
    ) -> None:
        """Parameters that are lost or undetermined: did they leap, or do they answer elsewhere?"""
        floor = measurable(log, _noise(model, log))
        if gone.any() and self._is_new("end"):
            self.running = at_the_end(log, gone, self._first, floor)
        # of a displacement by the unit, as far as the model sees it
        change = DISPLACEMENT * np.linalg.norm(model.jac, axis=0) * region.scale / region.unit
        faint = max(floor, FAINT * float(np.sqrt(model.sum_of_squares)))
        slight = max(floor, SILENT * float(np.sqrt(model.sum_of_squares)))
        quiet = gone & (silent(model) | (change <= slight))
        for line in displaced(log, quiet, self._first, floor):
            # what clearly answered at the start has the right unit
            quiet[line.j] = line.change < SILENT * np.sqrt(log.reference)
        if self.running is None and quiet.any() and self._is_new("silent"):
            self.running = for_silent(log, center, quiet, region, faint)

    def _is_new(self, occasion: str) -> bool:
        if not self._wanted or occasion in self._begun:
            return False
        self._begun.add(occasion)
        return True

    def finish(self, scale: Array) -> tuple[Array, int] | None:
        """The new scale, and the id of the run to go on from (-1: as before); None: as before."""
        assert self.running is not None
        search, m = self.running, len(scale)
        self.running = None
        units, elsewhere = search.units(m), search.elsewhere(m)
        self.elsewhere = np.where(np.isnan(elsewhere), self.elsewhere, elsewhere)
        if np.isnan(units).all():
            return None
        self.found = np.where(np.isnan(units), self.found, units)
        return np.where(np.isnan(units), scale, units), search.base if search.restarts else -1


def _noise(model: LocalModel, log: FitLog) -> float:
    """Norm of the noise of all residuals of data."""
    return float(np.linalg.norm((model.noise / model.slope)[: log.n_data]))
