"""What came back from a proposal: a better centre, and the region after a trial step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.local_model import LocalModel
from gradiator_np._calibration.proposal import Proposal
from gradiator_np._calibration.trust_region import BAD, TrustRegion

#: Standard deviations of the noise of the sum of squares by which a run is worse than noise
#: explains.
WORSE = 3.0


class Followed(NamedTuple):
    """Where a search goes on.

    Attributes
    ----------
    center : int
    region : TrustRegion
    went_wrong : bool
        Whether what was expected of a trial step did not come true.
    """

    center: int
    region: TrustRegion
    went_wrong: bool


def returned(proposal: Proposal, log: FitLog) -> list[int]:
    """Ids of the runs of a proposal that models may use."""
    return [i for i in proposal.ids if log.residuals[i] is not None]


def follow(
    proposal: Proposal,
    log: FitLog,
    model: LocalModel,
    center: int,
    region: TrustRegion,
    least_gain: float,
) -> Followed:
    """Centre on a better point, and let the region follow the trial.

    Parameters
    ----------
    proposal : Proposal
        Of which a run at least has succeeded.
    model : LocalModel
        About the centre, these runs included.
    least_gain : float
        Decrease of the sum of squares from which on the centre moves.
    """
    x, succeeded = log.points[center], returned(proposal, log)
    u = (np.array([log.points[i] for i in succeeded]) - x) / region.unit
    values = np.square(model.predict(u)).sum(1)
    best = int(np.argmin(values))
    known = {i: log.sum_of_squares(i, model.replaced.get(i)) for i in (center, *succeeded)}
    limit = known[center] + WORSE * model.sum_of_squares_sd
    if values[best] < model.sum_of_squares - least_gain and known[succeeded[best]] < limit:
        center, region = succeeded[best], region.moved()
    trial = proposal.trial
    if trial is None:
        return Followed(center, region, False)
    if proposal.ids[0] not in succeeded or min(known[i] for i in succeeded) > limit:
        return Followed(center, region.after_failure(), True)
    agreement = (model.sum_of_squares - float(values.min())) / trial.predicted_decrease
    region = region.after_trial(agreement, trial.length, trial.least_factor)
    return Followed(center, region, agreement < BAD)
