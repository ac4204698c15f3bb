"""What a solver is asked: checked samples of a linear regression, and the one way to ask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import _checks as checks
from gradiator_np._signatures import complete, shows
from gradiator_np._typing import Array
from gradiator_np.solvers._registry import Capability, refuse_unsupported
from gradiator_np.solvers._solution import Constraints, RegressionOptions, Solution, unit_of


@dataclass(frozen=True, slots=True)
class RegressionProblem:
    """Samples of df = J dx (+ c), checked: arrays of float64 or complex128 that fit together.

    Attributes
    ----------
    dx : array, shape (..., k, m)
        Finite.
    df : array, shape (..., k, n)
        nan where that output of that sample failed.
    weights : array, shape (..., k), or (..., k, n) where outputs differ, or None
        Inverse variances relative to one evaluation's.
    intercept : bool
        Whether the value at dx = 0 is fitted as well.
    constraints : Constraints or None
        None where nothing is known in advance.
    jac0 : array, shape (..., n, m), or None
        Prior Jacobian.
    noise : array, shape (n,), or None
        Standard deviation of a sample of weight 1, where it is known.
    """

    dx: Array
    df: NDArray[Any]
    weights: Array | None = None
    intercept: bool = False
    constraints: Constraints | None = None
    jac0: NDArray[Any] | None = None
    noise: Array | None = None

    @classmethod
    def of(
        cls, dx: ArrayLike, df: ArrayLike, **options: Unpack[RegressionOptions]
    ) -> RegressionProblem:
        """Check and coerce; see `solve`."""
        x, y = _samples(dx, df)
        n, m = y.shape[-1], x.shape[-1]
        given = complete(options, RegressionOptions)
        weights, jac0, noise = given["weights"], given["jac0"], given["noise"]
        constraints = given["constraints"]
        if constraints is not None:
            constraints.refuse_other_shapes(n, m)
        return cls(
            x,
            y,
            None if weights is None else sample_weights(weights, y.shape),
            bool(given["intercept"]),
            constraints or None,
            None if jac0 is None else _prior(jac0, (*y.shape[:-2], n, m)),
            None if noise is None else checks.noise(noise, n),
        )

    @property
    def batch(self) -> tuple[int, ...]:
        """Leading axes of independent problems."""
        return self.df.shape[:-2]

    @property
    def output_weights(self) -> Array:
        """Weights (..., k, n), or (..., k, 1) where outputs share them."""
        if self.weights is None:
            return np.ones((*self.df.shape[:-1], 1))
        return self.weights if self.weights.ndim == self.df.ndim else self.weights[..., None]

    @property
    def demands(self) -> set[Capability]:
        """What a solver must be able to do to take it."""
        c = self.constraints or Constraints()
        asked = {
            Capability.OUTPUT_WEIGHTS: self.weights is not None
            and self.weights.ndim == self.df.ndim,
            Capability.BATCHES: bool(self.batch),
            Capability.SPARSITY: c.sparsity is not None,
            Capability.KNOWN: c.known is not None,
            Capability.SYMMETRY: c.symmetric,
            Capability.PRIOR: self.jac0 is not None,
            Capability.COMPLEX: self.df.dtype.kind == "c",
            Capability.INTERCEPT: self.intercept,
        }
        return {capability for capability, wanted in asked.items() if wanted}


class Fits(Protocol):
    """A solver of this package: options, and what they make of a problem."""

    def fit(self, problem: RegressionProblem) -> Solution: ...


@shows(RegressionOptions)
def solve(
    self: Fits, dx: ArrayLike, df: ArrayLike, **options: Unpack[RegressionOptions]
) -> Solution:
    """Fit df = J dx (+ c with ``intercept``).

    Parameters
    ----------
    dx : array_like, shape (..., k, m)
        Input displacements, in units of x, one sample a row; leading axes are independent
        problems.
    df : array_like, shape (..., k, n), or (..., k) for one output
        Output displacements, in units of y; nan or inf where that output of that sample failed.
    **options : Options

    Returns
    -------
    Solution
        ``coef`` has shape (..., n, m).

    Raises
    ------
    ValueError
        Where shapes disagree, a displacement is not finite, or the solver cannot do what is asked
        (`docs/solvers.md` has a table of what each can).
    TypeError
        For what is no number, and for complex displacements.
    """
    problem = RegressionProblem.of(dx, df, **options)
    refuse_unsupported(type(self), problem.demands)
    with checks.underflow_is_zero():
        # A solver with options in units of y minds the size of y itself.
        own = getattr(type(self), "options_in_y", False)
        unit = 1.0 if own else unit_of(problem.df)
        if unit == 1:
            return self.fit(problem)
        return self.fit(_over(problem, unit)).times(unit)


def _over(problem: RegressionProblem, unit: float) -> RegressionProblem:
    """The same problem with outputs in such a unit."""
    known, jac0, noise = problem.constraints, problem.jac0, problem.noise
    if known is not None and known.known is not None:
        known = replace(known, known=known.known / unit)
    return replace(
        problem,
        df=problem.df / unit,
        constraints=known,
        jac0=None if jac0 is None else jac0 / unit,
        noise=None if noise is None else noise / unit,
    )


def _samples(dx: ArrayLike, df: ArrayLike) -> tuple[Array, NDArray[Any]]:
    """Displacements (..., k, m) and (..., k, n) with the same leading axes."""
    x, y = checks.numeric(dx, "dx"), checks.numeric(df, "df")
    if x.dtype.kind == "c":
        raise TypeError("dx is complex; give real and imaginary parts as inputs of their own")
    if x.ndim > 1 and y.shape == x.shape[:-1]:
        y = y[..., None]
    if x.ndim < 2 or y.ndim < 2 or x.shape[-2] != y.shape[-2]:
        raise ValueError(
            f"dx and df must be (..., k, m) and (..., k, n), got {x.shape} and {y.shape}; "
            "give one sample a row"
        )
    if x.shape[:-2] != y.shape[:-2]:
        try:
            batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        except ValueError:
            raise ValueError(
                f"dx and df have batch axes {x.shape[:-2]} and {y.shape[:-2]}; make them agree"
            ) from None
        x = np.broadcast_to(x, batch + x.shape[-2:])
        y = np.broadcast_to(y, batch + y.shape[-2:])
    x = x.astype(np.float64, copy=False)
    y = y.astype(np.result_type(y, np.float64), copy=False)
    if not checks.isfinite(x):
        i = tuple(int(j) for j in np.argwhere(~np.isfinite(x).all(-1))[0])
        raise ValueError(
            f"dx is not finite in sample {i[0] if len(i) == 1 else i}: {x[i]}; correct or drop it"
        )
    return x, y if checks.isfinite(y) else np.where(np.isfinite(y), y, np.nan)


def sample_weights(value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Weights of samples whose outputs have ``shape``, batch + (k, n).

    Returns
    -------
    array, shape batch + (k,), or batch + (k, n) where outputs differ
    """
    a = checks.numeric(value, "weights")
    *batch, k, n = shape
    full: tuple[int, ...] = (*batch, k)
    by_output = a.shape not in (full, (k,))
    if by_output and a.shape not in (shape, (k, n)):
        raise ValueError(
            f"weights have shape {a.shape}; give one per sample, {(*batch, k)}, "
            f"or one per sample and output, {shape}"
        )
    if a.dtype.kind == "c" or not (np.isfinite(a).all() and (a >= 0).all()):
        raise ValueError(
            "weights must be finite and not negative (inverse variances; 0 leaves a sample out), "
            f"got values from {np.min(a.real)} to {np.max(a.real)}"
        )
    if by_output and n and (a == a[..., :1]).all():
        a, by_output = a[..., 0], False
    return np.array(np.broadcast_to(a, shape if by_output else full), dtype=np.float64)


def _prior(value: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    a = checks.numeric(value, "jac0")
    if a.shape not in (shape, shape[-2:]):
        raise ValueError(
            f"jac0 has shape {a.shape}; give one entry per output and input, {shape[-2:]}"
        )
    if not checks.isfinite(a):
        raise ValueError("jac0 must be finite; give 0 where nothing is known of an entry")
    return np.broadcast_to(a, shape)
