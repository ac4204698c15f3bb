"""The result type: a Jacobian with its error bars, and what was done to get it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._covariance import ConfidenceInterval, Covariance
from gradiator_np._samples import Samples
from gradiator_np._status import Status
from gradiator_np._structure import Layout, blocks
from gradiator_np._text import MOST_ROWS, Words, entry_lines, extent, verdict
from gradiator_np._typing import Array
from gradiator_np.solvers._solution import Solution

if TYPE_CHECKING:
    from gradiator_np._operators import JacobianOperator
    from gradiator_np.solvers._operator_norm.consistent import ConsistentSet


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
        from gradiator_np.solvers._operator_norm.consistent import (
            ConsistentSet,
            spectral_from_entry,
        )

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


class Frame(NamedTuple):
    """Where an estimate holds, flat: how the user's values lie, x, the value there, the steps.

    Attributes
    ----------
    x_layout, y_layout : Layout
        How flat arrays and the user's values correspond.
    x, y : array or None
        The centre, batch + (m,), and the value there, batch + (n,).
    step : array or None
        The step of each input, in units of x; nan where it has none.

    Examples
    --------
    >>> from gradiator_np import jacobian
    >>> x = {"a": 2.0, "b": [1.0, 3.0]}
    >>> frame = jacobian(lambda p: p["a"] * p["b"], x, method="3-point").frame
    >>> frame.x, frame.x_layout.names
    (array([2., 1., 3.]), ['.a', '.b[0]', '.b[1]'])
    """

    x_layout: Layout
    y_layout: Layout
    x: NDArray[Any] | None = None
    y: NDArray[Any] | None = None
    step: Array | None = None

    @classmethod
    def vectors(cls, solution: Solution, x: Any = None, y: Any = None) -> Frame:
        """The frame of a solution whose x and y are plain vectors."""
        *batch, n, m = solution.coef.shape
        return cls(Layout((m,), tuple(batch)), Layout((n,), tuple(batch)), x, y)


@dataclass(frozen=True, eq=False, repr=False)
class JacobianEstimate:
    """An estimated Jacobian with its error bars.

    Shapes are the user's: ``jac`` has shape ``y.shape + x.shape`` (``batch + y.shape + x.shape``
    for batches; nested dicts of blocks where x or y is a dict). ``print`` it for an overview.

    Attributes
    ----------
    solution : Solution
        The same numbers as flat arrays, (..., n, m), with what only the solver tells.
    frame : Frame
        x, the value there and the steps as flat arrays, and how they lie in the user's shapes.
    design : str
        Directions and signs of the samples.
    nfev, n_failed, n_samples : int
        Evaluations of ``fun`` by this call, those that failed, and samples behind the estimate.

    Examples
    --------
    >>> from gradiator_np import jacobian
    >>> estimate = jacobian(lambda x: [x[0] * x[1], x[1] ** 2], [2.0, 3.0], noise=1e-3)
    >>> estimate.jac.shape, estimate.success
    ((2, 2), True)
    >>> low, high = estimate.confidence_interval()
    >>> bool((low < estimate.jac).all() and (estimate.jac < high).all())
    True
    """

    solution: Solution
    frame: Frame
    design: str = ""
    nfev: int = 0
    n_failed: int = 0
    n_samples: int = 0
    _record: Any = None  # an object with ``samples``
    _rows: FittedRows | None = None

    # -- the user's view ---------------------------------------------------------------------

    @cached_property
    def jac(self) -> Any:
        """The Jacobian, y per x: finite everywhere, least norm where nothing determines it."""
        return blocks(self.solution.coef, self.frame.y_layout, self.frame.x_layout)

    @property
    def grad(self) -> Any:
        """The gradient, shape of x, of a function with one output; others have ``jac`` alone."""
        size = self.frame.y_layout.size
        if size != 1:
            raise AttributeError(
                f"only a function with one output has a gradient, and this one has {size}: take "
                "jac, or vjp(v) with the cotangent that weighs them"
            )
        return self.frame.x_layout.unflatten(self.solution.coef[..., 0, :])

    @cached_property
    def stderr(self) -> Any:
        """One standard error of each entry of ``jac``: inf where no sample determines the entry,
        nan where it is determined but nothing tells its error."""
        return blocks(self.solution.cov.stderr(), self.frame.y_layout, self.frame.x_layout)

    @property
    def x(self) -> Any:
        """The point at which the Jacobian holds; None for differences from an unnamed point."""
        x = self.frame.x
        return None if x is None else self.frame.x_layout.unflatten(x.copy())

    @property
    def y(self) -> Any:
        """The value at x."""
        y = self.frame.y
        return None if y is None else self.frame.y_layout.unflatten(y.copy())

    @property
    def noise(self) -> Any:
        """Standard deviation of one evaluation, per output; nan where nothing tells it."""
        return self.frame.y_layout.unflatten(self.solution.cov.scale)

    @property
    def dof(self) -> Any:
        """Degrees of freedom behind ``noise``: inf where it was given, 0 where unknown."""
        return self.frame.y_layout.unflatten(self.solution.dof)

    @cached_property
    def samples(self) -> Samples | None:
        """Every run behind the estimate, failed ones included."""
        record = self._record
        return record if record is None or isinstance(record, Samples) else record.samples

    @property
    def covariance(self) -> Covariance:
        """What turns noise into the errors of J, J u and v^T J: a ``Covariance``."""
        return self.solution.cov

    @property
    def step(self) -> Any:
        """The step of each input, in units of x; nan for inputs that were not moved."""
        step = self.frame.step
        return None if step is None else self.frame.x_layout.unflatten(step)

    @property
    def rank(self) -> Any:
        """How many directions of x the samples determine."""
        return self.solution.rank[()]

    @property
    def cond(self) -> Any:
        """Condition number of the scaled samples."""
        return self.solution.cond[()]

    @property
    def rmse(self) -> Any:
        """Root mean square misfit of the samples, per output, in units of y."""
        return self.frame.y_layout.unflatten(self.solution.residual)

    @property
    def status(self) -> Status:
        """How far the estimate can be trusted."""
        return self.solution.status

    @property
    def success(self) -> bool:
        """Whether the estimate is what was asked for: ``status.success``."""
        return self.solution.status.success

    @property
    def message(self) -> str:
        """What limits the estimate, and what would improve it."""
        return self.solution.message

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        if isinstance(self.jac, dict):
            raise TypeError("this Jacobian is a dict of blocks; take one of them from .jac")
        return np.array(self.jac, dtype=dtype)

    def __repr__(self) -> str:
        return summary(self)

    # -- products ----------------------------------------------------------------------------

    def jvp(self, u: Any) -> Any:
        """J u for a tangent u of the shape of x, or several on a leading axis."""
        flat, _ = checks.direction(u, self.frame.x_layout, "u")
        return self.frame.y_layout.unflatten(self._products(flat, "jvp"))

    def vjp(self, v: Any) -> Any:
        """v^T J (no conjugate) for v of the shape of y, or several on a leading axis."""
        flat, _ = checks.direction(v, self.frame.y_layout, "v")
        return self.frame.x_layout.unflatten(self._products(flat, "vjp"))

    def _products(self, flat: NDArray[Any], kind: str) -> NDArray[Any]:
        """J u or v^T J for directions (..., *batch, size)."""
        coef, batch = self.solution.coef, self.frame.x_layout.batch
        if not batch:
            return np.asarray(flat @ (coef.T if kind == "jvp" else coef))
        from gradiator_np.kernels import products

        stack = coef.reshape(-1, *coef.shape[-2:])
        several = flat.reshape(-1, len(stack), flat.shape[-1]).swapaxes(0, 1)
        out = getattr(products, kind)(stack, several).swapaxes(0, 1)
        return np.asarray(out.reshape(*flat.shape[:-1], out.shape[-1]))

    def jvp_stderr(self, u: Any) -> Any:
        """Standard error of ``jvp(u)``, from the covariance: inputs share the base's noise."""
        flat, _ = checks.direction(u, self.frame.x_layout, "u")
        return self.frame.y_layout.unflatten(self.solution.cov.jvp_stderr(flat))

    def vjp_stderr(self, v: Any) -> Any:
        """Standard error of ``vjp(v)``; the noise of different outputs is independent."""
        flat, _ = checks.direction(v, self.frame.y_layout, "v")
        return self.frame.x_layout.unflatten(self.solution.cov.vjp_stderr(np.abs(flat)))

    def confidence_interval(self, confidence_level: float = 0.95) -> ConfidenceInterval:
        """The interval that holds each entry with probability ``confidence_level``.

        Student t with ``dof`` degrees of freedom: a noise level learned from 7 values needs about
        2.4 standard errors for 95 %. Infinite where ``stderr`` is, nan where nothing tells it.

        Returns
        -------
        ConfidenceInterval
            ``low`` and ``high``, of the shape of ``jac``.

        Raises
        ------
        ValueError
            For a complex Jacobian, whose entries have no order; use ``stderr``.
        """
        coef = self.solution.coef
        if coef.dtype.kind == "c":
            raise ValueError("a complex Jacobian has no interval; use stderr, the error of |J|")
        half = self.solution.interval(checks.level(confidence_level))
        y, x = self.frame.y_layout, self.frame.x_layout
        return ConfidenceInterval(blocks(coef - half, y, x), blocks(coef + half, y, x))

    def consistent(
        self, *, entry_bound: float | None = None, spectral_bound: float | None = None
    ) -> ConsistentSet:
        """All Jacobians that the samples allow under bounded noise; see ``bound``.

        Returns
        -------
        ConsistentSet
            Its ``radius`` is the largest operator norm of their distance to the least squares one.
        """
        if self.frame.x_layout.batch:
            raise ValueError("bounds take one problem at a time; take one of the batch")
        rows = self._rows
        if rows is None:
            samples, x = self.samples, self.frame.x
            if samples is None or x is None:
                raise ValueError("the samples behind this estimate were not kept: no bound")
            rows = FittedRows(samples.points - x, samples.outputs, True)
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
        cotangents, _ = checks.direction(v, self.frame.y_layout, "v")
        tangents, _ = checks.direction(u, self.frame.x_layout, "u")
        allowed = self.consistent(entry_bound=entry_bound, spectral_bound=spectral_bound)
        return allowed.bound(cotangents, tangents, jac=self.solution.coef)[()]

    def as_linear_operator(self) -> JacobianOperator:
        """The Jacobian as a ``scipy.sparse.linalg.LinearOperator`` of shape (n, m).

        Returns
        -------
        JacobianOperator
        """
        from gradiator_np._operators import JacobianOperator

        if self.frame.x_layout.batch:
            raise ValueError("a batch of Jacobians is no single operator; take one of the batch")
        return JacobianOperator(self.solution.coef)


def summary(estimate: JacobianEstimate, most: int = MOST_ROWS, where: str = ".jac, .stderr") -> str:
    """What was estimated, how well, and at what cost.

    Up to ``most`` entries are listed, of larger Jacobians an overview is given; ``where`` says
    where to find their entries.
    """
    frame, coef = estimate.frame, estimate.solution.coef
    words = words_of(frame.y_layout, frame.x_layout, where)
    stderr = np.broadcast_to(estimate.solution.cov.stderr(), coef.shape)
    return "\n".join([
        f"JacobianEstimate: {extent(coef.shape)} {origin(estimate)}",
        *entry_lines(coef, stderr, words, most),
        verdict(estimate),
    ])  # fmt: skip


def words_of(y: Layout, x: Layout, where: str) -> Words:
    """How a Jacobian of y by x speaks of its entries; ``where`` all of them are."""
    y_names, x_names = y.names, x.names

    def label(i: tuple[int, ...]) -> tuple[str, ...]:
        return f"{place(i[:-2])}y{y_names[i[-2]]}", f"x{x_names[i[-1]]}"

    return Words(("output", "input", "d output / d input", "stderr"), label, "|J|", where)


def place(i: tuple[int, ...]) -> str:
    """The place in a batch, in front of a name."""
    return f"[{', '.join(map(str, i))}] " if i else ""


def origin(estimate: Any) -> str:
    """What an estimate is made of, in brackets."""
    runs = f"{estimate.nfev} evaluations" if estimate.nfev else f"{estimate.n_samples} samples"
    return f"({estimate.design or 'samples'}, {runs}, {estimate.n_failed} failed)"
