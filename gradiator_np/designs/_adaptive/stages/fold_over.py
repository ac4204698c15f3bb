"""Where every input may be moved by so much and no more: all of them are moved at once.

In a box, central pairs of one input at a time leave a variance of m sigma^2 / (k h^2) from k runs,
a Hadamard fold-over sigma^2 / (k h^2). It pays where noise is what limits at the full step.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from gradiator_np._status import Status
from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import Moves
from gradiator_np.designs._adaptive.model.likelihood import noise_over_slope
from gradiator_np.designs._adaptive.state import WIDEST, Budget, FunctionProfile
from gradiator_np.designs._displacements import AxisDisplacements, Displacements
from gradiator_np.designs._factorial.design import DirectionalPlan, choose_design
from gradiator_np.designs._factorial.orthogonal_arrays import hadamard_order
from gradiator_np.designs._protocol import Rows
from gradiator_np.solvers._solution import Solution

# Variance of an entry by two levels and their extrapolation, times the runs: measured, where one
# level leaves 1 and central pairs leave m.
EXTRAPOLATED = 7.0
# Likely bias, in units of the error that noise leaves, up to which the extrapolation pays.
BENT = 3.0
# Pairs of one input in all where only a tolerance is given.
PATIENCE = 100


@dataclass(frozen=True, slots=True)
class FoldOver:
    """A design of directions that follows the rows of a pilot.

    Attributes
    ----------
    plan : DirectionalPlan
    first : int
        Rows before it are the pilot's.
    bias : float
        What truncation may add to an entry, in units of noise over half width.
    short : bool
        The evaluations allowed ended before the errors wanted were met.
    """

    plan: DirectionalPlan
    first: int
    bias: float = 0.0
    short: bool = False

    @property
    def name(self) -> str:
        """Words for ``design``."""
        return f"auto, {self.plan.name}"

    @property
    def runs(self) -> int:
        """Runs that it takes in all."""
        return len(self.plan.offsets())

    def grown(self, factor: float, most: int) -> FoldOver | None:
        """So many times the replicates, in at most so many runs; None where that is no more."""
        each = self.runs // self.plan.replicates
        count = int(min(np.ceil(self.plan.replicates * factor), most // each))
        if count <= self.plan.replicates:
            return None
        design = replace(self.plan.design, replicates=count)
        return replace(self, plan=design.start(self.plan.problem))

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from the rows told so far."""
        k = self.first
        assert isinstance(rows.moves, AxisDisplacements)
        moves = Displacements(rows.moves.dense(slice(k, None), self.plan.problem.x.shape[1]))
        own = Rows(moves, rows.values[k:], rows.done[k:], rows.y)
        solution = self.plan.solve(own)
        half = np.where(self.plan.half > 0, self.plan.half, np.inf)[:, None]
        extra = np.square(self.bias * solution.cov.scale[..., None] / half)
        if solution.cov.extra is not None:
            extra = extra + solution.cov.extra
        solution = replace(solution, cov=replace(solution.cov, extra=extra))
        if solution.status != Status.OK:
            return solution
        if self.short:
            text = (
                "the evaluations allowed ended before the errors wanted were met: raise max_nfev, "
                "atol or rtol"
            )
            return replace(solution, status=Status.BUDGET, message=text)
        return replace(
            solution,
            message="accuracy is limited by noise within max_step: four times the max_nfev or "
            "twice the max_step halve the error",
        )


def fold_over(
    context: Context, profile: FunctionProfile, max_step: Array, budget: Budget, most: int
) -> Generator[Moves, None, FoldOver | None]:
    """Move all inputs at once, in at most so many runs, where ``max_step`` and noise are what
    limits; None where that is not so, or failed runs left gaps.

    ``max_step`` (m,) is the limit of each free input in units of t.
    """
    log, inputs, wanted = context.log, context.inputs, context.tolerance
    if context.max_step is None or (wanted and not profile.random):
        return None
    reach = np.full(context.problem.x.shape, WIDEST)
    reach[:, inputs] = np.where(max_step > 0, max_step, WIDEST)
    limit = np.minimum(context.max_step, reach * log.unit)
    design = select_fold_over(context, profile, limit, max_step, most)
    asked = 0
    while design is not None:
        yield log.request_rows(design.plan.offsets()[asked:])
        asked = design.runs
        solution = design.solve(log.rows)
        lost = ~np.isfinite(solution.cov.stderr()[..., inputs]).all()
        if lost and budget.left(log) >= 2 * inputs.size:
            return None
        if not wanted:
            return design
        over = float(wanted.ratio(solution).max())
        left = PATIENCE * 2 * inputs.size
        if budget.max_nfev is not None:
            left = budget.max_nfev - log.nfev + asked
        grown = design.grown(over**2, left) if over > 1 else None
        if grown is None:
            return replace(design, short=over > 1)
        design = grown
    return None


def select_fold_over(
    context: Context, profile: FunctionProfile, limit: Array, cap: Array, most: int
) -> FoldOver | None:
    """The design for a box, where it is better than pairs; None where it is not.

    Parameters
    ----------
    limit : array, shape (B, m)
        How far each input may be moved, in units of x.
    cap : array, shape (m,)
        The same of inputs that are free, in units of t.
    most : int
        Runs that are left.
    """
    unclear = profile.two_scales or profile.discrepancy is not None
    if not profile.noisy or unclear or cap.size < 2:
        return None
    # products of an input with the squares of the others pass for its slope: 3 m - 2 terms of
    # third order, all alike for a function of one sum
    bias = 3 * float(np.sum(cap**3)) / float(noise_over_slope(profile.noise, profile.slope))
    rho = float(context.states.bend_length(profile.typical_prior))
    # One level has no say of truncation. No function is taken to be straighter than one that bends
    # on the scale of x, since noise hides what would tell (Mancino's, nearly linear, was off by
    # nine standard errors).
    known: dict[bool | Literal["auto"], float] = {
        "auto": bias / rho**2,
        False: bias / min(rho, 1.0) ** 2,
    }
    problem = context.problem
    shape = (problem.x.shape[0], -1, problem.y.shape[-1])
    level = np.sqrt(np.square(profile.noise.reshape(shape)).sum(axis=1))
    problem = replace(
        problem,
        scale=context.log.unit,
        noise=level,
        noise_dof=profile.dof.reshape(shape).min(axis=1),
    )
    best, least, first = None, cap.size / max(most, 1), context.log.n_rows
    for levels, order in product(known, _orders(cap.size, most)):
        chosen = choose_design(limit, spare=order - cap.size, richardson=levels)
        design = FoldOver(chosen.start(problem), first, 0.0 if levels else known[levels])
        if profile.random:
            design = design.grown(np.inf, most) or design
        error = EXTRAPOLATED / design.runs if levels else 1 / design.runs + design.bias**2
        bent = levels and known[levels] * np.sqrt(design.runs) > BENT
        if design.runs <= most and error < least and not bent:
            best, least = design, error
    return best


def _orders(m: int, most: int) -> list[int]:
    """Numbers of directions that are worth a try: the rest of the runs should not lie idle."""
    wanted = range(m + 1, min(max(most // 2, m + 1), 3 * m + 8) + 1)
    return sorted({order for k in wanted if (order := hadamard_order(k)) <= wanted[-1] + 3})
