"""What runs outside of JAX: the function, its products and their derivatives, on NumPy arrays."""

from __future__ import annotations

import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._calls import FAILING, only_value
from gradiator_np._differentiable.function import Gradiator
from gradiator_np._status import warn
from gradiator_np.adapters.jax._batches import Batch, Rows
from gradiator_np.adapters.jax._flat import FlatDerivatives, FlatFunction
from gradiator_np.adapters.jax._products import Products
from gradiator_np.adapters.jax._structure import Arguments, unpack
from gradiator_np.designs._finite_difference.stencil import RULES

Array = NDArray[Any]
#: Shapes and types of several arrays.
Avals = Sequence[tuple[tuple[int, ...], Any]]
#: Results at a point of a batch, by its number.
AtPoint = Callable[[int], Sequence[Array]]
#: Places among operands: of x, y, the first and the second directions.
Slots = tuple[range, range, range, range]


@dataclass(frozen=True)
class Call:
    r"""One operation at points x: what JAX differentiates, maps and transposes.

    Attributes
    ----------
    kind : str
        "value": f(x). "jvp": J u, u of x -> y. "vjp": :math:`v^T J`, v of y -> x. "hvp": the
        Hessian of v . f times w, (v, w) -> x. "bend": :math:`f''(x)[u, w]`, (u, w) -> y.
    axes : tuple of tuple of bool
        For each operand, which of the axes that ``vmap`` made it has, the outermost first: they
        are in front of its own. Results have all of them. Operands are x, y (but for "value"), and
        the directions of the first and of the second kind.
    first, second : tuple of int
        To which arrays of x or y the directions belong; those of others are 0.
    into : tuple of int
        Which arrays of x or y are asked for.
    """

    kind: str
    axes: tuple[tuple[bool, ...], ...]
    first: tuple[int, ...] = ()
    second: tuple[int, ...] = ()
    into: tuple[int, ...] = ()

    @property
    def to_x(self) -> bool:
        """Whether results are like x, not like y."""
        return self.kind in ("vjp", "hvp")

    @property
    def curved(self) -> bool:
        """Whether it is a second derivative."""
        return self.kind in ("hvp", "bend")


class Host:
    """A function for arguments of one structure, shapes and types.

    Parameters
    ----------
    owner : Gradiator
        The user's function.
    arguments : Arguments
    avals : tuple of (shape, dtype)
        Of the arrays of the arguments.
    default : dtype
        Of outputs of which nothing else is known.

    Attributes
    ----------
    promised : list of (shape, dtype), or None
        Of the arrays of the output, from ``out=`` or the first run.
    """

    def __init__(
        self,
        owner: Gradiator,
        arguments: Arguments,
        avals: Avals,
        default: Any,
    ) -> None:
        self.owner, self.arguments, self.default = owner, arguments, np.dtype(default)
        self.shapes = [shape for shape, _ in avals]
        self.fun = FlatFunction(owner, arguments)
        self.flat = FlatDerivatives(owner, arguments, [dtype for _, dtype in avals], self.fun)
        self.exact = bool(owner._given())
        self.promised: list[tuple[tuple[int, ...], np.dtype[Any]]] | None = None
        # Simulators are seldom made for several threads, and devices run callbacks in theirs.
        self._lock = threading.RLock()
        self.products = Products(owner, self.flat)

    def promise(self, tree: Any, avals: Avals) -> None:
        """Know the structure, the shapes and the types of the output."""
        self.fun.tree = tree
        self.promised = [(tuple(shape), np.dtype(dtype)) for shape, dtype in avals]
        self.flat.learn([np.broadcast_to(np.zeros((), dtype), s) for s, dtype in self.promised])

    def run(self, call: Call, *operands: Any) -> tuple[Array, ...]:
        """What JAX asks for: arrays in, arrays of the promised shapes and types out."""
        arrays = [np.asarray(a) for a in operands]
        with self._lock:
            if call.kind == "value":
                return self._values(call, arrays)
            return self._products(call, arrays)

    # -- the function --------------------------------------------------------------------------

    def _values(self, call: Call, xs: list[Array]) -> tuple[Array, ...]:
        batch = Batch(call.axes, xs, range(len(xs)))
        if not batch.sizes:
            return self._promised_arrays(self._value(xs))
        if batch.count == 0:
            if self.promised is None:
                raise ValueError(
                    "nothing tells the output of a batch of no points: give gradiator(..., out=...)"
                )
            return tuple(np.empty(batch.sizes + shape, dtype) for shape, dtype in self.promised)

        def one_by_one() -> AtPoint:
            points = [batch.singles(k) for k in range(len(xs))]
            return lambda i: self._promised_arrays(self._value([x[i] for x in points]))

        at_once = self._points_at_once(batch)
        return self._each(
            batch, one_by_one, (lambda: self._values_at_once(batch)) if at_once else None
        )

    def _value(self, xs: list[Array]) -> list[Array]:
        """f at one point: all arrays of its output."""
        vectorized = bool(self.owner.options.get("vectorized"))
        started = time.perf_counter()
        if vectorized:
            xs = [x[None] if i in self.flat.moved else x for i, x in enumerate(xs)]
        out = self.fun(*xs)
        self.owner.counts.add("fun", started)
        ys = unpack(out[0] if self.owner.context else out)
        return [np.asarray(only_value(y)) for y in ys] if vectorized else list(ys)

    def _values_at_once(self, batch: Batch) -> tuple[Array, ...]:
        """f at all points by one call, with one leading axis."""
        started = time.perf_counter()
        out = self.fun(*self._all_points(batch))
        self.owner.counts.add("fun", started)
        ys = [np.asarray(y) for y in unpack(out[0] if self.owner.context else out)]
        for y in ys:
            if y.shape[:1] != (batch.count,):
                raise ValueError(
                    f"a vectorized fun returns one row for each of its {batch.count} points, but "
                    f"this one returned shape {y.shape}"
                )
        found = [self._promised_arrays([y[i] for y in ys]) for i in range(batch.count)]
        return tuple(np.stack(column) for column in zip(*found, strict=True))

    def _promised_arrays(self, ys: list[Array]) -> tuple[Array, ...]:
        """The output of one run in the types that JAX was promised."""
        if self.promised is None:
            kinds = [np.result_type(self.default, np.complex64) if y.dtype.kind == "c" else
                     np.zeros((), self.default).real.dtype for y in ys]  # fmt: skip
            self.promise(self.fun.tree, [(y.shape, t) for y, t in zip(ys, kinds, strict=True)])
        assert self.promised is not None
        if len(ys) != len(self.promised) or any(
            y.shape != shape for y, (shape, _) in zip(ys, self.promised, strict=True)
        ):
            raise ValueError(
                f"fun returned the shapes {[y.shape for y in ys]}, but "
                f"{[shape for shape, _ in self.promised]} were promised, by out= or by an earlier "
                "call with arguments of these shapes"
            )
        for y, (_, dtype) in zip(ys, self.promised, strict=True):
            if y.dtype != dtype and not np.can_cast(y.dtype, dtype, "same_kind"):
                raise TypeError(
                    f"fun returned {y.dtype}, but {dtype} was promised, by out= or by an earlier "
                    "call: a part of the number would be lost; say out= with the right dtype"
                )
        # Copies: fun may use its buffer again, and JAX may take that for its own.
        return tuple([y.astype(t) for y, (_, t) in zip(ys, self.promised, strict=True)])

    # -- batches -------------------------------------------------------------------------------

    def _each(
        self,
        batch: Batch,
        one_by_one: Callable[[], AtPoint],
        at_once: Callable[[], Sequence[Array]] | None,
    ) -> tuple[Array, ...]:
        """Results at each point of a batch; nan where it fails, an error where all do."""
        if at_once:
            try:
                together = at_once()
            except FAILING:  # one by one, then, to see which of the points it is
                pass
            else:
                return self._placed(batch, together)
        at, found = one_by_one(), Rows(batch.count)
        failed: dict[int, BaseException] = {}
        for i in range(batch.count):
            try:
                found.put(i, at(i))
            except FAILING as exc:
                if self.owner.options.get("on_error") == "raise":
                    raise
                failed[i] = exc
        if found.columns is None:
            raise next(iter(failed.values()))
        if failed:
            i, first = next(iter(failed.items()))
            if any(column.dtype.kind not in "fc" for column in found.columns):
                raise first
            for column in found.columns:
                column[list(failed)] = np.nan
            warn(
                f"{len(failed)} of {batch.count} points of a batch failed and are nan, the first "
                f"at {batch.where(i)} ({type(first).__name__}: {first}); on_error='raise' stops "
                "instead",
                None,
            )
        return self._placed(batch, found.columns)

    def _placed(self, batch: Batch, found: Sequence[Array]) -> tuple[Array, ...]:
        """Results with one leading axis of points, with the axes of vmap."""
        lead = tuple(batch.sizes[i] for i in batch.points)
        return tuple(batch.in_order(a.reshape((*lead, *a.shape[1:]))) for a in found)

    def _points_at_once(self, batch: Batch) -> bool:
        """Whether one run may answer for all points: fun takes many, and only what moves varies."""
        return bool(self.owner.options.get("vectorized")) and self._only_moved_vary(batch)

    def _estimated_at_once(self, batch: Batch) -> bool:
        """Whether one estimate may answer for all points.

        Stencils do the same at each point (but that points next to 0 take their unit of steps from
        the others) at a twentieth of the time that an estimate of its own takes; the default goes
        by what it finds at a point.
        """
        options = self.owner.options
        alike = options.get("vectorized") or (
            options.get("method") in (*RULES, "cs") and options.get("workers", 1) == 1
        )
        return bool(alike) and not self.owner.reuse and self._only_moved_vary(batch)

    def _only_moved_vary(self, batch: Batch) -> bool:
        fixed = (k for k in range(len(self.shapes)) if k not in self.flat.moved)
        return batch.count > 1 and not any(batch.varies(k) for k in fixed)

    def _all_points(self, batch: Batch) -> list[Array]:
        """The arguments at all points: what moves with a leading axis, the rest as it is."""
        return [
            batch.all_points(k) if k in self.flat.moved else batch.singles(k)[0]
            for k in range(len(self.shapes))
        ]

    # -- products ------------------------------------------------------------------------------

    def _products(self, call: Call, operands: list[Array]) -> tuple[Array, ...]:
        assert self.promised is not None
        slots = _, y, first, _ = self.slots(call)
        # A curvature is estimated along the second directions: the first belong to its point.
        points = [*range(len(self.shapes)), *(first if call.curved else ())]
        batch = Batch(call.axes, operands, points)
        own = [
            (self.shapes[i], operands[i].dtype) if call.to_x else self.promised[i]
            for i in call.into
        ]
        several = tuple(batch.sizes[i] for i in batch.directions)
        moves = {
            "jvp": call.first, "vjp": call.into, "hvp": call.into + call.second,
            "bend": call.first + call.second,
        }[call.kind]  # fmt: skip
        # 0 times anything is 0, even where fun has no value.
        live = np.logical_or.reduce([batch.where_any(k) for k in first])
        if (
            not live.any()
            or 0 in several
            or not any(math.prod(shape) for shape, _ in own)
            or not any(math.prod(self.shapes[i]) for i in moves)
        ):
            return tuple(np.zeros(batch.sizes + shape, dtype) for shape, dtype in own)
        where = self.products.where(moves, self.shapes)
        if not (call.curved or self.exact) and self._estimated_at_once(batch):
            at_once = functools.partial(self._at_once, call, slots, where, batch, several, own)
        else:
            at_once = None
        floats = [k for k in y if operands[k].dtype.kind in "fc" and operands[k].size]
        lost = np.zeros(batch.count, bool)
        if batch.points and floats:
            lost = np.logical_and.reduce([batch.where_lost(k) for k in floats])

        def one_by_one() -> AtPoint:
            at = self._product(call, slots, where, batch, several, own)
            zero = [np.zeros(several + shape, dtype) for shape, dtype in own]
            is_live, is_lost = live.tolist(), lost.tolist()

            def one(i: int) -> Sequence[Array]:
                if not is_live[i]:
                    return zero
                if is_lost[i]:
                    raise ValueError("its value is nan")
                return at(i)

            return one

        return self._each(batch, one_by_one, at_once)

    def slots(self, call: Call) -> Slots:
        """Places of x, y, the first and the second directions among the operands of a product."""
        lengths = len(self.shapes), len(self.promised or ()), len(call.first), len(call.second)
        ends = itertools.accumulate(lengths, initial=0)
        x, y, first, second = (range(i, j) for i, j in itertools.pairwise(ends))
        return x, y, first, second

    def _product(
        self, call: Call, slots: Slots, where: tuple[int, ...], batch: Batch,
        several: tuple[int, ...], own: Avals,
    ) -> AtPoint:  # fmt: skip
        """Products at one point of a batch, with axes of directions in front."""
        x, y, one, two = slots
        lead = _flat_lead(several)
        take = batch.singles if call.curved else batch.severals
        all_first = [(k, take(operand)) for k, operand in zip(call.first, one, strict=True)]
        all_second = [
            (k, batch.severals(operand)) for k, operand in zip(call.second, two, strict=True)
        ]
        all_xs, all_ys = [batch.singles(k) for k in x], [batch.singles(k) for k in y]
        like = [(several + shape, dtype) for shape, dtype in own]

        def at(i: int) -> list[Array]:
            first = {k: a[i] for k, a in all_first}
            second = {k: a[i] for k, a in all_second}
            xs, ys = [a[i] for a in all_xs], [a[i] for a in all_ys]
            found = self.products(call.kind, where, xs, ys, first, second, call.into, lead)
            return [_cast(a, t).reshape(s) for a, (s, t) in zip(found, like, strict=True)]

        return at

    def _at_once(
        self, call: Call, slots: Slots, where: tuple[int, ...], batch: Batch,
        several: tuple[int, ...], own: Avals,
    ) -> list[Array]:  # fmt: skip
        """Products at all points, whose values one call gives: points first, directions then."""
        assert self.promised is not None
        _, y, one, _ = slots
        like = self.shapes if call.kind == "jvp" else [shape for shape, _ in self.promised]
        first = {i: batch.all_directions(k, like[i]) for i, k in zip(call.first, one, strict=True)}
        found = self.products.of_batch(
            call.kind, where, self._all_points(batch), [batch.all_points(k) for k in y], first,
            call.into, _flat_lead(several),
        )  # fmt: skip
        return [
            _cast(a.swapaxes(0, 1) if several else a, t).reshape((batch.count, *several, *s))
            for a, (s, t) in zip(found, own, strict=True)
        ]


def _flat_lead(several: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of directions as one, and as none where there are none."""
    return (math.prod(several),) if several else ()


def _cast(a: Array, dtype: Any) -> Array:
    """A product in the type of what it belongs to; real by a real number, as JAX defines it."""
    if a.dtype.kind == "c" and np.dtype(dtype).kind != "c":
        a = a.real
    return a.astype(dtype, copy=False)
