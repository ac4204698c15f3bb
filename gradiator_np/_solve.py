"""Samples to a Solution: what their bases share, and the noise of one evaluation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradiator_np._covariance import Covariance
from gradiator_np._sample_set import SampleSet
from gradiator_np._status import Status
from gradiator_np._typing import Array
from gradiator_np.solvers._registry import find_solver
from gradiator_np.solvers._solution import Constraints, Solution, Solver

# Answers that differ by more standard errors than this contradict each other, if they differ by
# that share of a row: bars of 0 and rounding are no contradiction.
APART = 5.0
SAME = 1e-4

Base = Literal["own", "shared", "exact"]


def solve_samples(
    samples: SampleSet,
    solver: str | Solver,
    base: str,
    noise: Array | None,
    jac0: NDArray[Any] | None,
    constraints: Constraints | None,
) -> Solution:
    """Solve for displacements from such a base, with the noise of one evaluation."""
    found = find_solver(solver)
    dx, df, weights = samples.dx, samples.df, samples.weights
    if base == "shared":
        # The base is a sample like the others, at displacement 0.
        dx, df = with_zero_row(dx), with_zero_row(df)
        if weights is not None:
            weights = np.insert(weights, 0, 1.0, axis=len(samples.batch))
    # A difference of two evaluations has twice the variance of one.
    times = math.sqrt(2) if base == "own" else 1.0
    solution = found.solve(
        dx, df, weights=weights, intercept=base in ("shared", "points"), constraints=constraints,
        jac0=jac0, noise=None if noise is None else times * noise,
    )  # fmt: skip
    if base == "own":
        solution = replace(solution, cov=_per_evaluation(solution.cov, times))
    return solution


def solve_design(
    samples: SampleSet, solver: Solver, noise: Array | None, jac0: NDArray[Any] | None,
    own: Solution, step: Array,
) -> Solution:  # fmt: skip
    """Solve the runs of a design, and hold the answer against the design's own.

    A ridge, which is in squared units of x, is here relative to the sum of squares of each input's
    displacements: steps of 1e-6 would make any ridge of ordinary size the whole answer.

    Parameters
    ----------
    own : Solution
        Of the design's own weights.
    step : array, shape batch + (m,)
        nan where an input is not moved.
    """
    if getattr(solver, "ridge", 0.0):
        unit = np.sqrt(np.square(samples.dx).sum(-2))
        unit = np.where(unit > 0, unit, 1.0)
        per_unit = unit[..., None, :]
        scaled = replace(samples, dx=samples.dx / per_unit)
        prior = None if jac0 is None else jac0 * per_unit
        found = solve_samples(scaled, solver, "points", noise, prior, None)
        found = replace(found, coef=found.coef / per_unit, cov=found.cov.in_units(unit))
    else:
        found = solve_samples(samples, solver, "points", noise, jac0, None)
    return _held_against(found, own, step)


def _held_against(found: Solution, own: Solution, step: Array) -> Solution:
    """The solution with a status that says where a design's own weights contradict it."""
    nothing = own.status is Status.NO_SIGNAL and not own.coef.any()
    if found.status is Status.OK and (nothing or own.status is Status.UNRESOLVED):
        return replace(found, status=own.status, message=own.message)
    h = np.where(np.isfinite(step), np.abs(step), 0.0)[..., None, :]
    errors = [np.nan_to_num(s.cov.stderr(), nan=0.0, posinf=np.inf) for s in (found, own)]
    known = np.isfinite(errors[0]) & np.isfinite(errors[1])
    both = np.where(known, np.hypot(*errors), 0.0) * h
    gap = np.where(known, np.abs(found.coef - own.coef), 0.0) * h
    row = np.linalg.norm(np.where(known, own.coef, 0.0) * h, axis=-1, keepdims=True)
    apart = gap > APART * both + SAME * row
    if found.status is not Status.OK or not apart.any():
        return found
    most = np.max(gap[apart] / np.broadcast_to(np.maximum(row, np.max(gap)), gap.shape)[apart])
    return replace(
        found,
        status=Status.LACK_OF_FIT,
        message=(
            f"in {int(apart.sum())} entries the solver contradicts the method's own weights on the "
            f"same samples, by up to {most:.2g} of a row and more than {APART:g} standard errors: "
            "a straight line through all of these points, a ridge or a prior does not hold here; "
            "take shorter steps, a weaker ridge, or leave solver out"
        ),
    )


def _per_evaluation(cov: Covariance, times: float) -> Covariance:
    """The same covariance, its scale that of one evaluation instead of one row."""
    factor = cov.factor
    if factor is not None:
        # In place: nobody else holds what a solver has just returned.
        factor = np.multiply(factor, times, out=factor if factor.flags.writeable else None)
    return replace(
        cov,
        scale=cov.scale / times,
        diag=None if cov.diag is None else cov.diag * times**2,
        factor=factor,
    )


def with_zero_row(a: NDArray[Any]) -> NDArray[Any]:
    """Samples with one more in front: the base, at displacement 0."""
    first = np.zeros((*a.shape[:-2], 1, a.shape[-1]), dtype=a.dtype)
    return np.concatenate([first, a], axis=-2)
