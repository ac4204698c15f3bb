"""The search behind `LeastSquares`: flat points out, residuals in, nothing is run here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.following import follow, returned
from gradiator_np._calibration.geometry import NEXT_TO_CENTER, single_steps
from gradiator_np._calibration.held import run_errors
from gradiator_np._calibration.iterate import Iterate
from gradiator_np._calibration.local_model import LocalModel, default_samples
from gradiator_np._calibration.models import LocalModels
from gradiator_np._calibration.next_steps import NextSteps
from gradiator_np._calibration.opening import Opening, best_within
from gradiator_np._calibration.problem import FitProblem
from gradiator_np._calibration.proposal import Proposal, TrialStep
from gradiator_np._calibration.refinement import LastPhase, begun, refining_steps
from gradiator_np._calibration.restart import End, Restart
from gradiator_np._calibration.stopping import Decision, StoppingTest
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._calibration.uncertainty import (
    determined_inverse,
    parameter_errors,
    weakly_determined,
)
from gradiator_np._calibration.units import Units
from gradiator_np._calibration.verdict import Ending
from gradiator_np._checks import EPS
from gradiator_np._status import Status
from gradiator_np._typing import Array, Index, Mask

#: First trust radius, per root of the number of parameters (0.5: 15 % more runs, 4 % fewer solved).
RADIUS = 0.3
#: A sum of squares this many times the first one says nothing local.
MAX_GROWTH = 1e4
#: Samples in the model once the minimum is found and only its intervals are to be narrowed.
MOST_SAMPLES = 400
#: Runs in all, by those until the search would stop, where these determine no parameter.
GO_ON = 2.0


class Search:
    """A trust region over the local model of all runs.

    Attributes
    ----------
    problem : FitProblem
    log : FitLog
    region : TrustRegion
    center : int
        Id of the point that the region is about; -1 before a run has succeeded.
    rounds, iterations : int
        Proposals, and models that were made for them.
    lost : array of bool, shape (m,)
        Parameters that the residuals answered to at the start and do not at the end.
    """

    def __init__(self, problem: FitProblem, rng: np.random.Generator) -> None:
        m = len(problem.x0)
        self.problem = problem
        self.log = FitLog(
            problem.noise, problem.objective, MAX_GROWTH,
            None if problem.coordinates.trivial else problem.coordinates, reduces=True,
        )  # fmt: skip
        self._first_radius = RADIUS * float(np.sqrt(m))
        limits = (problem.rows, problem.limits) if len(problem.rows) else (None, None)
        box = problem.scale, problem.low, problem.high
        self.region = TrustRegion(*box, self._first_radius, 0.0, *limits)
        self.center = -1
        self.rounds = self.iterations = 0
        self._next_steps = NextSteps(rng)
        self._opening = Opening(problem)
        self._models = LocalModels(self.log, problem.noise is not None, self._first_radius)
        self.units = Units(m, problem.scale_is_a_guess)
        self._stopping = StoppingTest(m)
        self._ended: Status | None = None
        self._restart = Restart(problem.scale_is_a_guess and problem.samples is None)
        self._proposal = Proposal(())
        self._is_quiet = False  # noise hides nothing of what the latest model has to gain
        self._most_runs = 0.0  # if they determine nothing; 0: the search has not stopped yet
        self._narrowing = False  # the minimum is found, its intervals are not narrow enough
        self._last: LastPhase | None = None  # of a fit without noise
        self.lost: Mask = np.zeros(m, bool)
        if (given := problem.samples) is not None:
            self.center = self._opening.from_given(given, self.log, self.region, self._most_samples)

    # -- the caller's side -------------------------------------------------------------------

    @property
    def nfev(self) -> int:
        """Runs that came back."""
        return self.log.nfev

    @property
    def cost(self) -> float:
        """Half the sum of squares of the run at the centre; inf before there is one."""
        if self.center < 0:
            return np.inf
        return 0.5 * self.log.sum_of_squares(self.center) * self.log.unit * self.log.unit

    @property
    def reason(self) -> Status:
        """Why the search ended; INCOMPLETE while runs are wanted."""
        spent = self.nfev >= self.problem.max_nfev and not self.pending
        if self._ended is not None and (spent or self.units.running is None):
            return self._ended
        return Status.BUDGET if spent else Status.INCOMPLETE

    @property
    def noise_was_contradicted(self) -> bool:
        """Whether the runs scatter far less, or far more, than the noise that was given."""
        return self.problem.noise is not None and not self._models.noise_is_known

    @property
    def pending(self) -> list[int]:
        """Ids of the points that were asked for and have not come back."""
        return [i for i in self._proposal.ids if self.log.is_pending(i)]

    @checks.underflow_is_zero()
    def ask(self, most: int = 1) -> tuple[Array, Index]:
        """Points (k, m) to run next and their ids (k,), at most so many; none at the end.

        Raises
        ------
        EvaluationError
            Where every run failed and nothing is left to try.
        """
        if not self.pending and self.reason is Status.INCOMPLETE:
            proposal = self._next(most, self.problem.max_nfev - self.nfev)
            if proposal is not None:
                self._proposal = proposal
                self.rounds += 1
        ids = self.pending
        points = np.array([self.log.points[i] for i in ids])
        return points.reshape(-1, len(self.problem.x0)), np.array(ids, np.intp)

    @checks.underflow_is_zero()
    def tell(self, outputs: Mapping[int, Array | None], errors: Mapping[int, str]) -> None:
        """Take residuals, by id, of pending points; None where a run failed."""
        for i, output in outputs.items():
            self.log.store(i, output, errors.get(i))
        if not outputs or self.pending:
            return
        # In the order asked for, whoever came back first.
        self.log.accept(self._proposal.ids)
        if self._proposal.along_lines:
            assert self.units.running is not None
            self.units.running = self.units.running.told(self._proposal.ids)
        elif self._proposal.initial:
            self._center_on_best()
        else:
            self._move(self._proposal)
        if self.reason is Status.BUDGET:
            self._take_lower_end()

    def _next(self, most: int, left: int) -> Proposal | None:
        """What to run next; None where the search ends."""
        proposal = self._first_runs(left) or self._along_lines(left)
        while proposal is None and self._ended is None:
            proposal = self._iterate(max(1, min(most, left)))
            if self._ended not in (None, Status.NO_SIGNAL):
                proposal = self._at_the_end(left)
        return proposal

    # -- the first runs, and units of parameters ---------------------------------------------

    def _first_runs(self, left: int) -> Proposal | None:
        points = self._opening.points(self.center, self.log, self.region, left)
        if points:
            return Proposal(self._request(points), initial=True)
        self.units.after_displacements(self.log, self.region)
        return None

    def _center_on_best(self) -> None:
        found_before, best = self.center >= 0, best_within(self.region, self.log)
        if best >= 0:
            self.center = best
            self._opening.told(best, found_before, self.log)

    def _along_lines(self, left: int) -> Proposal | None:
        """Runs in search of units; None where that is done."""
        if self.units.running is None:
            return None
        self.units.running, points = self.units.running.asked(self.log, self.region)
        if points and len(points) <= left:
            return Proposal(self._request(points), along_lines=True)
        found = self.units.finish(self.region.scale)
        if found is not None:
            self._go_on_with(*found)
        elif self._ended is not None:
            return self._at_the_end(left)
        return None

    def _at_the_end(self, left: int) -> Proposal | None:
        """Runs along parameters that do not answer where the search ended; None: it has ended."""
        _, model, active = self.answer()
        _, undetermined = parameter_errors(model, active)
        gone = self.lost | (undetermined & self.region.movable & ~active)
        elsewhere = gone & np.isfinite(self.units.elsewhere)
        if elsewhere.any():
            self._ended, self.lost = Status.UNDETERMINED, self.lost | elsewhere
        self.units.at_the_end(self.center, model, gone, self.region, self.log)
        if self.units.running is None:
            self._start_again()
            return None
        return self._along_lines(left)

    def _start_again(self) -> None:
        """Where the search ran off; it happens once, and of two ends the lower one counts."""
        assert self._ended is not None
        end = End(self._ended, self.center, self.region, self._last, self.lost)
        quiet = self._at(self._x).is_almost_quiet
        again = self._restart.after(end, quiet, self.units.elsewhere, self.log)
        if again is None:
            self._take_lower_end()
        else:
            self._go_on_with(*again)

    def _take_lower_end(self) -> None:
        end = self._restart.lower_end(self.center, self.log)
        if end is not None:
            self._ended, self.center, self.region = end.status, end.center, end.region
            self._last, self.lost = end.last, end.lost

    def _go_on_with(self, scale: Array, center: int) -> None:
        """New units: from the run at ``center``, or from where the search is."""
        self.center = self.center if center < 0 else center
        self.region = replace(
            self.region.moved(), scale=scale, radius=self._first_radius, difference_step=0.0
        )
        self._stopping = StoppingTest(len(scale)).restarted(len(self.log.points))
        self._last, self._ended, self._narrowing, self.log.triple = None, None, False, None
        self._next_steps.restart()
        self.lost = np.zeros(len(scale), bool)

    # -- an iteration ------------------------------------------------------------------------

    @property
    def _x(self) -> Array:
        return self.log.points[self.center]

    @property
    def _most_samples(self) -> int:
        most = default_samples(len(self.problem.x0), self._is_quiet)
        return MOST_SAMPLES if self._narrowing else most

    def _is_narrow_enough(self) -> bool:
        """Whether the 95 % intervals of the answer are at most as wide as wanted.

        Where no width is: finite, for one parameter at least, or as many runs again were made.
        """
        widths, (x, model, active) = self.problem.half_widths, self.answer()
        if widths is None:
            free = self.region.movable & ~active
            self._most_runs = self._most_runs or GO_ON * self.nfev
            told = not determined_inverse(model, active).undetermined[free].all()
            return told or self.nfev >= self._most_runs
        _, cov, lost = run_errors(self.problem, x, model, self.region, self.log.unit)
        errors = np.where(lost, np.inf, np.sqrt(np.diagonal(cov)))
        return bool((1.96 * errors * self.region.unit <= widths.at(x)).all())

    def _request(self, points: list[Array]) -> tuple[int, ...]:
        return tuple(self.log.request(self.region.clip(point)) for point in points)

    def _model(self, x: Array) -> LocalModel:
        """The model about x, in units of the trust radius."""
        log, most = self.log, self._most_samples
        among = None if self._last is None else self._last.samples(log, self.center, most)
        return self._models.about(x, self.region, most, among)

    def wide_model(self, x: Array) -> tuple[LocalModel, Array]:
        """The model about x in units of the first region, which sees more runs; and these units."""
        return self._models.wide(x, self.region, self._most_samples)

    def _at(self, x: Array) -> Iterate:
        ftol = self.problem.tolerances.ftol or EPS
        return Iterate.at(x, self._model(x), self.region, self.log.rounding, ftol)

    def _iterate(self, most: int) -> Proposal | None:
        """The next points, at most so many; None where the search ends."""
        self.iterations += 1
        it = self._at(self._x)
        self._is_quiet = not it.limited_by_noise
        if self._last is not None:
            return self._last_step(it)
        at_once = max(1, len(self._proposal.ids))
        self._stopping = self._stopping.after(it, len(self.log.points), at_once)
        decision = self._stopping.decide(it, self.log, self.region)
        ends = decision in (Decision.STOP, Decision.CONVERGED, Decision.ENLARGE, Decision.REFINE)
        if ends and self._models.contradict_noise(
            it.x, it.model.noise, self.region, self._most_samples
        ):
            # What was done under it may have shrunk the region to where only noise is seen.
            self._models.noise_is_known = False
            self.region = self.region.with_radius(self._first_radius)
            self._stopping = self._stopping.restarted(len(self.log.points))
            decision = Decision.CONTINUE
        if decision is Decision.REFINE:
            self._stopping = replace(self._stopping, refined=it.model.sum_of_squares)
            return self._refine(it)
        share = self._act(it, decision, most)
        if self._ended is not None:
            return None
        self.region = self.region.with_difference_step(it.model.difference_step)
        if decision is Decision.CONFIRM_BOUNDS:
            return self._together(it, single_steps(it, self.region, it.doubtful_bounds))
        if decision is Decision.CONFIRM_FARTHER:
            weak = weakly_determined(it.model, it.active)
            farther = self._next_steps.confirming(it, self.region, share, 1)
            return self._together(it, farther + single_steps(it, self.region, weak))
        left, widths = self.problem.max_nfev - self.nfev, self.problem.half_widths
        confirming = self._next_steps.confirming(it, self.region, share, left)
        every = np.full(len(it.x), np.inf) if widths is None else widths.at(it.x)
        wanted = every if self._narrowing else None
        count = max(0, most - len(confirming))
        room = left - len(confirming)
        steps, trial = self._next_steps.steps(it, self.region, count, room, wanted)
        steps += confirming
        if not steps:  # bounds hold every parameter
            self._end(it.reason)
            return None
        ids = self._request([it.x + self.region.unit * u for u in steps])
        if len(confirming) == 2:
            one, other = ids[-2:]
            middle = np.array_equal(confirming[1], -confirming[0])
            self.log.triple = (one, self.center, other) if middle else (self.center, one, other)
        return Proposal(ids, trial=trial)

    def _together(self, it: Iterate, steps: list[Array]) -> Proposal:
        """Steps that improve the model, as many as the budget allows."""
        steps = steps[: self.problem.max_nfev - self.nfev]
        return Proposal(self._request([it.x + self.region.unit * u for u in steps]))

    # -- the last phase of a fit without noise -----------------------------------------------

    def _refine(self, it: Iterate) -> Proposal | None:
        """Begin the last phase: J afresh, as far as it is not sure."""
        radius = self.region.radius
        self.region, steps = refining_steps(it, self.region)
        first = len(self.log.points)
        self._last = begun(self._last, self.center, first, len(steps), it, radius)
        return self._together(it, steps) if steps else self._last_step(it)

    def _last_step(self, it: Iterate) -> Proposal | None:
        """A Gauss-Newton step, or the end."""
        assert self._last is not None
        left = self.problem.max_nfev - self.nfev
        if again := self._last.replacements(self.log, self.region)[:left]:
            self._last = self._last.replaced(len(again))
            return Proposal(self._request(again))
        last = self._last = self._last.after(it)
        if last.was_early(it, self.log) and not self.region.has_vanished:
            radius = max(last.radius, self.region.radius)
            self._last, self.region = None, self.region.with_radius(radius)
            self._stopping = self._stopping.restarted(len(self.log.points))
            return self._iterate(1)
        ended = last.has_ended(it, self.region, self.problem.tolerances)
        if (ended or it.loss.jac > it.predicted_decrease) and last.is_due_again(it):
            return self._refine(it)
        if ended:
            self._end(it.reason)
            return None
        trial = TrialStep(it.predicted_decrease, it.length, 0.0)
        return Proposal(self._request([it.x + self.region.unit * it.step]), trial=trial)

    def _act(self, it: Iterate, decision: Decision, most: int) -> float:
        """Follow the stopping test; how far a confirming run goes, in difference steps, or 0."""
        match decision:
            case Decision.CONVERGED:
                self._end(Status.CONVERGED)
            case Decision.STOP if self._is_narrow_enough():
                self._end(it.reason)
            case Decision.STOP:
                self._narrowing = True
                if it.model.noise_dominates:
                    self.region = self.region.after_noise()
            case Decision.ENLARGE:
                self._stopping = self._stopping.restarted(len(self.log.points))
                self.region = self.region.after_no_response()
                if self.region.is_boundless:
                    self._ended = Status.NO_SIGNAL
            case Decision.CONFIRM_BOUNDS:
                self._stopping = replace(self._stopping, confirmed_bounds=True)
            case Decision.CONFIRM_FARTHER:
                count = self._stopping.confirmed_farther + 1
                self._stopping = replace(self._stopping, confirmed_farther=count)
                return 1.0
        test = self._stopping
        # Side by side with others it is due as soon as little is expected.
        early = most > 1 and test.without_decrease > 0 and not test.confirmed_nearby
        if decision is Decision.CONFIRM_NEARBY or early:
            self._stopping = replace(test, confirmed_nearby=True)
            return NEXT_TO_CENTER
        return 0.0

    # -- what came back ----------------------------------------------------------------------

    def _move(self, proposal: Proposal) -> None:
        """Centre on a better point, and let the region follow the trial."""
        if not returned(proposal, self.log):
            self.region, went_wrong = self.region.after_failure(), True
        else:
            model = self._model(self._x)
            # While intervals are narrowed, only a clear gain moves the centre.
            gain = model.sum_of_squares_sd if self._narrowing else 0.0
            self.center, self.region, went_wrong = follow(
                proposal, self.log, model, self.center, self.region, gain
            )
        if went_wrong:
            self._doubt_first_runs()

    def _doubt_first_runs(self) -> None:
        """A step went wrong: did one of the displacements leap that it rests on?"""
        model, movable = self._model(self._x), self.region.movable
        self.units.after_bad_trial(self.center, model, self.log, movable)

    # -- the answer --------------------------------------------------------------------------

    def _end(self, reason: Status) -> None:
        self._ended = reason  # which the answer asks for
        if self._last is not None:
            self._last = replace(self._last, closed=len(self.log.points))
        x, model, active = self.answer()
        at = Ending(x, model, active, self._at(x).free, self.region, self.log)
        self._ended, self.lost = at.verdict(reason, self.problem.tolerances.ftol or EPS)

    def answer(self) -> tuple[Array, LocalModel, Mask]:
        """The best point, the model about it (in the log's unit), and what bounds hold.

        Under noise the model's minimiser is better than the best sample two times in three, where
        it lies near: from steps over half the radius on, it is the worse one now and then.
        """
        no_signal = self._ended is Status.NO_SIGNAL
        x = self.log.points[self.log.usable[0]] if no_signal else self._x
        it = self._at(x)
        worth_it = it.length < 0.5 and 0 < it.predicted_decrease > it.loss.jac
        if it.limited_by_noise and not no_signal and worth_it:
            x = self.region.clip(x + self.region.unit * it.step)
        model = self._model(x)
        at_low, at_high = x <= self.region.low, x >= self.region.high
        slope = model.gradient
        return x, model, (at_low & (slope >= 0)) | (at_high & (slope <= 0))
