"""Products with the Jacobian and with second derivatives, at one point, of flat arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._differentiable.function import Gradiator, _has_nested
from gradiator_np._differentiable.inputs import tree, untree
from gradiator_np._differentiable.point import DifferentiablePoint, ForwardRun
from gradiator_np._status import GradiatorWarning
from gradiator_np.adapters.jax._flat import FlatDerivatives, options_for
from gradiator_np.adapters.jax._structure import pack, unpack

#: Options that speak of y, or of how ``fun`` is called: not those of a derivative of it.
OF_FUN = ("noise", "atol", "rtol", "max_nfev", "solver", "vectorized", "workers", "run")

Array = NDArray[Any]
Directions = dict[int, Array]


class Products:
    """Products at a point: J u, v^T J, and what second derivatives need of the first ones.

    Parameters
    ----------
    owner : Gradiator
        The user's function.
    flat : FlatDerivatives
        Its derivatives in terms of arrays.
    """

    def __init__(self, owner: Gradiator, flat: FlatDerivatives) -> None:
        self.owner, self.flat = owner, flat
        self._owners: dict[tuple[int, ...], Gradiator] = {}

    def __call__(
        self, kind: str, xs: list[Array], ys: list[Array], first: Directions, second: Directions,
        into: Sequence[int], lead: tuple[int, ...],
    ) -> list[Array]:  # fmt: skip
        """One product, for the arrays ``into``.

        Parameters
        ----------
        kind : str
            As of ``Call``.
        xs, ys : list of array
            The arguments, and the value there.
        first, second : dict of array
            Directions for some of the arrays; the last kind may have ``lead`` axes in front.
        lead : tuple of int
            (several,), or () for one direction.
        """
        to_x = kind in ("vjp", "hvp")
        like = [(xs if to_x else ys)[i] for i in into]
        moves = {"jvp": tuple(first), "vjp": tuple(into)}.get(kind, self.flat.moved)
        if (
            not any(a.any() for a in first.values())  # 0, even where fun has no value
            or lead == (0,)
            or not any(a.size for a in like)
            or not any(xs[i].size for i in moves)
        ):
            return [np.zeros(lead + a.shape) for a in like]
        where = self._where(moves, xs)
        point = self._point(where, xs, ys)
        floating = self.flat.floating
        of_y, of_x = {i: ys[i] for i in floating}, {i: xs[i] for i in where}
        if kind == "jvp":
            found = point.pushforward(_filled(first, of_x, lead))
        elif kind == "vjp":
            found = point.pullback(_filled(first, of_y, lead))
        else:
            fixed = _filled(first, of_y if kind == "hvp" else of_x, ())
            found = self._curvature(kind, point, fixed, _filled(second, of_x, lead), lead)
        named = dict(zip(where if to_x else floating, unpack(found), strict=True))
        return [
            np.asarray(named[i]) if i in named else np.zeros(lead + a.shape)
            for i, a in zip(into, like, strict=True)
        ]

    def of_batch(
        self, kind: str, xs: list[Array], ys: list[Array], first: Directions, into: Sequence[int],
        lead: tuple[int, ...],
    ) -> list[Array]:  # fmt: skip
        """A "jvp" or "vjp" of a vectorized function at all points of an axis.

        Arrays that move, those of the output and directions have that axis, behind ``lead``.
        """
        moved, floating = self.flat.moved, self.flat.floating
        sizes = [x[0].size if i in moved else x.size for i, x in enumerate(xs)]
        owner = self._gradiator(moved, sizes).batched(moved)
        known = ForwardRun.of(pack([ys[i] for i in floating]), owner.batch_dims)
        point = DifferentiablePoint(owner, tuple(xs), forward=known)
        if kind == "jvp":
            found = point.pushforward(_filled(first, {i: xs[i] for i in moved}, lead))
        else:
            found = point.pullback(_filled(first, {i: ys[i] for i in floating}, lead))
        named = dict(zip(floating if kind == "jvp" else moved, unpack(found), strict=True))
        return [np.asarray(named[i]) for i in into]

    def _where(self, moves: Sequence[int], xs: list[Array]) -> tuple[int, ...]:
        """The arrays to differentiate by: evaluations are spent only on what is asked for."""
        moved = self.flat.moved
        if self.owner._given() or self.owner.options.get("vectorized"):
            return moved
        return tuple(i for i in moved if i in moves and xs[i].size)

    def _gradiator(self, where: tuple[int, ...], sizes: Sequence[int]) -> Gradiator:
        """The function of arrays, differentiated by some of them; kept with what it learns."""
        if where not in self._owners:
            owner, flat = self.owner, self.flat
            self._owners[where] = found = Gradiator(
                flat.fun,
                **flat.given,
                argnums=where[0] if len(where) == 1 else where,
                context=owner.context,
                reuse=owner.reuse,
                options=options_for(owner.options, where, flat, sizes),
            )
            found.counts = owner.counts
        return self._owners[where]

    def _point(
        self, where: tuple[int, ...], xs: list[Array], ys: list[Array]
    ) -> DifferentiablePoint:
        """The point xs, where the value ys is known."""
        owner = self._gradiator(where, [x.size for x in xs])
        if owner.context:  # it cannot travel through JAX: one more run brings it
            point = DifferentiablePoint(owner, tuple(xs))
            point._run()
            return point
        known = ForwardRun.of(pack([ys[i] for i in self.flat.floating]), owner.batch_dims)
        point = DifferentiablePoint(owner, tuple(xs), forward=known)
        if owner._memory is not None:
            owner._memory.add(point._flat_x()[None], point._flat_y()[None])
        return point

    # -- second derivatives ----------------------------------------------------------------------

    def _curvature(
        self, kind: str, point: DifferentiablePoint, fixed: Any, along: Any, lead: tuple[int, ...]
    ) -> Any:
        """The derivative of v^T J, or of J u, along w: of the derivatives that were given."""
        owner = point.owner
        if _has_nested(self.owner):
            exact = self._hessian if kind == "hvp" else self._bend
            rows = zip(*unpack(along), strict=True) if lead else [unpack(along)]
            found = [unpack(exact(point, fixed, pack(row))) for row in rows]
            if not lead:
                return pack(found[0])
            return pack([np.stack(column) for column in zip(*found, strict=True)])

        def slope(*xs: Any) -> Any:
            there = DifferentiablePoint(owner, xs, forward=point._forward)
            if kind == "hvp":
                return there.pullback(fixed)
            if owner.jvp_fun is not None:
                return there.pushforward(fixed)
            # Not by pushforward, which would be a difference of its own.
            flat = there.matrix() @ there.x_layout.flatten(tree(fixed))[..., None]
            return untree(there.y_layout.unflatten(flat[..., 0]), isinstance(there.value, tuple))

        options = {name: value for name, value in owner.options.items() if name not in OF_FUN}
        bent = Gradiator(slope, argnums=owner.argnums, options=options)
        with warnings.catch_warnings():
            # A linear function has a gradient that does not answer, and a Hessian of 0.
            warnings.filterwarnings("ignore", "no_response", GradiatorWarning)
            return DifferentiablePoint(bent, point.args).pushforward(along)

    def _hessian(self, point: DifferentiablePoint, v: Any, w: Any) -> Any:
        return self.flat.nested(pack(point.args), v, w)

    def _bend(self, point: DifferentiablePoint, u: Any, w: Any) -> Any:
        """f''(x)[u, w] by one Hessian product for each output."""
        y, many = point.y_layout, isinstance(point.value, tuple)
        flat_u = point.x_layout.flatten(tree(u))
        rows = []
        for e in np.eye(y.size):
            h = self._hessian(point, untree(y.unflatten(e), many), w)
            rows.append(point.x_layout.flatten(tree(h)) @ flat_u)
        return untree(y.unflatten(np.array(rows)), many)


def _filled(given: Directions, like: dict[int, Array], lead: tuple[int, ...]) -> Any:
    """A direction for each of the arrays ``like``: 0 for those that have none."""
    return pack([given.get(i, np.zeros(lead + a.shape)) for i, a in like.items()])
