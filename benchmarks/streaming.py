"""The incremental solver beside rank-1 updates by BLAS and the covariance-form recursion.

Run ``python -m benchmarks.streaming [--quick]``. Speeds are ratios within one run. A block of
Kaczmarz updates stands beside 64 of them by BLAS calls, each a residual by dgemv and an update in
place by dger; beside the 64 dger alone: without the residual nothing is fitted; and beside
its own arithmetic, two products of (64, m) with (n, m) at the speed of a square dgemm, which no
block can beat. All in CPU time: with one thread (OPENBLAS_NUM_THREADS=1) nothing else counts.
A single update stands beside streaming J once through memory (an in-place scale; caches are cleared
before each), least squares beside the covariance form of recursive least squares in NumPy.
Precision is measured against a QR in extended precision.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import blas

from benchmarks._common import measure, quick, table, write
from gradiator_np._streaming import StreamingJacobian
from gradiator_np.solvers._recursive.rank_one import RankOne


def kaczmarz(size: int, repeats: int) -> dict[str, float]:
    """Single Kaczmarz updates and blocks of 64 at n = m = ``size``."""
    rng = np.random.default_rng(0)
    dx, df = rng.standard_normal((64, size)), rng.standard_normal((64, size))
    jac = rng.standard_normal((size, size))
    column = np.asfortranarray(jac)
    stream = StreamingJacobian(size, size, mode="kaczmarz", jac0=jac)

    def dger() -> None:
        for d, f in zip(dx, df):
            blas.dger(1e-9, f, d, a=column, overwrite_a=1)

    def dger_updates() -> None:
        for d, f in zip(dx, df):
            miss = blas.dgemv(-1.0, column, d, beta=1.0, y=f)
            blas.dger(1 / (d @ d), miss, d, a=column, overwrite_a=1)

    block = cpu_times(
        {
            "block": lambda: stream.partial_fit(dx, df),
            "dger": dger,
            "dger_updates": dger_updates,
            "square": lambda: jac @ jac,
        },
        max(3, repeats // 4),
    )
    arithmetic = block["square"] * 2 * len(dx) / size
    evicted = np.zeros(2 * jac.size + 8_000_000)

    def evict() -> None:  # all then start from memory, as between two runs of a simulator
        evicted[:] += 1.0

    single = cpu_times(
        {
            "scale": lambda: np.multiply(jac, 1.0000001, out=jac),
            "single": lambda: stream.partial_fit(dx[0], df[0]),
        },
        repeats,
        evict,
    )
    return {
        "64 dger, no residuals / block of 64 (demand: at least 10)": block["dger"] / block["block"],
        "64 (dgemv + dger) / block of 64": block["dger_updates"] / block["block"],
        "64 dger, no residuals / the block's arithmetic (bound on the above)": block["dger"]
        / arithmetic,
        "block of 64 / its arithmetic": block["block"] / arithmetic,
        "single update / in-place scale (at most 1.5)": single["single"] / single["scale"],
    }


def cpu_times(
    work: dict[str, Callable[[], Any]], repeats: int, before: Callable[[], Any] | None = None
) -> dict[str, float]:
    """Median CPU seconds of each, in turn; ``before`` is run ahead of each, not counted."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, run in work.items():
            if before is not None:
                before()
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: float(np.median(values[1:])) for name, values in times.items()}


def least_squares(size: int, repeats: int) -> dict[str, float]:
    """Single samples and blocks of 64 at n = m = ``size`` against the covariance form."""
    rng = np.random.default_rng(1)
    dx, df = rng.standard_normal((640, size)), rng.standard_normal((640, size))
    singles, blocks = StreamingJacobian(size, size), StreamingJacobian(size, size)

    def covariance() -> None:
        cov, jac = 1e6 * np.eye(size), np.zeros((size, size))
        for d, f in zip(dx, df):
            spread = cov @ d
            gain = spread / (1 + d @ spread)
            jac += np.outer(f - jac @ d, gain)
            cov -= np.outer(gain, spread)

    def one_by_one() -> None:
        for d, f in zip(dx, df):
            singles.partial_fit(d, f)

    def by_blocks() -> None:
        for start in range(0, 640, 64):
            blocks.partial_fit(dx[start : start + 64], df[start : start + 64])

    seconds = measure({"cov": covariance, "single": one_by_one, "block": by_blocks}, repeats)
    return {
        "covariance form / single (at least 2.5)": seconds["cov"] / seconds["single"],
        "covariance form / block of 64 (at least 8)": seconds["cov"] / seconds["block"],
    }


def _extended(dx: Any, df: Any, p: float) -> Any:
    """Ridge fit by Householder QR in long double (64-bit mantissa)."""
    m, n = dx.shape[1], df.shape[1]
    a = np.vstack([dx, p * np.eye(m)]).astype(np.longdouble)
    b = np.vstack([df, np.zeros((m, n))]).astype(np.longdouble)
    for j in range(m):
        v = a[j:, j].copy()
        v[0] += np.copysign(np.sqrt((v * v).sum()), v[0])
        v /= np.sqrt((v * v).sum())
        for c in range(j, m):
            a[j:, c] -= 2 * (v * a[j:, c]).sum() * v
        for c in range(n):
            b[j:, c] -= 2 * (v * b[j:, c]).sum() * v
    x = np.zeros((m, n), np.longdouble)
    for i in range(m - 1, -1, -1):
        x[i] = (b[i] - (a[i, i + 1 : m, None] * x[i + 1 :]).sum(axis=0)) / a[i, i]
    return x.T


def precision(k: int) -> dict[str, float]:
    """Relative error after ``k`` single samples with cond(dx) = 1e6."""
    rng = np.random.default_rng(2)
    m, n, p = 8, 2, 1e-6
    turn = np.linalg.qr(rng.standard_normal((m, m)))[0]
    dx = rng.standard_normal((k, m)) * np.logspace(0, -6, m) @ turn
    df = dx @ rng.standard_normal((m, n)) + 1e-2 * rng.standard_normal((k, n))
    stream = StreamingJacobian(m, n, prior_scale=p)
    for d, f in zip(dx, df):
        stream.partial_fit(d, f)
    want = _extended(dx, df, p)
    error = float(np.linalg.norm(stream.jac - want) / np.linalg.norm(want))
    return {f"error, cond(dx) = 1e6, {k} samples (at most 1e-8)": error}


def unvisited(k: int) -> dict[str, float]:
    """Error after ``k`` updates with forgetting 0.999; one direction is left after 2000."""
    rng = np.random.default_rng(3)
    jac = rng.standard_normal((2, 4))
    stream = StreamingJacobian(4, 2, forgetting=0.999)
    for start in range(0, k, 1000):
        dx = rng.standard_normal((1000, 4)) * [1, 1, 1, start < 2000]
        stream.partial_fit(dx, dx @ jac.T + 1e-2 * rng.standard_normal((1000, 2)))
    root = stream._state._root.r
    information = root.T @ root
    assert np.isfinite(stream.jac).all()
    assert np.isfinite(information).all()
    assert np.array_equal(information, information.T)
    return {
        f"error, forgetting, {k} updates (at most 1e-2)": float(np.abs(stream.jac - jac).max()),
        "smallest diagonal of R": float(np.abs(np.diag(root)).min()),
    }


def memory(size: int) -> dict[str, float]:
    """Peak of new memory over inputs and outputs together."""
    rng = np.random.default_rng(4)
    dx, df = rng.standard_normal((2 * size, size)), rng.standard_normal((2 * size, size))
    peaks = {}

    def stream() -> Any:
        state = StreamingJacobian(size, size).partial_fit(dx, df)
        return state.jac

    def projected() -> Any:
        return StreamingJacobian(size, size, mode="kaczmarz").partial_fit(dx, df).jac

    for name, run in {
        "stream": stream,
        "Kaczmarz": projected,
        "RankOne with errors": lambda: RankOne().solve(dx, df),
    }.items():
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        peaks[f"memory, {name} (at most 3)"] = peak / (dx.nbytes + df.nbytes + 8 * size**2)
    return peaks


def main() -> None:
    small = quick()
    figures = {
        **kaczmarz(200 if small else 2000, 3 if small else 40),
        **least_squares(64, 2 if small else 15),
        **precision(3000 if small else 300_000),
        **unvisited(10_000 if small else 1_000_000),
        **memory(100 if small else 500),
    }
    print(table(["figure", "value"], figures.items()))
    write("streaming", figures)


if __name__ == "__main__":
    main()
