"""The figures in the docstrings of ``kernels.sampling`` and ``kernels.products``.

python -m benchmarks.kernels [--quick]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64, int64, njit, types, void

from benchmarks import _common
from gradiator_np.kernels import products
from gradiator_np.kernels.sampling import sample_driver
from gradiator_np.kernels.stencil import stencil

RUNS, SIZE = 11, 10


def make(c: float) -> Any:
    """A jitted function of about 0.1 microseconds, compiled anew for every c."""

    @njit
    def fun(x):  # type: ignore[no-untyped-def]
        return np.sin(x) * c + x * x

    fun(np.ones(SIZE))
    return fun


def loop(fun, points, values, progress):  # type: ignore[no-untyped-def]
    """The driver with its function as an argument."""
    for i in range(points.shape[0]):
        values[i] = fun(points[i])
        progress[0] = i + 1


def drivers() -> dict[str, tuple[Callable[[Any], None], float]]:
    """Ways to hand a function to a compiled loop: a call, and seconds for a second function."""
    points, values = np.ones((RUNS, SIZE)), np.empty((RUNS, SIZE))
    progress = np.zeros(2, np.int64)
    first, second = make(1.0), make(2.0)

    as_argument = njit(nogil=True, error_model="numpy")(loop)
    vector, matrix = float64[::1], float64[:, ::1]
    signature = void(types.FunctionType(vector(vector)), matrix, matrix, int64[::1])
    as_type = njit([signature], nogil=True, error_model="numpy")(loop)

    def closure(fun: Any) -> None:
        progress[:] = 0
        sample_driver(fun)(points, (), values, progress)

    def python(fun: Any) -> None:
        for row in points:
            fun(row)

    ways: dict[str, Callable[[Any], None]] = {
        "closure": closure,
        "dispatcher as an argument": lambda fun: as_argument(fun, points, values, progress),
        "types.FunctionType": lambda fun: as_type(fun, points, values, progress),
        "Python loop": python,
    }
    out = {}
    for name, way in ways.items():
        way(first)
        start = time.perf_counter()
        way(second)
        out[name] = (lambda way=way: way(first), time.perf_counter() - start)
    return out


def repeated(function: Callable[[], Any], times: int = 200) -> Callable[[], None]:
    """Many calls of a function of some microseconds, so that the clock can see them."""

    def run() -> None:
        for _ in range(times):
            function()

    return run


def crossover(repeats: int) -> list[list[Any]]:
    """np.matmul's time over the kernel's, for stacks of 1000 square matrices."""
    rows = []
    rng = np.random.default_rng(1)
    for size in (2, 4, 8, 12, 16, 32):
        row: list[Any] = [f"{size}x{size}"]
        for dtype in (np.float64, np.complex128):
            jac = rng.standard_normal((1000, size, size)).astype(dtype)
            u, out = np.ones((1000, 1, size), dtype), np.empty((1000, 1, size), dtype)
            for kernel, blas in (
                (products.jvp_kernel, lambda: np.matmul(jac, u[:, 0, :, None])),  # noqa: B023
                (products.vjp_kernel, lambda: np.matmul(u, jac)),  # noqa: B023
            ):
                seconds = _common.measure(
                    {"kernel": lambda: kernel(jac, u, out), "blas": blas},  # noqa: B023
                    repeats,
                )
                row.append(seconds["blas"] / seconds["kernel"])
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print, write."""
    repeats = 3 if _common.quick() else 30
    ways = drivers()
    seconds = _common.measure({name: repeated(call) for name, (call, _) in ways.items()}, repeats)
    fun, x = make(3.0), np.linspace(0.5, 1.5, SIZE)
    y = fun(x)
    whole = _common.measure(
        {"2-point": repeated(lambda: stencil(fun, x, y, np.array([1]), 2.0**-26))}, repeats
    )
    rows = [[name, 1e6 * seconds[name] / 200, ways[name][1]] for name in ways]
    rows.append(["whole 2-point stencil", 1e6 * whole["2-point"] / 200, "-"])
    print(_common.table([f"{RUNS} runs, {SIZE} to {SIZE}", "us", "s for a 2nd function"], rows))
    table = crossover(repeats)
    heads = ["BLAS / kernel", "J u", "v^T J", "J u complex", "v^T J complex"]
    print("\n" + _common.table(heads, table))
    _common.write("kernels", {"drivers": rows, "products": table})


if __name__ == "__main__":
    main()
