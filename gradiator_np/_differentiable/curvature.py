"""Second derivatives at a point of a function that can only be run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._differentiable.inputs import rows_of, shaped_like, stacked, tree, zeros_like
from gradiator_np._differentiable.owner import ForwardRun
from gradiator_np._differentiable.point import DifferentiablePoint
from gradiator_np._samples import SampleError
from gradiator_np._second_derivatives import CurvatureEstimate, HessianEstimate, hessian, hvp
from gradiator_np._settings import scale_of
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._typing import Array

#: Options of first derivatives that second ones have too. Steps, methods and limits have not.
SHARED = ("x_scale", "bounds", "noise", "on_error", "rng", "workers", "vectorized", "run")
#: Entries of all second derivatives that may stay with a point.
KEPT = 2**15
#: Runs of u' H u, two of which make a second derivative along two directions. Seven, its default,
#: leave two degrees of freedom to noise: errors were three times as large, 5 % of them 8 bars.
QUADRATIC = 15


class Contracted:
    """v . f as a function of x, picklable if f is.

    Attributes
    ----------
    fun : callable
    v : array, shape (n,)
    layout : Layout
        Of what ``fun`` returns.
    lead : int
        Leading axes of several points.
    """

    def __init__(self, fun: Any, v: NDArray[Any], layout: Layout, lead: int) -> None:
        self.fun, self.v, self.layout, self.lead = fun, v, layout, lead

    def __call__(self, z: Any) -> Any:
        return self.layout.flatten(tree(self.fun(z)), self.lead) @ self.v


def estimated_curvature(point: DifferentiablePoint, v: Any, w: Any) -> Any:
    """The Hessian of v . f times w, shape of x, from values of f; see ``second.curvature``.

    Notes
    -----
    ``hvp`` of v . f, v fixed, in 16 m + 7 evaluations; ``hessian`` of f, 4 m (m + 1) + 7 and kept
    with the point, where that takes no more, or has been spent on products here already.
    """
    if point.owner.batch_dims:
        return _each(point, estimated_curvature, (v, w))
    x, y = point.x_layout, point.y_layout
    flat_v, flat_w = _flat(v, y, "v"), _flat(w, x, "w")
    if point._empty or not flat_v.any() or not flat_w.any():
        return zeros_like(point._moved())
    every = _every(point, 16 * x.size + 7)
    if every is not None:
        out = np.einsum("n,nij,j->i", flat_v, every, flat_w)
    else:
        fun, z, options = _problem(point)
        if y.size > 1:
            fun = Contracted(fun, flat_v, y, int(bool(options.get("vectorized"))))
            options["f0"] = flat_v @ point._flat_y()
            if options.get("noise") is not None:
                options["noise"] = float(np.linalg.norm(flat_v * checks.noise(options["noise"], y)))
        out = _known(point, hvp(fun, z, x.unflatten(flat_w), **options))[0]
        if y.size == 1:
            out = flat_v[0] * out
    return shaped_like(x.unflatten(out), point._moved())


def estimated_bend(point: DifferentiablePoint, u: Any, w: Any) -> Any:
    """The second derivative of f along u and w, shape of y, from values; see ``second.bend``.

    Notes
    -----
    A quarter of what the second derivatives along u + w and u - w differ by, both tangents in the
    units of the inputs.
    """
    if point.owner.batch_dims:
        return _each(point, estimated_bend, (u, w))
    x, y = point.x_layout, point.y_layout
    one, two = _flat(u, x, "u"), _flat(w, x, "w")
    if point._empty or not one.any() or not two.any():
        return zeros_like(point.value)
    every = _every(point, 2 * QUADRATIC)
    if every is not None:
        out = np.einsum("nij,i,j->n", every, one, two)
    else:
        fun, z, options = _problem(point)
        scale = scale_of(point._flat_x(), options.get("x_scale"), x)
        sizes = [float((np.abs(t) / scale).max()) for t in (one, two)]
        one, two = one / sizes[0], two / sizes[1]
        out = np.zeros(y.size)
        for along, sign in ((one + two, 1), (one - two, -1)):
            if along.any():
                found = hvp(
                    fun, z, x.unflatten(along), quadratic=True, max_nfev=QUADRATIC, **options
                )
                out = out + sign * _known(point, found)
        out = out * (sizes[0] * sizes[1] / 4)
    return shaped_like(y.unflatten(out), point.value)


def _every(point: DifferentiablePoint, product: int) -> NDArray[Any] | None:
    """All second derivatives (n, m, m), where they cost no more than products have, or will.

    A product of so many runs is refused once the runs of all of them would exceed those of the
    whole: twice the least that could have been spent, at most.
    """
    m, n = point.x_layout.size, point.y_layout.size
    if point._hessian is None:
        if n * m * m > KEPT or point._spent + product < 4 * m * (m + 1) + 7:
            point._spent += product
            return None
        fun, z, options = _problem(point)
        point._hessian = _known(point, hessian(fun, z, **options))
    return point._hessian


def _problem(point: DifferentiablePoint) -> tuple[Any, Any, dict[str, Any]]:
    """The function of the inputs to move, those, and the options that second derivatives have."""
    if point.x_layout.flatten(tree(point._moved())).dtype.kind == "c":
        raise TypeError(
            "second derivatives by complex inputs are not estimated: give grad_fun, or real and "
            "imaginary parts as inputs of their own"
        )
    fun, z, options = point._problem()
    kept = {name: value for name, value in options.items() if name in (*SHARED, "f0")}
    return fun, z, kept


def _known(point: DifferentiablePoint, found: CurvatureEstimate | HessianEstimate) -> NDArray[Any]:
    """The flat estimate, counted; an error where no run tells: 0 must not stand for unknown."""
    owner = point.owner
    owner.counts.fun += found.nfev
    lost = np.isinf(found.error)
    if "bounds" in owner.options and found.coef.ndim > 1:  # inputs that are meant to stay
        low, high = checks.bounds(owner.options["bounds"], point._flat_x(), point.x_layout)
        free = low != high
        lost = lost & (free[:, None] & free if found.coef.ndim == 3 else free)
    if found.status is Status.UNDETERMINED and lost.any():
        raise SampleError(f"no run determines a second derivative: {found.message}", found.samples)
    return found.coef


def _flat(value: Any, layout: Layout, what: str) -> Array:
    """One direction as a flat array."""
    flat, lead = checks.direction(tree(value), layout, what, finite=True)
    if lead:
        raise ValueError(
            f"{what} must be one direction, of the shape {layout.shapes}, got {np.shape(value)}; "
            "second derivatives take one at a time"
        )
    return flat


def _each(point: DifferentiablePoint, product: Any, directions: tuple[Any, Any]) -> Any:
    """A product at each point of a batch, of the function of one point."""
    if point.owner.single is None:
        raise NotImplementedError(
            "second derivatives of a function with batch_dims are not estimated: its points cannot "
            "be run one by one. Give the function of one point and map it over the batch (vmap of "
            "torch or JAX), or give grad_fun"
        )
    if not all(point.x_layout.batch):
        return zeros_like(point._moved() if product is estimated_curvature else point.value)
    if not point._rows:
        single, moved = point.owner.single
        values = rows_of(point.value)
        args = [rows_of(a) if i in moved else [a] * len(values) for i, a in enumerate(point.args)]
        point._rows = [
            DifferentiablePoint(
                single, tuple(row), point.where, forward=ForwardRun.of(value, single.batch_dims)
            )
            for *row, value in zip(*args, values, strict=True)
        ]
    rows = zip(point._rows, *map(rows_of, directions), strict=True)
    return stacked([product(at, *along) for at, *along in rows])
