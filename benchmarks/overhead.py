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


def vectorized(m: int, repeats: int) -> float:
    """A vectorized function of m inputs and outputs: time over that of the bare runs."""
    factor = np.linspace(1, 2, m)

    def fun(points: Any) -> Any:
        return np.sin(points) * factor

    x = np.linspace(1, 2, m)
    points = np.tile(x, (m + 1, 1))
    times = measure(
        {
            "bare": lambda: fun(points),
            "ours": lambda: jacobian(fun, x, method="2-point", vectorized=True).jac,
        },
        repeats,
    )
    return times["ours"] / times["bare"]


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
    print(f"\nvectorized, m = n = {size}: {data['vectorized']:.3g} times the bare runs")
    begin = time.perf_counter()
    data["start-up"] = start_up()
    base = data["start-up"]["numpy, scipy.linalg, numba"]
    print(table(("process", "seconds", "ratio"),
                [(k, v, v / base) for k, v in data["start-up"].items()]))  # fmt: skip
    print(f"({time.perf_counter() - begin:.0f} s)", write("overhead", data))


if __name__ == "__main__":
    main()
