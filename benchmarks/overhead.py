"""What the library costs beside the runs, against SciPy and statsmodels.

``python -m benchmarks.overhead``: time of a whole Jacobian as a multiple of SciPy's
``approx_derivative`` on the same function in the same run (medians of interleaved repeats).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from scipy.optimize._numdiff import approx_derivative

from benchmarks._common import measure, quick, table, write
from gradiator_np import jacobian, prepare


@numba.njit
def _compiled(x: Any) -> Any:
    return x * x + x[0]


def small(m: int, repeats: int) -> dict[str, float]:
    """A Python function of about a microsecond, and a jitted one, "2-point"."""
    from statsmodels.tools.numdiff import approx_fprime

    shift = np.linspace(0, 1, m)
    x = np.linspace(1, 2, m)

    def fun(z: Any) -> Any:
        return z * z + shift

    prepared = prepare(_compiled, x, method="2-point")
    python = measure(
        {
            "scipy": lambda: approx_derivative(fun, x, method="2-point"),
            "statsmodels": lambda: approx_fprime(x, fun),
            "ours": lambda: jacobian(fun, x, method="2-point").jac,
            "ours with stderr": lambda: jacobian(fun, x, method="2-point").stderr,
        },
        repeats,
    )
    jitted = measure(
        {
            "scipy": lambda: approx_derivative(_compiled, x, method="2-point"),
            "jitted": lambda: jacobian(_compiled, x, method="2-point").jac,
            "jitted, prepared": lambda: prepared(x).jac,
        },
        repeats,
    )
    ratios = {k: v / python["scipy"] for k, v in python.items()}
    return ratios | {k: v / jitted["scipy"] for k, v in jitted.items() if k != "scipy"}


def vectorized(m: int, repeats: int) -> dict[str, float]:
    """Vectorized functions of m inputs and outputs: time over that of the bare runs.

    The first takes ten nanoseconds a number, little more than the passes over memory that make
    points and differences; the second is a matrix product.
    """
    factor = np.linspace(1, 2, m)
    matrix = np.sin(np.arange(m * m)).reshape(m, m) / m
    x = np.linspace(1, 2, m)
    points = np.tile(x, (m + 1, 1))
    ratios = {}
    for name, fun in (
        ("sin(x) a", lambda p: np.sin(p) * factor),
        ("tanh(A x)", lambda p: np.tanh(p @ matrix)),
    ):
        times = measure(
            {
                "bare": lambda fun=fun: fun(points),  # type: ignore[misc]
                "ours": lambda fun=fun: (
                    jacobian(  # type: ignore[misc]
                        fun, x, method="2-point", vectorized=True
                    ).jac
                ),
            },
            repeats,
        )
        ratios[name] = times["ours"] / times["bare"]
    return ratios


def start_up() -> dict[str, float]:
    """Seconds to import, to a first Jacobian, as whole processes; medians of five."""
    programs = {
        "numpy, scipy.linalg, numba": "import numpy, scipy.linalg, numba",
        "import gradiator_np": "import gradiator_np",
        "first jacobian": "import gradiator_np as g; g.jacobian(lambda x: x**2, [1.0, 2.0]).jac",
    }

    def process(program: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, "-c", program], check=True)

    return measure({k: process(v) for k, v in programs.items()}, 5)


def main() -> None:
    """Measure, print, write."""
    repeats = 5 if quick() else 100
    rows, data = [], {}
    for m in (10, 100):
        ratios = data[f"m={m}"] = small(m, repeats)
        rows += [(f"m = n = {m}", name, ratio) for name, ratio in ratios.items()]
    print(table(("problem, '2-point'", "who", "time / SciPy's"), rows))
    size = 200 if quick() else 1000
    data["vectorized"] = vectorized(size, 5 if quick() else 20)
    print(f"\nvectorized, m = n = {size}, times the bare runs:", data["vectorized"])
    begin = time.perf_counter()
    data["start-up"] = start_up()
    base = data["start-up"]["numpy, scipy.linalg, numba"]
    print(table(("process", "seconds", "ratio"),
                [(k, v, v / base) for k, v in data["start-up"].items()]))  # fmt: skip
    print(f"({time.perf_counter() - begin:.0f} s)", write("overhead", data))


if __name__ == "__main__":
    main()
