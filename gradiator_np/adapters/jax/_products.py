"""Products with the Jacobian and with second derivatives, at one point, of flat arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._calls import FAILING
from gradiator_np._differentiable.curvature import estimated_bend, estimated_curvature
from gradiator_np._differentiable.function import Gradiator, _has_nested
from gradiator_np._differentiable.inputs import own, same_inputs, tree, untree
from gradiator_np._differentiable.owner import ForwardRun
from gradiator_np._differentiable.point import DifferentiablePoint
from gradiator_np._samples import SampleError
from gradiator_np._status import GradiatorWarning
from gradiator_np.adapters.jax._batches import Rows
from gradiator_np.adapters.jax._flat import FlatDerivatives, FlatFunction, options_for
from gradiator_np.adapters.jax._structure import pack, unpack

#: Options that speak of y, or of how ``fun`` is called: not those of a derivative of it.
OF_FUN = (
    "noise", "atol", "rtol", "max_nfev", "solver", "vectorized", "workers", "run", "sparsity",
)  # fmt: skip

Array = NDArray[Any]
Directions = dict[int, Array]
MakePoint = Callable[[tuple[int, ...], list[Array], list[Array]], DifferentiablePoint]


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
        self._points: dict[tuple[int, ...], DifferentiablePoint] = {}
        self._latest: tuple[tuple[int, ...], tuple[Any, ...], DifferentiablePoint] | None = None

    def __call__(
        self, kind: str, where: tuple[int, ...], xs: list[Array], ys: list[Array],
        first: Directions, second: Directions, into: Sequence[int], lead: tuple[int, ...],
        at: MakePoint | None = None,
    ) -> list[Array]:  # fmt: skip
        """One product, for the arrays ``into``.

        Parameters
        ----------
        kind : str
            As of ``Call``.
        where : tuple of int
            The arrays to differentiate by.
        xs, ys : list of array
            The arguments, and the value there.
        first, second : dict of array
            Directions for some of the arrays; the last kind may have ``lead`` axes in front.
        lead : tuple of int
            (several,), or () for one direction.
        at : callable, optional
            Makes the point from the arrays to differentiate by, xs and ys.
        """
        to_x = kind in ("vjp", "hvp")
        curved = kind in ("hvp", "bend")
        point = (at or (self._bent if curved else self._point))(where, xs, ys)
        floating = self.flat.floating
        if kind == "jvp":
            found = point.pushforward(_filled(first, where, xs, lead))
        elif kind == "vjp":
            found = point.pullback(_filled(first, floating, ys, lead))
        else:
            fixed = _filled(first, *((floating, ys) if kind == "hvp" else (where, xs)), ())
            along = _filled(second, where, xs, lead)
            if point.exact:
                found = self._curvature(kind, point, fixed, along, lead)
            else:
                estimated = estimated_curvature if kind == "hvp" else estimated_bend
                found = _each(lambda w: estimated(point, fixed, w), along, lead)
        named = dict(zip(where if to_x else floating, unpack(found), strict=True))
        like = xs if to_x else ys
        return [
            np.asarray(named[i]) if i in named else np.zeros(lead + like[i].shape) for i in into
        ]

    def of_batch(
        self, kind: str, where: tuple[int, ...], xs: list[Array], ys: list[Array],
        first: Directions, into: Sequence[int], lead: tuple[int, ...],
    ) -> list[Array]:  # fmt: skip
        """A "jvp" or "vjp" estimated at all points of an axis together.

        Arrays that move, those of the output and directions have that axis, behind ``lead``.

        Raises
        ------
        SampleError
            Where a run failed: which points that spoils is told one by one.
        """
        moved = self.flat.moved
        fun = _Watched(self.flat.fun, moved, self.owner)

        def at(where: tuple[int, ...], xs: list[Array], ys: list[Array]) -> DifferentiablePoint:
            single = self._gradiator(where, [(x[0] if i in moved else x).size
                                             for i, x in enumerate(xs)])  # fmt: skip
            options = single.options | {"batch_dims": single.batch_dims + 1, "vectorized": False}
            owner = Gradiator(fun, argnums=single.argnums, options=options)
            known = ForwardRun.of(pack([ys[i] for i in self.flat.floating]), owner.batch_dims)
            return DifferentiablePoint(owner, tuple(xs), forward=known)

        try:
            if any(np.isnan(y).any() for y in ys):
                raise SampleError("no value at one of the points", None)
            found = self(kind, where, xs, ys, first, {}, into, lead, at)
        finally:
            self.owner.counts.fun += fun.runs
        if fun.failed:
            raise SampleError("a run failed at one of the points", None)
        return found

    def where(self, moves: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The arrays to differentiate by: evaluations are spent only on what is asked for."""
        moved = self.flat.moved
        if self.owner._given() or self.owner.options.get("vectorized"):
            return moved
        return tuple(i for i in moved if i in moves and 0 not in shapes[i])

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
        y = pack([ys[i] for i in self.flat.floating])
        if where in self._points:
            point = self._points[where].elsewhere(tuple(xs), y)
        else:
            known = ForwardRun.of(y, owner.batch_dims)
            point = DifferentiablePoint(owner, tuple(xs), forward=known)
            # Of one point only the layouts are kept, which are those of all.
            self._points[where] = point
        if owner._memory is not None:
            owner._memory.add(point._flat_x()[None], point._flat_y()[None])
        return point

    # -- second derivatives ----------------------------------------------------------------------

    def _bent(
        self, where: tuple[int, ...], xs: list[Array], ys: list[Array]
    ) -> DifferentiablePoint:
        """The latest point of second derivatives, which keeps those that were estimated there.

        A value that differs is that of another function, or of another run of a noisy one.
        """
        last, key = self._latest, (*xs, *ys)
        if last is None or last[0] != where or not same_inputs(last[1], key):
            self._latest = last = where, own(key), self._point(where, xs, ys)
        return last[2]

    def _curvature(
        self, kind: str, point: DifferentiablePoint, fixed: Any, along: Any, lead: tuple[int, ...]
    ) -> Any:
        """The derivative of v^T J, or of J u, along w: of the derivatives that were given."""
        owner = point.owner
        if _has_nested(self.owner):
            exact = self._hessian if kind == "hvp" else self._bend
            return _each(lambda w: exact(point, fixed, w), along, lead)

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


class _Watched:
    """A function of many points, which are told apart where one of them fails."""

    def __init__(self, fun: FlatFunction, moved: tuple[int, ...], owner: Gradiator) -> None:
        self.fun, self.moved, self.context = fun, moved, owner.context
        self.vectorized = bool(owner.options.get("vectorized"))
        self.runs, self.failed = 0, False

    def __call__(self, *arrays: Any) -> Any:
        try:
            out = self._run(arrays) if self.vectorized else self._each(arrays)
        except FAILING:
            self.failed = True
            raise
        self.failed |= any(np.isnan(y).any() for y in unpack(out))
        return out

    def _run(self, arrays: tuple[Any, ...]) -> Any:
        self.runs += 1
        out = self.fun(*arrays)
        return out[0] if self.context else out

    def _each(self, arrays: tuple[Any, ...]) -> Any:
        count = len(arrays[self.moved[0]])
        rows, moves = Rows(count), [i in self.moved for i in range(len(arrays))]
        for k in range(count):
            row = tuple([a[k] if m else a for a, m in zip(arrays, moves, strict=True)])
            rows.put(k, unpack(self._run(row)))
        assert rows.columns is not None
        return pack(rows.columns)


def _each(product: Callable[[Any], Any], along: Any, lead: tuple[int, ...]) -> Any:
    """A product in one direction, or in each of several."""
    if not lead:
        return product(along)
    found = [unpack(product(pack(row))) for row in zip(*unpack(along), strict=True)]
    return pack([np.stack(column) for column in zip(*found, strict=True)])


def _filled(
    given: Directions, numbers: Sequence[int], like: list[Array], lead: tuple[int, ...]
) -> Any:
    """A direction for each of some of the arrays ``like``: 0 for those that have none."""
    return pack([given[i] if i in given else np.zeros(lead + like[i].shape) for i in numbers])
