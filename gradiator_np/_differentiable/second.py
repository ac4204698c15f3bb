"""Second derivatives: of first ones that were given, or of values alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradiator_np._differentiable.curvature import estimated_bend, estimated_curvature
from gradiator_np._differentiable.inputs import shaped_like, tree, zeros_like
from gradiator_np._differentiable.point import DifferentiablePoint
from gradiator_np._second_derivatives.gradients import along

#: Options that speak of fun, not of its derivatives.
OF_FUN = {"noise", "atol", "vectorized", "sparsity"}


def curvature(point: DifferentiablePoint, v: Any, w: Any) -> Any:
    """The Hessian of v . f times w, shape of x.

    Parameters
    ----------
    point : DifferentiablePoint
    v : shape of y
    w : shape of x

    Notes
    -----
    Exact where ``grad_fun`` is a ``Gradiator`` with a ``grad_fun`` of its own; else the derivative
    of v^T J along w, by differences of the derivatives given: the Hessian is symmetric. Where none
    were given, by second differences of values.

    Raises
    ------
    SampleError
        Where no run tells of an entry.
    """
    nested = getattr(point.owner.grad_fun, "grad_fun", None)
    if nested is not None:
        return nested((point._point(), v), w)[0]
    if not point.exact:
        return estimated_curvature(point, v, w)
    return _along(point, lambda there: there.pullback(v), w, point._moved())


def bend(point: DifferentiablePoint, u: Any, w: Any) -> Any:
    """The second derivative of f along u and w, shape of y; arguments as in ``curvature``.

    The derivative along w of J u where ``jvp_fun`` or ``jac_fun`` was given; by ``grad_fun`` alone
    each output takes a product with its Hessian. Second differences of values where no derivatives
    were given.
    """
    owner = point.owner
    if not point.exact:
        return estimated_bend(point, u, w)
    if owner.jvp_fun is not None or owner.jac_fun is not None:
        return _along(point, lambda there: there.pushforward(u), w, point.value)
    x, y = point.x_layout, point.y_layout
    flat, shape = x.flatten(tree(u)), (*y.batch, y.size)
    columns = []
    for e in np.eye(y.size):
        v = shaped_like(y.unflatten(np.broadcast_to(e, shape).copy()), point.value)
        columns.append((x.flatten(tree(curvature(point, v, w))) * flat).sum(axis=-1))
    out = np.stack(columns, axis=-1) if columns else np.zeros(shape)
    return shaped_like(y.unflatten(out), point.value)


def _along(
    point: DifferentiablePoint,
    product: Callable[[DifferentiablePoint], Any],
    w: Any,
    like: Any,
) -> Any:
    """The derivative along w, in the structure of ``like``, of a product with those given."""
    if not point._flat_x().size:
        return zeros_like(product(point))
    owner = point.owner
    where = (point.where,) if isinstance(point.where, int) else point.where

    def there(z: Any) -> Any:
        args = list(point.args)
        moved = (z,) if isinstance(point.where, int) else tuple(z.values())
        for i, item in zip(where, moved, strict=True):
            args[i] = shaped_like(item, args[i])
        return tree(product(DifferentiablePoint(owner, tuple(args), point.where)))

    options = {name: value for name, value in owner.options.items() if name not in OF_FUN}
    return shaped_like(along(there, tree(point._moved()), tree(w), **options), like)
