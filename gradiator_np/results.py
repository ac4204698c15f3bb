"""The one result type: a Jacobian with its error bars, and what was done to get it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import checks
from gradiator_np.covariance import Covariance
from gradiator_np.samples import Samples
from gradiator_np.solvers.solution import Solution
from gradiator_np.status import Status
from gradiator_np.structure import Layout, blocks

if TYPE_CHECKING:
    from gradiator_np.operators import JacobianOperator
    from gradiator_np.solvers.consistent import ConsistentSet

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FittedRows:
    """Samples as they were fitted, dx (k, m) and df (k, n).

    ``centred``: together with a value at dx = 0. ``differences``: each row of df is the
    difference of two values, with the errors of both.
    """

    dx: Array
    df: NDArray[Any]
    centred: bool = False
    differences: bool = False

    def consistent(self, entry_bound: float | None, spectral_bound: float | None) -> ConsistentSet:
        """All Jacobians that these rows allow, given a bound on their errors."""
        from gradiator_np.solvers.consistent import ConsistentSet, spectral_from_entry

        if (entry_bound is None) == (spectral_bound is None):
            raise ValueError(
                "give entry_bound (largest error of one value) or spectral_bound (operator norm "
                "of all errors together), one of the two"
            )
        good = np.isfinite(self.df).all(1)
        dx, df = self.dx[good], self.df[good]
        eps = spectral_bound
        if entry_bound is not None:
            eps = spectral_from_entry(entry_bound, *df.shape, differences=self.differences)
        assert eps is not None
        if self.centred:  # a projection: the norm of the errors does not grow
            dx, df = dx - dx.mean(0), df - df.mean(0)
        return ConsistentSet(dx, df, eps)


@dataclass(frozen=True, eq=False, repr=False)
class JacobianEstimate:
    """An estimated Jacobian with its error bars.

    Shapes are the user's: ``jac`` has shape ``y.shape + x.shape`` (``batch + y.shape + x.shape``
    for batches; nested dicts of blocks where x or y is a dict). ``solution`` holds the same
    numbers as flat arrays, (..., n, m).

    Attributes
    ----------
    solution : Solution
        The flat arrays behind every property.
    x_layout, y_layout : Layout
        How flat arrays and the user's values correspond.
    x_flat, y_flat : array or None
        The centre, and the value there.
    step_flat : array or None
        The step of each input, in units of x; nan where it has none.
    design : str
        Directions and signs of the samples.
    record : object with ``samples``, or None
        Where the samples are kept.
    nfev, n_failed, n_samples : int
        Evaluations of ``fun`` by this call, those that failed, and samples behind the estimate.
    rows : FittedRows or None
        The rows of a fit from samples.
    """

    solution: Solution
    x_layout: Layout
    y_layout: Layout
    x_flat: NDArray[Any] | None = None
    y_flat: NDArray[Any] | None = None
    step_flat: Array | None = None
    design: str = ""
    record: Any = None
    nfev: int = 0
    n_failed: int = 0
    n_samples: int = 0
    rows: FittedRows | None = None

    @classmethod
    def from_solution(
        cls,
        solution: Solution,
        *,
        x_layout: Layout | None = None,
        y_layout: Layout | None = None,
        **fields: Any,
    ) -> JacobianEstimate:
        """Wrap a solver's answer; without layouts, x and y are plain vectors."""
        *batch, n, m = solution.coef.shape
        return cls(
            solution,
            x_layout or Layout((m,), tuple(batch)),
            y_layout or Layout((n,), tuple(batch)),
            **fields,
        )

    # -- the user's view ---------------------------------------------------------------------

    @cached_property
    def jac(self) -> Any:
        """The Jacobian, y per x: finite everywhere, least norm where nothing determines it."""
        return blocks(self.solution.coef, self.y_layout, self.x_layout)

    @cached_property
    def stderr(self) -> Any:
        """One standard error of each entry of ``jac``: inf where no sample determines the entry,
        nan where it is determined but nothing tells its error."""
        return blocks(self.solution.cov.stderr(), self.y_layout, self.x_layout)

    @property
    def x(self) -> Any:
        """The point at which the Jacobian holds; None for differences from an unnamed point."""
        return None if self.x_flat is None else self.x_layout.unflatten(self.x_flat.copy())

    @property
    def y(self) -> Any:
        """The value at x."""
        return None if self.y_flat is None else self.y_layout.unflatten(self.y_flat.copy())

    @property
    def noise(self) -> Any:
        """Standard deviation of one evaluation, per output; nan where nothing tells it."""
        return self.y_layout.unflatten(self.solution.cov.scale)

    @property
    def dof(self) -> Any:
        """Degrees of freedom behind ``noise``: inf where it was given, 0 where unknown."""
        return self.y_layout.unflatten(self.solution.dof)

    @cached_property
    def samples(self) -> Samples | None:
        """Every run behind the estimate, failed ones included."""
        return self.record if self.record is None or isinstance(self.record, Samples) else (
            self.record.samples
        )  # fmt: skip

    @property
    def cov_x(self) -> Covariance:
        """What turns noise into the covariance of a row of the Jacobian."""
        return self.solution.cov

    @property
    def step(self) -> Any:
        """The step of each input, in units of x; nan for inputs that were not moved."""
        return None if self.step_flat is None else self.x_layout.unflatten(self.step_flat)

    @property
    def rank(self) -> Any:
        """How many directions of x the samples determine."""
        return self.solution.rank[()]

    @property
    def cond(self) -> Any:
        """Condition number of the scaled samples."""
        return self.solution.cond[()]

    @property
    def residual(self) -> Any:
        """Root mean square misfit of the samples, per output."""
        return self.y_layout.unflatten(self.solution.residual)

    @property
    def status(self) -> Status:
        """How far the estimate can be trusted."""
        return Status(self.solution.status)

    @property
    def message(self) -> str:
        """What limits the estimate, and what would improve it."""
        return self.solution.message

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        if isinstance(self.jac, dict):
            raise TypeError("this Jacobian is a dict of blocks; take one of them from .jac")
        return np.array(self.jac, dtype=dtype)

    def __repr__(self) -> str:
        from gradiator_np.report import summary

        return summary(self)

    # -- products ----------------------------------------------------------------------------

    def jvp(self, u: Any) -> Any:
        """J u for a tangent u of the shape of x, or several on a leading axis."""
        flat, _ = checks.direction(u, self.x_layout, "u")
        return self.y_layout.unflatten(self._products(flat, "jvp"))

    def vjp(self, v: Any) -> Any:
        """v^T J (no conjugate) for v of the shape of y, or several on a leading axis."""
        flat, _ = checks.direction(v, self.y_layout, "v")
        return self.x_layout.unflatten(self._products(flat, "vjp"))

    def _products(self, flat: NDArray[Any], kind: str) -> NDArray[Any]:
        """J u or v^T J for directions (..., *batch, size)."""
        coef, batch = self.solution.coef, self.x_layout.batch
        if not batch:
            return np.asarray(flat @ (coef.T if kind == "jvp" else coef))
        from gradiator_np.kernels import products

        stack = coef.reshape(-1, *coef.shape[-2:])
        several = flat.reshape(-1, len(stack), flat.shape[-1]).swapaxes(0, 1)
        out = getattr(products, kind)(stack, several).swapaxes(0, 1)
        return np.asarray(out.reshape(*flat.shape[:-1], out.shape[-1]))

    def jvp_stderr(self, u: Any) -> Any:
        """Standard error of ``jvp(u)``, from the covariance: inputs share the base's noise."""
        flat, _ = checks.direction(u, self.x_layout, "u")
        var = self.solution.cov.jvp_variance(np.ascontiguousarray(flat.real))
        if flat.dtype.kind == "c":
            var = var + self.solution.cov.jvp_variance(np.ascontiguousarray(flat.imag))
        return self.y_layout.unflatten(np.sqrt(var))

    def vjp_stderr(self, v: Any) -> Any:
        """Standard error of ``vjp(v)``; the noise of different outputs is independent."""
        flat, _ = checks.direction(v, self.y_layout, "v")
        return self.x_layout.unflatten(np.sqrt(self.solution.cov.vjp_variance(np.abs(flat))))

    def confidence(self, level: float = 0.95) -> tuple[Any, Any]:
        """Interval (low, high) that holds each entry with probability ``level``.

        Student t with ``dof`` degrees of freedom: a noise level learned from 7 values needs about
        2.4 standard errors for 95 %. Infinite where ``stderr`` is, nan where nothing tells it.

        Raises
        ------
        ValueError
            For a complex Jacobian, whose entries have no order; use ``stderr``.
        """
        if self.solution.coef.dtype.kind == "c":
            raise ValueError("a complex Jacobian has no interval; use stderr, the error of |J|")
        half = self.solution.interval(checks.level(level))
        coef = self.solution.coef
        return (
            blocks(coef - half, self.y_layout, self.x_layout),
            blocks(coef + half, self.y_layout, self.x_layout),
        )

    def consistent(
        self, *, entry_bound: float | None = None, spectral_bound: float | None = None
    ) -> ConsistentSet:
        """All Jacobians that the samples allow under bounded noise; see ``bound``.

        Its ``radius`` is the largest operator norm of their distance to the least squares one.
        """
        if self.x_layout.batch:
            raise ValueError("bounds take one problem at a time; take one of the batch")
        rows = self.rows
        if rows is None:
            samples = self.samples
            if samples is None or self.x_flat is None:
                raise ValueError("the samples behind this estimate were not kept: no bound")
            rows = FittedRows(samples.points - self.x_flat, samples.outputs, True)
        return rows.consistent(entry_bound, spectral_bound)

    def bound(
        self,
        v: Any,
        u: Any,
        *,
        entry_bound: float | None = None,
        spectral_bound: float | None = None,
    ) -> Any:
        r"""Guaranteed bound on \|v^T (J - jac) u\| under bounded noise.

        Holds for every Jacobian of a linear function that the samples allow; curvature counts as
        noise, so a bound has to cover it.

        Parameters
        ----------
        v : like y
            A cotangent, or several on a leading axis.
        u : like x
            A tangent, or several on a leading axis.
        entry_bound : float, optional
            Largest error of one value of one output, in units of y.
        spectral_bound : float, optional
            Bound on the operator norm of all errors together, in units of y.

        Returns
        -------
        float or array
            inf where u leaves what was sampled.

        Raises
        ------
        ValueError
            Where the bound is below the operator norm that the best linear fit leaves: no
            Jacobian is consistent with it.
        """
        cotangents, _ = checks.direction(v, self.y_layout, "v")
        tangents, _ = checks.direction(u, self.x_layout, "u")
        allowed = self.consistent(entry_bound=entry_bound, spectral_bound=spectral_bound)
        return allowed.bound(cotangents, tangents, jac=self.solution.coef)[()]

    def as_linear_operator(self) -> JacobianOperator:
        """The Jacobian as a ``scipy.sparse.linalg.LinearOperator`` of shape (n, m)."""
        from gradiator_np.operators import JacobianOperator

        if self.x_layout.batch:
            raise ValueError("a batch of Jacobians is no single operator; take one of the batch")
        return JacobianOperator(self.solution.coef)


@dataclass(frozen=True, eq=False, repr=False)
class ProductEstimate:
    """J u or v^T J with its error bars.

    Attributes
    ----------
    estimate : JacobianEstimate
        Of the function that was really estimated: along the tangents, or contracted with the
        cotangents. Its ``nfev``, ``status``, ``message`` and ``samples`` are this one's.
    view : callable
        From that one's flat arrays to the user's shape.
    y : array or dict
        The value of ``fun`` at x.
    """

    estimate: JacobianEstimate
    view: Callable[[NDArray[Any]], Any]
    y: Any

    @cached_property
    def value(self) -> Any:
        """The product: of the shape of y for a JVP, of x for a VJP."""
        return self.view(self.estimate.solution.coef)

    @cached_property
    def stderr(self) -> Any:
        """One standard error of each entry; inf and nan as in ``JacobianEstimate``."""
        err = self.estimate.solution.cov.stderr()
        return self.view(np.broadcast_to(err, self.estimate.solution.coef.shape))

    def confidence(self, level: float = 0.95) -> tuple[Any, Any]:
        """Interval (low, high) that holds each entry with probability ``level``."""
        solution = self.estimate.solution
        half = solution.interval(checks.level(level))
        return self.view(solution.coef - half), self.view(solution.coef + half)

    @property
    def nfev(self) -> int:
        """Evaluations of ``fun``."""
        return self.estimate.nfev

    @property
    def status(self) -> Status:
        """How far the estimate can be trusted."""
        return self.estimate.status

    @property
    def message(self) -> str:
        """What limits the estimate, and what would improve it."""
        return self.estimate.message

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.array(self.value, dtype=dtype)

    def __repr__(self) -> str:
        return f"ProductEstimate({self.value!r}, stderr={self.stderr!r}, nfev={self.nfev})"
