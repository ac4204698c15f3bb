"""The default design: it finds the noise, chooses steps from it, and says how far it got."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.alone import hear
from gradiator_np.designs.base import Problem, Rows
from gradiator_np.designs.box import Box, choose_box
from gradiator_np.designs.growing import Growing
from gradiator_np.designs.levels import Noise
from gradiator_np.designs.lines import (
    RHO,
    TAIL,
    States,
    by_rho,
    likelihood,
    normalise,
    posterior,
    relative,
)
from gradiator_np.designs.mending import CLEAR, TRUST, Index, Inference
from gradiator_np.designs.mixtures import mixture, slopes, spreads
from gradiator_np.designs.moves import FreeMoves
from gradiator_np.designs.pairs import SIDED_NOISE, SIDED_REACH, Lines, Pair, Pairs, round_digit
from gradiator_np.designs.pilot import CAP, Learned, Pilot
from gradiator_np.designs.search import best_steps
from gradiator_np.designs.second_look import contradicted, nearest
from gradiator_np.designs.verdict import answer
from gradiator_np.solvers.solution import Solution

Array = NDArray[np.float64]

# Steps of the pairs that are still to come, relative to the largest.
SHAPES: dict[int, list[list[float]]] = {
    1: [[1.0]],
    2: [[1, 0.8], [1, 0.65], [1, 0.5], [1, 0.35], [1, 0.2], [1, 0.1], [1, 0.03]],
    3: [[1, 1, 0.7], [1, 1, 0.5], [1, 0.5, 0.5], [1, 0.67, 0.33], [1, 0.8, 0.4], [1, 0.3, 0.1]],
    4: [
        [1, 1, 1, 0.6],
        [1, 0.75, 0.5, 0.25],
        [1, 1, 0.5, 0.5],
        [1, 0.5, 0.5, 0.5],
        [1, 0.8, 0.5, 0.2],
        [1, 0.5, 0.25, 0.1],
    ],
}
# Candidates of the largest step, per decade: a step 20 % off costs 2 % of the error.
GRID = 6
# Steps are chosen as if higher terms that set in early were rarer by this factor than the estimate
# takes them to be: at noise of 1e-8 that saves a fifth of the error, and error bars stay careful.
BOLD = 0.25
# Pairs of one input in all where only a tolerance is given.
PATIENCE = 100


# Every other pair of a random function is drawn in by this much: at one step alone nothing tells
# truncation from slope.
ASIDE = 0.7


@dataclass(frozen=True, slots=True)
class Auto:
    """Central pairs along each input, with steps chosen from noise and curvature.

    Parameters
    ----------
    noise : "auto", float or array, shape (n,)
        Standard deviation of one evaluation, in units of y; 0 for a deterministic function.
    max_evals : int or None
        Evaluations in all, the one at x included.
    tol : float, array that broadcasts to (n, m), or None
        Wanted standard error, y per x.
    rtol : float or None
        Wanted standard error relative to the norm of the row of J.
    min_step, max_step : float, array that broadcasts to (B, m), or None
        Limits of the steps, in units of x: ``min_step`` says that the function is rough below.
    """

    noise: str | float | Array = "auto"
    max_evals: int | None = None
    tol: float | Array | None = None
    rtol: float | None = None
    min_step: float | Array | None = None
    max_step: float | Array | None = None
    needs_value = True

    def start(self, problem: Problem, learned: Learned | None = None) -> AutoPlan:
        """A plan for one problem; with what was ``learned`` elsewhere it needs no pilot."""
        return AutoPlan(self, problem, learned)


class AutoPlan(Growing):
    """The default design at work on one problem."""

    def __init__(self, options: Auto, problem: Problem, learned: Learned | None) -> None:
        self.options = options
        self.problem = problem
        self.book = Pairs(problem)
        self.states = States.grid()
        self.noise = Noise.empty(self.book.f0.size)
        self.known_noise = self._known_noise()
        self.learned = learned
        self.rows = Rows(
            FreeMoves(np.empty((0, *problem.x.shape))),
            np.empty((0, *problem.y.shape)),
            np.empty(0, bool),
            problem.y,
        )
        self.inputs = np.flatnonzero(self.book.free)
        m = self.inputs.size
        self.cap, self.floor = self._limits()
        self.side = np.zeros(m, np.intp)
        self.reach = np.full(m, CAP)
        self.jitter = np.zeros(m)
        self.inert = np.zeros(m, bool)
        self.count = np.zeros(m, np.intp)
        self.short = False
        self._known: tuple[tuple[int, ...], Learned | None, Inference] | None = None
        self.each = 1
        self.kinks = np.zeros((m, self.book.f0.size), bool)
        self.wide = np.full(self.kinks.shape, np.nan)
        #: Runs beyond the default budget that found the scale of inputs next to 0.
        self.extra, self.grown = 0, []
        self.box: Box | None = None
        self._script: Generator[Array, None, None] | None = self._run()

    # -- the contract ------------------------------------------------------------------------

    def ask(self, rows: Rows) -> NDArray[Any] | None:
        """Offsets (k, B, m) to run next; None where nothing more is wanted."""
        self.rows = rows
        if self._script is None:
            return None
        try:
            return next(self._script)
        except StopIteration:
            self._script = None
            return None

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from the rows told so far."""
        self.rows = rows
        if self.box is not None and len(rows.done) > self.box.first:
            return self.box.solve(rows, self.short)
        solution = answer(self, finished=self._script is None)
        return replace(solution, message=solution.message + self._grown_words())

    @property
    def name(self) -> str:
        """Words for the design."""
        return "auto" if self.box is None else self.box.name

    @property
    def step(self) -> Array:
        """The largest step of each input that was used, in units of x."""
        if self.box is not None:
            return self.box.plan.step
        out = np.full(self.problem.x.shape, np.nan)
        for j in self.inputs:
            used = self.book.steps(int(j))
            if used:
                out[:, j] = max(used) * self.problem.scale[:, j]
        return out

    # -- what is known -----------------------------------------------------------------------

    def _known_noise(self) -> Array | None:
        noise = self.options.noise
        if isinstance(noise, str):
            if self.problem.noise is None:
                return None
            noise = self.problem.noise
        n = self.problem.y.shape[-1]
        each = np.broadcast_to(np.asarray(noise, float), (n,))
        return np.tile(each, self.book.f0.size // max(n, 1))

    def _limits(self) -> tuple[Array, Array]:
        """Largest step of a pair, and the smallest that the caller allows, per free input."""
        scale = self.problem.scale
        if self.options.max_step is not None:
            self.book.shorten((self.options.max_step / scale).min(axis=0))
            lost = np.flatnonzero(self.book.free & (self.book.room < 2 * self.book.least))
            if lost.size:
                raise ValueError(
                    f"the max_step of input {lost[0]} is less than two units in the last place of x"
                )
        cap = np.minimum(np.minimum(self.book.up, self.book.down), CAP)
        cap = np.where(cap < self.book.least, 0.0, cap)
        floor = 4 * self.book.least
        if self.options.min_step is not None:
            floor = np.maximum(floor, (self.options.min_step / scale).max(axis=0))
        floor = np.minimum(floor, np.where(cap > 0, cap, self.book.room / 2))
        return cap[self.inputs], floor[self.inputs]

    def infer(self) -> Inference:
        """Pairs, states, weights (m, S) of the states, slopes (m, N) and noise (N,)."""
        key = (len(self.rows.done), int(self.rows.done.sum()), len(self.book.left_out))
        if self._known is None or self._known[0] != key or self._known[1] is not self.learned:
            self._known = (key, self.learned, self._infer(self.learned or self._ignorant()))
        return self._known[2]

    def _infer(self, learned: Learned) -> Inference:
        noise = learned.noise
        view = self.book.merged(self.rows, [int(j) for j in self.inputs], noise)
        keep = np.flatnonzero(learned.prior > 1e-6 * learned.prior.max())
        states = self.states.take(keep)
        prior = np.ascontiguousarray(
            np.broadcast_to(learned.prior[keep], (self.inputs.size, keep.size))
        )
        slope = np.ascontiguousarray(np.broadcast_to(learned.slope, (self.inputs.size, noise.size)))
        if not np.isfinite(view.odd).any():
            return view, states, prior, slope, noise
        slope = self._scale_of_slopes(slopes(view, states, noise, slope, prior), view)
        if self.jitter.any():
            # an input on a grid of its own: its rounding adds to the noise of its pairs
            grown = 1 + np.square(self.jitter / relative(noise, slope))
            view = replace(view, factor=view.factor * grown[:, None])
        odd, even = likelihood(view, states, noise, slope)
        return view, states, posterior(prior, odd, even, states), slope, noise

    def estimate(self) -> tuple[Array, ...]:
        """Slopes, their variance from noise at unit noise, their variance, and the half-widths of
        95 % intervals: each (N, m)."""
        view, states, weights, slope, noise = self.infer()
        out = mixture(view, states, noise, slope, weights)
        output, line, own = self._alone()
        if output.size:
            for a, b in zip(out, mixture(*own)):
                a[output, line] = b[0]
        return out

    def _spread(self) -> Array:
        """Variances (N, m) of the slopes."""
        view, states, weights, slope, noise = self.infer()
        out = spreads(view, states, noise, slope, weights).T
        output, line, own = self._alone()
        if output.size:
            out[output, line] = spreads(*own)[:, 0]
        return out

    def _alone(self) -> tuple[Index, Index, tuple[Lines, States, Array, Array, Array]]:
        """The entries that contradict their input, and what they know alone."""
        view, _, _, slope, noise = self.infer()
        prior = (self.learned or self._ignorant()).prior
        return hear(view, self.states, prior, noise, slope, self.contradicted())

    def contradicted(self) -> NDArray[np.bool_]:
        """Entries (m, N) whose pairs contradict the state of their input."""
        view, states, weights, slope, noise = self.infer()
        if self.learned is not None and self.learned.random:
            # repetitions of a step show an outlier as well
            view = self.book.lines(self.rows, [int(j) for j in self.inputs])
        return contradicted(view, states, noise, slope, weights)

    def _ignorant(self) -> Learned:
        """What is known where the pilot has not ended yet."""
        n = self.book.f0.size
        size = np.nan_to_num(np.abs(self.book.f0))
        size = np.where(size > 0, size, size.max() or 1.0)
        noise = np.maximum(0.3 * self.problem.eps * size, 1e-300)
        if self.known_noise is not None:
            noise = np.maximum(self.known_noise, noise)
        return Learned(noise, np.zeros(n), self.states.prior(1e-5), size)

    def _scale_of_slopes(self, mean: Array, view: Lines) -> Array:
        """b: the slope and a hundredth of the other inputs', since a slope may vanish at x."""
        learned = self.learned or self._ignorant()
        known = np.isfinite(view.odd).any(axis=1)
        square = np.where(known, np.square(mean), np.square(learned.slope))
        total = square.mean(axis=0)
        least = 1e-4 * np.square(learned.noise)
        return np.ascontiguousarray(np.sqrt(square + 0.01 * total + least))

    # -- the rounds --------------------------------------------------------------------------

    def _run(self) -> Generator[Array, None, None]:
        if not self.inputs.size or not self.book.f0.size:
            return
        given = self.learned
        if given is not None and self._fits(given):
            self._start_from(given)
            yield from self._boxed(min(4 * self.inputs.size, self._most_evals() - 1))
            if self.box is not None:
                return
            yield from self._rounds(again=True)
            if not self._stale(given):
                yield from self._look_again()
                return
            self.noise.clear()
            self.learned, self.count = None, np.zeros_like(self.count)
        pilot = Pilot(self, self._pilot_evals(), self._most_evals() - 2 * self.inputs.size)
        learned = yield from pilot.run()
        self.learned = self._ignorant() if learned is None else learned
        self.cap = np.minimum(self.cap, pilot.cap)
        self.floor = np.maximum(self.floor, np.minimum(CLEAR * self.learned.floor, self.cap))
        yield from self._grow()
        yield from self._boxed(self._most_evals() - self._evals())
        if self.box is not None:
            return
        yield from self._rounds()
        if learned is None:
            self._learn_from_pairs()
        yield from self._look_again()
        yield from self._look_wide()

    def _boxed(self, most: int) -> Generator[Array, None, None]:
        """All inputs at once, in at most so many runs, where ``max_step`` and noise are what
        limits; leaves no ``box`` behind where that is not so, or failed runs left gaps."""
        learned, problem = self.learned, self.problem
        assert learned is not None
        if self.options.max_step is None or (self._wanted_error and not learned.random):
            return
        reach = np.full(problem.x.shape, CAP)
        reach[:, self.inputs] = np.where(self.cap > 0, self.cap, CAP)
        limit = np.minimum(self.options.max_step, reach * problem.scale)
        box = choose_box(problem, learned, self.states, limit, self.cap, self.book.n_rows, most)
        asked, over = 0, 0.0
        while box is not None:
            yield box.plan.offsets()[asked:]
            self.book.n_rows += box.runs - asked
            asked = box.runs
            left = self._most_evals() - self._evals()
            lost = ~np.isfinite(box.solve(self.rows).cov.stderr()[..., self.inputs]).all()
            if lost and left >= 2 * self.inputs.size:
                return
            self.box, box = box, None
            if self._wanted_error:
                over = float(self._over(self.box.solve(self.rows)).max())
                left = PATIENCE * 2 * self.inputs.size
                if self.options.max_evals is not None:
                    left = self.options.max_evals - self._evals() + asked
                box = self.box.grown(over**2, left) if over > 1 else None
        self.short = over > 1

    def _learn_from_pairs(self) -> None:
        """Noise where no pilot could be run: from second differences at steps so small that
        curvature does not reach them, and one that did would pass for noise."""
        assert self.learned is not None
        if self.known_noise is not None:
            return
        view = self.book.lines(self.rows, [int(j) for j in self.inputs])
        self.noise.size = np.nan_to_num(np.abs(self.book.f0))
        self.noise.least = self.learned.noise
        even, k = nearest(view)[2], np.arange(1, self.inputs.size)[:, None]
        # all share the noise of f0: what they differ by, and their mean
        self.noise.add((np.cumsum(even, axis=0)[:-1] - k * even[1:]) / np.sqrt(k * (k + 1)), 2.0)
        self.noise.add(even.mean(axis=0), 4 + 2 / self.inputs.size)
        level, dof = self.noise.level()
        self.learned = replace(self.learned, noise=level, dof=dof)

    def _fits(self, learned: Learned) -> bool:
        """Whether what was learned elsewhere is about as many outputs."""
        return bool(learned.noise.size == self.book.f0.size)

    def _start_from(self, learned: Learned) -> None:
        self.noise.size = np.nan_to_num(np.abs(self.book.f0))
        self.noise.least = np.minimum(learned.noise, 0.3 * self.problem.eps * self.noise.size)
        known = np.where(learned.dof > 0, np.minimum(learned.dof, TRUST), 0.0)
        if learned.relative:
            self.book.reference = self.noise.reference(np.nan_to_num(np.abs(self.book.f0)))
        self.noise.squares, self.noise.count = known * np.square(learned.noise), known
        self.floor = np.maximum(self.floor, np.minimum(CLEAR * learned.floor, self.cap))

    def _most_evals(self) -> int:
        return self.options.max_evals or 5 * self.inputs.size + 10 + self.extra

    def _pilot_evals(self) -> int:
        """Evaluations that may have been used when the pilot ends."""
        m, used = self.inputs.size, self.book.n_rows
        left = 5 * m + 10
        if self.options.max_evals is not None:
            left = self.options.max_evals - used
        # two pairs an input are worth more than what the pilot adds beyond ten runs
        return used + max(left - 4 * m, min(left - 2 * m, 10))

    def _rounds(self, again: bool = False) -> Generator[Array, None, None]:
        assert self.learned is not None
        m = self.inputs.size
        twice = self.learned.noisy or self.learned.two_scales
        each = 2 if twice else 1
        left: float = m * each if again else (self._most_evals() - self._evals()) // 2
        if self.options.max_evals is not None:
            # a noise-free answer gets no better than rounding allows
            each = max(min(int(left // m), 1 << 30 if self.learned.noisy else 4), 1)
        elif self._wanted_error:
            left = PATIENCE * m
        self.each = each
        while True:
            who = self._next(left)
            if not who.size:
                break
            before = self.book.n_rows
            yield from self._pairs(who, left)
            yield from self._mend(who)
            if self.count.max() == 1 and not (self.learned.random or self.noise.printed.any()):
                yield from self._silent()
            left -= (self.book.n_rows - before + 1) // 2
            self._drop_outliers()
            if (self.count[~self.inert] >= self.each).all():
                self._pool()

    def _next(self, left: float) -> Index:
        """The inputs that get a pair now."""
        wanted = np.flatnonzero((self.count < self.each) & ~self.inert)
        if not wanted.size:
            if self._wanted_error:
                wanted = self._over_tolerance()
            elif self.learned is not None and self.learned.noisy:
                wanted = np.flatnonzero(~self.inert)
                if left < 1:
                    return wanted[:0]
        if wanted.size <= left:
            return wanted
        self.short = not self.count.all() or (self._wanted_error and left < 1)
        # what is left goes where the error is largest
        noise = self.infer()[4]
        spread = self._spread().T
        worst = (spread / np.square(noise)).mean(axis=1)
        order = wanted[np.argsort(-worst[wanted], kind="stable")]
        return np.sort(order[: max(int(left), 0)])

    @property
    def _wanted_error(self) -> bool:
        return self.options.tol is not None or self.options.rtol is not None

    def _over(self, solution: Solution) -> Array:
        """Standard errors (B, n, m) over those that are wanted."""
        err = solution.cov.stderr()
        most = np.full(err.shape, np.inf)
        if self.options.tol is not None:
            most = np.broadcast_to(self.options.tol, err.shape)
        if self.options.rtol is not None:
            norm = np.sqrt(np.square(np.abs(solution.coef)).sum(axis=-1, keepdims=True))
            most = np.minimum(most, self.options.rtol * norm)
        return np.asarray(np.divide(err, most, out=np.full(err.shape, np.inf), where=most > 0))

    def _over_tolerance(self) -> Index:
        over = (self._over(answer(self, finished=True)) > 1).any(axis=(0, 1))
        return np.flatnonzero(np.asarray(over)[self.inputs])

    def _pairs(self, who: Index, left: float) -> Generator[Array, None, None]:
        """Ask for one more pair of these inputs, several where many are to come."""
        ahead = int(np.clip(self.each - self.count[who].min(), 1, 4))
        t, side, shape = self._choose(who, ahead)
        # after four pairs little is learned from one: four at once save rounds
        block = ahead if self.count[who].min() >= 4 and left >= ahead * who.size else 1
        wanted = []
        for k, step, s, form in zip(who, t, side, shape):
            j = int(self.inputs[k])
            if not np.isfinite(step):
                continue
            self.side[k] = s
            taken: list[float] = []
            for part in form[:block]:
                taken.append(self._fresh(j, max(step * part, self.floor[k]), taken))
                wanted.append(Pair(j, taken[-1], int(s)))
            self.count[k] += len(taken)
        if wanted:
            yield self.book.request(wanted)

    def _fresh(self, j: int, t: float, taken: list[float]) -> float:
        """A step not yet used on this input, round where the function is deterministic.

        A repeat of a deterministic run is bitwise equal and looks like a sign of no noise; a
        program that rounds its inputs to a decimal grid sees a round step exactly as meant.
        """
        assert self.learned is not None
        k = int(np.searchsorted(self.inputs, j))
        low, high = self.floor[k], np.inf if self.side[k] else self.cap[k]
        if self.learned.random:
            near = [o for o in (*self.book.steps(j), *taken) if 0.99 * ASIDE < o / t < 1.01]
            return t * ASIDE if len(near) % 2 and t * ASIDE >= low else t
        scale = float(self.problem.scale[0, j])
        used = self.book.steps(j) + taken
        smaller, larger = t * 0.85 ** np.arange(200), t / 0.85 ** np.arange(1, 40)
        for step in chain(smaller[smaller >= low], larger[larger <= high], [t]):
            rounded = float(round_digit(np.array(step * scale))) / scale
            new = all(abs(rounded / other - 1) > 1e-6 for other in used)
            if new and 0.999 * low <= rounded <= 1.001 * high:
                break
        return rounded

    def _choose(self, who: Index, ahead: int) -> tuple[Array, Index, list[list[float]]]:
        """Step, side and shape of the next pairs of these inputs."""
        view, states, weights, slope, noise = self.infer()
        weights = normalise(weights * np.where(TAIL[states.tail] < 1, BOLD, 1.0))
        ratio = relative(noise, slope[who])
        low = np.maximum(self.floor[who], 1e-9)
        pair = self._design(view, states, weights, ratio, who, ahead, self.cap[who], low, 1.0)
        up, down = self.book.up[self.inputs[who]], self.book.down[self.inputs[who]]
        side = np.where(up >= down, 1, -1)
        side = np.where(self.side[who] != 0, self.side[who], side)
        near = (self.cap[who] < CAP) | (self.side[who] != 0)
        t, shape = pair[:, 0].copy(), pair[:, 1]
        chosen = np.zeros(who.size, np.intp)
        if near.any():
            # next to a bound a one-sided rule may reach further than a pair
            reach = np.minimum(np.where(side > 0, up, down), 2 * self._ceiling[who]) / 2
            single = self._design(
                view, states, weights, ratio, who, ahead, SIDED_REACH * reach, low, SIDED_NOISE
            )
            one = near & (
                (self.side[who] != 0) | np.isnan(pair[:, 0]) | (single[:, 2] < pair[:, 2])
            )
            t = np.where(one, single[:, 0] / SIDED_REACH, t)
            shape = np.where(one, single[:, 1], shape)
            chosen = np.where(one, side, 0)
        shapes = SHAPES[ahead]
        return t, chosen, [shapes[int(h)] for h in np.nan_to_num(shape)]

    @property
    def _ceiling(self) -> Array:
        """Largest step that no failed run forbids."""
        return np.where(self.side != 0, np.minimum(self.reach, CAP), CAP)

    def _design(
        self,
        view: Lines,
        states: States,
        weights: Array,
        ratio: Array,
        who: Index,
        ahead: int,
        cap: Array,
        low: Array,
        factor: float,
    ) -> Array:
        """Step, shape and mean log variance of the best design of each input, shape (k, 3)."""
        out = np.full((who.size, 3), np.nan)
        open_ = np.flatnonzero(cap > 0)
        if not open_.size:
            return out
        who, ratio, cap, low = who[open_], ratio[open_], cap[open_], low[open_]
        # no state that counts wants less than a third of its own best step
        near = RHO[np.argmax(by_rho(states, weights[who]) > 0.01, axis=1)]
        low = np.minimum(np.maximum(low, 0.3 * np.cbrt(ratio) * near), cap)
        decades = np.log10(np.max(cap / low))
        grid = np.linspace(0.0, 1.0, int(GRID * decades) + 2)
        # inputs that know the same share one design
        key = np.column_stack(
            [np.nan_to_num(view.t[who]), ratio, cap, low, view.factor[who], weights[who]]
        )
        seen: dict[bytes, int] = {}
        inverse = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in key])
        first = np.unique(inverse, return_index=True)[1]
        pick = who[first]
        best = best_steps(
            view.t[pick],
            view.factor[pick],
            factor,
            ratio[first],
            weights[pick],
            states,
            low[first],
            cap[first],
            grid,
            np.array(SHAPES[ahead], float),
        )
        out[open_] = best[inverse]
        return out
