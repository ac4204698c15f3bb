"""What every solver returns, and what may be known of a Jacobian in advance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Protocol, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np._checks import numeric
from gradiator_np._covariance import ArrayMap, Covariance, map_fields
from gradiator_np._status import Status
from gradiator_np._text import between, extent, largest, verdict
from gradiator_np._typing import Array

# Outputs beyond this, or its inverse, are worked on in a unit of their own.
WIDE = 1e70


@dataclass(frozen=True, slots=True, repr=False)
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
    status : Status
        How far to trust it.
    message : str
        What limits the answer and what would improve it; "" where there is nothing to say.
    info : dict
        What only this solver tells (leverage, certificates, iterations).
    interval_factor : array, shape (..., n, m), or None
        Half width of the 95 % interval of each entry in standard errors, where the posterior is
        no Student t: a mixture has wider tails, or narrower ones.
    classical : bool
        Whether the errors are those of ordinary least squares: ``cov.scale`` is the residual
        standard deviation with ``dof`` degrees of freedom, so that the noise of replicates may
        take its place, or test it for lack of fit.

    Examples
    --------
    >>> from gradiator_np.solvers import Pinv
    >>> solution = Pinv().solve([[1.0], [2.0], [3.0]], [[2.1], [3.9], [6.0]])
    >>> solution.coef.round(2), solution.cov.stderr().round(3), solution.dof
    (array([[1.99]]), array([[0.026]]), array([2.]))
    """

    coef: NDArray[Any]
    cov: Covariance
    dof: Array
    rank: NDArray[np.intp]
    cond: Array
    residual: Array
    value: NDArray[Any] | None = None
    value_stderr: Array | None = None
    status: Status = Status.OK
    message: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    interval_factor: Array | None = None
    classical: bool = False

    def __repr__(self) -> str:
        return (
            f"Solution({extent(self.coef.shape)}, rank {between(self.rank, 'd')}, "
            f"{largest(self.cov.stderr())}, {verdict(self)})"
        )

    def map(self, fn: ArrayMap, *others: Solution) -> Solution:
        """``fn`` applied to every array, those of ``cov`` and ``info`` too.

        Together with the same array of each of ``others``, as Python's ``map`` does: every way to
        other batch axes (reshaping, stacking, taking a member) goes through here.
        """
        return map_fields(Solution, fn, self, *others)

    def with_batch(self, batch: tuple[int, ...]) -> Solution:
        """Replace the leading axis, of length B, of every array by the axes ``batch``."""
        return self.map(lambda a: a.reshape(batch + a.shape[1:]))

    def times(self, unit: float) -> Solution:
        """The same fit where ``unit``, a power of two, was the unit of y."""
        cov, value, error = self.cov, self.value, self.value_stderr
        octave = cov.octave + math.frexp(unit)[1] - 1
        return replace(
            self,
            coef=self.coef * unit,
            cov=replace(cov, scale=cov.scale * unit, octave=0 if cov.extra is None else octave),
            residual=self.residual * unit,
            value=None if value is None else value * unit,
            value_stderr=None if error is None else error * unit,
        )

    def with_noise(self, noise: Array, dof: Array | float = np.inf) -> Solution:
        """The same fit with another noise of one sample, (n,) or (..., n), in units of y.

        All error bars follow in proportion; ``dof`` are the degrees of freedom behind ``noise``.
        """
        learned = self.cov.scale
        scale = np.broadcast_to(noise, learned.shape).copy()
        error = self.value_stderr
        if error is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                error = np.where(np.isinf(error), np.inf, error / learned * scale)
        return replace(
            self,
            cov=replace(self.cov, scale=scale),
            dof=np.broadcast_to(dof, scale.shape).copy(),
            value_stderr=error,
            classical=False,
        )

    def interval(self, level: float) -> Array:
        """Half width of the interval that holds each entry with probability ``level``.

        Student t with ``dof``. With ``interval_factor`` that at 95 %, and other levels in
        proportion to t.
        """
        err = self.cov.stderr()
        dof = np.where(self.dof > 0, self.dof, np.nan)[..., None]
        t = student_quantile(0.5 + level / 2, dof)
        if self.interval_factor is not None:
            t = t / student_quantile(0.975, dof) * self.interval_factor
        return np.asarray(np.where(np.isinf(err), np.inf, t * err))


def unit_of(values: NDArray[Any]) -> float:
    """A power of two by which to divide values whose fourth powers would be no floats; mostly 1."""
    size = float(np.abs(values).max(initial=0.0, where=np.isfinite(values)))
    if size == 0 or 1 / WIDE < size < WIDE:
        return 1.0
    return math.ldexp(1.0, max(math.frexp(size)[1] - 1, -1022))


def student_quantile(p: float, dof: Array) -> Array:
    """Quantile of Student's t; the normal one at infinite dof."""
    from scipy.special import ndtri, stdtrit

    return np.where(np.isinf(dof), ndtri(p), stdtrit(np.where(np.isinf(dof), 1.0, dof), p))


@dataclass(frozen=True, slots=True)
class Constraints:
    """What is known of the Jacobian in advance.

    Parameters
    ----------
    sparsity : array_like or scipy.sparse array, shape (n, m), optional
        Zero (False) where an entry of J is zero.
    known : array_like, shape (n, m), optional
        Values of known entries, in y per x; nan where unknown.
    symmetric : bool
        J = J^T (n == m).

    Raises
    ------
    ValueError
        Where ``known`` is infinite, not real, or differs from 0 where the pattern says 0.

    Examples
    --------
    >>> from gradiator_np.solvers import Constraints, Pinv
    >>> diagonal = Constraints(sparsity=[[1, 0], [0, 1]])
    >>> Pinv().solve([[1.0, 1.0], [2.0, 1.0]], [[3.0, 5.0], [6.0, 5.0]], constraints=diagonal).coef
    array([[3., 0.],
           [0., 5.]])
    """

    sparsity: Any = None
    known: Any = None
    symmetric: bool = False

    def __post_init__(self) -> None:
        pattern: Any = self.sparsity
        if pattern is not None:
            pattern = pattern.toarray() if hasattr(pattern, "toarray") else np.asarray(pattern)
            object.__setattr__(self, "sparsity", pattern != 0)
        if self.known is None:
            return
        known = numeric(self.known, "known")
        if known.dtype.kind == "c" or np.isinf(known).any():
            raise ValueError("known must hold real, finite values, nan where an entry is unknown")
        object.__setattr__(self, "known", known.astype(np.float64))
        if pattern is not None and known.shape == pattern.shape:
            wrong = np.argwhere((pattern == 0) & ~np.isnan(known) & (known != 0))
            if len(wrong):
                i = tuple(int(j) for j in wrong[0])
                raise ValueError(
                    f"known says entry {i} is {known[i]}, but sparsity says that it is 0; "
                    "make them agree"
                )

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return self.symmetric or self.sparsity is not None or self.known is not None

    def refuse_other_shapes(self, n: int, m: int) -> None:
        """Refuse what does not fit a Jacobian of n outputs and m inputs.

        Raises
        ------
        ValueError
        """
        for what, a in (("sparsity", self.sparsity), ("known", self.known)):
            if a is not None and a.shape != (n, m):
                raise ValueError(
                    f"{what} has shape {a.shape}; give one entry per output and input, {(n, m)}"
                )
        if self.symmetric and n != m:
            raise ValueError(
                f"a symmetric Jacobian is square, with as many outputs as inputs; got {n} outputs "
                f"and {m} inputs"
            )


class RegressionOptions(TypedDict, total=False):
    """What every solver takes beside its samples.

    weights : array_like, shape (..., k) or (..., k, n), optional
        Inverse variances relative to one evaluation's: an error of standard deviation
        sigma / sqrt(w). 0 leaves a sample out.
    intercept : bool
        Fit the value at dx = 0 as well (samples that share a noisy base).
    constraints : Constraints, optional
        What is known of J in advance.
    jac0 : array_like, shape (n, m) or (..., n, m), optional
        Prior Jacobian, in y per x: df - jac0 dx is fitted and jac0 added back.
    noise : float or array_like, shape (n,), optional
        Standard deviation of a sample of weight 1, in units of y, where it is known; by default
        it is learned from the residuals.
    """

    weights: Annotated[ArrayLike | None, None]
    intercept: Annotated[bool, False]
    constraints: Annotated[Constraints | None, None]
    jac0: Annotated[ArrayLike | None, None]
    noise: Annotated[ArrayLike | None, None]


class Solver(Protocol):
    """What `fit_jacobian` and its relatives take as ``solver=``: an object with ``solve``.

    The solvers of this package are frozen objects with options, so that they can be shared.
    Anything else that solves in this way will do.

    Examples
    --------
    >>> from gradiator_np import fit_jacobian
    >>> from gradiator_np.solvers import Pinv, Solution, Solver
    >>> class Doubtful:
    ...     def solve(self, dx, df, **options) -> Solution:
    ...         found = Pinv().solve(dx, df, **options)
    ...         return found.with_noise(2 * found.cov.scale, found.dof)
    >>> solver: Solver = Doubtful()
    >>> fit_jacobian([[1.0], [2.0], [3.0]], [[2.1], [3.9], [6.0]], solver=solver).stderr.round(3)
    array([[0.052]])
    """

    def solve(self, dx: ArrayLike, df: ArrayLike, **options: Unpack[RegressionOptions]) -> Solution:
        """Fit df = J dx (+ c with ``intercept``), as the solvers of this package do."""
        ...
