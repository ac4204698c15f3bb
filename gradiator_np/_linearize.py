"""Products without the Jacobian: J u at one or two evaluations, v^T J in the memory of one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._drive import evaluator_options, run, warned
from gradiator_np._engine import Engine
from gradiator_np._evaluate import Evaluator
from gradiator_np._operators import LazyOperator
from gradiator_np._options import Options, takes
from gradiator_np._products import ProductEstimate, ProductView
from gradiator_np._settings import Settings
from gradiator_np._signatures import complete
from gradiator_np._status import Status, warn
from gradiator_np._structure import Layout
from gradiator_np._typing import Array
from gradiator_np.designs._complex_step import ComplexStep


class CornerError(ValueError):
    """No step along a tangent stays within the bounds."""


@takes(Options)
def jvp(fun: Callable[..., Any], x: Any, u: Any, **options: Unpack[Options]) -> ProductEstimate:
    """Estimate J u, the derivative of ``fun`` at x along the tangent u.

    One evaluation beside ``fun(x)`` ("2-point"), two ("3-point"), and so on, ten by default for a
    smooth function, whatever the number of inputs. The tangent is normalised before it becomes a
    step: u of size 1e8 or 1e-8 gives the same relative accuracy.

    Parameters
    ----------
    fun, x, **options
        As in ``jacobian``; ``rel_step`` and ``abs_step`` are scalars: the step of the input that
        moves farthest in units of its scale (``rel_step``), or the multiple of u (``abs_step``).
    u : like x
        A tangent, or several on a leading axis.

    Returns
    -------
    ProductEstimate
        ``value`` and ``stderr`` of the shape of y (with the leading axis of several).

    Examples
    --------
    >>> from gradiator_np import jvp
    >>> product = jvp(lambda x: [x[0] * x[1], x[1] ** 2], [2.0, 3.0], [0.0, 1.0], method="3-point")
    >>> product.value.round(6), product.nfev
    (array([2., 6.]), 3)
    """
    return linearize(fun, x, **options)[1].jvp_estimate(u)


@takes(Options)
def vjp(
    fun: Callable[..., Any], x: Any, v: Any, *, sparsity: Any = None, **options: Unpack[Options]
) -> ProductEstimate:
    """Estimate v^T J for the cotangent v (no conjugate): the gradient of v . fun.

    It costs as much as the whole Jacobian, m + 1 evaluations or more, but J is never stored:
    v is contracted with each value on arrival.

    Parameters
    ----------
    fun, x, **options
        As in ``jacobian``.
    v : like y
        A cotangent, or several on a leading axis. Outputs with v = 0 may fail without harm.
    sparsity : pattern or sparsity.Coloring, optional
        As in ``jacobian``: the evaluations of a sparse Jacobian, whose entries are stored.

    Returns
    -------
    ProductEstimate
        ``value`` and ``stderr`` of the shape of x (with the leading axis of several).

    Examples
    --------
    >>> from gradiator_np import vjp
    >>> product = vjp(lambda x: [x[0] * x[1], x[1] ** 2], [2.0, 3.0], [0.0, 1.0], method="3-point")
    >>> product.value.round(6), product.nfev
    (array([0., 6.]), 5)
    """
    return linearize(fun, x, sparsity=sparsity, **options)[1].vjp_estimate(v)


@takes(Options)
def linearize(
    fun: Callable[..., Any], x: Any, *, sparsity: Any = None, **options: Unpack[Options]
) -> tuple[Any, Linearization]:
    """The value of ``fun`` at x and its lazy Jacobian there.

    Parameters
    ----------
    fun, x, **options
        As in ``jacobian``.
    sparsity : pattern or sparsity.Coloring, optional
        As in ``jacobian``: v^T J then takes the evaluations of a sparse Jacobian.

    Returns
    -------
    y : array or dict
        ``fun(x)``.
    linearization : Linearization
        Its ``jvp(u)`` is what a forward-mode system returns beside y; ``vjp(v)`` and, with error
        bars, ``jvp_estimate(u)`` and ``vjp_estimate(v)``.

    Examples
    --------
    >>> from gradiator_np import linearize
    >>> y, lin = linearize(lambda x: x**2, [1.0, 2.0])
    >>> lin.jvp([1.0, 0.0]).round(6), lin.vjp([0.0, 1.0]).round(6)
    (array([2., 0.]), array([0., 4.]))
    """
    lin = Linearization(fun, x, options, sparsity)
    return lin.y, lin


class Linearization(LazyOperator):
    """The Jacobian of a function at one point, run for only when a product is asked for.

    SciPy takes it for a linear operator: ``gmres(lin, b)`` costs the evaluations of one JVP an
    iteration. J is never stored, so that each ``rmatvec`` costs as much as all of J: where that
    fits into memory, ``Gradiator.linearize`` keeps it from the first one on.

    Attributes
    ----------
    y : array or dict
        The value at x.
    nfev : int
        Evaluations so far, that at x included.

    Examples
    --------
    >>> from gradiator_np import linearize
    >>> _, lin = linearize(lambda x: x**2, [1.0, 2.0], method="3-point")
    >>> lin.vjp_estimate([1.0, 1.0]).value.round(6), lin.nfev
    (array([2., 4.]), 5)
    >>> from scipy.sparse.linalg import gmres
    >>> solution, info = gmres(lin, [2.0, 8.0], rtol=1e-9)  # a Newton step without J
    >>> solution.round(6), info
    (array([1., 2.]), 0)
    """

    def __init__(
        self, fun: Callable[..., Any], x: Any, options: Options, sparsity: Any = None
    ) -> None:
        self._sparsity = sparsity
        self._known = known = complete(options, Options)
        if known["jac0"] is not None:
            raise ValueError("jac0 is a prior of the whole Jacobian; use jacobian, not a product")
        self._point = checks.point(x, known["batch_dims"])
        self._x, self._layout = self._point
        self._settings = Settings.of(self._point, known)
        if known["atol"] is not None:
            checks.like_x(known["atol"], self._layout, "atol of a product")
        self._complex_step = isinstance(self._settings.design, ComplexStep)
        self._fun, self._running = fun, evaluator_options(known)
        f0 = known["f0"]
        with self._evaluator() as evaluate:
            y = evaluate.first(self._x) if f0 is None else evaluate.learn(checks.like_output(f0))
        self._y_layout = evaluate.kept_layout
        self._value = self._y_layout.unflatten(y)
        self.y = self._y_layout.unflatten(y.copy())  # the caller's, to change
        self._running["precision"] = evaluate.precision
        self.nfev = int(f0 is None)

    def __repr__(self) -> str:
        return (
            f"Linearization(x of shape {self._layout.shapes}, y of shape {self._y_layout.shapes}, "
            f"{self.nfev} evaluations so far)"
        )

    def _layouts(self) -> tuple[Layout, Layout]:
        return self._y_layout, self._layout

    def _is_complex(self) -> bool:
        return self._y_layout.flatten(self._value).dtype.kind == "c"

    def _jvp_rows(self, tangents: NDArray[Any]) -> NDArray[Any]:
        return self._y_layout.flatten(self.jvp(self._layout.unflatten(tangents)), 1)

    def _vjp_rows(self, cotangents: NDArray[Any]) -> NDArray[Any]:
        return self._layout.flatten(self.vjp(self._y_layout.unflatten(cotangents)), 1)

    def _evaluator(self, **hooks: Any) -> Evaluator:
        return Evaluator(self._fun, self._layout, **self._running, **hooks)

    def jvp(self, u: Any) -> Any:
        """J u: an array of the shape of y, or several on a leading axis."""
        return self.jvp_estimate(u).value

    def vjp(self, v: Any) -> Any:
        """v^T J: an array of the shape of x, or several on a leading axis."""
        return self.vjp_estimate(v).value

    def jvp_estimate(self, u: Any) -> ProductEstimate:
        """``jvp`` with its error bars."""
        flat, lead = checks.direction(u, self._layout, "u", finite=True)
        if flat.dtype.kind == "c":
            raise TypeError("u is complex; J is linear: take its real and imaginary parts apart")
        tangents = flat.reshape(-1, *self._x.shape)  # (p, *batch, m)
        p, batch = len(tangents), self._layout.batch
        bounds = self._settings.bounds
        # Unit tangents: the input that moves farthest moves by its own scale.
        reach = np.max(np.abs(tangents) / self._settings.scale.reshape(self._x.shape), axis=-1)
        reach = np.where(reach > 0, reach, 1.0)
        unit = tangents / reach[..., None]
        along = np.moveaxis(reach, 0, -1)
        limits = bounds and tuple(b.reshape(self._x.shape) for b in bounds)
        given = self._known
        inner = given | {"x_scale": 1.0, "bounds": self._ends(unit, limits)}
        with np.errstate(over="ignore"):  # of a tangent that nearly vanishes
            entries = (*batch, self._y_layout.size, p)
            atol = np.broadcast_to(1 / along[..., None, :], entries)
        for name, factor in {"rel_step": 1.0, "abs_step": along, "atol": atol}.items():
            if given[name] is None:
                continue
            if np.ndim(given[name]) or isinstance(given[name], Mapping):
                raise ValueError(f"{name} of a jvp is a scalar, got {given[name]!r:.60}")
            inner[name] = given[name] * factor
        for name, pick in (("min_step", np.max), ("max_step", np.min)):
            if given[name] is not None:
                most = checks.positive(given[name], self._layout, name)
                with np.errstate(divide="ignore"):
                    s = most.reshape(self._x.shape) / np.abs(unit)
                lost = 0.0 if name == "min_step" else np.inf
                inner[name] = np.moveaxis(pick(np.where(unit == 0, lost, s), axis=-1), 0, -1)
        point = checks.Point(np.zeros((*batch, p), self._x.dtype), Layout((p,), batch))
        view = ProductView(self._y_layout, -1, reach[..., None], several=bool(lead))
        engine = Engine(point, Settings.of(point, inner))
        zero = not tangents.any()
        product = self._product(engine, view, zero, lift=_Lift(self._x, unit, limits))
        if np.equal(*inner["bounds"]).any():
            warn(
                "undetermined: u moves inputs that are fixed (lower == upper), so nothing tells "
                "J u; it is given as 0 with stderr inf",
                product,
            )
        return product

    def _ends(self, tangents: Array, limits: Any) -> tuple[Any, Any]:
        """How far x may go along each tangent before it meets a bound, (*batch, p) each."""
        if limits is None:
            return checks.UNBOUNDED
        lower, upper = limits
        still = tangents == 0
        slope = np.where(still, 1.0, tangents)
        ends = np.stack([(lower - self._x) / slope, (upper - self._x) / slope])
        low = np.where(still, -np.inf, ends.min(0)).max(-1)
        high = np.where(still, np.inf, ends.max(0)).min(-1)
        if self._complex_step:
            # Only its check leaves x, along all tangents together; where that has no room, and
            # none at all would mean a fixed input, there is no check.
            few = len(tangents)
            low, high = low / few, np.maximum(high / few, np.nextafter(0, 1))
            return np.moveaxis(low, 0, -1), np.moveaxis(high, 0, -1)
        fixed = ((lower == upper) & ~still).any(-1)
        if ((low == high) & ~fixed).any():
            raise CornerError(
                "x lies in a corner of its bounds where neither u nor -u leads inside: no step "
                "along u can be made; take jacobian(...).jvp(u), which moves one input at a time"
            )
        return np.moveaxis(low, 0, -1), np.moveaxis(high, 0, -1)

    def vjp_estimate(self, v: Any) -> ProductEstimate:
        """``vjp`` with its error bars."""
        flat, lead = checks.direction(v, self._y_layout, "v", finite=True)
        if flat.dtype.kind == "c" and self._complex_step:
            raise TypeError(
                "v is complex, but the complex step needs imaginary parts for the derivative; the "
                "product is linear in v: take its real and imaginary parts apart"
            )
        if self._sparsity is not None:
            return self._sparse_vjp(v)
        cotangents = flat.reshape(-1, *self._y_layout.batch, self._y_layout.size)
        view = ProductView(self._layout, -2, 1.0, several=bool(lead))
        inner = self._settings
        noise = inner.known_noise(self._y_layout)
        if noise is not None:  # that of v . y
            rows = np.abs(cotangents.reshape(-1, noise.size))
            inner = inner._replace(noise=np.sqrt(np.square(rows) @ np.square(noise)))
        if inner.atol is not None:
            each = checks.like_x(inner.atol, self._layout, "atol")[..., None, :]
            entries = (*self._layout.batch, len(cotangents), self._layout.size)
            inner = inner._replace(atol=np.broadcast_to(each, entries))
        engine = Engine(self._point, inner)
        zero = not cotangents.any()
        return self._product(engine, view, zero, contract=_Contract(cotangents))

    def _sparse_vjp(self, v: Any) -> ProductEstimate:
        """v^T J by a sparse J; the pattern is coloured once."""
        from gradiator_np._compressed import SparseRuns, sparse_vjp

        with self._evaluator() as evaluate:
            runs = SparseRuns(evaluate, self._sparsity)
            try:
                found = runs.at(self._point, self._known, self._value)
            finally:
                self.nfev += runs.nfev
        self._sparsity = found.coloring
        return sparse_vjp(replace(found, nfev=self.nfev), v)

    def _product(
        self, engine: Engine, view: ProductView, zero: bool, **hooks: Any
    ) -> ProductEstimate:
        """Estimate along tangents or contracted with cotangents: another function's Jacobian.

        ``zero``: all of them are 0, so that no run answering is no cause for doubt.
        """
        try:
            with self._evaluator(**hooks) as evaluate:
                estimate = run(engine, evaluate, self._value, self._known["on_error"])
        finally:
            self.nfev += engine.nfev
        estimate = replace(estimate, nfev=self.nfev)
        if zero:
            solution = replace(estimate.solution, status=Status.OK, message="a product with 0")
            return ProductEstimate(replace(estimate, solution=solution), view, self.y)
        return ProductEstimate(warned(estimate), view, self.y)


class _Lift:
    """Points s along tangents to points of ``fun``: x + sum_p s_p u_p, never out of bounds."""

    def __init__(self, x: NDArray[Any], tangents: Array, limits: Any) -> None:
        self.x, self.tangents, self.limits = x, tangents, limits

    def __call__(self, s: NDArray[Any]) -> NDArray[Any]:
        moved = self.x + np.einsum("k...p,p...m->k...m", s, self.tangents)
        if s.dtype.kind == "c":
            return np.asarray(moved)
        points = moved.astype(self.x.dtype, copy=False)
        if self.limits is not None:
            points = np.clip(points, *self.limits).astype(self.x.dtype, copy=False)
        moves = (s != 0) & np.moveaxis((self.tangents != 0).any(-1), 0, -1)  # tangents may be 0
        still = (points == self.x).all(-1) & moves.any(-1)
        if still.any():
            # Moves along dependent tangents may cancel: only what stands still by itself is lost.
            for size, tangent in zip(np.moveaxis(s, -1, 0), self.tangents):
                alone = (self.x + size[..., None] * tangent).astype(self.x.dtype, copy=False)
                still &= (alone == self.x).all(-1)
        if still.any():
            raise ValueError(
                "a step along u rounds to nothing at x; give a larger rel_step or abs_step"
            )
        return np.asarray(points)


class _Contract:
    """Values to v^T y, on arrival; outputs that no cotangent weighs may be nan."""

    def __init__(self, cotangents: NDArray[Any]) -> None:
        self.cotangents = cotangents  # (p, *batch, n)

    def __call__(self, y: NDArray[Any]) -> NDArray[Any]:
        if self.cotangents.ndim == 2 and checks.isfinite(y):
            return np.asarray(y @ self.cotangents.T)
        # 0 * nan is nan: an output that failed spoils only products that weigh it.
        return np.stack([(np.where(v != 0, y, 0.0) * v).sum(-1) for v in self.cotangents], axis=-1)
