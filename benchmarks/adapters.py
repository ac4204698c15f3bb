"""What the adapters cost beside the simulator's own evaluations, and how right batches are.

``python -m benchmarks.adapters``: time of a backward pass in PyTorch and of a gradient in JAX,
m = n = 10, less that of the evaluations it makes; a batch of 256 over one point. In JAX a batch
(``vmap``) is evaluated point by point: what is its own there is told for each of them. Then the
largest error of the slopes of tanh(A x), 3 inputs and outputs, over the points of normal batches.
"""

from __future__ import annotations

import functools
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._common import measure, quick, table, write

M = N = 10
BATCH = 256
EVALUATIONS = {"given": 0, "2-point": M, "3-point": 2 * M}


def options(a: Any) -> dict[str, dict[str, Any]]:
    """A derivative that is given, and two rules."""
    return {
        "given": {"grad_fun": lambda x, v: v @ a},
        "2-point": {"method": "2-point"},
        "3-point": {"method": "3-point"},
    }


def backward_seconds(forward: Callable[[], Any], v: Any, repeats: int) -> float:
    """Median time of the backward pass alone."""
    times = []
    for _ in range(repeats + 5):
        y = forward()
        start = time.perf_counter()
        y.backward(v)
        times.append(time.perf_counter() - start)
    return statistics.median(times[5:])


def in_torch(a: Any, repeats: int) -> list[list[Any]]:
    import torch

    from gradiator_np.adapters.torch import gradiator

    def fun(x: Any) -> Any:
        return x @ a.T

    x = torch.ones(M, dtype=torch.float64, requires_grad=True)
    many = torch.ones(BATCH, M, dtype=torch.float64, requires_grad=True)
    v, vs = torch.ones(N, dtype=torch.float64), torch.ones(BATCH, N, dtype=torch.float64)
    one = measure({"fun": lambda: fun(np.ones(M))}, repeats)["fun"]
    linear = torch.nn.Linear(M, N, dtype=torch.float64)
    rows: list[list[Any]] = [
        ["torch.nn.Linear itself", 1e6 * backward_seconds(lambda: linear(x), v, repeats), "", ""]
    ]
    for name, given in options(a).items():
        g, over = gradiator(fun, **given), gradiator(fun, batch_dims=1, **given)
        single = backward_seconds(lambda g=g: g(x), v, repeats)
        batch = backward_seconds(lambda over=over: over(many), vs, repeats)
        overhead = 1e6 * (single - EVALUATIONS[name] * one)
        rows.append([f"torch, {name}", overhead, batch / single, ""])
    return rows


def in_jax(a: Any, repeats: int) -> list[list[Any]]:
    import jax
    import jax.numpy as jnp

    from gradiator_np.adapters.jax import gradiator

    def fun(x: Any) -> Any:
        return a @ x

    given = {"grad_fun": lambda x, v: v @ a}
    rows = []
    one = measure({"fun": lambda: fun(np.ones(M))}, repeats)["fun"]
    for name, choice in (options(a) | {"given": given}).items():
        g = gradiator(fun, out=jax.ShapeDtypeStruct((N,), np.float64), **choice)
        grad = jax.grad(lambda x, g=g: g(x).sum())
        calls = {
            "single": functools.partial(jax.jit(grad), jnp.ones(M)),
            "batch": functools.partial(jax.jit(jax.vmap(grad)), jnp.ones((BATCH, M))),
        }
        # Of the processor: callbacks run in a thread of XLA, which waits for it where it is shared.
        seconds = measure(
            {k: lambda call=call: call().block_until_ready() for k, call in calls.items()},
            repeats,
            time.process_time,
        )
        evaluations = (1 + EVALUATIONS[name]) * one
        overhead = 1e6 * (seconds["single"] - evaluations)
        own = 1e6 * (seconds["batch"] / BATCH - evaluations)
        rows.append([f"jax, {name}", overhead, seconds["batch"] / seconds["single"], own])
    return rows


def batches(seeds: int) -> list[list[Any]]:
    """Largest error of J over all points of batches of normal points, in both precisions."""
    from gradiator_np import gradiator

    a = np.random.default_rng(1).normal(size=(3, 3))

    def fun(z: Any) -> Any:
        return np.tanh(z @ a.T.astype(z.dtype))

    rows = []
    for dtype in (np.float32, np.float64):
        for size in (1, 32, 256):
            row: list[Any] = [dtype.__name__, size]
            for method in ("auto", "2-point", "3-point"):
                worst = 0.0
                for seed in range(seeds):
                    x = np.random.default_rng(seed).normal(size=(size, 3)).astype(dtype)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # errors are what is asked for
                        jac = gradiator(fun, batch_dims=1, method=method).jacobian(x)
                    exact = (1 - np.square(np.tanh(x.astype(float) @ a.T)))[..., None] * a
                    worst = max(worst, float(np.max(np.abs(jac - exact))))
                row.append(worst)
            rows.append(row)
    return rows


def main() -> None:
    repeats = 20 if quick() else 300
    a = np.random.default_rng(0).normal(size=(N, M))
    rows = in_torch(a, repeats) + in_jax(a, max(5, repeats // 10))
    headers = [
        "pass",
        "microseconds beside the evaluations",
        f"batch of {BATCH} over one",
        "microseconds for each of its points",
    ]
    print(table(headers, rows))
    of_batches = ["dtype", "batch", "auto", "2-point", "3-point"]
    errors = batches(3 if quick() else 20)
    print("\nLargest error of J in batches of normal points:\n")
    print(table(of_batches, errors))
    found = [dict(zip(headers, row, strict=True)) for row in rows]
    write("adapters", found + [dict(zip(of_batches, row, strict=True)) for row in errors])


if __name__ == "__main__":
    main()
