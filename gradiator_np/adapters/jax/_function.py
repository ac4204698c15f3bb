"""The function of JAX arrays, and how it is made."""

# Parts of JAX have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from gradiator_np._differentiable import function as core
from gradiator_np._differentiable.function import Gradiator
from gradiator_np._options import AdapterOptions, takes
from gradiator_np.adapters.jax._host import Host
from gradiator_np.adapters.jax._primitive import value
from gradiator_np.adapters.jax._structure import Arguments, half, inexact

#: Structures and shapes of arguments of which one function remembers the outputs.
REMEMBERED = 1024


@takes(AdapterOptions)
def gradiator(
    fun: Callable[..., Any],
    grad_fun: Callable[..., Any] | None = None,
    *,
    out: Any = None,
    **options: Unpack[AdapterOptions],
) -> JaxFunction:
    """A function of NumPy arrays as a differentiable function of JAX arrays.

    Parameters
    ----------
    fun, grad_fun, jvp_fun, jac_fun, argnums, **options
        As in ``gradiator_np.gradiator``: all of them take and return NumPy arrays (read-only
        ones come in), in any pytree: dicts, tuples, lists of arrays, registered classes. What a
        derivative returns has the structure of x, or of y. Keyword arguments are passed to all.
    context : bool
        As in ``gradiator_np.gradiator``. It cannot travel through JAX, so that a derivative runs
        ``fun`` once more for it.
    out : pytree of jax.ShapeDtypeStruct or arrays, or callable, optional
        What ``fun`` returns: structure, shapes and dtypes; a callable is called with the
        arguments, ShapeDtypeStructs in place of arrays, and returns them (``out=lambda x: x``: y
        is like x). Needed where the first call happens inside ``jit``, which has no numbers to run
        ``fun`` at; learned from the first call for each shape of the arguments otherwise.

    Returns
    -------
    JaxFunction

    Notes
    -----
    ``grad``, ``vjp``, ``jvp``, ``jacrev``, ``jacfwd``, ``hessian``, ``jit``, ``vmap``, ``scan``,
    ``checkpoint`` and ``shard_map`` work on one and the same function. Second derivatives are exact
    where ``grad_fun`` is a ``Gradiator`` with a ``grad_fun`` of its own, differences of the first
    ones that were given, or, where none were, second differences of values: a product with a
    Hessian takes 16 m + 7 evaluations of a smooth function of m inputs, all second derivatives at a
    point at most twice 4 m (m + 1) + 7. Third derivatives are an error.

    Outputs whose dtype ``out`` does not tell have that of the floating-point inputs together
    (``jax.numpy.result_type``): single precision unless ``jax_enable_x64`` is set; steps are chosen
    for that precision, those of half precision for single, in which ``fun`` is run then. Set it by
    ``jax.config.update``: the context manager ``jax.enable_x64`` holds for one thread, and XLA may
    run callbacks in another, whose double precision is an error of JAX then.

    The backward pass starts from the value of the forward one, and spends evaluations only on
    inputs that are differentiated. Under ``vmap`` each point is treated as if it were alone (but
    that stencils next to 0 take their unit from the other points, and with ``vectorized`` one call
    answers for all): where some fail they are nan, with a warning, unless
    ``on_error="raise"``; where all do the error is raised. Several cotangents at one point, as in
    ``jacrev``, share their evaluations. One function runs in one thread at a time; ``workers`` of a
    number starts processes for each point anew, and forks a program with threads of JAX: an
    executor is the better choice.

    Examples
    --------
    >>> import jax
    >>> from gradiator_np.adapters.jax import gradiator
    >>> square = gradiator(lambda x: x**2, lambda x, v: 2 * x * v)
    >>> jax.grad(lambda x: square(x).sum())(jax.numpy.array([1.0, 2.0])).tolist()
    [2.0, 4.0]
    """
    return JaxFunction(core.gradiator(fun, grad_fun, **options), out)


class JaxFunction:
    """A simulator as a function of JAX arrays; made by ``gradiator``.

    Attributes
    ----------
    function : Gradiator
        What is run; ``function.nfev`` counts evaluations, ``function.counts`` calls of derivatives.

    Examples
    --------
    >>> import jax
    >>> from gradiator_np.adapters.jax import gradiator
    >>> shape = jax.ShapeDtypeStruct((2,), "float32")
    >>> square = gradiator(lambda x: x**2, lambda x, v: 2 * x * v, out=shape)
    >>> jax.jit(square)(jax.numpy.array([1.0, 2.0])).tolist()
    [1.0, 4.0]
    """

    def __init__(self, function: Gradiator, out: Any = None) -> None:
        self.function = function
        self._out = out
        self._hosts: dict[Any, Host] = {}

    def __repr__(self) -> str:
        return f"JaxFunction({self.function!r})"

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        arguments, leaves = Arguments.of(inputs, keywords)
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        for place, a in zip(arguments.places, arrays, strict=True):
            if jnp.issubdtype(a.dtype, jax.dtypes.extended):
                raise TypeError(
                    f"argument {place!r} is of dtype {a.dtype}, which NumPy has not: pass "
                    "jax.random.key_data(key) of a key"
                )
        floating = [a for a in arrays if inexact(a.dtype)]
        if not floating:
            raise TypeError("no input is a floating-point array; call the function itself")
        dtype = jnp.result_type(*floating)
        # Half precision only outside: NumPy has no bfloat16, and the value that a derivative
        # starts from must not be rounded to it.
        xs = [a.astype(jnp.float32) if half(a.dtype) else a for a in arrays]
        host = self._host(arguments, arrays, dtype)
        ys = value(host, xs)
        if half(dtype) and self._out is None:
            ys = [y.astype(dtype) if y.dtype == jnp.float32 else y for y in ys]
        elif self._out is not None:
            wanted = self._told(arguments, arrays, dtype)[1]
            ys = [y.astype(t) for y, (_, t) in zip(ys, wanted, strict=True)]
        return jax.tree.unflatten(host.fun.tree, ys)

    def _host(self, arguments: Arguments, arrays: list[Any], dtype: Any) -> Host:
        """What runs arguments of this structure and these shapes, with what it has learned."""
        avals = tuple((a.shape, _host_dtype(a.dtype)) for a in arrays)
        key = arguments, tuple(a.dtype for a in arrays), avals, dtype
        if key not in self._hosts:
            while len(self._hosts) >= REMEMBERED:
                self._hosts.pop(next(iter(self._hosts)))
            host = Host(self.function, arguments, avals, _host_dtype(dtype))
            if self._out is not None:
                tree, told = self._told(arguments, arrays, dtype)
                host.promise(tree, [(shape, _host_dtype(t)) for shape, t in told])
            self._hosts[key] = host
        return self._hosts[key]

    def _told(self, arguments: Arguments, arrays: list[Any], dtype: Any) -> tuple[Any, Any]:
        """Structure, shapes and dtypes of the output, from ``out``."""
        out = self._out
        if callable(out):
            structs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
            args, kwargs = arguments.rebuild(structs)
            out = out(*args, **kwargs)
        leaves, tree = jax.tree.flatten(out)
        told = []
        for leaf in leaves:
            own = getattr(leaf, "dtype", dtype)
            told.append((np.shape(leaf), jax.dtypes.canonicalize_dtype(own)))
        return tree, told


def _host_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype in which NumPy sees an array."""
    return np.dtype(np.float32 if half(dtype) else dtype)
