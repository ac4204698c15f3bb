"""Hessians of which many entries are 0: the pattern, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._second_derivatives.estimate import SecondDerivatives
from gradiator_np._second_derivatives.plan import FEW, Plan
from gradiator_np._second_derivatives.runs import Runs
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._typing import Array
from gradiator_np.solvers._solution import student_quantile
from gradiator_np.sparsity import Coloring, SparsityPattern

#: Evaluations along a random direction that tell whether a pattern holds.
ALONG = FEW
#: A false alarm by noise in so many, were all errors Student's t with the degrees of freedom of the
#: noise, 5 mostly (none in 1000 functions at noise of 1e-6, where 0.83 of pairs left out are told;
#: at 1e-4 it is 0.54); and what of the sum of |u_i H_ij u_j| is too little to tell.
FALSE_ALARM, NEGLIGIBLE = 1e-3, 1e-6


def symmetric_pattern(sparsity: Any, layout: Layout) -> SparsityPattern:
    """The pattern of a Hessian by inputs of this layout.

    Raises
    ------
    TypeError, ValueError
        For what is no pattern, is of another shape, or not symmetric.
    """
    if isinstance(sparsity, Coloring):
        sparsity = sparsity.pattern
    if isinstance(sparsity, str):
        raise ValueError(f"sparsity={sparsity!r} is no pattern; a Hessian's is not looked for")
    pattern = SparsityPattern.of(sparsity, (layout.size, layout.size))
    lone = pattern.asymmetry()
    if lone is not None:
        i, j = (layout.names[k] for k in lone)
        raise ValueError(
            f"sparsity of a Hessian is symmetric, but this has only one of x{i} by x{j} and x{j} "
            f"by x{i}: give both, as pattern + pattern.T does"
        )
    return pattern


def checked(
    estimate: SecondDerivatives, runs: Runs, scale: Array, options: Mapping[str, Any], eps: float
) -> SecondDerivatives:
    """The estimate, after the second derivative along a random direction was compared with it.

    A mixed derivative that the pattern leaves out adds 2 u_i u_j to it for each unit. Nothing is
    run where the estimate is doubtful for other reasons.
    """
    if estimate.status.doubtful:
        return estimate
    known = np.isfinite(estimate.error).all((0, 1))
    u = np.where(known, checks.random_direction(checks.generator(0), len(scale)) * scale, 0.0)
    if not u.any():
        return estimate
    found = Plan(runs, "quadratic", u, scale, {**options, "max_nfev": None}, eps).run()
    value, error = (
        part[0] * runs.unit if len(part) else np.full(len(runs.unit), np.nan)
        for part in (found.value, found.stderr)
    )
    sure, both = np.isfinite(estimate.error), np.multiply.outer(u, u)
    coef, n = np.where(sure, estimate.coef, 0.0), len(estimate.coef)
    # as values are: real numbers, those of complex ones in two halves
    parts = [coef.real, coef.imag] if estimate.coef.dtype.kind == "c" else [coef]
    terms = np.concatenate(parts) * both
    each = np.where(sure, estimate.error, 0.0) * np.abs(both)
    diagonal = np.einsum("nii->ni", each)
    own = np.sqrt(2 * np.square(each).sum((1, 2)) - np.square(diagonal).sum(1))
    dof = np.minimum(np.tile(estimate.flat_dof, len(parts)), found.level.dof)
    z = student_quantile(1 - FALSE_ALARM / 2, dof)
    with np.errstate(all="ignore"):
        floor = z * np.hypot(np.tile(own, len(parts)), error)
        excess = np.abs(value - terms.sum((1, 2)))
        off = np.flatnonzero(excess > floor + NEGLIGIBLE * np.abs(terms).sum((1, 2)))
    estimate = replace(estimate, nfev=runs.nfev, n_failed=runs.n_failed, samples=runs.samples)
    if not len(off):
        return estimate
    i, which = int(off[0]), runs.y_layout.listed("y", np.unique(off % n).tolist())
    return replace(
        estimate,
        status=Status.PATTERN,
        message=(
            f"{which}: along a random direction the second derivative is {value[i]:.3g}, but "
            f"{terms[i].sum():.3g} by the pairs that sparsity has: add what is missing, or leave "
            "sparsity out"
        ),
    )
