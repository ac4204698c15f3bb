"""What a call of a simulator leaves behind for the products with its Jacobian."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from itertools import compress
from typing import Any

import numpy as np
import torch

from gradiator_np._differentiable.function import Gradiator
from gradiator_np._differentiable.inputs import name_of
from gradiator_np._differentiable.point import DifferentiablePoint
from gradiator_np._differentiable.second import bend, curvature
from gradiator_np.adapters.torch._hints import hint_at_batches
from gradiator_np.adapters.torch._outputs import Output, Outputs, leaves_of, outputs_of, packed
from gradiator_np.adapters.torch._rules import OF_X
from gradiator_np.adapters.torch._tensors import (
    common_dtype,
    on_leading_axes,
    to_numpy,
    to_torch,
)

#: Entries of a Jacobian that is kept with the graph for a second backward pass, 256 KiB; beyond
#: that the last product alone is kept.
KEPT = 2**15
#: Calls of an operator in a traced graph that its backward pass may still find.
RECENT = 4
#: Shapes of outputs that are remembered.
KNOWN = 1024
UNKNOWN = (
    "the shape of the output is not known where there are no numbers to run fun at (torch.compile, "
    "export, meta tensors, vmap over no points): give gradiator(..., out=a tensor of that shape), "
    "or call the function once with tensors of these shapes"
)

#: What operators in graphs know of a simulator: a name.
SITES: weakref.WeakValueDictionary[str, Site] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


class Family:
    """A simulator over the leaves of one kind of call, and what was seen of its outputs.

    Attributes
    ----------
    owner : Gradiator
        Over leaves; see ``_structures``.
    moved : tuple of int
        Leaves to differentiate by.
    held : tuple of int
        Floating-point leaves that no derivative given reaches.
    out : Outputs or None
        The outputs, where the caller said so.
    known : dict
        The outputs for each shape of the inputs, and all inputs that are not tensors.
    kept : list
        Sites that graphs know by name.
    inner : Family or None
        That of ``batched``, once it was asked for.
    looked : bool
        Whether rows of inputs were asked if they are independent; see ``_hints``.
    """

    def __init__(
        self,
        owner: Gradiator,
        moved: tuple[int, ...],
        out: Outputs | None,
        kept: list[Any],
        held: tuple[int, ...] = (),
    ) -> None:
        self.owner, self.moved, self.out, self.kept, self.held = owner, moved, out, kept, held
        self.known: dict[Any, Outputs] = {}
        self.inner: Family | None = None
        self.looked = False

    def batched(self) -> Family:
        """The same over a leading axis of the leaves that are differentiated by."""
        if self.inner is None:
            owner = self.owner.batched(self.moved)
            self.inner = Family(owner, self.moved, self.out, self.kept)
            self.inner.known = self.known
        return self.inner


class Site:
    """A simulator with all of its inputs that are not tensors; operators know it by name.

    Attributes
    ----------
    family : Family
    given : tuple
        All leaves, with None in place of tensors.
    slots : tuple of int
        Leaves that are tensors.
    """

    def __init__(self, family: Family, given: tuple[Any, ...], slots: tuple[int, ...]) -> None:
        self.family, self.given, self.slots = family, given, slots
        self.owner, self.moved = family.owner, family.moved
        self._name: str | None = None
        self._batched: Site | None = None
        self._recent: deque[Call] = deque(maxlen=RECENT)

    @property
    def at_work(self) -> tuple[int, ...]:
        """Which of the tensors are differentiated by."""
        return tuple(self.slots.index(i) for i in self.moved)

    @property
    def name(self) -> str:
        """What operators in graphs call it, in this process."""
        if self._name is None:
            self._name = f"{name_of(self.owner.fun)}#{next(_NUMBERS)}"
            SITES[self._name] = self
            self.family.kept.append(self)
        return self._name

    def batched(self) -> Site:
        """The same over a leading axis of all leaves that are differentiated by."""
        if self._batched is None:
            self._batched = Site(self.family.batched(), self.given, self.slots)
        return self._batched

    def call(self, tensors: tuple[Any, ...]) -> Call:
        """A call at tensors, all those of ``slots``."""
        rest = {i: t for i, t in zip(self.slots, tensors, strict=True) if i not in self.moved}
        return Call(self, rest)

    def recent(self, tensors: tuple[Any, ...]) -> Call:
        """The latest call at these tensors; a new one where there is none."""
        stamp = _stamp(map(to_numpy, tensors))
        for call in reversed(self._recent):
            if call.stamp == stamp:
                return call
        call = self.call(tensors)
        call.stamp = stamp
        self._recent.append(call)
        return call

    def _shapes(self, xs: Iterable[Any]) -> tuple[tuple[int, ...], ...]:
        """The shapes of the inputs of one point."""
        skip = self.owner.batch_dims
        return tuple([tuple([int(n) for n in x.shape[skip:]]) for x in xs])

    def _key(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        """These shapes, and the inputs that are not tensors."""
        simple = str | int | float | None
        rest = [repr(a) if isinstance(a, simple) else type(a) for a in self.given]
        return shapes, tuple(rest)

    def learn(self, xs: Iterable[Any], outputs: Outputs) -> None:
        """Remember what came back at xs."""
        known = self.family.known
        if len(known) >= KNOWN:
            known.clear()
        known[self._key(self._shapes(xs))] = outputs

    def knows(self, shapes: tuple[tuple[int, ...], ...]) -> bool:
        """Whether ``outputs`` has an answer for inputs of these shapes."""
        return self.family.out is not None or self._key(shapes) in self.family.known

    @property
    def structure(self) -> Any:
        """The structure of the outputs, at whatever shapes."""
        family = self.family
        seen = {out.structure for out in family.known.values()}
        if family.out is not None:
            return family.out.structure
        if len(seen) != 1:
            raise RuntimeError(UNKNOWN)
        return seen.pop()

    def foreseen(self, xs: tuple[Any, ...]) -> Outputs | None:
        """What comes back at xs; None where that is not known without a run."""
        return self.family.out or self.family.known.get(self._key(self._shapes(xs)))

    def outputs(self, xs: tuple[Any, ...]) -> Outputs:
        """What comes back at xs, where that is known without a run."""
        known = self.foreseen(xs)
        if known is None:
            raise RuntimeError(UNKNOWN)
        return known

    def unfilled(
        self, kind: str, xs: tuple[Any, ...], leads: Any = (), wanted: Iterable[bool] = ()
    ) -> list[Any]:
        """Tensors like the values, or the results of a product, without their numbers."""
        if kind in OF_X:
            return [x.new_empty((*leads, *x.shape)) for x, want in zip(xs, wanted) if want]
        batch = xs[0].shape[: self.owner.batch_dims]
        return [
            xs[0].new_empty((*leads, *batch, *out.shape), dtype=self.dtype(xs, out))
            for out in self.outputs(xs).leaves
        ]

    def idle(self, xs: tuple[Any, ...]) -> bool:
        """Whether xs are no points at all, of a function that is run point by point."""
        return self.owner.single is not None and 0 in xs[0].shape[: self.owner.batch_dims]

    def dtype(self, xs: Iterable[Any], output: Output) -> torch.dtype:
        """The dtype of an output."""
        return common_dtype(xs, complex_too=output.complex)


class Call:
    """One call: its points, made when needed, and what was computed at them.

    Attributes
    ----------
    stamp : tuple
        The tensors of a call of an operator, to the bit.
    """

    def __init__(self, site: Site, rest: dict[int, Any]) -> None:
        self.site, self.rest = site, rest
        self.stamp: tuple[Any, ...] = ()
        self._seen: Outputs | None = None
        self._inner: Call | None = None
        self._points: dict[tuple[bool, ...] | None, DifferentiablePoint] = {}
        self._last: tuple[Any, tuple[Any, ...]] | None = None

    def batched(self) -> Call:
        """The call for all points of a leading axis."""
        if self._inner is None:
            self._inner = Call(self.site.batched(), self.rest)
        return self._inner

    def tensors(self, xs: tuple[Any, ...]) -> list[Any]:
        """All tensors, as operators take them."""
        every = self.rest | dict(zip(self.site.moved, xs, strict=True))
        return [every[i] for i in self.site.slots]

    def at(self, xs: tuple[Any, ...]) -> DifferentiablePoint:
        """The point of this call."""
        point = self._points.get(None)
        if point is None:
            args = list(self.site.given)
            for i, t in (self.rest | dict(zip(self.site.moved, xs, strict=True))).items():
                args[i] = to_numpy(t)
            point = DifferentiablePoint(self.site.owner, tuple(args))
            self._points[None] = point
        return point

    def outputs(self, xs: tuple[Any, ...]) -> Outputs:
        """What the run of this call returned, or will return."""
        ran = self if None in self._points else self._inner
        if ran is None or None not in ran._points:
            return self.site.outputs(xs)
        return ran._returned()

    def _returned(self) -> Outputs:
        """What the run of this call returned."""
        if self._seen is None:
            self._seen = outputs_of(self._points[None].value, self.site.owner.batch_dims)
        return self._seen

    # -- tensors in and out ------------------------------------------------------------------

    def value(self, xs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The run, or what it left."""
        if self.site.idle(xs):
            return tuple(self.site.unfilled("value", xs))
        value = self.at(xs).value
        out = self._returned()
        said = self.site.family.out
        if said is not None and said != out:
            raise ValueError(f"fun returned {out.words}, but out= says {said.words}")
        self.site.learn(xs, out)
        return self._results(xs, out, leaves_of(value))

    def product(
        self,
        kind: str,
        lead: int,
        wanted: tuple[bool, ...],
        xs: tuple[Any, ...],
        directions: tuple[Any, ...],
    ) -> tuple[Any, ...]:
        """A product with derivatives at xs; see ``_rules``."""
        if self.site.idle(xs):
            return tuple(self.site.unfilled(kind, xs, directions[0].shape[:lead], wanted))
        point = self.at(xs)
        arrays = tuple(map(to_numpy, directions))
        if kind in OF_X:
            y = len(leaves_of(point.value))
            # torch's cotangents are conjugate to those of v^T J
            arrays = (*(a.conj() if a.dtype.kind == "c" else a for a in arrays[:y]), *arrays[y:])
        key = (kind, lead, wanted, _stamp(arrays))
        if self._last is not None and self._last[0] == key:
            return tuple(t.clone() for t in self._last[1])
        run = getattr(self, f"_{kind}")
        found = run(point, lead, wanted, arrays)
        out = self._results(xs, self._returned(), found, wanted, kind)
        if kind == "vjp" and not self._kept(point):
            self._last = (key, tuple(t.clone() for t in out))
        return out

    def _results(
        self,
        xs: tuple[Any, ...],
        outputs: Outputs,
        found: Iterable[Any],
        wanted: tuple[bool, ...] | None = None,
        kind: str = "value",
    ) -> tuple[Any, ...]:
        """Arrays as tensors, of the dtypes of the outputs or of the inputs wanted."""
        device = xs[0].device
        if kind in OF_X:
            assert wanted is not None
            these = [x for x, want in zip(xs, wanted, strict=True) if want]
            return tuple(
                to_torch(np.real(a), x.dtype, x.device) for a, x in zip(found, these, strict=True)
            )
        pairs = zip(found, outputs.leaves, strict=True)
        return tuple(
            # derivatives of a real output come as complex numbers beside those of a complex one
            to_torch(a if out.complex else np.real(a), self.site.dtype(xs, out), device)
            for a, out in pairs
        )

    # -- products over arrays ----------------------------------------------------------------

    def _vjp(
        self, point: DifferentiablePoint, lead: int, wanted: tuple[bool, ...], vs: Any
    ) -> tuple[Any, ...]:
        given = point.owner.grad_fun is not None
        if not self.site.family.looked:
            self.site.family.looked = True
            hint_at_batches(point)
        point, works = self._among(point, wanted)
        some = not all(works)
        point.keep = point.keep or self._kept(point)
        pack = self._packer()
        needed = None if some else wanted

        def product(v: tuple[Any, ...]) -> tuple[Any, ...]:
            found = point.pullback(pack(v), needed)
            return found if isinstance(found, tuple) else (found,)

        found = on_leading_axes(product, vs, lead, given and lead > 0)
        if some:
            return found
        return tuple(g for g, want in zip(found, wanted, strict=True) if want)

    def _jvp(
        self, point: DifferentiablePoint, lead: int, wanted: tuple[bool, ...], us: Any
    ) -> tuple[Any, ...]:
        del wanted
        # torch.func.linearize traces with tensors whose memory nobody has set
        lost = np.any([~np.isfinite(a).all(axis=tuple(range(lead, a.ndim))) for a in us], axis=0)

        def rows(a: Any) -> Any:
            return lost.reshape(lost.shape + (1,) * (a.ndim - lead))

        us = tuple(np.where(rows(a), 0, a) for a in us) if lost.any() else us
        found = on_leading_axes(
            lambda u: leaves_of(point.pushforward(self._as_x(point, u))), us, lead, False
        )
        return tuple(np.where(rows(a), np.nan, a) for a in found) if lost.any() else found

    def _curvature(
        self, point: DifferentiablePoint, lead: int, wanted: tuple[bool, ...], both: Any
    ) -> tuple[Any, ...]:
        k = len(wanted)
        vs, ws = both[:-k], both[-k:]
        asked = (want or bool(w.any()) for want, w in zip(wanted, ws, strict=True))
        point, works = self._among(point, asked)
        ws = tuple(compress(ws, works))
        pack, y = self._packer(), len(vs)

        def product(row: tuple[Any, ...]) -> tuple[Any, ...]:
            found = curvature(point, pack(row[:y]), self._as_x(point, row[y:]))
            return found if isinstance(found, tuple) else (found,)

        found = on_leading_axes(product, vs + ws, lead, True)
        return tuple(compress(found, compress(wanted, works)))

    def _bend(
        self, point: DifferentiablePoint, lead: int, wanted: tuple[bool, ...], both: Any
    ) -> tuple[Any, ...]:
        us, ws = both[: len(wanted)], both[len(wanted) :]
        asked = (bool(u.any() or w.any()) for u, w in zip(us, ws, strict=True))
        point, works = self._among(point, asked)
        us, ws = tuple(compress(us, works)), tuple(compress(ws, works))
        k = len(us)

        def product(row: tuple[Any, ...]) -> tuple[Any, ...]:
            return leaves_of(bend(point, self._as_x(point, row[:k]), self._as_x(point, row[k:])))

        return on_leading_axes(product, us + ws, lead, True)

    def _among(
        self, point: DifferentiablePoint, works: Iterable[bool]
    ) -> tuple[DifferentiablePoint, tuple[bool, ...]]:
        """The point by the inputs that matter: evaluations are spent on no other.

        All of them where derivatives were given, or where none matters.
        """
        these = tuple(works)
        if point.exact or all(these) or not any(these):
            return point, (True,) * len(these)
        if these not in self._points:
            self._points[these] = point.again(tuple(compress(self.site.moved, these)))
        return self._points[these], these

    def _packer(self) -> Callable[[tuple[Any, ...]], Any]:
        structure = self._returned().structure
        return lambda leaves: packed(structure, iter(leaves))

    @staticmethod
    def _as_x(point: DifferentiablePoint, leaves: tuple[Any, ...]) -> Any:
        return leaves[0] if isinstance(point.where, int) else leaves

    @staticmethod
    def _kept(point: DifferentiablePoint) -> bool:
        """Whether a Jacobian is formed anyway, and small enough to stay with the graph."""
        owner = point.owner
        if owner.grad_fun is not None or owner._memory is not None:
            return False
        size = (
            point.x_layout.size * point.y_layout.size * max(1, int(np.prod(point.x_layout.batch)))
        )
        return size <= KEPT and not point._large()


def _stamp(arrays: Iterable[Any]) -> tuple[Any, ...]:
    """Arrays to the bit, to be compared: NumPy takes ten times as long over small ones."""
    return tuple([(a.shape, a.dtype.char, a.tobytes()) for a in arrays])
