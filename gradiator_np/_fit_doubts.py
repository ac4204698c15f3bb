"""What samples that were taken elsewhere say against the way in which they were given."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._sample_set import SampleSet
from gradiator_np._status import Status
from gradiator_np._typing import Array
from gradiator_np.solvers._least_squares.pinv import Pinv
from gradiator_np.solvers._solution import Solution, student_quantile, unit_of

# A constant in the differences is told where it explains all but this share of the squares that a
# fit through the origin leaves, ...
LEFT = 0.1
# ... is beyond the noise: chance in one call of so many, ...
CHANCE = 1e-6
# ... and is larger than the changes of the output by this. Curvature leaves a constant as well, but
# one that is smaller than the changes wherever f is nearly linear over the samples. Of samples
# within 0.1 of x of random smooth functions 0.1 % were accused, 5 % where curvature was all there
# is; points and values were told in 99 %, values beside right displacements in 94 %.
LARGER = 2.0
# Before that fit is made: the mean of the residuals holds half of their squares, or an input is
# displaced one way only, by more than so many standard deviations.
ONE_WAY = 1.0
# A prior Jacobian looks transposed where its transpose leaves this share of its misfit.
TURNED = 0.1


def examined(
    samples: SampleSet, base: str, jac0: NDArray[Any] | None, solution: Solution
) -> Solution:
    """A solution, with what its samples say against the way in which they were given."""
    if base in ("own", "exact"):
        solution = exchanged(samples, constant_in_differences(samples, solution))
    if jac0 is not None:
        solution = turned_prior(samples, jac0, solution)
    times = copies(samples)
    return solution if times is None else counted_once(solution, times)


def constant_in_differences(samples: SampleSet, solution: Solution) -> Solution:
    """Refuse to call a fit through the origin ok where a constant is in all differences."""
    k, m = samples.dx.shape[-2:]
    if samples.batch or k < m + 3 or solution.status is not Status.OK:
        return solution
    if not _may_hold_constant(samples, solution):
        return solution
    whole = Pinv().solve(samples.dx, samples.df, weights=samples.weights, intercept=True)
    assert whole.value is not None
    assert whole.value_stderr is not None
    size = np.abs(whole.value)
    unit = unit_of(samples.df)
    changes = unit * np.nanstd(samples.df / unit, axis=-2)
    found = (whole.residual < math.sqrt(LEFT) * solution.residual) & (size > LARGER * changes)
    with np.errstate(invalid="ignore"):
        beyond = student_quantile(1 - CHANCE / (2 * size.size), whole.dof)
        found &= size > beyond * whole.value_stderr
    if not found.any():
        return solution
    at = tuple(np.argwhere(found)[0])
    return replace(
        solution,
        status=Status.LACK_OF_FIT,
        message=f"all differences of output {at[-1]} hold a constant, {whole.value[at]:.4g} +- "
        f"{whole.value_stderr[at]:.2g}, that no displacement explains: where dx and df are points "
        "and values, give them to fit_points; where they are differences from one noisy or curved "
        "base, say base='shared'",
    )


def _may_hold_constant(samples: SampleSet, solution: Solution) -> bool:
    """A cheap look at the samples, which spares most fits the second one."""
    dx, df = samples.dx, samples.df
    if samples.weights is not None or not checks.isfinite(df):
        return True
    k, sums = len(dx), dx.sum(0)
    mean = (df.sum(0) - solution.coef @ sums) / k
    if (np.abs(mean) > math.sqrt(0.5) * solution.residual).any():
        return True
    with np.errstate(over="ignore", under="ignore"):
        # The mean beyond ONE_WAY standard deviations, by the sums of dx and of its square.
        share = ONE_WAY**2 / (1 + ONE_WAY**2)
        return bool((np.square(sums) > share * k * np.einsum("km,km->m", dx, dx)).any())


def turned_prior(samples: SampleSet, jac0: NDArray[Any], solution: Solution) -> Solution:
    """Refuse to fill gaps from a prior Jacobian whose transpose agrees with the samples."""
    if jac0.shape[-1] != jac0.shape[-2] or solution.status is not Status.UNDETERMINED:
        return solution
    df, unit = np.nan_to_num(samples.df), unit_of(samples.df)

    def misfit(prior: NDArray[Any]) -> float:
        rest = df - samples.dx @ np.swapaxes(prior, -1, -2)
        return float(np.linalg.norm(rest / unit))

    own, turned = misfit(jac0), misfit(np.swapaxes(jac0, -1, -2))
    if not turned < TURNED * min(own, float(np.linalg.norm(df / unit))):
        return solution
    return replace(
        solution,
        status=Status.LACK_OF_FIT,
        message=f"jac0 looks transposed: its transpose leaves {turned / own:.2g} of its misfit to "
        f"the samples; give d y_i / d x_j as jac0[i, j] ({solution.message})",
    )


def exchanged(samples: SampleSet, solution: Solution) -> Solution:
    """Refuse inputs that all move at once while outputs change one at a time."""
    k, m = samples.dx.shape[-2:]
    if not (samples.df.shape[-1] == m > 1 and k >= m and solution.status is Status.OK):
        return solution
    if not samples.dx.all() or ((samples.df != 0).sum(-1) != 1).any():
        return solution
    return replace(
        solution,
        status=Status.LACK_OF_FIT,
        message="outputs change one at a time while all inputs move: dx and df look exchanged; "
        "give the inputs' displacements first",
    )


def copies(samples: SampleSet) -> Array | None:
    """How often each row (k,) is there, where some are exact copies of others; None where none is.

    Replicates differ by their noise, at one displacement at least, where there is any.
    """
    dx, df = samples.dx, samples.df
    if dx.ndim > 2 or samples.weights is not None:
        return None
    # Equal rows have equal projections, and others hardly ever.
    key = dx @ np.sqrt(np.arange(2.0, 2 + dx.shape[1]))
    ordered = np.sort(key)
    if (ordered[1:] != ordered[:-1]).all():
        return None
    _, first, group, count = np.unique(key, return_index=True, return_inverse=True,
                                       return_counts=True)  # fmt: skip
    like = first[group]
    same = (dx == dx[like]).all() and ((df == df[like]) | (np.isnan(df) & np.isnan(df[like]))).all()
    return count[group].astype(np.float64) if same and df.any() else None


def counted_once(solution: Solution, times: Array) -> Solution:
    """Error bars of rows that are copies of others, (k,) times each: they tell nothing new."""
    cov = solution.cov
    if cov.factor is None or cov.loading is not None or cov.per_output:
        return solution  # no least squares, or errors of another kind
    # Weights w in place of copies give a row of J the variance F F^T sum(w^2) / sum(w), exactly
    # where all w are equal; the mean over the rows is that ratio.
    often, extra = math.sqrt(times.mean()), len(times) - float((1 / times).sum())
    scale, dof = cov.scale, solution.dof
    if solution.classical:
        dof = np.maximum(solution.dof - extra, 0.0)
        share = (1 - extra / len(times)) * solution.dof / np.where(dof > 0, dof, np.nan)
        scale = scale * np.sqrt(share)
    error = solution.value_stderr
    if error is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(np.isinf(error), np.inf, error / cov.scale * scale * often)
    return replace(
        solution,
        cov=replace(cov, scale=scale, factor=cov.factor * often),
        dof=dof,
        value_stderr=error,
        message=solution.message
        or f"{extra:.0f} of {len(times)} rows are copies of others, and tell nothing new: error "
        "bars are those of the others alone",
    )
