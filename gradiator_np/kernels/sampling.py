"""Runs of a jitted function inside compiled code, with no Python between two evaluations.

One driver is compiled per function, a closure that calls it directly. Measured with Numba 0.68
(``benchmarks.kernels``): 11 evaluations of a 10 to 10 function of 0.1 us, microseconds for the
whole call, and seconds that a second function of the same signature costs before its first call:

====================================  ======  =======
way to hand the function over         us      compile
====================================  ======  =======
closure over the function (this one)     1.9   0.25 s
the dispatcher as an argument            7.2   0.25 s
``types.FunctionType`` argument         30-90  none
a Python loop over the function          8.3   none
====================================  ======  =======

Numba's function types do allow one driver for all functions of a signature, but each call then
unboxes the function in Python, which costs more than the Python loop that the driver is to
replace; they also fix the signature in advance. So a second jitted function does compile a driver
of its own, once, the first time that it is sampled; it is kept for the life of the process (the
last 128 functions are).

Drivers are not cached on disk: Numba cannot tell whether the function in a closure has changed.
An exception inside the function leaves the driver at once, but what it has written stays: the
callers below note the failure of that row and enter again at the next one. With
``NUMBA_DISABLE_JIT=1`` the same code runs as Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import is_jitted as _is_jitted
from numpy.typing import ArrayLike, NDArray

# What a driver returns.
DONE = 0  # every row was run
SHAPE = 1  # the output of the row at ``progress`` has another shape than the first one had

Driver = Callable[..., int]
Integers = NDArray[np.int64]


class Unsupported(TypeError):
    """The function cannot be called from compiled code; call it from Python instead."""


class Sampled(NamedTuple):
    """What a compiled loop brought back.

    Attributes
    ----------
    values : array, shape (k, n)
        One row per point, float64 or complex128; nan where the run failed.
    errors : dict
        The exception of every row that failed, by row number.
    """

    values: NDArray[Any]
    errors: dict[int, Exception]


def is_jitted(fun: object) -> bool:
    """Whether ``fun`` is a Numba-jitted function, which the drivers of this module can run."""
    return callable(fun) and bool(_is_jitted(fun))


def positional(fun: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Extra arguments of ``fun(x, *args, **kwargs)`` by position: compiled calls take no names.

    Raises
    ------
    TypeError
        If they do not fit the signature of ``fun``, or name a keyword-only argument.
    """
    if not kwargs:
        return args
    signature = inspect.signature(getattr(fun, "py_func", fun))
    bound = signature.bind(None, *args, **kwargs)
    bound.apply_defaults()
    if bound.kwargs:
        raise TypeError(f"{sorted(bound.kwargs)} cannot be passed by position")
    return bound.args[1:]


@njit(nogil=True, error_model="numpy")
def _own_array(x: NDArray[Any]) -> NDArray[Any]:
    return x.copy()  # fun may write into its argument, and the record of points must not change


@njit(nogil=True, error_model="numpy")
def _own_scalar(x: Any) -> Any:
    return x


@lru_cache(maxsize=128)
def sample_driver(fun: Any, scalar: bool = False) -> Driver:
    r"""Compiled loop over points, for one jitted function.

    The driver is called as ``drive(points, args, values, progress) -> status`` with points
    (k, \*x_shape), values (k, \*y_shape) to be filled and progress (2,) of int64: the next row
    to run, and whether the driver has been entered. It may be called from other jitted code.
    ``scalar``: points is (k,), and ``fun`` takes a number in place of an array.
    """
    own = _own_scalar if scalar else _own_array

    @njit(nogil=True, error_model="numpy")
    def drive(points: NDArray[Any], args: Any, values: NDArray[Any], progress: Integers) -> int:
        progress[1] = 1
        shape = values.shape[1:]
        for i in range(progress[0], points.shape[0]):
            y = np.asarray(fun(own(points[i]), *args))
            if y.shape != shape:
                return SHAPE
            values[i, ...] = y
            progress[0] = i + 1
        return DONE

    return drive


@lru_cache(maxsize=128)
def jvp_driver(fun: Any) -> Driver:
    """Compiled directional derivative, for one jitted function.

    The driver is called as ``drive(x, u, offsets, weights, y0, args, out, progress) -> status``
    and adds ``weights[i] * (fun(x + offsets[i] * u) - y0)`` to ``out`` for each i from
    progress[0] on. A 2-point rule has offsets (h,) and weights (1/h,), a 3-point rule (h, -h) and
    (1/2h, -1/2h). It may be called from other jitted code. x and u may be
    numbers; y0 and out are C-contiguous arrays.
    """

    @njit(nogil=True, error_model="numpy")
    def drive(
        x: Any, u: Any, offsets: NDArray[Any], weights: NDArray[Any], y0: NDArray[Any],
        args: Any, out: NDArray[Any], progress: Integers,
    ) -> int:  # fmt: skip
        progress[1] = 1
        flat0 = y0.reshape(-1)
        flat = out.reshape(-1)
        for i in range(progress[0], offsets.shape[0]):
            y = np.asarray(fun(x + offsets[i] * u, *args))
            if y.shape != y0.shape:
                return SHAPE
            row = y.ravel()
            for j in range(flat0.size):
                flat[j] += weights[i] * (row[j] - flat0[j])
            progress[0] = i + 1
        return DONE

    return drive


@lru_cache(maxsize=128)
def vjp_driver(fun: Any) -> Driver:
    """Compiled loop over steps along the axes that contracts outputs on arrival.

    The driver is called as ``drive(x, v, axes, offsets, y0, args, values, progress) -> status``:
    run i moves input axes[i] (in the flattened x) by offsets[i], and values[i, a] becomes
    sum_j v[a, j] (y_j - y0_j) over the flattened outputs j with v[a, j] != 0. Neither points nor
    outputs are kept. It may be called from other jitted code.
    """

    @njit(nogil=True, error_model="numpy")
    def drive(
        x: NDArray[Any], v: NDArray[Any], axes: Integers, offsets: NDArray[Any], y0: NDArray[Any],
        args: Any, values: NDArray[Any], progress: Integers,
    ) -> int:  # fmt: skip
        progress[1] = 1
        flat0 = y0.reshape(-1)
        point = x.copy()
        flat = point.reshape(-1)
        for i in range(progress[0], offsets.shape[0]):
            point[...] = x
            flat[axes[i]] += offsets[i]
            y = np.asarray(fun(point, *args))
            if y.shape != y0.shape:
                return SHAPE
            row = y.ravel()
            for a in range(v.shape[0]):
                values[i, a] = 0
                for j in range(v.shape[1]):
                    if v[a, j] != 0:  # a failed output that is not asked for must not count
                        values[i, a] += v[a, j] * (row[j] - flat0[j])
            progress[0] = i + 1
        return DONE

    return drive


def sample(
    fun: Any, points: NDArray[Any], args: tuple[Any, ...] = (), *, like: ArrayLike
) -> Sampled:
    r"""Run a jitted function at every point, in compiled code.

    Parameters
    ----------
    fun : jitted function
        Takes one point, an array of shape x_shape (a number where x_shape is ()) and ``args``;
        returns a number, an array of any rank or a tuple of numbers.
    points : array, shape (k, \*x_shape)
        C-contiguous and writeable, float64, float32 or complex128: ``fun`` is compiled for
        what it is given.
    args : tuple
        Further positional arguments, of types that Numba knows.
    like : array_like
        An output of ``fun`` (the value at the centre): its shape is what every run must return.

    Returns
    -------
    Sampled
        Runs that raised, or whose output had another shape, are in ``errors``; the others are
        kept whatever happened to these.

    Raises
    ------
    Unsupported
        If ``fun`` cannot be compiled for these arguments.
    """
    template = np.asarray(like)
    k = len(points)
    values = np.empty((k, *template.shape), _dtype(points, template))
    drive = sample_driver(fun, points.ndim == 1)
    errors = run(drive, (points, args, values), k, template.shape)
    for row in errors:
        values[row] = np.nan
    return Sampled(values.reshape(k, template.size), errors)


def sample_axes(
    fun: Any,
    x: NDArray[Any],
    v: NDArray[Any],
    axes: Integers,
    offsets: NDArray[Any],
    y0: NDArray[Any],
    args: tuple[Any, ...] = (),
) -> Sampled:
    """Cotangents times output differences, v^T (fun(x + offset e_axis) - y0), run after run.

    Memory is k numbers per cotangent, whatever the sizes of x and y: a forward difference rule
    (k = m) holds one gradient.

    Parameters
    ----------
    fun : jitted function
        Takes an array of shape x_shape and ``args``.
    x : array, shape x_shape (at least 1-D), C-contiguous and writeable
    v : array, shape (q, n)
        Cotangents; an output with v = 0 does not count even where it is nan.
    axes : array of int64, shape (k,)
        The input that each run moves, in the flattened x.
    offsets : array, shape (k,)
        How far, in units of x. Complex offsets need a complex x.
    y0 : array, shape y_shape
        The value at x.
    args : tuple
        Further positional arguments.

    Returns
    -------
    Sampled
        ``values`` (k, q), in units of v times y.

    Raises
    ------
    Unsupported
        If ``fun`` cannot be compiled for these arguments.
    """
    k = len(offsets)
    values = np.empty((k, len(v)), _dtype(x, y0, v))
    errors = run(vjp_driver(fun), (x, v, axes, offsets, y0, args, values), k, y0.shape)
    for row in errors:
        values[row] = np.nan
    return Sampled(values, errors)


def vjp(
    fun: Any,
    x: NDArray[Any],
    v: NDArray[Any],
    axes: Integers,
    offsets: NDArray[Any],
    weights: NDArray[np.float64],
    y0: NDArray[Any],
    args: tuple[Any, ...] = (),
) -> Sampled:
    """v^T J by a difference rule, without storing J.

    Parameters are those of `sample_axes`; run i adds ``weights[i]`` times its contracted
    difference to the entry of its axis. A 2-point rule has one run an axis with offset h and
    weight 1/h, a 3-point rule two with offsets (h, -h) and weights (1/2h, -1/2h).

    Returns
    -------
    Sampled
        ``values`` (q, m), in units of v times y per x; nan along inputs of which a run failed,
        0 along inputs that no run moves.
    """
    runs = sample_axes(fun, x, v, axes, offsets, y0, args)
    out = np.zeros((x.size, len(v)), runs.values.dtype)
    np.add.at(out, axes, weights[:, None] * runs.values)
    return Sampled(np.ascontiguousarray(out.T), runs.errors)


def jvp(
    fun: Any,
    x: NDArray[Any],
    u: NDArray[Any],
    offsets: NDArray[Any],
    weights: NDArray[np.float64],
    y0: NDArray[Any],
    args: tuple[Any, ...] = (),
) -> Sampled:
    """J u by a difference rule along u, in compiled code.

    Parameters
    ----------
    fun : jitted function
    x, u : array, shape x_shape
        Point and tangent; numbers are passed where x_shape is ().
    offsets, weights : array, shape (p,)
        The rule, in multiples of u: ``sum_i weights[i] (fun(x + offsets[i] u) - y0)``.
    y0 : array, shape y_shape
        The value at x.
    args : tuple
        Further positional arguments.

    Returns
    -------
    Sampled
        ``values`` (1, n), nan where a run failed; ``errors`` by number of the run.

    Raises
    ------
    Unsupported
        If ``fun`` cannot be compiled for these arguments.
    """
    out = np.zeros(y0.shape, _dtype(x, y0, offsets))
    at = (x[()], u[()]) if x.ndim == 0 else (x, u)
    errors = run(jvp_driver(fun), (*at, offsets, weights, y0, args, out), len(offsets), y0.shape)
    if errors:
        out[...] = np.nan
    return Sampled(out.reshape(1, y0.size), errors)


def _dtype(*arrays: NDArray[Any]) -> type[np.float64] | type[np.complex128]:
    return np.complex128 if any(a.dtype.kind == "c" for a in arrays) else np.float64


def run(
    drive: Driver, arguments: tuple[Any, ...], k: int, shape: tuple[int, ...]
) -> dict[int, Exception]:
    """Drive to the end, stepping over the runs that fail; their exceptions by row."""
    progress = np.zeros(2, np.int64)
    errors: dict[int, Exception] = {}
    while progress[0] < k:
        try:
            if drive(*arguments, progress) == DONE:
                break
            error: Exception = ValueError(
                f"the output of this run is not of shape {shape}, which an earlier one had"
            )
        except Exception as exc:
            if not progress[1]:  # it failed to compile, and would do so again for every row
                raise Unsupported(f"this cannot be called from compiled code: {exc}") from exc
            error = exc
        errors[int(progress[0])] = error
        progress[0] += 1
    return errors
