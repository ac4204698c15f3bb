"""What every solver returns: arrays in, a Solution out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradiator_np.covariance import Covariance

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Solution:
    """A fitted Jacobian with its errors; all leading axes ``...`` are batch axes.

    Attributes
    ----------
    coef : array, shape (..., n, m)
        The Jacobian, y per x. Finite everywhere: the least-norm value (or the prior) where no
        sample determines an entry. Complex where the outputs are.
    cov : Covariance
        Its errors; ``cov.scale`` is the noise of one evaluation per output.
    dof : array, shape (..., n)
        Degrees of freedom behind ``cov.scale``: inf where it was given, 0 where unknown.
    rank : array of int, shape (...)
        Directions that the samples determine.
    cond : array, shape (...)
        Condition number of the scaled samples over those directions.
    residual : array, shape (..., n)
        Root mean square misfit of the samples, per output, in units of y.
    value, value_stderr : array, shape (..., n), or None
        The fitted value at the centre and its standard error, where the fit has one.
    status : str
        A name of ``gradiator_np.status.Status``.
    message : str
        What limits the answer and what would improve it; "" where there is nothing to say.
    info : dict
        What only this solver tells (leverage, certificates, iterations).
    """

    coef: NDArray[Any]
    cov: Covariance
    dof: Array
    rank: NDArray[np.intp]
    cond: Array
    residual: Array
    value: NDArray[Any] | None = None
    value_stderr: Array | None = None
    status: str = "ok"
    message: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    def with_batch(self, batch: tuple[int, ...]) -> Solution:
        """Replace the leading axis, of length B, of every array by the axes ``batch``."""

        if batch:

            def shaped(a: Any) -> Any:
                return None if a is None else a.reshape(batch + a.shape[1:])
        else:

            def shaped(a: Any) -> Any:
                return None if a is None else a[0]

        cov = self.cov
        return Solution(
            shaped(self.coef),
            Covariance(
                shaped(cov.scale), shaped(cov.diag), shaped(cov.factor), shaped(cov.extra),
                shaped(cov.null), cov.per_output, shaped(cov.lost),
                shaped(cov.loading), shaped(cov.span), shaped(cov.unit),
            ),
            shaped(self.dof), shaped(self.rank), shaped(self.cond), shaped(self.residual),
            shaped(self.value), shaped(self.value_stderr), self.status, self.message,
            {k: shaped(v) if isinstance(v, np.ndarray) else v for k, v in self.info.items()}
            if self.info else self.info,
        )  # fmt: skip

    def interval(self, level: float) -> Array:
        """Half width of the interval that holds each entry with probability ``level``.

        Student t with ``dof``; a solver whose posterior is a mixture gives the half width of its
        own 95 % interval as ``info["interval_factor"]`` (..., n, m), in standard errors, which is
        carried to other levels in proportion to t.
        """
        err = self.cov.stderr()
        dof = np.where(self.dof > 0, self.dof, np.nan)[..., None]
        t = _student(0.5 + level / 2, dof)
        if "interval_factor" in self.info:
            t = t / _student(0.975, dof) * self.info["interval_factor"]
        return np.asarray(np.where(np.isinf(err), np.inf, t * err))


def _student(p: float, dof: Array) -> Array:
    """Quantile of Student's t; the normal one at infinite dof."""
    from scipy.special import ndtri, stdtrit

    return np.where(np.isinf(dof), ndtri(p), stdtrit(np.where(np.isinf(dof), 1.0, dof), p))


@dataclass(frozen=True, slots=True)
class Constraints:
    """What is known of the Jacobian in advance.

    Attributes
    ----------
    sparsity : array of bool, shape (n, m), or None
        False where the entry is zero.
    known : array, shape (n, m), or None
        Values of known entries; nan where unknown.
    symmetric : bool
        J = J^T (n == m).
    """

    sparsity: NDArray[np.bool_] | None = None
    known: Array | None = None
    symmetric: bool = False


class Solver(Protocol):
    """An object with the options of one solver; frozen, so that it can be shared."""

    def solve(
        self,
        dx: Array,
        df: NDArray[Any],
        *,
        weights: Array | None = None,
        intercept: bool = False,
        constraints: Constraints | None = None,
        jac0: NDArray[Any] | None = None,
    ) -> Solution:
        """Fit df = J dx (+ c where ``intercept``).

        Parameters
        ----------
        dx : array, shape (..., k, m)
        df : array, shape (..., k, n)
            nan where that output of that sample failed.
        weights : array, shape (..., k) or (..., k, n), or None
            Inverse variances relative to one evaluation's: an error of sd sigma / sqrt(w).
        intercept : bool
            Fit the value at dx = 0 as well (samples that share a noisy base).
        constraints : Constraints or None
        jac0 : array, shape (..., n, m), or None
            Prior Jacobian: df - jac0 dx is fitted and jac0 added back.
        """
