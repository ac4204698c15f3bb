"""A stage of the default design at work by itself: the runs that it asks for are made here."""

from __future__ import annotations

import numpy as np

from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import EvaluationLog, PairRequest
from gradiator_np.designs._adaptive.model.noise import NoiseEstimator
from gradiator_np.designs._adaptive.model.prior import States
from gradiator_np.designs._adaptive.stages.pilot_line import PilotLine
from gradiator_np.designs._adaptive.state import AxisState, Budget, FunctionProfile, Tolerance
from gradiator_np.designs._protocol import Problem, Rows

EPS = np.finfo(float).eps


class Bench:
    """A context, a profile and axes as stages get them, for a function of plain vectors."""

    def __init__(
        self, fun, x, *, noise=1e-10, noisy=False, random=False, seed=0, lower=-np.inf,
        upper=np.inf, max_nfev=None, known_noise=None, tolerance=None,
    ):  # fmt: skip
        self.fun, x = fun, np.array(x, float)
        y = np.atleast_2d(fun(x))
        low, high = (np.array(np.broadcast_to(a, x.shape), float)[None] for a in (lower, upper))
        scale = np.where(x == 0, 1.0, np.abs(x))[None]
        problem = Problem(x[None], y, low, high, scale, EPS, np.random.default_rng(seed))
        self.log = EvaluationLog(problem)
        inputs, n = np.flatnonzero(self.log.free), y.size
        known = None if known_noise is None else np.full(n, known_noise)
        self.context = Context(
            problem, self.log, States.grid(), inputs, known, tolerance or Tolerance(), None
        )
        prior = self.context.states.prior(0.0)[None]
        self.profile = FunctionProfile(
            np.full(n, noise), np.full(n, 5.0), prior, np.ones(n), noisy, random
        )
        self.axes = AxisState.start(np.full(inputs.size, 0.5), np.full(inputs.size, 1e-9))
        self.budget = Budget(max_nfev, inputs.size)

    def run(self, stage):
        """What the stage returns, all runs that it asks for made."""
        try:
            while True:
                wanted = next(stage)
                if len(wanted):  # none where what was run already serves
                    self.answer(wanted)
        except StopIteration as end:
            return end.value

    def answer(self, wanted):
        """Make these runs."""
        p, rows = self.context.problem, self.log.rows
        moves = wanted.realised(p.x, None)  # what is really moved
        points = moves.points(p.x, slice(None))
        values = np.array([[np.atleast_1d(self.fun(x[0]))] for x in points])
        self.log.record(
            Rows(
                self.log.moves.joined(moves),
                np.concatenate([rows.values, values]),
                np.ones(len(rows.done) + len(wanted), bool),
                p.y,
            )
        )

    def moved(self, rows=slice(None)):
        """Displacements (k, m) of some rows."""
        return self.log.moves.dense(rows, self.log.m)[:, 0]

    def pairs(self, *steps):
        """One pair of every input for each step."""
        for t in steps:
            self.answer(self.log.request([PairRequest(int(j), t) for j in self.context.inputs]))

    def line(self, *steps):
        """A pilot's line, aimed, with pairs at these steps."""
        line = PilotLine(self.context, self.budget)
        line.aim()
        self.run(line.pairs(steps))
        return line

    def along(self, jac):
        """What a Jacobian (N, m) of the function says of the slope along the pilot's direction."""
        return jac @ (self.log.direction * self.log.scale)[0]


def contrasts_of(line):
    """No contrasts yet, for outputs of the sizes that a line has seen."""
    size = line.sizes()
    empty = NoiseEstimator.empty(size.size)
    return NoiseEstimator(
        empty.squares, empty.count, size, 0.3 * EPS * size, empty.printed, empty.rows
    )


def smooth(rng, m, n):
    """A function of m inputs and n outputs that bends on the scale of 1, and its Jacobian."""
    a = rng.standard_normal((n, m)) / np.sqrt(m)
    p, c = rng.uniform(0, 6, n), rng.standard_normal(n)

    def fun(x):
        return np.sin(a @ x + p) + 0.3 * c * (a @ x) ** 2

    def jac(x):
        return (np.cos(a @ x + p) + 0.6 * c * (a @ x))[:, None] * a

    return fun, jac


def hashed(z):
    """Something between -1 and 1 that knows no law, the same whenever z is."""
    return np.sin(1e3 * np.sin(1e17 * z))
