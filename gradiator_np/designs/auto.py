"""The default design: it finds the noise, chooses steps from it, and says how far it got."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np.covariance import Covariance
from gradiator_np.designs.base import Problem, Rows
from gradiator_np.designs.lines import States, likelihood, posterior
from gradiator_np.designs.moves import FreeMoves
from gradiator_np.designs.pairs import Lines, Pair, Pairs
from gradiator_np.designs.pilot import (
    CAP,
    Learned,
    Noise,
    Pilot,
    mixture,
    relative,
    round_digit,
    slopes,
)
from gradiator_np.kernels import lines as kernels
from gradiator_np.solvers.solution import Solution

Array = NDArray[np.float64]

# Steps of the pairs that are still to come, relative to the largest.
SHAPES: dict[int, list[list[float]]] = {
    1: [[1.0]],
    2: [[1, 1], [1, 0.8], [1, 0.65], [1, 0.5], [1, 0.35], [1, 0.2], [1, 0.1], [1, 0.03]],
    3: [[1, 1, 1], [1, 1, 0.5], [1, 0.5, 0.5], [1, 0.67, 0.33], [1, 0.8, 0.4], [1, 0.3, 0.1]],
    4: [
        [1, 1, 1, 1],
        [1, 0.75, 0.5, 0.25],
        [1, 1, 0.5, 0.5],
        [1, 0.5, 0.5, 0.5],
        [1, 0.8, 0.5, 0.2],
        [1, 0.5, 0.25, 0.1],
    ],
}
# Exponent of the variance that a design minimises the mean of: about the mean log error. The mean
# variance itself lets the tail of rho choose steps five times too short.
POWER = 0.1
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Auto:
    """Central pairs along each input, with steps chosen from noise and curvature.

    Parameters
    ----------
    noise : "auto", float or array, shape (n,)
        Standard deviation of one evaluation, in units of y; 0 for a deterministic function.
    max_evals : int or None
        Evaluations in all, the one at x included.
    tol : float, array, shape (n, m), or None
        Wanted standard error.
    min_step, max_step : array, shape (B, m), or None
        Limits of the steps, in units of x.
    """

    noise: str | float | Array = "auto"
    max_evals: int | None = None
    tol: float | Array | None = None
    min_step: Array | None = None
    max_step: Array | None = None

    def start(self, problem: Problem, learned: Learned | None = None) -> AutoPlan:
        """A plan for one problem."""
        return AutoPlan(self, problem, learned)


class AutoPlan:
    """The default design at work on one problem."""

    name = "auto"

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
        self.remarks: list[str] = []
        self._script: Generator[Array, None, None] | None = self._run()

    # the contract

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

    @property
    def step(self) -> Array:
        """The largest step of each input that was used, in units of x."""
        out = np.full(self.problem.x.shape, np.nan)
        for j in self.inputs:
            used = self.book.steps(j)
            if used:
                out[:, j] = max(used) * self.problem.scale[:, j]
        return out

    # the rounds

    def _known_noise(self) -> Array | None:
        if isinstance(self.options.noise, str):
            return None
        noise = np.asarray(self.options.noise, float)
        return np.ascontiguousarray(
            np.broadcast_to(noise, self.problem.y.shape[-1]).repeat(1)
            * np.ones(self.book.f0.size // self.problem.y.shape[-1])[:, None]
        ).ravel()

    def _run(self) -> Generator[Array, None, None]:
        if not self.inputs.size:
            return
        if self.learned is None:
            self.learned = yield from Pilot(self, self._pilot_evals()).run()
        else:
            self.noise.size = np.abs(np.nan_to_num(self.book.f0))
            self.noise.least = 1e-300 + 0.3 * self.problem.eps * self.noise.size
        yield from self._rounds()

    def _pilot_evals(self) -> int:
        """Evaluations that the pilot may have used when it ends."""
        m = self.inputs.size
        total = 5 * m + 10 if self.options.max_evals is None else self.options.max_evals
        # two pairs an input are worth more than what the pilot adds beyond ten runs
        return max(total - 4 * m, min(total - 2 * m, 10))

    def _evals(self) -> int:
        return self.book.n_rows + 1

    def _pairs_per_input(self) -> tuple[int, int]:
        """Pairs of every input, and how many may be added beyond that."""
        assert self.learned is not None
        m = self.inputs.size
        if self.options.max_evals is None:
            return (2 if self.learned.noisy else 1), 0
        left = max(self.options.max_evals - self._evals(), 0) // 2
        return left // m, left

    def _rounds(self) -> Generator[Array, None, None]:
        learned = self.learned
        assert learned is not None
        book = self.book
        each, left = self._pairs_per_input()
        limit = self._caps()
        m = self.inputs.size
        taken = 0
        total = each * m if self.options.max_evals is None else left
        while taken < total:
            view, weights, slope, noise = self._infer()
            have = np.isfinite(view.t).sum(axis=1)
            todo = max(min(total - taken, m), 0)
            if todo < m:
                # what is left goes where the error is largest
                _, _, spread, _ = mixture(view, self._used, noise, slope, weights)
                worst = (
                    np.where(np.isfinite(spread), spread, 1e300) / np.square(noise)[:, None]
                ).mean(axis=0)
                who = np.argsort(-worst, kind="stable")[:todo]
            else:
                who = np.arange(m)
            ahead = int(np.clip(each - have.min(), 1, 4))
            steps = self._choose(view, weights, slope, noise, who, ahead, limit)
            wanted = [
                Pair(int(self.inputs[k]), self._fresh(int(self.inputs[k]), t))
                for k, t in zip(who, steps)
            ]
            yield book.request(wanted)
            taken += len(wanted)

    def _caps(self) -> Array:
        cap = np.minimum(np.minimum(self.book.up, self.book.down), CAP)[self.inputs]
        if self.options.max_step is not None:
            most = np.asarray(self.options.max_step, float) / self.problem.scale
            cap = np.minimum(cap, most.min(axis=0)[self.inputs])
        return cap

    def _fresh(self, j: int, t: float) -> float:
        """A step not yet used on this input, round where the function is deterministic."""
        assert self.learned is not None
        if self.learned.random:
            return t
        scale = float(self.problem.scale[0, j])
        used = self.book.steps(j)
        while True:
            rounded = float(round_digit(np.array(t * scale))) / scale
            if all(abs(rounded / other - 1) > 1e-6 for other in used):
                return rounded
            t *= 0.85

    def _infer(self) -> tuple[Lines, Array, Array, Array]:
        """What is known of every input: pairs, weights of the states, slopes, noise."""
        learned = self.learned
        assert learned is not None
        view = self.book.merged(self.rows, [int(j) for j in self.inputs])
        noise = learned.noise
        keep = np.flatnonzero(learned.prior > 1e-6 * learned.prior.max())
        self._used = states = self.states.take(keep)
        prior = np.broadcast_to(learned.prior[keep], (self.inputs.size, keep.size))
        slope = np.broadcast_to(learned.slope, (self.inputs.size, noise.size)).copy()
        if not np.isfinite(view.t).any():
            return view, np.ascontiguousarray(prior), slope, noise
        slope = slopes(view, states, noise, slope, np.ascontiguousarray(prior))
        slope = self._slopes(slope, view)
        odd, even = likelihood(view, states, noise, slope)
        return view, posterior(prior, odd, even, states), slope, noise

    def _slopes(self, mean: Array, view: Lines) -> Array:
        """b: the slope, less what noise adds to it, and a hundredth of the other inputs'."""
        assert self.learned is not None
        known = np.isfinite(view.odd).any(axis=1)
        square = np.where(known, np.square(mean), np.square(self.learned.slope))
        total = square.mean(axis=0)
        return np.sqrt(square + 0.01 * total + 1e-12 * total.max() + 1e-300)

    def _choose(
        self,
        view: Lines,
        weights: Array,
        slope: Array,
        noise: Array,
        who: NDArray[np.intp],
        ahead: int,
        cap: Array,
    ) -> Array:
        """The largest step of the best design of ``ahead`` further pairs, per input."""
        assert self.learned is not None
        ratio = np.array([relative(noise, slope[k]) for k in who])
        shapes = SHAPES[ahead]
        table = np.array(shapes, float)
        low = max(self.learned.floor * 5, 1e-9)
        grid = np.geomspace(low, CAP, max(int(6 * np.log10(CAP / low)), 2))
        # inputs that know the same share one design
        key = np.concatenate(
            [np.nan_to_num(view.t[who]), ratio[:, None], cap[who][:, None], weights[who]], axis=1
        )
        _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
        pick = who[first]
        out = np.empty((first.size, 2))
        kernels.design(
            np.ascontiguousarray(view.t[pick]),
            np.ascontiguousarray(view.factor[pick]),
            np.ones(first.size),
            ratio[first],
            np.ascontiguousarray(weights[pick]),
            self._used.sd_odd,
            self._used.kappa,
            grid,
            cap[pick],
            table,
            POWER,
            out,
        )
        return out[inverse.ravel(), 0]

    # the answer

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from the rows told so far."""
        self.rows = rows
        p = self.problem
        b, m = p.x.shape
        n = p.y.shape[-1]
        view, weights, slope, noise = self._infer()
        mean, unit, spread, half = mixture(view, self._used, noise, slope, weights)
        full = [np.full((noise.size, m), fill) for fill in (0.0, np.inf, np.inf)]
        for target, source in zip(full, (mean, unit, half / NORMAL_95)):
            target[:, self.inputs] = source

        def fold(a: Array) -> Array:
            a = a.reshape(b, -1, m) / p.scale[:, None, :]
            return a

        coef = fold(full[0])
        diag = fold(np.sqrt(full[1])) ** 2
        total = fold(full[2]) ** 2
        extra = np.maximum(total - np.square(noise).reshape(b, -1, 1) * diag, 0)
        return Solution(
            coef,
            Covariance(noise.reshape(b, -1), diag=diag, extra=extra, per_output=True),
            self.learned.dof.reshape(b, -1),
            np.full(b, self.inputs.size, dtype=np.intp),
            np.ones(b),
            np.zeros((b, n)),
        )
