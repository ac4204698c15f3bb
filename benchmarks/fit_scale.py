"""Own time and memory of `least_squares` where residuals or parameters are many, beside SciPy's.

    python -m benchmarks.fit_scale [--quick]

Both solvers in turn, in one run; time is that of the process, all of its threads, and of it the
solver's own is what ``fun`` did not take. Peaks are those of tracemalloc, in runs of their own.
SciPy's ``least_squares`` with its defaults (2-point differences) has no answer to noise: none is
shown. The same fits in processes with one and two BLAS threads tell whether more of them cost.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from benchmarks._common import quick, table, write
from gradiator_np import least_squares
from gradiator_np._typing import Array

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

#: What is shown of SciPy.
VERSUS = ("SciPy's runs", "time / SciPy's", "peak / SciPy's", "cost / SciPy's - 1")


class Case(NamedTuple):
    """A fit: ``model`` to data with errors of 0.1, its runs scattered by ``noise``."""

    model: Callable[[Array], Array]
    truth: Array
    x0: Array
    noise: float


def five_of_many(n: int) -> Case:
    """An exponential, a sine and a constant."""
    t = np.linspace(0, 4, n)
    return Case(
        lambda x: x[0] * np.exp(-x[1] * t) + x[2] * np.sin(x[3] * t) + x[4],
        np.array([2, 0.7, 0.5, 2.0, 0.3]), np.array([1.5, 1.0, 0.8, 1.8, 0.0]), 0.0,
    )  # fmt: skip


def mixed(m: int, noise: float, bend: Callable[[Array], Array] = np.positive) -> Case:
    """2 m residuals, ``bend`` of random combinations of all parameters."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2 * m, m)) / np.sqrt(m)
    return Case(lambda x: bend(a @ x), rng.normal(size=m), np.zeros(m), noise)


def cases() -> dict[str, Callable[[], Case]]:
    share = 20 if quick() else 1
    many, noisy, exact = 10**6 // share**2, 200 // share, 500 // share
    return {
        f"{many} residuals, m = 5": lambda: five_of_many(many),
        f"linear, m = {noisy}, noise 1e-2": lambda: mixed(noisy, 1e-2),
        f"linear, m = {exact}, exact": lambda: mixed(exact, 0.0),
        f"tanh, m = {noisy}, exact": lambda: mixed(noisy, 0.0, np.tanh),
    }


class Fit(NamedTuple):
    """Seconds of the whole and of the solver's own, runs of ``fun``, and the cost reached."""

    seconds: float
    own: float
    runs: int
    cost: float


def run(case: Case, solver: Callable[..., Any]) -> Fit:
    rng = np.random.default_rng(1)
    data = case.model(case.truth)
    data = data + 0.1 * rng.normal(size=data.shape)
    spent, runs = 0.0, 0

    def fun(x: Array) -> Array:
        nonlocal spent, runs
        start = time.process_time()
        residuals = case.model(x) - data
        if case.noise:
            residuals = residuals + case.noise * rng.normal(size=residuals.shape)
        spent, runs = spent + time.process_time() - start, runs + 1
        return residuals

    start = time.process_time()
    found = solver(fun, case.x0)
    seconds = time.process_time() - start
    return Fit(seconds, seconds - spent, runs, float(found.cost))


def peak(case: Case, solver: Callable[..., Any]) -> float:
    """Bytes."""
    tracemalloc.start()
    run(case, solver)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return float(most)


def beside_scipy() -> list[dict[str, Any]]:
    rows = []
    for name, make in cases().items():
        case = make()
        ours = run(case, least_squares)
        row: dict[str, Any] = {
            "fit": name, "runs": ours.runs, "seconds": ours.seconds, "own": ours.own,
            "peak (MB)": peak(case, least_squares) / 1e6,
        }  # fmt: skip
        row |= dict.fromkeys(VERSUS, "-")
        if not case.noise:
            peer = run(case, scipy.optimize.least_squares)
            most = peak(case, scipy.optimize.least_squares)
            versus = (peer.runs, ours.seconds / peer.seconds, row["peak (MB)"] * 1e6 / most,
                      ours.cost / peer.cost - 1)  # fmt: skip
            row |= dict(zip(VERSUS, versus))
        rows.append(row)
    return rows


def threads() -> list[dict[str, Any]]:
    """Wall time with two BLAS threads over that with one, each in a process of its own."""
    rows = []
    for name in cases():
        seconds = {}
        for count in ("1", "2"):
            options = [f"--only={name}", *(["--quick"] if quick() else [])]
            told = subprocess.run(
                [sys.executable, "-m", "benchmarks.fit_scale", *options],
                env={**os.environ, **dict.fromkeys(THREADS, count)},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            seconds[count] = float(told.stdout)
        rows.append({"fit": name, "one thread (s)": seconds["1"],
                     "two / one": seconds["2"] / seconds["1"]})  # fmt: skip
    return rows


def main() -> None:
    least_squares(lambda x: x - 1.0, np.zeros(2))  # imports
    only = [arg.removeprefix("--only=") for arg in sys.argv[1:] if arg.startswith("--only=")]
    if only:
        case = cases()[only[0]]()
        start = time.perf_counter()
        run(case, least_squares)
        print(time.perf_counter() - start)
        return
    data = {}
    for name, rows_of in (("beside SciPy", beside_scipy), ("BLAS threads", threads)):
        rows = data[name] = rows_of()
        print(table(rows[0].keys(), (row.values() for row in rows)), end="\n\n", flush=True)
    write("fit_scale", data)


if __name__ == "__main__":
    main()
