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
    is_complex = "c" in (points.dtype.kind, template.dtype.kind)
    values = np.empty((k, *template.shape), np.complex128 if is_complex else np.float64)
    drive = sample_driver(fun, points.ndim == 1)
    errors = run(drive, (points, args, values), k, template.shape)
    for row in errors:
        values[row] = np.nan
    return Sampled(values.reshape(k, template.size), errors)


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
