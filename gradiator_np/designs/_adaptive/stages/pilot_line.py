"""The pilot's line: pairs along one random direction that moves every input."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import CENTRE, PILOT, Moves, PairRequest
from gradiator_np.designs._adaptive.failed_runs import latest_pair, side_at_work
from gradiator_np.designs._adaptive.model.differences import (
    SIDED_REACH,
    CentralDifferences,
    round_digit,
)
from gradiator_np.designs._adaptive.state import WIDEST, Budget

Script = Generator[Moves, None, None]

# Draws of a direction of two inputs, of which one in five or less is the line that was left.
MOST_DRAWS = 20
# Inputs that bounds keep to less than this share of the others' steps stay where they are: what
# moves by so little shows what floating-point numbers allow, not a slope.
BARELY = 1e-2


class PilotLine:
    """The direction, its pairs, and the runs that are left for more of them.

    Parameters
    ----------
    context : Context
    budget : Budget
    """

    def __init__(self, context: Context, budget: Budget) -> None:
        self.context, self.log, self.budget = context, context.log, budget
        used = self.log.nfev - 1
        left = budget.limit - used - 1 if budget.max_nfev is None else budget.max_nfev - used
        # two pairs an input are worth more than what the pilot adds beyond ten runs
        self._limit = used + max(left - 4 * budget.m, min(left - 2 * budget.m, 10))
        # a pair an input, and a run that moves all those of several to which nothing answers
        self._most, self._reserved = budget.limit - 2 * budget.m - (budget.m > 1), 0
        #: +1 or -1 where pairs are one-sided rules.
        self.side = 0
        #: How far each input takes part, relative to the others.
        self.reach = np.ones(self.log.m)
        #: Steps beyond it fail.
        self.max_step = WIDEST
        #: Whether f(x) was run again, and whether it differed.
        self.repeated = self.random = False
        #: Outputs (N,) that did not change at some pair.
        self.still = np.zeros(self.log.f0.size, bool)

    # -- what was seen -----------------------------------------------------------------------

    @property
    def view(self) -> CentralDifferences:
        """The pairs so far."""
        return self.log.differences([self.log.pilot])

    def at(self, t: float) -> tuple[Array, Array]:
        """Slope and second difference (N,) of the pair of the step nearest to t."""
        view = self.view
        k = view.at(t)
        return view.slope[0, k], view.second[0, k]

    def is_lost(self, t: float, shorter: float) -> bool:
        """Whether what answers at t would be rounded to nothing at a ``shorter`` step, as squares
        of steps are at a minimum."""
        slope, second = self.at(t)
        there = np.abs(slope) * shorter + np.abs(second) * (shorter / t) ** 2
        return bool((there <= 2 * self.context.problem.eps * np.abs(self.log.f0)).all())

    @property
    def smallest(self) -> float:
        """The smallest step of a pair."""
        return float(np.nanmin(self.view.t[0]))

    @property
    def first_answer(self) -> float:
        """The smallest step of a pair from which on something answers to every wider one."""
        view = self.view.sorted()
        answers = (np.nan_to_num(view.slope[0]) != 0) | (np.nan_to_num(view.second[0]) != 0)
        silent = np.flatnonzero(~answers.any(axis=1))
        first = int(silent[-1]) + 1 if silent.size else 0
        return float(view.t[0, min(first, len(answers) - 1)])

    def widest(self, most: float) -> float:
        """The widest step of a pair up to ``most``, 0 where there is none."""
        t = self.view.t[0]
        return float(np.max(t[t <= 1.001 * most], initial=0.0))

    @property
    def resolution(self) -> float:
        """The least t at which floating-point numbers move every input that takes part."""
        size = np.abs(self.log.direction).max(axis=0)
        moved = self.log.free & (size > 0)
        return float(np.max(self.log.resolution[moved] / size[moved], initial=0.0))

    @property
    def length(self) -> float:
        """Length of the direction, in units of the scales."""
        return float(np.sqrt(np.square(self.log.direction[0]).sum())) or 1.0

    @property
    def share(self) -> float:
        """How far inputs move at t = 1, in units of their own: less than 1 where bounds or
        ``max_step`` keep the direction short."""
        reach = self.reach[self.reach > 0]
        if self.log.pilot != PILOT or not reach.size:
            return 1.0
        return float(np.sqrt(np.mean(np.square(reach))))

    def sizes(self, widest: float = np.inf) -> Array:
        """The largest size of each output at x and at pairs of steps up to ``widest``."""
        values = np.abs(np.nan_to_num(self.log.values_of(self.log.pilot, widest)))
        return np.asarray(
            np.maximum(values.max(axis=0, initial=0.0), np.nan_to_num(np.abs(self.log.f0)))
        )

    # -- asking ------------------------------------------------------------------------------

    @property
    def spare(self) -> int:
        """Pairs that the budget still allows."""
        return (self._limit - self.budget.spent(self.log)) // 2

    def allow(self, runs: int) -> bool:
        """Allow so many runs more, as far as one pair an input is left; whether a pair fits."""
        self._limit = min(self._limit + runs, self._most - self._reserved)
        return self.spare > 0

    def reserve_second_pairs(self) -> None:
        """Keep two pairs an input for what comes after the pilot."""
        self._reserved = 2 * self.budget.m - (self.budget.m > 1)

    def release(self, runs: int) -> bool:
        """Allow so many runs more, of those that were kept if need be; whether a pair fits."""
        self._reserved = max(self._reserved - runs, 0)
        return self.allow(runs)

    def pairs(self, steps: Iterable[float], again: bool = False) -> Script:
        """Pairs at steps that were not asked for yet, as many as the budget allows; with f(x) run
        ``again`` beside them."""
        log = self.log
        wanted: list[PairRequest] = []
        if again and not self.repeated:
            wanted.append(PairRequest(CENTRE, 0.0))
        used, most = log.steps(log.pilot), self.spare
        for step in steps:
            t = min(step, self.max_step) / (SIDED_REACH if self.side else 1.0)
            if any(abs(t / other - 1) < 0.01 for other in used) or most <= 0:
                continue
            used, most = [*used, t], most - 1
            wanted.append(PairRequest(log.pilot, t, self.side))
        if not wanted:
            return
        row = log.n_rows
        yield log.request(wanted)
        view = self.view
        self.still |= ((view.slope[0] == 0) & (view.second[0] == 0)).any(axis=0)
        if again and not self.repeated:
            repetition = log.values()[row]
            both = np.isfinite(repetition + log.f0)
            # one that failed says nothing
            self.repeated, self.random = both.any(), bool((repetition != log.f0)[both].any())
            self.repetition = repetition - log.f0

    def replace_wide(self, noisy: bool) -> Script:
        """Where wide pairs failed, and none as wide worked, the domain ends there: stay inside.

        With noise the runs of one side that worked, if any, serve one-sided rules: those of
        neighbouring pairs, and the widest with one more run. Without it a bend that they would see
        says nothing of the steps that count.
        """
        view = self.view
        t, sided = view.t[0], view.sided[0]
        worked = np.isfinite(view.slope[0]).any(axis=1)
        alike = worked & (sided == sided[:, None])
        reached = np.maximum(np.where(alike, t, 0.0).max(axis=1), np.min(t[worked], initial=np.inf))
        failed = ~worked & (t > reached)
        if not failed.any():
            return
        wide, widest = float(t[failed].min()), float(t[failed].max())
        self.max_step = min(self.max_step, wide / 2)
        log, side = self.log, side_at_work(self.log, self.log.pilot)
        if noisy and side:
            own = t[failed]
            free = [s for s in own if np.isclose(own, 2 * s, rtol=1e-9).any()]
            wanted = [PairRequest(log.pilot, s, side) for s in {*free, widest / 2}]
            yield log.request(sorted(wanted, key=lambda pair: pair.t))
        elif not (t[worked] > wide / 10).any():
            yield from self.pairs([wide / 4])

    # -- the direction -----------------------------------------------------------------------

    def aim(self, way: int = 0) -> None:
        """Draw the direction; a one-sided one leads all inputs up (``way`` 1) or down (-1) where
        there is room, or (0) to where there is more."""
        log, rng = self.log, self.context.problem.rng
        gap = np.minimum(log.up, log.down)
        if self.side == 0 and not (gap > 0).any():
            self.side = 1
        if self.side:
            side = np.where(log.up >= log.down, 1.0, -1.0)
            if way:
                side = np.where((log.up if way > 0 else log.down) > 0, way, -way)
            gap = np.where(side > 0, log.up, log.down) / 2
        # no input may be led out of its bounds by the widest pair
        reach = np.minimum(1.0, np.maximum(gap, 0.0) / WIDEST)
        self.reach = np.where(reach < BARELY * reach.max(), 0.0, reach)
        size = rng.uniform(0.5, 1.0, log.m) * self.reach
        sign = side if self.side else rng.choice([-1.0, 1.0], log.m)
        if log.pilot != PILOT:
            size = np.where(log.free, 1.0, 0.0)
            self.max_step = float(min(WIDEST, gap[log.pilot]))
            sign = np.ones(log.m)
            if self.side:
                self.side = 1 if log.up[log.pilot] >= log.down[log.pilot] else -1
        log.aim(round_digit(sign * size * log.scale) / log.scale)

    def turn(self, tries: int) -> None:
        """Another direction where both runs of a pair, or one of them, failed."""
        log = self.log
        last = latest_pair(log, log.pilot)
        if last.side == 0 and last.works != 0:
            # the domain ends at x: the side that works will do
            log.aim(log.direction * last.works)
            self.side = 1 if log.pilot == PILOT else last.works
        elif log.pilot == PILOT and tries > 1:
            # each output may have a side of its own: all up, all down, at random again
            way = (0, 1, -1)[tries % 3 - 1]
            self.side = abs(way)
            self.aim(way)

    def turn_aside(self) -> bool:
        """Draw another direction in place of the one so far, and not the same line again; whether
        there is one."""
        before = self.log.direction[0]
        if self.log.pilot != PILOT or self.side or np.count_nonzero(before) < 2:
            return False
        for _ in range(MOST_DRAWS):
            self.aim()
            now = self.log.direction[0]
            if np.abs(now @ before) < (1 - 1e-9) * np.linalg.norm(now) * np.linalg.norm(before):
                self.log.exclude_below(self.log.pilot, np.inf)
                return True
        return False

    def takes_part(self) -> NDArray[np.bool_]:
        """Free inputs (m,) that the direction moves by a fair share."""
        return np.asarray(self.reach[self.context.inputs] >= FAIR)


# Inputs with a smaller share than this of a full step hardly show in the pilot.
FAIR = 0.25
