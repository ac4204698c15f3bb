"""Time and memory against size, where a Jacobian is dense: ours beside SciPy's.

    python -m benchmarks.scale [--quick]

Each row is a process of its own: seconds in all and in ``fun``, and by how much the largest
resident memory grew over what the process had with everything imported and compiled.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks._common import quick, table, write
from gradiator_np import Chain, Recurrence, gradiator, gradient, jacobian, vjp

Task = Callable[[int], Any]


class Timed:
    """A function that knows how often and how long it ran."""

    def __init__(self, fun: Callable[..., Any]) -> None:
        self.fun, self.runs, self.seconds = fun, 0, 0.0

    def __call__(self, *args: Any) -> Any:
        start = time.perf_counter()
        out = self.fun(*args)
        self.seconds += time.perf_counter() - start
        self.runs += 1
        return out


def scalar(m: int) -> tuple[Timed, np.ndarray]:
    """The square of a sum, quick as functions of all inputs can be."""
    a = np.linspace(1, 2, m) / m
    return Timed(lambda x: float(x @ a) ** 2), np.linspace(0.5, 1.5, m)


def many_outputs(n: int) -> tuple[Timed, np.ndarray]:
    """n sums of sines of 10 inputs."""
    a, b = np.random.default_rng(0).normal(size=(2, n))
    return Timed(lambda x: a * np.sin(x[0] * b) + x[1:].sum() * b), np.linspace(0.5, 1.5, 10)


def scipy_gradient(m: int) -> Timed:
    from scipy.optimize._numdiff import approx_derivative

    fun, x = scalar(m)
    approx_derivative(fun, x, method="3-point")
    return fun


def by_gradient(method: str) -> Task:
    def task(m: int) -> Timed:
        fun, x = scalar(m)
        gradient(fun, x, method=method)
        return fun

    return task


def by_vjp(m: int) -> Timed:
    fun, x = scalar(m)
    vjp(lambda z: np.array([fun(z), z[0]]), x, np.array([1.0, 0.0]))
    return fun


def by_jacobian(method: str) -> Task:
    def task(n: int) -> Timed:
        fun, x = many_outputs(n)
        found = jacobian(fun, x, method=method)
        assert found.stderr.shape == found.jac.shape  # errors are worked out when asked for
        return fun

    return task


def scipy_jacobian(n: int) -> Timed:
    from scipy.optimize._numdiff import approx_derivative

    fun, x = many_outputs(n)
    approx_derivative(fun, x, method="3-point")
    return fun


def batch(size: int) -> Timed:
    """Points of two inputs, all in one call of ``fun``."""
    fun = Timed(lambda x: np.stack([np.sin(x[..., 0]) * x[..., 1], x[..., 1] ** 2], axis=-1))
    x = np.random.default_rng(0).uniform(0.5, 1.5, (size, 2))
    jacobian(fun, x, batch_dims=1, vectorized=True, method="3-point")
    return fun


def chain(stages: int) -> Timed:
    """v^T J through so many stages with derivatives of their own."""
    fun = Timed(np.sin)
    stage = gradiator(fun, lambda args, v: v * np.cos(args[0]))
    Chain(*[stage] * stages).vjp(np.linspace(0.5, 1.5, 3), np.ones(3))
    return fun


def recurrence(method: str) -> Task:
    """v^T J through so many steps without derivatives."""

    def task(steps: int) -> Timed:
        fun = Timed(lambda x, theta, i: x + 0.01 * np.sin(theta * x))
        Recurrence(fun, steps, method=method).vjp(np.ones(2), np.array([1.0, 2.0]), np.ones(2))
        return fun

    return task


TASKS: Mapping[str, tuple[Task, tuple[int, ...]]] = {
    "gradient of m inputs, default": (by_gradient("auto"), (1_000, 10_000, 100_000)),
    "the same, 3-point": (by_gradient("3-point"), (1_000, 10_000, 100_000)),
    "the same, SciPy 3-point": (scipy_gradient, (1_000, 10_000, 100_000)),
    "v^T J of m inputs, default": (by_vjp, (1_000, 10_000)),
    "J of n outputs, 10 inputs, default": (by_jacobian("auto"), (10_000, 1_000_000)),
    "the same, 3-point ": (by_jacobian("3-point"), (10_000, 1_000_000)),
    "the same, SciPy 3-point ": (scipy_jacobian, (10_000, 1_000_000)),
    "J of a batch of points, 3-point": (batch, (10_000, 1_000_000)),
    "v^T J of a chain of stages": (chain, (100, 1_000)),
    "v^T J of a recurrence of steps, default": (recurrence("auto"), (100, 1_000)),
    "the same, 3-point  ": (recurrence("3-point"), (100, 1_000)),
}


def peak() -> float:
    """The largest resident memory of this process so far, MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def alone(name: str, size: int) -> dict[str, float]:
    """One task, after a small one for compilation."""
    task = TASKS[name][0]
    task(10)
    before, start = peak(), time.perf_counter()
    fun = task(size)
    seconds = time.perf_counter() - start
    return {"runs": fun.runs, "seconds": seconds, "in fun": fun.seconds, "MiB": peak() - before}


def main() -> None:
    if "--alone" in sys.argv:
        name, size = sys.argv[-2:]
        print(json.dumps(alone(name, int(size))))
        return
    rows, out = [], {}
    for name, (_, sizes) in TASKS.items():
        for size in sizes[:1] if quick() else sizes:
            command = [sys.executable, "-m", "benchmarks.scale", "--alone", name, str(size)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = out[f"{name.strip()}, {size}"] = json.loads(done.stdout.splitlines()[-1])
            own = 1e6 * (found["seconds"] - found["in fun"]) / max(found["runs"], 1)
            rows.append([name.strip(), size, found["runs"], found["seconds"], own, found["MiB"]])
            print(*rows[-1], file=sys.stderr, flush=True)
    print(table(["", "size", "runs", "seconds", "own microseconds a run", "MiB"], rows))
    write("scale", out)


if __name__ == "__main__":
    main()
