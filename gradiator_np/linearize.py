"""Products without the Jacobian: J u at one or two evaluations, v^T J in the memory of one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from gradiator_np import checks
from gradiator_np.estimate import Options, drive, estimation, express, finish, running, start
from gradiator_np.estimator import JacobianEstimator
from gradiator_np.evaluate import Evaluator
from gradiator_np.results import JacobianEstimate, ProductEstimate
from gradiator_np.settings import UNBOUNDED
from gradiator_np.status import warn
from gradiator_np.structure import Layout

Array = NDArray[np.float64]


def jvp(fun: Callable[..., Any], x: Any, u: Any, **options: Unpack[Options]) -> ProductEstimate:
    """Estimate J u, the derivative of ``fun`` at x along the tangent u.

    One evaluation beside ``fun(x)`` ("2-point"), two ("3-point"), and so on, whatever the number
    of inputs. The tangent is normalised before it becomes a step: u of size 1e8 or 1e-8 gives the
    same relative accuracy.

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
    """
    return linearize(fun, x, **options)[1].jvp_estimate(u)


def vjp(fun: Callable[..., Any], x: Any, v: Any, **options: Unpack[Options]) -> ProductEstimate:
    """Estimate v^T J for the cotangent v (no conjugate): the gradient of v . fun.

    It costs as much as the whole Jacobian, m + 1 evaluations or more, but J is never stored:
    v is contracted with each value on arrival.

    Parameters
    ----------
    fun, x, **options
        As in ``jacobian``.
    v : like y
        A cotangent, or several on a leading axis. Outputs with v = 0 may fail without harm.

    Returns
    -------
    ProductEstimate
        ``value`` and ``stderr`` of the shape of x (with the leading axis of several).
    """
    return linearize(fun, x, **options)[1].vjp_estimate(v)


def linearize(
    fun: Callable[..., Any], x: Any, **options: Unpack[Options]
) -> tuple[Any, Linearization]:
    """The value of ``fun`` at x and its lazy Jacobian there.

    Parameters
    ----------
    fun, x, **options
        As in ``jacobian``.

    Returns
    -------
    y : array or dict
        ``fun(x)``.
    linearization : Linearization
        Its ``jvp(u)`` is what a forward-mode system returns beside y.

    Examples
    --------
    >>> from gradiator_np import linearize
    >>> y, lin = linearize(lambda x: x**2, [1.0, 2.0])
    >>> lin.jvp([1.0, 0.0]).round(6), lin.vjp([0.0, 1.0]).round(6)
    (array([2., 0.]), array([0., 4.]))
    """
    lin = Linearization(fun, x, options)
    return lin.y, lin


class Linearization:
    """The Jacobian of a function at one point, run for only when a product is asked for.

    Attributes
    ----------
    y : array or dict
        The value at x.
    nfev : int
        Evaluations so far, that at x included.
    """

    def __init__(self, fun: Callable[..., Any], x: Any, options: Options) -> None:
        self._fun = fun
        self._running = running(options)
        self._f0 = options.get("f0")
        self._options = estimation(options)
        if self._options.get("jac0") is not None:
            raise ValueError("jac0 is a prior of the whole Jacobian; use jacobian, not a product")
        self._point = checks.point(x, options.get("batch_dims", 0))
        self._x, self._layout = self._point
        # Before anything is run: arguments that make no sense.
        JacobianEstimator(self._point, **self._options)
        with self._evaluator() as evaluate:
            y = evaluate.first(self._x) if self._f0 is None else evaluate.learn(
                checks.like_output(self._f0)
            )  # fmt: skip
        assert evaluate.y_layout is not None
        self._y_layout = evaluate.y_layout
        self._value = self._y_layout.unflatten(y)
        self.y = self._y_layout.unflatten(y.copy())  # the caller's, to change
        self._precision = evaluate.precision
        self.nfev = evaluate.nfev

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
        probe = JacobianEstimator(self._point, **self._options)
        # Unit tangents: the input that moves farthest moves by its own scale.
        reach = np.max(np.abs(tangents) / probe.scale.reshape(self._x.shape), axis=-1)
        reach = np.where(reach > 0, reach, 1.0)
        unit = tangents / reach[..., None]
        along = np.moveaxis(reach, 0, -1)
        limits = probe.limits and tuple(b.reshape(self._x.shape) for b in probe.limits)
        options = self._options | {"x_scale": 1.0, "bounds": self._ends(unit, limits)}
        with np.errstate(over="ignore"):  # of a tangent that nearly vanishes
            scalars = {"rel_step": 1.0, "abs_step": along, "tol": 1 / along}
        for name in scalars.keys() & {k for k, v in self._options.items() if v is not None}:
            if np.ndim(self._options[name]):
                raise ValueError(f"{name} of a jvp is a scalar, got {self._options[name]!r:.60}")
            options[name] = self._options[name] * scalars[name]
        for name, pick in (("min_step", np.max), ("max_step", np.min)):
            if self._options.get(name) is not None:
                most = checks.positive(self._options[name], self._layout, name)
                with np.errstate(divide="ignore"):
                    s = most.reshape(self._x.shape) / np.abs(unit)
                lost = 0.0 if name == "min_step" else np.inf
                options[name] = np.moveaxis(pick(np.where(unit == 0, lost, s), axis=-1), 0, -1)
        inner = JacobianEstimator(
            checks.Point(np.zeros((*batch, p), self._x.dtype), Layout((p,), batch)), **options
        )
        view = _View(self._y_layout, -1, reach[..., None], several=bool(lead))
        return self._product(inner, view, lift=_Lift(self._x, unit, limits))

    def _ends(self, tangents: Array, limits: Any) -> tuple[Any, Any]:
        """How far x may go along each tangent before it meets a bound, (*batch, p) each."""
        if limits is None or self._options.get("method") == "cs":  # it never leaves x
            return UNBOUNDED
        lower, upper = limits
        still = tangents == 0
        slope = np.where(still, 1.0, tangents)
        ends = np.stack([(lower - self._x) / slope, (upper - self._x) / slope])
        low = np.where(still, -np.inf, ends.min(0)).max(-1)
        high = np.where(still, np.inf, ends.max(0)).min(-1)
        fixed = ((lower == upper) & ~still).any(-1)
        if ((low == high) & ~fixed).any():
            raise ValueError(
                "x lies in a corner of its bounds where neither u nor -u leads inside: no step "
                "along u can be made; take jacobian(...).jvp(u), which moves one input at a time"
            )
        if fixed.any():
            warn(
                "undetermined: u moves inputs that are fixed (lower == upper), so nothing tells "
                "J u; it is given as 0 with stderr inf"
            )
        return np.moveaxis(low, 0, -1), np.moveaxis(high, 0, -1)

    def vjp_estimate(self, v: Any) -> ProductEstimate:
        """``vjp`` with its error bars."""
        flat, lead = checks.direction(v, self._y_layout, "v", finite=True)
        if flat.dtype.kind == "c" and self._options.get("method") == "cs":
            raise TypeError(
                "v is complex, but the complex step needs imaginary parts for the derivative; the "
                "product is linear in v: take its real and imaginary parts apart"
            )
        cotangents = flat.reshape(-1, *self._y_layout.batch, self._y_layout.size)
        inner = JacobianEstimator(self._point, **self._options | self._noise(flat))
        view = _View(self._layout, -2, 1.0, several=bool(lead))
        return self._product(inner, view, contract=_Contract(cotangents))

    def _noise(self, cotangents: NDArray[Any]) -> dict[str, Any]:
        """The noise of v . y, where that of y is known."""
        noise = self._options.get("noise")
        if noise is None or isinstance(noise, str):
            return {}
        each = checks.like_x(noise, self._y_layout, "noise").reshape(-1, self._y_layout.size)[0]
        rows = np.abs(cotangents.reshape(-1, self._y_layout.size))
        return {"noise": np.sqrt(np.square(rows) @ np.square(each))}

    def _product(
        self, inner: JacobianEstimator, view: Callable[[NDArray[Any]], Any], **hooks: Any
    ) -> ProductEstimate:
        with self._evaluator(**hooks) as evaluate:
            evaluate.precision = self._precision
            start(inner, evaluate, self._x, self._value)
            drive(inner, evaluate, self._options.get("on_error", "adapt"))
        self.nfev += inner.nfev
        inner.nfev = self.nfev
        return ProductEstimate(finish(inner), view, self.y)


@dataclass(frozen=True)
class _View:
    """From the flat Jacobian of what was estimated to products of the user's shape.

    Along ``axis`` lie the tangents or cotangents; each is multiplied by ``factor``.
    """

    layout: Layout
    axis: int
    factor: Array | float
    several: bool

    def __call__(self, flat: NDArray[Any]) -> Any:
        out = self.layout.unflatten(np.moveaxis(flat, self.axis, 0) * self.factor)
        return out if self.several else _first(out)


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
        still = (points == self.x).all(-1) & (self.tangents != 0).any(-1).any(0) & (s != 0).any(-1)
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


def _first(out: Any) -> Any:
    """The only one of several."""
    if isinstance(out, dict):
        return {name: _first(item) for name, item in out.items()}
    return out[0]


class Prepared:
    """A function prepared for Jacobians at many points; see ``prepare``.

    Attributes
    ----------
    nfev : int
        Evaluations of all calls.
    """

    def __init__(self, fun: Callable[..., Any], x0: Any, options: Options) -> None:
        self._options = estimation(options)
        self._batch_dims = options.get("batch_dims", 0)
        point = checks.point(x0, self._batch_dims)
        self._layout = point.layout
        JacobianEstimator(point, **self._options)
        self._evaluate = Evaluator(fun, self._layout, **running(options))
        self._on_error = options.get("on_error", "adapt")
        self._learned: Any = None
        self._lane = None if self._batch_dims else express(fun, point, options)
        self.nfev = 0

    def __call__(self, x: Any, f0: Any = None) -> JacobianEstimate:
        """The Jacobian at x; ``f0`` is ``fun(x)`` where it is known."""
        if self._layout.fields is not None and self._layout.same(x):
            x = self._layout.arrange(x)  # the order of its keys may differ
        point = checks.point(x, self._batch_dims)
        if point.layout.shapes != self._layout.shapes:
            raise ValueError(
                f"x has shape {point.layout.shapes}, but this was prepared for "
                f"{self._layout.shapes}"
            )
        left = None
        if self._lane is not None:
            done = self._lane.run(point, f0)
            if isinstance(done, JacobianEstimate):
                self.nfev += done.nfev
                return done
            left = done
        estimator = JacobianEstimator(point, **self._options, learned=self._learned)
        self._evaluate.nfev = 0
        start(estimator, self._evaluate, point.flat, f0, left)
        drive(estimator, self._evaluate, self._on_error, left)
        self._learned = estimator.learned
        self.nfev += estimator.nfev
        return finish(estimator)

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *exc: object) -> None:
        self._evaluate.__exit__(*exc)


def prepare(fun: Callable[..., Any], x0: Any, **options: Unpack[Options]) -> Prepared:
    """Prepare Jacobians of ``fun`` at many points of the shape of x0.

    Parameters
    ----------
    fun, x0, **options
        As in ``jacobian``.

    Returns
    -------
    Prepared
        Call it with x, as often as needed. Worker processes stay alive between calls (use it as a
        context manager to end them), and what was learned of noise and steps is kept.
    """
    return Prepared(fun, x0, options)
