"""The primitive that JAX differentiates, transposes, maps and compiles.

Value, products and their derivatives are one family that is closed under JAX's rules: the
derivative of f(x) is J u, which is linear in u; its transpose is v^T J; derivatives of both by x
are the trilinear form v . f''(x)[u, w], of which two directions give a vector like the third. All
rules therefore lead to another ``Call`` of the same primitive.
"""

# Parts of JAX have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gradiator_np.adapters.jax._batches import lead_sizes
from gradiator_np.adapters.jax._host import Call, Host

call_p = Primitive("gradiator")
call_p.multiple_results = True


def call(host: Host, what: Call, *operands: Any) -> list[Any]:
    """Run ``what``, or have JAX trace it."""
    return list(call_p.bind(*_alike(operands), host=host, what=what))


def value(host: Host, xs: Sequence[Any]) -> list[Any]:
    """f at xs."""
    return call(host, Call("value", ((),) * len(xs)), *xs)


# -- running ---------------------------------------------------------------------------------------


@call_p.def_impl
def _run(*operands: Any, host: Host, what: Call) -> list[Any]:
    # Without a callback of XLA errors reach the caller as they are.
    place = next((a.sharding for a in operands if getattr(a, "committed", False)), None)
    if place is not None and len(place.device_set) > 1:
        place = None
    return [jax.device_put(a, place) for a in host.run(what, *operands)]


@call_p.def_abstract_eval
def _shapes(*operands: Any, host: Host, what: Call) -> list[Any]:
    lead = lead_sizes(what.axes, [a.shape for a in operands])
    if host.promised is None:
        raise ValueError(
            "the shape of the output is not known inside jit: give "
            "gradiator(..., out=jax.ShapeDtypeStruct(shape, dtype)), or a function of the "
            "arguments that returns it, or call the function once outside of jit with arguments "
            "of these shapes"
        )
    if what.kind == "value":
        own = [*host.promised]
    elif what.to_x:
        own = [(host.shapes[i], operands[i].dtype) for i in what.into]
    else:
        own = [host.promised[i] for i in what.into]
    return [_aval(operands[0], lead + tuple(shape), dtype) for shape, dtype in own]


def _staged(*operands: Any, host: Host, what: Call) -> Any:
    found = _shapes(*operands, host=host, what=what)
    out = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in found)
    return jax.pure_callback(functools.partial(host.run, what), out, *operands)


mlir.register_lowering(call_p, mlir.lower_fun(_staged, multiple_results=True))


# -- derivatives -----------------------------------------------------------------------------------


def _jvp(primals: Any, tangents: Any, *, host: Host, what: Call) -> tuple[Any, Any]:
    out = call(host, what, *primals)
    n_x = len(host.shapes)
    dx = {i: t for i, t in enumerate(tangents[:n_x]) if type(t) is not ad.Zero}
    if what.kind == "value":
        return out, _push(host, what, list(primals), out, dx)
    # The value y that comes along depends on x, and on nothing else that could move.
    terms = []
    for name, slot in zip(("first", "second"), host.slots(what)[2:], strict=True):
        if any(type(tangents[k]) is not ad.Zero for k in slot):  # linear in each kind
            terms.append(_with(host, what, primals, tangents, name, slot))
    if dx:
        if what.curved:
            raise NotImplementedError("gradiator has no third derivatives")
        bent = replace(
            what,
            kind="bend" if what.kind == "jvp" else "hvp",
            axes=what.axes + tuple(what.axes[i] for i in dx),
            second=tuple(dx),
        )
        _allow(host, dx)
        terms.append(call(host, bent, *primals, *dx.values()))
    if not terms:
        return out, [_zero(y) for y in out]
    return out, [functools.reduce(jnp.add, parts) for parts in zip(*terms, strict=True)]


def _push(host: Host, what: Call, xs: list[Any], ys: list[Any], dx: dict[int, Any]) -> list[Any]:
    """J u, for the outputs that have derivatives."""
    tangents = [_zero(y) for y in ys]
    into = [i for i, y in enumerate(ys) if y.dtype.kind in "fc"]
    if not dx or not into:
        return tangents
    _allow(host, dx)
    full = (True,) * len(what.axes[0])
    push = Call(
        "jvp",
        what.axes + (full,) * len(ys) + tuple(what.axes[i] for i in dx),
        first=tuple(dx),
        into=tuple(into),
    )
    for i, t in zip(into, call(host, push, *xs, *ys, *dx.values()), strict=True):
        tangents[i] = t
    return tangents


def _zero(y: Any) -> Any:
    return ad.Zero(jax.typeof(y).to_tangent_aval())


def _allow(host: Host, dx: dict[int, Any]) -> None:
    """That these inputs may be differentiated by."""
    for i, t in dx.items():
        place = host.arguments.places[i]
        if i not in host.flat.moved:
            raise ValueError(
                f"argument {place!r} is differentiated, but the gradiator has derivatives by "
                f"{list(host.flat.places)} only (argnums={host.owner.argnums}): widen argnums, or "
                "pass jax.lax.stop_gradient of the argument where it is a constant"
            )
        if t.dtype.kind == "c" and not host.exact:
            raise TypeError(
                f"argument {place!r} is complex: a derivative by a complex input is not estimated; "
                "give grad_fun or jvp_fun, or real and imaginary parts as inputs of their own"
            )


def _with(host: Host, what: Call, primals: Any, tangents: Any, name: str, slot: range) -> list[Any]:
    """The same product in the directions of tangents, those that are not 0."""
    live = [k for k in slot if type(tangents[k]) is not ad.Zero]
    kept = [k for k in range(len(primals)) if k not in slot or k in live]
    changes: dict[str, Any] = {
        name: tuple(getattr(what, name)[k - slot.start] for k in live),
        "axes": tuple(what.axes[k] for k in kept),
    }
    operands = (tangents[k] if k in slot else primals[k] for k in kept)
    return call(host, replace(what, **changes), *operands)


#: What the transpose is by the directions of one kind, and which of the old directions are those
#: of the second kind then.
TRANSPOSED = {
    ("jvp", "first"): "vjp",
    ("vjp", "first"): "jvp",
    ("hvp", "first"): "bend",
    ("hvp", "second"): "hvp",
    ("bend", "first"): "hvp",
    ("bend", "second"): "hvp",
}


def _transpose(cts: Any, *operands: Any, host: Host, what: Call) -> list[Any]:
    asked = [k for k, a in enumerate(operands) if ad.is_undefined_primal(a)]
    out: list[Any] = [None] * len(operands)
    live = [k for k, ct in enumerate(cts) if type(ct) is not ad.Zero]
    if not live:
        for k in asked:
            out[k] = ad.Zero(operands[k].aval)
        return out
    _, y, first, second = host.slots(what)
    name = "first" if asked[0] in first else "second"
    stays = second if name == "first" else first
    kept = what.second if name == "first" else what.first
    which = dict(zip([*first, *second], what.first + what.second, strict=True))
    kept_axes = tuple(what.axes[k] for k in stays)
    kept_operands = [operands[k] for k in stays]
    ct_of = tuple(what.into[k] for k in live)
    ct_axes = ((True,) * len(what.axes[0]),) * len(live)
    given = [cts[k] for k in live]
    kind = TRANSPOSED[what.kind, name]
    # The cotangent is like the old result; where the old direction that stays is like y, as v in
    # "hvp", that goes first.
    if kind == what.kind == "hvp":
        one, two, axes, directions = kept, ct_of, kept_axes + ct_axes, kept_operands + given
    else:
        one, two, axes, directions = ct_of, kept, ct_axes + kept_axes, given + kept_operands
    into = tuple(which[k] for k in asked)
    back = Call(kind, what.axes[: y.stop] + axes, first=one, second=two, into=into)
    found = call(host, back, *operands[: y.stop], *directions)
    for k, a in zip(asked, found, strict=True):
        # A direction that served all along an axis gathers what comes from each.
        gone = tuple(i for i, has in enumerate(what.axes[k]) if not has)
        out[k] = _placed(jnp.sum(a, axis=gone) if gone else a, operands[k].aval)
    return out


ad.primitive_jvps[call_p] = _jvp
ad.primitive_transposes[call_p] = _transpose


# -- vmap ------------------------------------------------------------------------------------------


def _batch(operands: Any, dims: Any, *, host: Host, what: Call) -> tuple[list[Any], Any]:
    moved = [a if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(operands, dims, strict=True)]
    axes = tuple((d is not None, *has) for d, has in zip(dims, what.axes, strict=True))
    out = call(host, replace(what, axes=axes), *moved)
    return out, (0,) * len(out)


batching.primitive_batchers[call_p] = _batch


# -- shard_map -------------------------------------------------------------------------------------


def _aval(like: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array type that varies over the axes of a mesh over which ``like`` does."""
    changes: dict[str, Any] = {"shape": shape, "dtype": np.dtype(dtype), "weak_type": False}
    if hasattr(like, "sharding"):
        spec = jax.sharding.PartitionSpec(*[None] * len(shape))
        changes["sharding"] = like.sharding.update(spec=spec)
    return like.update(**changes)


def _placed(a: Any, like: Any) -> Any:
    """A cotangent spread over a mesh as what it belongs to, where axes of the mesh are explicit."""
    want = getattr(like, "sharding", None)
    if want is None or jax.typeof(a).sharding.spec == want.spec:
        return a
    return jax.sharding.reshard(a, want)


def _varying(a: Any) -> frozenset[Any]:
    aval = jax.typeof(a)
    kind = getattr(aval, "mat", None)
    return frozenset(getattr(aval, "vma", ()) if kind is None else kind.varying)


def _alike(operands: Sequence[Any]) -> Sequence[Any]:
    """Operands that all vary over the same axes of a mesh, as ``check_vma`` wants."""
    every = frozenset().union(*map(_varying, operands))
    if not every:
        return operands
    new, old = (getattr(jax.lax, name, None) for name in ("pcast", "pvary"))
    out = []
    for a in operands:
        missing = tuple(every - _varying(a))
        if missing and new:
            a = new(a, missing, to="varying")
        elif missing and old:  # before JAX 0.8
            a = old(a, missing)
        out.append(a)
    return out
