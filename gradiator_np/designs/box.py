"""Where every input may be moved by so much and no more: all of them are moved at once.

In a box, central pairs of one input at a time leave a variance of m sigma^2 / (k h^2) from k runs,
a Hadamard fold-over sigma^2 / (k h^2). It pays where noise is what limits at the full step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.base import Problem, Rows
from gradiator_np.designs.directional import DirectionalPlan, choose_design
from gradiator_np.designs.directions import hadamard_order
from gradiator_np.designs.lines import RHO, States, by_rho, relative
from gradiator_np.designs.moves import FreeMoves
from gradiator_np.designs.pilot import Learned
from gradiator_np.solvers.solution import Solution
from gradiator_np.status import Status

Array = NDArray[np.float64]

# Variance of an entry by two levels and their extrapolation, times the runs: measured, where one
# level leaves 1 and central pairs leave m.
EXTRAPOLATED = 7.0
# Likely bias, in units of the error that noise leaves, up to which the extrapolation pays.
BENT = 3.0


@dataclass(frozen=True, slots=True)
class Box:
    """A design of directions that follows the rows of a pilot.

    Attributes
    ----------
    plan : DirectionalPlan
    first : int
        Rows before it are the pilot's.
    bias : float
        What truncation may add to an entry, in units of noise over half width.
    """

    plan: DirectionalPlan
    first: int
    bias: float = 0.0

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
        return replace(self, plan=design.start(self.plan.problem))

    def rows(self, rows: Rows) -> Rows:
        """Its own rows."""
        k = self.first
        return Rows(FreeMoves(rows.offsets[k:]), rows.values[k:], rows.done[k:], rows.y)

    def solve(self, rows: Rows, short: bool = False) -> Solution:
        """The Jacobian from the rows told so far; ``short``: tol asks for more than is allowed."""
        solution = self.plan.solve(self.rows(rows))
        half = np.where(self.plan.half > 0, self.plan.half, np.inf)[:, None]
        extra = np.square(self.bias * solution.cov.scale[..., None] / half)
        if solution.cov.extra is not None:
            extra = extra + solution.cov.extra
        solution = replace(solution, cov=replace(solution.cov, extra=extra))
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
    # One level has no say of truncation. No function is taken to be straighter than one that bends
    # on the scale of x, since noise hides what would tell (Mancino's, nearly linear, was off by
    # nine standard errors).
    known = {"auto": bias / rho**2, False: bias / min(rho, 1.0) ** 2}
    shape = (problem.x.shape[0], -1, problem.y.shape[-1])
    level = np.sqrt(np.square(learned.noise.reshape(shape)).sum(axis=1))
    problem = replace(problem, noise=level, noise_dof=learned.dof.reshape(shape).min(axis=1))
    best, least = None, cap.size / max(most, 1)
    for levels, order in product(known, _orders(cap.size, most)):
        design = choose_design(limit, spare=order - cap.size, richardson=levels)
        box = Box(design.start(problem), first, 0.0 if levels else known[levels])
        if learned.random:
            box = box.grown(np.inf, most) or box
        error = EXTRAPOLATED / box.runs if levels else 1 / box.runs + box.bias**2
        bent = levels and known[levels] * np.sqrt(box.runs) > BENT
        if box.runs <= most and error < least and not bent:
            best, least = box, error
    return best


def _orders(m: int, most: int) -> list[int]:
    """Numbers of directions that are worth a try: the rest of the runs should not lie idle."""
    wanted = range(m + 1, min(max(most // 2, m + 1), 3 * m + 8) + 1)
    return sorted({order for k in wanted if (order := hadamard_order(k)) <= wanted[-1] + 3})
