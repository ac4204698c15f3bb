"""The stopping test: when nothing is left to gain, and what has to be checked before that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.iterate import Iterate
from gradiator_np._calibration.local_model import LocalModel
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._calibration.uncertainty import minimiser_covariance, weakly_determined

#: Iterations in a row without an expected decrease before the search ends.
IDLE_ITERATIONS = 4
#: Noise of the sum of squares, relative to it, from which on all of these are needed.
NOISY_SUM_OF_SQUARES = 1e-3
#: Runs without a better sum of squares before the search ends, and ten per parameter and one.
STALLED_RUNS = 30
#: Sum of squares, by that when J was made afresh, below which it is made so once more. (Eckerle4 of
#: NIST's had it on a plateau, and took curvature at the minimum for noise.)
REFINED_AGAIN = 0.5
#: Sum of squares, relative to the first one, that counts as 0.
ZERO_SUM_OF_SQUARES = 1e-16


#: Runs along what J answers to least, and along single inputs that it answers to weakly, are made
#: so often before the search ends: the first ones may be what makes such an input look determined.
#: (An inert input passed for determined in 6 and 7 of 200 fits at a noise of 1e-4 with one, in none
#: of 600 with three.)
MOST_CONFIRMATIONS = 3


class Decision(Enum):
    """What an iteration comes to."""

    CONTINUE = auto()
    CONFIRM_NEARBY = auto()  # runs next to the centre, before the search ends
    CONFIRM_BOUNDS = auto()  # runs inside of bounds that may not hold their parameters
    CONFIRM_FARTHER = auto()  # a run at the difference step
    ENLARGE = auto()  # nothing answers: look farther away
    REFINE = auto()  # runs have no noise: J afresh, and the last digits
    STOP = auto()  # nothing more is to be gained, because of noise or not
    CONVERGED = auto()  # the sum of squares is 0, or nothing can move


@dataclass(frozen=True, slots=True)
class StoppingTest:
    """Counts what went by without an expected decrease.

    Attributes
    ----------
    m : int
        Number of parameters.
    without_decrease, without_local_decrease : int
        Iterations in a row that expect none, anywhere and within the trust region; one after
        several runs at once counts twice.
    best : float
        Least sum of squares so far, by the model, and ...
    best_at : int
        ... the number of runs when it was reached.
    confirmed_nearby : bool
        Runs next to the centre have been asked for since: they find curvature that passed for
        noise.
    confirmed_bounds : bool
        Runs have been asked for since that tell the slope along parameters on their bounds.
    confirmed_farther : int
        How often runs along what J answers to least have been asked for since: they find inputs
        that do nothing.
    refined : float
        Sum of squares at which J was made afresh, as what is so little noise may be curvature.
    """

    m: int
    without_decrease: int = 0
    without_local_decrease: int = 0
    best: float = np.inf
    best_at: int = 0
    confirmed_nearby: bool = False
    confirmed_bounds: bool = False
    confirmed_farther: int = 0
    refined: float = np.inf

    def after(self, it: Iterate, runs: int, at_once: int) -> StoppingTest:
        """One iteration more, at so many runs, of which the last round made some at once."""
        counted, negligible = min(at_once, 2), it.negligible_decrease
        anywhere = self.without_decrease + counted if it.decrease <= negligible else 0
        nearby = self.without_local_decrease + counted if it.local_decrease <= negligible else 0
        if it.model.sum_of_squares < self.best - negligible:
            return StoppingTest(
                self.m, anywhere, nearby, it.model.sum_of_squares, runs, refined=self.refined
            )
        return replace(self, without_decrease=anywhere, without_local_decrease=nearby)

    def restarted(self, runs: int) -> StoppingTest:
        """Count anew, from a larger region."""
        return replace(self, without_decrease=0, without_local_decrease=0, best_at=runs)

    def is_exhausted(self, model: LocalModel, runs: int) -> bool:
        """Whether there were enough iterations without an expected decrease."""
        noisy = model.sum_of_squares_sd > NOISY_SUM_OF_SQUARES * model.sum_of_squares
        enough = IDLE_ITERATIONS if noisy else IDLE_ITERATIONS // 2
        return (
            self.without_decrease >= enough
            or self.without_local_decrease >= 2 * enough
            or runs - self.best_at > max(STALLED_RUNS, STALLED_RUNS * (self.m + 1) // 3)
        )

    def has_to_confirm_farther(self, it: Iterate) -> bool:
        """Whether a run along what J answers to least is due."""
        if not self.confirmed_farther:
            return True
        again = self.confirmed_farther < MOST_CONFIRMATIONS
        return again and bool(weakly_determined(it.model, it.active).any())

    def decide(self, it: Iterate, log: FitLog, region: TrustRegion) -> Decision:
        """What to do at an iterate."""
        exhausted = it.is_held or self.is_exhausted(it.model, len(log.points))
        fixed = not region.movable.any()
        zero = it.model.sum_of_squares <= ZERO_SUM_OF_SQUARES * log.reference
        done = zero or region.has_vanished or fixed
        unanswered = (
            it.model.noise_dominates
            and region.may_answer_farther
            and not has_improved(it.model, log)
            and (exhausted or is_undetermined(it))
        )
        quiet = not it.limited_by_noise and bool(done or exhausted or self.without_decrease)
        unchanged = not zero and no_change(log)  # whatever rounding makes of it
        if not fixed and (zero or (quiet and not unchanged)):
            return Decision.REFINE
        if done and (self.confirmed_nearby or fixed):
            return Decision.CONVERGED
        if not done and (unanswered or unchanged):
            return Decision.ENLARGE
        if (done or exhausted) and not self.confirmed_nearby:
            return Decision.CONFIRM_NEARBY
        if exhausted and not self.confirmed_bounds and (it.doubtful_bounds & region.movable).any():
            return Decision.CONFIRM_BOUNDS
        if exhausted and it.limited_by_noise and self.has_to_confirm_farther(it):
            return Decision.CONFIRM_FARTHER
        again = it.model.sum_of_squares < REFINED_AGAIN * self.refined
        if exhausted and again and it.is_almost_quiet:
            return Decision.REFINE
        return Decision.STOP if exhausted else Decision.CONTINUE


def has_improved(model: LocalModel, log: FitLog) -> bool:
    """Whether the sum of squares fell by more than noise since the first run."""
    first = log.model_rows(int(log.usable[0]))
    fell = float(first @ first) - model.mean_square_noise * model.count - model.sum_of_squares
    return fell > 4.0 * model.sum_of_squares_sd_of(first)


def no_change(log: FitLog) -> bool:
    """Whether every run returned the same."""
    first, *others = (r[: log.n_data] for r in log.residuals if r is not None)
    return all(np.abs(r - first).max() <= log.rounding for r in others)


def is_undetermined(it: Iterate) -> bool:
    """Whether nothing is known of any parameter that no bound holds."""
    _, undetermined = minimiser_covariance(it.model, it.active)
    return bool(undetermined[~it.active].all())
