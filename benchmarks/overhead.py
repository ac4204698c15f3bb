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


def planning(repeats: int) -> list[dict[str, Any]]:
    """The default design's own time on one core, beside its runs, and its share of the whole
    where a run takes 1 ms; medians over functions."""
    rows = []
    for m, n in ((10, 10), (100, 10), (100, 100)):
        for noise in (0.0, 1e-4):
            spent, runs = [], 0
            for seed in range(repeats + 1):
                rng = np.random.default_rng(seed)
                a = rng.standard_normal((n, m)) / np.sqrt(m)
                inside = [0.0]

                def fun(z: Any, a: Any = a, rng: Any = rng, inside: Any = inside) -> Any:
                    begin = time.process_time()
                    y = np.tanh(a @ z) + (a @ z) ** 2 / 3 + noise * rng.standard_normal(len(a))  # noqa: B023
                    inside[0] += time.process_time() - begin
                    return y

                begin = time.process_time()
                estimate = jacobian(fun, rng.uniform(1, 2, m))
                _ = estimate.stderr
                spent.append(time.process_time() - begin - inside[0])
                runs = estimate.nfev
            own = float(np.median(spent[1:]))  # the first one loads the kernels
            rows.append({
                "m": m, "n": n, "noise": noise, "runs": runs, "own time in ms": 1e3 * own,
                "share at 1 ms a run": own / (own + 1e-3 * runs),
            })  # fmt: skip
    return rows


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
    plans = planning(2 if quick() else 15)
    print("\ndefault design\n")
    print(table(plans[0], ([*row.values()] for row in plans)))
    data["planning"] = {f"m={r['m']}, n={r['n']}, noise={r['noise']:g}": r for r in plans}
    begin = time.perf_counter()
    data["start-up"] = start_up()
    base = data["start-up"]["numpy, scipy.linalg, numba"]
    print(table(("process", "seconds", "ratio"),
                [(k, v, v / base) for k, v in data["start-up"].items()]))  # fmt: skip
    print(f"({time.perf_counter() - begin:.0f} s)", write("overhead", data))


if __name__ == "__main__":
    main()
