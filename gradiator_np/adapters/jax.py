"""Simulators inside JAX: grad, jit, vmap, and forward mode."""

# Parts of JAX have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, Unpack

import numpy as np

from gradiator_np._differentiable.function import Gradiator
from gradiator_np._differentiable.point import Argnums, DifferentiablePoint, ForwardRun
from gradiator_np._options import GradiatorOptions, takes

try:
    import jax
    import jax.numpy as jnp
except ImportError as exc:
    raise ImportError(
        "gradiator_np.adapters.jax needs JAX: pip install 'gradiator-np[jax]'"
    ) from exc

__all__ = ["JaxFunction", "gradiator"]


@takes(GradiatorOptions)
def gradiator(
    fun: Callable[..., Any],
    grad_fun: Callable[..., Any] | None = None,
    *,
    jvp_fun: Callable[..., Any] | None = None,
    jac_fun: Callable[..., Any] | None = None,
    argnums: Argnums = None,
    out: Any = None,
    mode: Literal["reverse", "forward"] = "reverse",
    **estimation_options: Unpack[GradiatorOptions],
) -> JaxFunction:
    """A function of NumPy arrays as a differentiable function of JAX arrays.

    Parameters
    ----------
    fun, grad_fun, jvp_fun, jac_fun, argnums, **estimation_options
        As in ``gradiator_np.gradiator``: all of them take and return NumPy arrays (read-only
        ones come in).
    out : jax.ShapeDtypeStruct, array, or tuple of these, optional
        What ``fun`` returns: its shape. Needed where the first call happens inside ``jit`` or
        ``vmap``, which have no numbers to run ``fun`` at; learned from the first plain call
        otherwise.
    mode : {"reverse", "forward"}
        JAX allows a function of this kind one of the two: "reverse" serves ``grad``, ``vjp`` and
        ``jacrev``, "forward" ``jvp`` and ``jacfwd``.

    Returns
    -------
    JaxFunction

    Notes
    -----
    Outputs have the dtype of the first floating-point input, single precision unless
    ``jax_enable_x64`` is set; steps are chosen for that precision. The backward pass starts from
    the value of the forward one, and spends evaluations only on inputs that are differentiated.
    Under ``vmap`` all points move at once; several cotangents at one point, as in ``jacrev``,
    share their evaluations.

    Examples
    --------
    >>> import jax
    >>> from gradiator_np.adapters.jax import gradiator
    >>> square = gradiator(lambda x: x**2, lambda x, v: 2 * x * v)
    >>> jax.grad(lambda x: square(x).sum())(jax.numpy.array([1.0, 2.0])).tolist()
    [2.0, 4.0]
    """
    function = Gradiator(
        fun,
        grad_fun,
        jvp_fun=jvp_fun,
        jac_fun=jac_fun,
        argnums=argnums,
        options=estimation_options,
    )
    return JaxFunction(function, out, mode)


class JaxFunction:
    """A simulator as a function of JAX arrays; made by ``gradiator``.

    Attributes
    ----------
    function : Gradiator
        What is run; ``function.nfev`` counts evaluations, those of a whole batch as one.

    Examples
    --------
    >>> import jax
    >>> from gradiator_np.adapters.jax import gradiator
    >>> shape = jax.ShapeDtypeStruct((2,), "float32")
    >>> square = gradiator(lambda x: x**2, lambda x, v: 2 * x * v, out=shape)
    >>> jax.jit(square)(jax.numpy.array([1.0, 2.0])).tolist()
    [1.0, 4.0]
    """

    def __init__(self, function: Gradiator, out: Any, mode: str) -> None:
        if mode not in ("reverse", "forward"):
            raise ValueError(f"mode={mode!r} is unknown; choose 'reverse' or 'forward'")
        if function.context:
            raise ValueError("a context cannot travel through JAX; use a function without it")
        self.function = function
        self._out = out
        self._learned: dict[Any, Any] = {}
        self._call: Any
        if mode == "reverse":
            self._call = jax.custom_vjp(self._value)
            self._call.defvjp(self._forward, self._backward, symbolic_zeros=True)
        else:
            self._call = jax.custom_jvp(self._value)
            self._call.defjvp(self._push)

    def __repr__(self) -> str:
        return f"JaxFunction({self.function!r})"

    def __call__(self, *inputs: Any) -> Any:
        arrays = tuple(jnp.asarray(x) for x in inputs)
        if not self._moved(arrays):
            raise TypeError("no input is a floating-point array; call the function itself")
        return self._call(*arrays)

    # -- what JAX traces -----------------------------------------------------------------------

    def _moved(self, xs: Any) -> tuple[int, ...]:
        """The inputs to differentiate by."""
        argnums = self.function.argnums
        if argnums is None:
            return tuple(i for i, x in enumerate(xs) if jnp.issubdtype(x.dtype, jnp.floating))
        return (argnums,) if isinstance(argnums, int) else argnums

    def _value(self, *xs: Any) -> Any:
        out = self._structure(xs)
        if out is None:
            y = self._host(xs).value(xs)
            out = self._learned[_key(xs)] = jax.tree.map(self._struct(xs), y)
            return jax.tree.map(lambda a, s: jnp.asarray(a, s.dtype), y, out)
        run = functools.partial(_on_host, self._host(xs).value, out)
        return jax.pure_callback(run, out, xs, vmap_method="expand_dims")

    def _structure(self, xs: Any) -> Any:
        """Shapes of the outputs; None where they are not known yet and can be learned now."""
        if self._out is not None:
            return jax.tree.map(self._struct(xs), self._out)
        known = self._learned.get(_key(xs))
        if known is None and any(isinstance(x, jax.core.Tracer) for x in xs):
            raise ValueError(
                "the shape of the output is not known inside jit or vmap: give "
                "gradiator(..., out=jax.ShapeDtypeStruct(shape, dtype)), or call the function "
                "once with plain arrays of these shapes"
            )
        return known

    def _struct(self, xs: Any) -> Callable[[Any], Any]:
        dtype = xs[self._moved(xs)[0]].dtype
        return lambda a: jax.ShapeDtypeStruct(np.shape(a) if not hasattr(a, "shape") else a.shape,
                                              dtype)  # fmt: skip

    def _host(self, xs: Any) -> _Host:
        return _Host(self.function, tuple(x.shape for x in xs), self._moved(xs))

    def _forward(self, *primals: Any) -> Any:
        xs = tuple(p.value for p in primals)
        y = self._call(*xs)
        # Which inputs are differentiated must be known while tracing: by structure, not value.
        wanted = tuple(() if p.perturbed else None for p in primals)
        return y, (xs, y, wanted)

    def _backward(self, kept: Any, v: Any) -> Any:
        xs, y, wanted = kept
        v = jax.tree.map(
            lambda a, b: (
                jnp.zeros(b.shape, b.dtype)
                if isinstance(a, jax.custom_derivatives.SymbolicZero)
                else a
            ),
            v,
            y,
            is_leaf=lambda a: isinstance(a, jax.custom_derivatives.SymbolicZero),
        )
        some = tuple(i for i in self._moved(xs) if wanted[i] is not None)
        host = self._host(xs)
        out = tuple(jax.ShapeDtypeStruct(xs[i].shape, xs[i].dtype) for i in some)
        run = functools.partial(_on_host, functools.partial(host.vjp, some), out)
        found = dict(zip(some, _once(run, out, xs, y, v), strict=True)) if some else {}
        return tuple(found.get(i) for i in range(len(xs)))

    def _push(self, xs: Any, us: Any) -> Any:
        y = self._call(*xs)
        out = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), y)
        run = functools.partial(_on_host, self._host(xs).jvp, out)
        us = tuple(us[i] for i in self._moved(xs))
        return y, _once(run, out, xs, y, us)


def _once(run: Callable[..., Any], out: Any, *args: Any) -> Any:
    """A callback whose own derivatives are an error that says so."""

    @jax.custom_jvp
    def call(args: Any) -> Any:
        return jax.pure_callback(run, out, *args, vmap_method="expand_dims")

    @call.defjvp
    def second(_: Any, __: Any) -> Any:
        raise NotImplementedError(
            "second derivatives through gradiator are not available in JAX; "
            "use hvp of gradiator_np.gradiator(fun, grad_fun)"
        )

    return call(args)


def _key(xs: Any) -> Any:
    return tuple((x.shape, x.dtype) for x in xs)


def _on_host(run: Callable[..., Any], out: Any, *args: Any) -> Any:
    """Run with NumPy arrays, and return arrays of the dtypes that were promised."""
    found = run(*jax.tree.map(np.asarray, args))
    return jax.tree.map(lambda a, s: np.asarray(a, s.dtype), found, out)


class _Host:
    """The function and its products on arrays that may have leading axes, put there by vmap.

    Each vmap puts one axis in front of everything, of length 1 where something is not mapped. An
    axis over which x varies is a batch of points; one over which only the direction varies holds
    several directions at the same points, which share evaluations.
    """

    def __init__(self, owner: Gradiator, shapes: Any, moved: tuple[int, ...]) -> None:
        if owner.argnums is None and len(moved) < len(shapes):
            owner = owner.with_argnums(moved)
        self.owner, self.shapes, self.moved = owner, shapes, moved

    def value(self, xs: Any) -> Any:
        """The function at xs."""
        lead = self._lead(xs)
        point = self._point(xs, lead, None)
        return _map(lambda y: np.reshape(y, lead + np.shape(y)[bool(lead) :]), point.value)

    def vjp(self, some: tuple[int, ...], xs: Any, y: Any, v: Any) -> Any:
        """v^T J, for the inputs ``some``."""
        lead, axes, point, v = self._arranged(xs, y, v)
        single = isinstance(point.where, int)
        if not single and not point.exact and some != self.moved:
            point = point.again(some)
            found = point.pullback(v)
        else:
            found = point.pullback(v)
            found = (found,) if single else found
            found = tuple(g for i, g in zip(self.moved, found, strict=True) if i in some)
        return tuple(axes.back(g, lead, self.shapes[i]) for i, g in zip(some, found, strict=True))

    def jvp(self, xs: Any, y: Any, us: Any) -> Any:
        """J u, for a tuple of tangents of the inputs to differentiate by."""
        lead, axes, point, us = self._arranged(xs, y, us)
        single = isinstance(point.where, int)
        out = point.pushforward(us[0] if single else us)
        return _map(lambda t, b: axes.back(t, lead, np.shape(b)[len(lead) :]), out, y)

    def _lead(self, xs: Any) -> tuple[int, ...]:
        return np.broadcast_shapes(
            *(x.shape[: x.ndim - len(s)] for x, s in zip(xs, self.shapes, strict=True))
        )

    def _point(self, xs: Any, lead: tuple[int, ...], y: Any) -> DifferentiablePoint:
        """The point, or the batch of points, at which x lies; ``lead`` holds batch axes only."""
        owner = self.owner
        if lead:
            every = tuple(range(len(xs)))
            owner = owner.batched(every)
            xs = tuple(
                np.broadcast_to(x, lead + s).reshape(-1, *s)
                for x, s in zip(xs, self.shapes, strict=True)
            )
        known = None if y is None else ForwardRun.of(y, owner.batch_dims)
        return DifferentiablePoint(owner, xs, forward=known)

    def _arranged(self, xs: Any, y: Any, directions: Any) -> Any:
        """Lead axes, their order, the point, and the directions as the point takes them."""
        lead_x = self._lead(xs)
        batch = [i for i, size in enumerate(lead_x) if size > 1]
        several = [i for i, size in enumerate(lead_x) if size == 1]
        axes = _Axes(several, batch)
        r, size = len(lead_x), tuple(lead_x[i] for i in batch)
        xs = tuple(
            x.reshape(tuple(x.shape[i] for i in batch) + s)
            for x, s in zip(xs, self.shapes, strict=True)
        )
        count = int(np.prod(size))
        y = _map(
            lambda a: np.broadcast_to(
                a.reshape(tuple(a.shape[i] for i in batch) + a.shape[r:]), size + a.shape[r:]
            ).reshape(*([count] if size else []), *a.shape[r:]),
            y,
        )
        parts = directions if isinstance(directions, tuple) else (directions,)
        lead = np.broadcast_shapes(lead_x, *(d.shape[:r] for d in parts))
        out = _map(lambda d: axes.front(d, lead), directions)
        return lead, axes, self._point(xs, size, y), out


class _Axes:
    """Axes of several directions in front of those of the batch, each flattened to one."""

    def __init__(self, several: list[int], batch: list[int]) -> None:
        self.several, self.batch = several, batch

    def front(self, a: Any, lead: tuple[int, ...]) -> Any:
        """lead + shape to (several, batch) + shape; without those that there are none of."""
        shape = a.shape[len(lead) :]
        a = np.broadcast_to(a, lead + shape)
        rest = range(len(lead), a.ndim)
        a = a.transpose(*self.several, *self.batch, *rest)
        return np.ascontiguousarray(a.reshape(*self._flat(lead), *shape))

    def back(self, a: Any, lead: tuple[int, ...], shape: tuple[int, ...]) -> Any:
        """The inverse of ``front``."""
        order = [*self.several, *self.batch]
        a = np.reshape(a, tuple(lead[i] for i in order) + shape)
        rest = range(len(lead), a.ndim)
        return a.transpose(*np.argsort(order), *rest)

    def _flat(self, lead: tuple[int, ...]) -> list[int]:
        return [
            int(np.prod([lead[i] for i in group])) for group in (self.several, self.batch) if group
        ]


def _map(call: Callable[..., Any], *values: Any) -> Any:
    """``call`` on each of a tuple, or on the only one."""
    if isinstance(values[0], tuple):
        return tuple(call(*items) for items in zip(*values, strict=True))
    return call(*values)
