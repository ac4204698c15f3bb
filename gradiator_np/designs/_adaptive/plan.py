"""The sequence: a pilot, then pairs along every input, then checks of what they say."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np

from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import PILOT, Moves
from gradiator_np.designs._adaptive.stages.failures import repeat_failed
from gradiator_np.designs._adaptive.stages.fold_over import FoldOver, fold_over
from gradiator_np.designs._adaptive.stages.nonsmooth import find_kinks
from gradiator_np.designs._adaptive.stages.pilot import PilotResult, run_pilot
from gradiator_np.designs._adaptive.stages.reuse import adopt, is_stale, noise_of_pairs
from gradiator_np.designs._adaptive.stages.rounds import measure
from gradiator_np.designs._adaptive.stages.scale_search import search_scales
from gradiator_np.designs._adaptive.stages.sharpening import sharpen
from gradiator_np.designs._adaptive.stages.verification import explain_discrepancy, verify
from gradiator_np.designs._adaptive.state import (
    Budget,
    FunctionProfile,
    Outcome,
    uninformed_profile,
)

Script = Generator[Moves, None, None]


class Sequence:
    """The stages, one after another.

    Attributes
    ----------
    outcome : Outcome
        What they found so far.
    fold_over : FoldOver or None
        Another design that makes an answer of its own, where noise left nothing else.
    """

    def __init__(self, context: Context, outcome: Outcome, given: FunctionProfile | None) -> None:
        self.context, self.outcome, self.given = context, outcome, given
        self.fold_over: FoldOver | None = None

    def run(self) -> Script:
        """Ask for the rows of each stage in turn, and once more for those that failed by chance."""
        log = self.context.log
        if not np.isfinite(log.f0).all():
            yield from repeat_failed(self.context, self.outcome.budget, 0)
        for wanted in self._stages():
            first = log.n_rows - len(wanted)
            if len(wanted):
                yield wanted
            yield from repeat_failed(self.context, self.outcome.budget, first)

    def _stages(self) -> Script:
        context, log, found = self.context, self.context.log, self.outcome
        if not context.inputs.size or not log.f0.size:
            return
        if self.given is not None and self.given.noise.size == log.f0.size:
            yield from self._run_again(self.given)
            if self.outcome.profile is not None:
                return
        pilot = yield from run_pilot(context, found.budget)
        profile = pilot.profile or uninformed_profile(log, context.states, context.known_noise)
        axes = self.outcome.axes
        if log.pilot == PILOT:
            # of inputs that bounds kept out of the pilot it says nothing
            axes = axes.at(np.flatnonzero(~pilot.line.takes_part()), centre=1.0)
        axes = axes.within(profile.min_step, profile.max_step)
        scaled = yield from search_scales(context, profile, axes, found.budget)
        profile, axes, budget = scaled.profile, scaled.axes, scaled.budget
        found = self._note(
            profile=profile, axes=axes, noise=pilot.noise, budget=budget, rescaled=scaled.rescaled
        )
        self.fold_over = yield from fold_over(
            context, profile, axes.widest, budget, budget.left(log)
        )
        if self.fold_over is not None:
            return
        done = yield from measure(context, profile, axes, pilot.noise, budget)
        profile = done.profile
        if pilot.profile is None or (profile.noisy and not profile.dof.any()):
            profile = noise_of_pairs(context, profile)
        self._note(profile=profile, axes=done.axes, short=done.short)
        yield from self._check(pilot, budget)

    def _run_again(self, given: FunctionProfile) -> Script:
        """With the profile of another point; without a trace but its runs where that does not
        hold here."""
        context, found = self.context, self.outcome
        start = adopt(context, given, found.axes)
        self._note(profile=start.profile, axes=start.axes, noise=start.noise)
        most = min(4 * context.inputs.size, found.budget.limit - 1)
        self.fold_over = yield from fold_over(
            context, start.profile, start.axes.widest, found.budget, most
        )
        if self.fold_over is not None:
            return
        done = yield from measure(
            context, start.profile, start.axes, start.noise, found.budget, again=True
        )
        if is_stale(context, done, given):
            self._note(profile=None, axes=replace(done.axes, n_pairs=0 * done.axes.n_pairs))
            return
        self._note(profile=done.profile, axes=done.axes, short=done.short)
        kinks = yield from find_kinks(context, done.profile, done.axes, found.budget)
        self._note(kinks=kinks)

    def _check(self, pilot: PilotResult, budget: Budget) -> Script:
        """Hold J against what has been seen beside it, and spend what is left on what is wide."""
        context, found = self.context, self.outcome
        profile = found.profile
        assert profile is not None
        if profile.discrepancy is not None:
            explained = yield from explain_discrepancy(
                context, profile, found.axes, pilot.line, budget
            )
            if explained:
                profile = self._note(profile=replace(profile, discrepancy=None)).profile
                assert profile is not None
        checked = yield from verify(context, profile, found.axes, pilot, budget)
        self._note(axes=checked.axes, unexplained=checked.unexplained)
        kinks = yield from find_kinks(context, profile, checked.axes, budget)
        self._note(kinks=kinks)
        kinked = np.asarray(kinks.any(axis=1))
        axes = yield from sharpen(context, profile, checked.axes, kinked, budget)
        self._note(axes=axes)

    def _note(self, **found: Any) -> Outcome:
        self.outcome = replace(self.outcome, **found)
        return self.outcome
