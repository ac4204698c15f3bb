"""The default design, and what it does at one problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import EvaluationLog
from gradiator_np.designs._adaptive.model.noise import NoiseEstimator
from gradiator_np.designs._adaptive.model.prior import States
from gradiator_np.designs._adaptive.plan import Sequence
from gradiator_np.designs._adaptive.result import assemble_solution, steps_used
from gradiator_np.designs._adaptive.state import (
    WIDEST,
    AxisState,
    Budget,
    FunctionProfile,
    Outcome,
    Tolerance,
    uninformed_profile,
)
from gradiator_np.designs._displacements import AxisDisplacements
from gradiator_np.designs._protocol import Problem, Rows
from gradiator_np.solvers._solution import Solution


@dataclass(frozen=True, slots=True)
class Auto:
    """Central pairs along each input, with steps chosen from noise and curvature.

    Parameters
    ----------
    noise : "auto", float or array, shape (n,)
        Standard deviation of one evaluation, in units of y; 0 for a deterministic function.
    max_nfev : int or None
        Evaluations in all, the one at x included.
    atol : float, array that broadcasts to (n, m), or None
        Wanted standard error, y per x.
    rtol : float or None
        Wanted standard error relative to the norm of the row of J.
    min_step, max_step : float, array that broadcasts to (B, m), or None
        Limits of the steps, in units of x: ``min_step`` says that the function is rough below.

    Examples
    --------
    >>> from gradiator_np import designs, jacobian
    >>> estimate = jacobian(lambda x: x**2, [1.0, 2.0], method=designs.Auto(max_nfev=20))
    >>> estimate.jac.round(6), estimate.nfev <= 20
    (array([[2., 0.],
           [0., 4.]]), True)
    """

    noise: str | float | Array = "auto"
    max_nfev: int | None = None
    atol: float | Array | None = None
    rtol: float | None = None
    min_step: float | Array | None = None
    max_step: float | Array | None = None
    needs_value: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    def start(self, problem: Problem, learned: FunctionProfile | None = None) -> AutoPlan:
        """A plan for one problem; with what was ``learned`` elsewhere it needs no pilot."""
        return AutoPlan(self, problem, learned)


class AutoPlan:
    """The default design at work on one problem.

    It can be pickled and copied at any time: a copy is asked again for all that this one was asked
    for, and sees the same rows.
    """

    def __init__(self, options: Auto, problem: Problem, learned: FunctionProfile | None) -> None:
        self._begun = options, problem, learned, problem.rng.bit_generator.state
        self._asked: list[int] = []  # rows known at each ask
        log = EvaluationLog(problem, options.max_step)
        inputs = np.flatnonzero(log.free)
        context = Context(
            problem, log, States.grid(problem.eps), inputs,
            _known_noise(options.noise, problem, log.f0.size),
            Tolerance(options.atol, options.rtol), options.max_step,
            _rough_below(log, inputs, options.min_step),
        )  # fmt: skip
        entries = inputs.size, log.f0.size
        outcome = Outcome(
            None, _limits(log, inputs, options.min_step), NoiseEstimator.empty(log.f0.size),
            Budget(options.max_nfev, inputs.size), np.zeros(entries, bool),
            np.zeros(entries[::-1]),
        )  # fmt: skip
        self._stages = Sequence(context, outcome, learned)
        self._script: Iterator[AxisDisplacements] | None = self._stages.run()

    # -- the contract ------------------------------------------------------------------------

    def ask(self, rows: Rows) -> AxisDisplacements | None:
        """What to run next; None where nothing more is wanted."""
        self._stages.context.log.record(rows)
        if self._script is None:
            return None
        self._asked.append(len(rows.done))
        wanted = next(self._script, None)
        if wanted is None:
            self._script = None
        return wanted

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from the rows told so far."""
        context, found = self._stages.context, self._stages.outcome
        context.log.record(rows)
        rows = context.log.rows
        if self._stages.fold_over is not None and len(rows.done) > self._stages.fold_over.first:
            return self._stages.fold_over.solve(rows)
        profile = found.profile or uninformed_profile(
            context.log, context.states, context.known_noise
        )
        return assemble_solution(context, found, profile, self._script is None)

    @property
    def learned(self) -> FunctionProfile | None:
        """What was found out of noise and steps."""
        return self._stages.outcome.profile

    def seeds(self) -> None:
        """No rows share a random stream."""
        return None

    @property
    def name(self) -> str:
        """Words for the design."""
        return "auto" if self._stages.fold_over is None else self._stages.fold_over.name

    @property
    def step(self) -> Array:
        """The largest step of each input that was used, in units of x."""
        if self._stages.fold_over is not None:
            return self._stages.fold_over.plan.step
        return steps_used(self._stages.context)

    def __reduce__(self) -> Any:
        return _replay, (*self._begun, self._asked, self._stages.context.log.told)


def _replay(
    options: Auto, problem: Problem, learned: FunctionProfile | None, seed: Any, asked: list[int],
    rows: Rows,
) -> AutoPlan:  # fmt: skip
    """A plan that has asked for the same rows."""
    rng = np.random.Generator(getattr(np.random, seed["bit_generator"])())
    rng.bit_generator.state = seed
    plan = AutoPlan(options, replace(problem, rng=rng), learned)
    for known in asked:
        plan.ask(rows.first(known))
    return plan


def _known_noise(noise: str | float | Array, problem: Problem, n_real: int) -> Array | None:
    """The noise of every real output (N,), where the caller knows it."""
    if isinstance(noise, str):
        if problem.noise is None:
            return None
        noise = problem.noise
    n = problem.y.shape[-1]
    each = np.broadcast_to(np.asarray(noise, float), (n,))
    return np.tile(each, n_real // max(n, 1))


def _rough_below(log: EvaluationLog, inputs: NDArray[np.intp], min_step: Any) -> float:
    if min_step is None:
        return 0.0
    return float(np.broadcast_to(min_step / log.unit, log.unit.shape)[:, inputs].max(initial=0.0))


def _limits(log: EvaluationLog, inputs: NDArray[np.intp], min_step: Any) -> AxisState:
    """Largest step of a pair, and the smallest that the caller allows, per free input."""
    cap = np.minimum(np.minimum(log.up, log.down), WIDEST)
    cap = np.where(cap < log.resolution, 0.0, cap)
    floor = 4 * log.resolution
    if min_step is not None:
        floor = np.maximum(floor, (min_step / log.unit).max(axis=0))
    floor = np.minimum(floor, np.where(cap > 0, cap, log.room / 2))
    return AxisState.start(cap[inputs], floor[inputs])
