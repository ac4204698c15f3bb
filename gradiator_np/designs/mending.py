"""What a plan does when runs fail, nothing answers, or the samples disagree with the model."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.alone import culprit
from gradiator_np.designs.base import Problem, Rows
from gradiator_np.designs.levels import Noise
from gradiator_np.designs.lines import States
from gradiator_np.designs.pairs import Lines, Pair, Pairs
from gradiator_np.designs.pilot import Learned
from gradiator_np.designs.quarrel import WIDE
from gradiator_np.designs.second_look import (
    broken,
    nearest,
    pool,
    shrinks_slowly,
    stays_broken,
    surprise,
)
from gradiator_np.designs.verdict import bending

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Inference = tuple[Lines, States, Array, Array, Array]

# A failed step is drawn in to an eighth, as often as this.
SHRINK, MENDS = 8.0, 8
# Steps that clear a grid of inputs by this factor see its slope to some 10 %.
CLEAR = 5.0
# Degrees of freedom that the noise found at another point counts for here, and the ratio of noise
# levels that calls for a new pilot.
TRUST, OTHER_NOISE = 30.0, 3.0
# Share of the outputs that an outlier hits at least.
HIT = 0.1
# Pairs of an input up to which outliers are looked for one by one.
SUSPECTS = 8
# Kinks are looked for in steps this much shorter than the distance at which f bends.
SHORT = 0.05


class Mending:
    """The part of a plan that notices what goes wrong; see ``AutoPlan`` for the attributes."""

    problem: Problem
    book: Pairs
    rows: Rows
    states: States
    noise: Noise
    known_noise: Array | None
    learned: Learned | None
    inputs: Index
    cap: Array
    floor: Array
    side: Index
    reach: Array
    jitter: Array
    inert: NDArray[np.bool_]
    count: Index
    each: int
    kinks: NDArray[np.bool_]
    wide: Array
    extra: int

    def infer(self) -> Inference:
        """What is known of every input."""
        raise NotImplementedError

    def _fresh(self, j: int, t: float, taken: list[float]) -> float:
        raise NotImplementedError

    def _evals(self) -> int:
        """Evaluations asked for so far, the one at x included."""
        return self.book.n_rows + 1

    def _most_evals(self) -> int:
        """Evaluations allowed in all."""
        raise NotImplementedError

    def _stale(self, learned: Learned) -> bool:
        """Whether what was learned at another point does not hold here: another noise, or a
        function that bends much earlier."""
        _, states, weights, slope, _ = self.infer()
        noise = learned.noise
        bent = (
            np.median(bending(states, weights)) < bending(self.states, learned.prior[None])[0] / 5
        )
        view = self.book.lines(self.rows, [int(j) for j in self.inputs])
        if not learned.noisy or self.known_noise is not None:
            return bool(bent or broken(view, noise, slope).any())
        # by the curvature expected beforehand: afterwards noise may pass for it
        prior = learned.prior[learned.prior > 1e-6 * learned.prior.max()]
        before = np.broadcast_to(prior / prior.sum(), weights.shape)
        slope = np.broadcast_to(learned.slope, slope.shape)
        return bool(bent or surprise(noise, view, states, before, slope) > OTHER_NOISE**2)

    def _pool(self) -> None:
        """Learn the noise anew from the contrasts of all pairs."""
        learned = self.learned
        assert learned is not None
        if not learned.noisy or self.known_noise is not None:
            return
        _, states, weights, slope, noise = self.infer()
        view = self.book.lines(self.rows, [int(j) for j in self.inputs])
        pooled = self.noise.empty_like()
        pooled.merge(self.noise)
        pool(pooled, noise, view, states, weights, slope)
        level, dof = pooled.level()
        if learned.two_scales:
            # neighbouring steps see one wiggle alike
            level, dof = np.maximum(level, learned.noise), learned.dof
        self.learned = replace(learned, noise=level, dof=dof)

    def contradicted(self) -> NDArray[np.bool_]:
        """Entries whose pairs contradict the state of their input."""
        raise NotImplementedError

    def _drop_outliers(self) -> None:
        """Leave out a pair without which the others of its input agree."""
        assert self.learned is not None
        lines = [int(j) for j in self.inputs]
        view = self.book.lines(self.rows, lines)
        pairs = np.isfinite(view.t).sum(axis=1)
        # each pair is left out in turn; among many one does little harm
        several = (pairs > 2) & (pairs <= SUSPECTS)
        if not (self.learned.noisy and several.any()):
            return
        _, _, _, slope, noise = self.infer()
        # what hits one output of many is as likely a bend of its own
        for k in np.flatnonzero(several & (self.contradicted().mean(axis=1) > HIT)):
            slot = culprit(view.take([k]), self.states, self.learned.prior, noise, slope[[k]])
            if slot is not None:
                self.book.leave_out(lines[k], slot)

    def _look_again(self) -> Generator[Array, None, None]:
        """A kink or a jump at x: the slopes to its two sides differ."""
        _, _, _, slope, noise = self.infer()
        view = self.book.lines(self.rows, [int(j) for j in self.inputs])
        suspect = broken(view, noise, slope) & np.isfinite(self.book.f0)
        # a step that reaches where the function bends anyway tells nothing
        assert self.learned is not None
        bend = bending(self.states, self.learned.prior[None])[0]
        short = SHORT * bend if self.learned.noisy else SHORT
        slow = shrinks_slowly(view, noise)
        suspect &= (nearest(view)[0] < short)[:, None] | slow | self.learned.corner
        # nor does one below which the function is rough
        suspect &= (nearest(view)[0] / SHRINK >= self.floor)[:, None]
        who = np.flatnonzero(suspect.any(axis=1) & (self.side == 0) & ~self.inert)
        if not who.size:
            return
        if self._evals() + 2 * who.size > self._most_evals():
            # no second look can be afforded: noise may have made a suspect, rounding does not
            self.kinks = suspect & (slow | (not self.learned.noisy))
            return
        inputs = [int(self.inputs[k]) for k in who]
        yield self.book.request(
            [Pair(j, t / SHRINK) for j, t in zip(inputs, nearest(view)[0][who])]
        )
        before = Lines(*(getattr(view, a)[who] for a in ("t", "factor", "size", "odd", "even")))
        after = self.book.lines(self.rows, inputs)
        self.kinks[who] = suspect[who] & stays_broken(before, after, noise)

    def _look_wide(self) -> Generator[Array, None, None]:
        """Slopes at the scale of the trend, where nobody knows which scale is meant."""
        learned = self.learned
        assert learned is not None
        if learned.doubt is None:
            return
        left = max(self._most_evals() - self._evals(), 0) // 2
        who = np.flatnonzero(~self.inert & (self.side == 0) & (self.cap >= WIDE))[:left]
        if not who.size:
            return
        inputs = [int(j) for j in self.inputs[who]]
        # the book holds the latest pair of a line last
        yield self.book.request([Pair(j, WIDE) for j in inputs])
        view = self.book.lines(self.rows, inputs)
        latest = np.isfinite(view.t).sum(axis=1) - 1
        self.wide[who] = view.odd[np.arange(who.size), latest]
        self.book.leave_latest_out(who.size)

    def _mend(self, who: Index) -> Generator[Array, None, None]:
        """Ask again where a run failed: nearer, or on the side that works."""
        for _ in range(MENDS if self.problem.replace else 0):
            lost = self._lost(who)
            if not lost.size:
                return
            wanted = []
            for k in lost:
                j = int(self.inputs[k])
                last = self.book.last(self.rows, j)
                t, works = last.t, last.works
                if last.side == 0 and works != 0:
                    self.side[k] = works
                    self.reach[k] = t / 2
                    t = t / 2
                elif last.side != 0 and self.book.is_open(j, -last.side, 2 * t):
                    self.side[k] = -last.side
                else:
                    t = t / SHRINK
                    self.reach[k] = t
                self.cap[k] = min(self.cap[k], t)
                wanted.append(Pair(j, self._fresh(j, t, []), int(self.side[k])))
            yield self.book.request(wanted)

    def _lost(self, who: Index) -> Index:
        """Inputs for which some output has no slope although it has a value at x."""
        view = self.book.lines(self.rows, [int(self.inputs[k]) for k in who])
        alive = np.isfinite(self.book.f0)
        if not alive.any():
            alive = np.asarray(np.isfinite(view.odd).any(axis=(0, 1)))
        missing = np.asarray(~np.isfinite(view.odd).any(axis=1))
        return who[missing[:, alive].any(axis=1)]

    def _silent(self) -> Generator[Array, None, None]:
        """Inputs to which nothing answers: inert, or on a grid coarser than the step."""
        quiet = self._quiet(np.arange(self.inputs.size))
        if not quiet.size:
            return
        yield self.book.request_group(self.inputs[quiet], self.cap[quiet])
        if not self.book.group_answers(self.rows):
            self.inert[quiet] = True
            return
        low = np.array([max(self.book.steps(int(self.inputs[k]))) for k in quiet])
        high = self.cap[quiet]
        yield self.book.request([Pair(int(self.inputs[k]), t) for k, t in zip(quiet, high)])
        still = self._quiet(quiet)
        self.inert[still] = True
        live = ~np.isin(quiet, still)
        quiet, low, high = quiet[live], low[live], high[live]
        # where it begins, by bisection in log t
        while (high > 4 * low).any() and self._evals() + 6 * quiet.size <= self._most_evals():
            middle = np.sqrt(low * high)
            yield self.book.request([Pair(int(self.inputs[k]), t) for k, t in zip(quiet, middle)])
            answers = np.array([self.book.answers(self.rows, int(self.inputs[k])) for k in quiet])
            high, low = np.where(answers, middle, high), np.where(answers, low, middle)
        for k, t in zip(quiet, high):
            # a coarse grid that a step of CAP clears by little is told by its jitter
            self.floor[k] = min(CLEAR * t, self.cap[k])
            self.jitter[k] = t
            self.book.forget(int(self.inputs[k]), 0.99 * self.floor[k])
        self.count[quiet] = 0
        self.each = max(self.each, 2)

    def _quiet(self, who: Index) -> Index:
        view = self.book.lines(self.rows, [int(self.inputs[k]) for k in who])
        heard = (np.nan_to_num(view.odd) != 0) | (np.nan_to_num(view.even) != 0)
        seen = np.isfinite(view.odd).any(axis=(1, 2))
        quiet = seen & ~heard.any(axis=(1, 2)) & (self.side[who] == 0) & ~self.inert[who]
        return np.asarray(who[quiet])
