"""Where every input may be moved by so much and no more: all of them are moved at once.

In a box, central pairs of one input at a time leave a variance of m sigma^2 / (k h^2) from k runs,
a Hadamard fold-over sigma^2 / (k h^2). It pays where noise is what limits at the full step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.base import Problem, Rows
from gradiator_np.designs.directional import DirectionalPlan, choose_design
from gradiator_np.designs.lines import RHO, States, by_rho, relative
from gradiator_np.designs.moves import FreeMoves
from gradiator_np.designs.pilot import Learned
from gradiator_np.solvers.solution import Solution
from gradiator_np.status import Status

Array = NDArray[np.float64]

# Likely bias of an entry, in units of the error that noise leaves, up to which the design pays: one
# level, which has no say of truncation in its error bars, and two levels with their extrapolation.
# For the first no function is taken to be straighter than one that bends on the scale of x, since
# noise hides what would tell (Mancino's, nearly linear, was off by nine standard errors).
PLAIN, EXTRAPOLATED = 0.3, 3.0


@dataclass(frozen=True, slots=True)
class Box:
    """A design of directions that follows the rows of a pilot.

    Attributes
    ----------
    plan : DirectionalPlan
    first : int
        Rows before it are the pilot's.
    """

    plan: DirectionalPlan
    first: int

    @property
    def name(self) -> str:
        """Words for ``design``."""
        return f"auto, {self.plan.name}"

    @property
    def runs(self) -> int:
        """Runs that it takes in all."""
        return len(self.plan.offsets())

    def grown(self, factor: float, most: int) -> Box | None:
        """So many times the replicates, in at most so many runs; None where that is no more."""
        each = self.runs // self.plan.replicates
        count = int(min(np.ceil(self.plan.replicates * factor), most // each))
        if count <= self.plan.replicates:
            return None
        design = replace(self.plan.design, replicates=count)
        return Box(design.start(self.plan.problem), self.first)

    def rows(self, rows: Rows) -> Rows:
        """Its own rows."""
        k = self.first
        return Rows(FreeMoves(rows.offsets[k:]), rows.values[k:], rows.done[k:], rows.y)

    def solve(self, rows: Rows, short: bool = False) -> Solution:
        """The Jacobian from the rows told so far; ``short``: tol asks for more than is allowed."""
        solution = self.plan.solve(self.rows(rows))
        if solution.status != Status.OK:
            return solution
        if short:
            text = "the evaluations allowed ended before tol was met: raise max_evals or tol"
            return replace(solution, status=Status.BUDGET, message=text)
        return replace(
            solution,
            message="accuracy is limited by noise within max_step: four times the max_evals or "
            "twice the max_step halve the error",
        )


def choose_box(
    problem: Problem, learned: Learned, states: States, limit: Array, cap: Array, first: int,
    most: int,
) -> Box | None:  # fmt: skip
    """The design for a box, where it is better than pairs; None where it is not.

    Parameters
    ----------
    limit : array, shape (B, m)
        How far each input may be moved, in units of x.
    cap : array, shape (m,)
        The same of inputs that are free, in units of t.
    first, most : int
        Rows so far, and runs that are left.
    """
    if not learned.noisy or learned.two_scales or learned.doubt is not None or cap.size < 2:
        return None
    # products of an input with the squares of the others pass for its slope: 3 m - 2 terms of
    # third order, all alike for a function of one sum
    bias = 3 * float(np.sum(cap**3)) / float(relative(learned.noise, learned.slope))
    rho = float(RHO[np.argmax(by_rho(states, learned.prior) >= 0.5)])
    shape = (problem.x.shape[0], -1, problem.y.shape[-1])
    level = np.sqrt(np.square(learned.noise.reshape(shape)).sum(axis=1))
    problem = replace(problem, noise=level, noise_dof=learned.dof.reshape(shape).min(axis=1))
    for levels, bends, worst in ((False, min(rho, 1.0), PLAIN), ("auto", rho, EXTRAPOLATED)):
        design = choose_design(limit, spare=1, richardson=levels)
        box = Box(design.start(problem), first)
        if learned.random:
            box = box.grown(np.inf, most) or box
        if box.runs <= most and bias / bends**2 * np.sqrt(box.runs) < worst:
            return box
    return None
