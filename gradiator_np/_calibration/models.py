"""The local models of a search, and whether the noise that was given is believed in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.local_model import LocalModel, model_about
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._typing import Array, Index

#: A noise that was given is not believed where the runs scatter by less or more than this factor of
#: it, as so many contrasts of points tell (of 450 fits with the right noise the factor was 0.50 to
#: 3.2); fewer do not tell noise from curvature.
NOISE_FACTOR, LEAST_CONTRASTS = 10.0, 5


class LocalModels:
    """Models of the runs in a log; the latest is kept.

    Attributes
    ----------
    noise_is_known : bool
        Whether a noise was given, and is believed.
    """

    def __init__(self, log: FitLog, noise_is_known: bool, first_radius: float) -> None:
        self.noise_is_known = noise_is_known
        self._log, self._first_radius = log, first_radius
        self._kept: tuple[Any, LocalModel | None] = (None, None)

    def about(
        self, x: Array, region: TrustRegion, most: int, among: Index | None = None
    ) -> LocalModel:
        """The model about x, in units of the trust radius, of ``most`` samples or of these."""
        log = self._log
        key = (
            x.tobytes(), region.radius, region.difference_step, region.scale.tobytes(),
            len(log.usable), log.triple, most, None if among is None else among.tobytes(),
            self.noise_is_known,
        )  # fmt: skip
        known, model = self._kept
        if model is None or key != known:
            believed = self.noise_is_known
            model = model_about(x, log, region, most, log.rounding, among, believed)
            self._kept = key, model
        return model

    def wide(
        self, x: Array, region: TrustRegion, most: int, noise_is_known: bool = True
    ) -> tuple[LocalModel, Array]:
        """The model about x in units of the first region, which sees more runs; and these units."""
        first = region.with_radius(self._first_radius).with_difference_step(1.0)
        believed = noise_is_known and self.noise_is_known
        model = model_about(x, self._log, first, most, self._log.rounding, None, believed)
        return model, first.unit

    def contradict_noise(self, x: Array, given: Array, region: TrustRegion, most: int) -> bool:
        """Whether runs scatter far less, or far more, than the noise that was given for them.

        In the first region: where it has shrunk about a lucky run, few others are near.
        """
        if not self.noise_is_known:
            return False
        data = slice(self._log.n_data)
        found, _ = self.wide(x, region, most, noise_is_known=False)
        if len(found.samples) - 1 - len(x) < LEAST_CONTRASTS:
            return False
        told, seen = (float(np.linalg.norm(noise[data])) for noise in (given, found.noise))
        return not told / NOISE_FACTOR <= seen <= told * NOISE_FACTOR
