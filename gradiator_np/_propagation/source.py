"""What is propagated: a Jacobian with what is known of its errors, from any argument."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._covariance import Covariance
from gradiator_np._products import ProductEstimate
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._typing import Array
from gradiator_np.solvers._solution import Solution, student_quantile


def jacobian_of(value: Any, what: str) -> JacobianEstimate:
    """The estimate itself; of v^T J that of v . f; of an array (n, m) one without errors.

    Raises
    ------
    TypeError
        For anything else, J u, and complex Jacobians.
    ValueError
        For batches, and arrays of another number of axes.
    """
    if isinstance(value, ProductEstimate):
        if not value.by_input:
            raise TypeError(
                f"{what} takes derivatives by every input, and J u is one along u; give what "
                "jacobian or vjp returns"
            )
        value = value.estimate
    found = value if isinstance(value, JacobianEstimate) else _exact(value, what)
    if found.solution.coef.dtype.kind == "c":
        raise TypeError(
            f"{what} takes real Jacobians, and this one is complex; give real and imaginary parts "
            "as outputs of their own"
        )
    if found.frame.x_layout.batch:
        raise ValueError(f"{what} takes one Jacobian at a time; take one of the batch")
    return found


def _exact(value: Any, what: str) -> JacobianEstimate:
    """An array as an estimate whose errors are 0."""
    if isinstance(value, dict):
        raise TypeError(
            f"{what} takes an estimate or an array (n, m), got a dict; give what jacobian returns, "
            "not its .jac"
        )
    coef = checks.numeric(value, "the Jacobian")
    if coef.ndim != 2 or not coef.size:
        raise ValueError(
            f"the Jacobian has shape {coef.shape}; as an array it must have two axes, outputs x "
            "inputs: J[None, :] for one output"
        )
    if not np.isfinite(coef).all():
        raise ValueError("the Jacobian must be finite")
    n, one = len(coef), np.ones(())
    solution = Solution(
        coef, Covariance(np.zeros(n), np.zeros(coef.shape[1])), np.full(n, np.inf),
        np.array(coef.shape[1]), one, np.zeros(n),
    )  # fmt: skip
    return JacobianEstimate(solution, Frame.vectors(solution))


def interval_factors(solution: Solution) -> Array:
    """Half widths of the 95 % intervals of J in units of those by Student's t, (n, m)."""
    if solution.interval_factor is None:
        return np.ones(solution.coef.shape)
    t = student_quantile(0.975, np.where(solution.dof > 0, solution.dof, np.nan))
    factor = solution.interval_factor / t[:, None]
    return np.where(np.isfinite(factor), factor, 1.0)
