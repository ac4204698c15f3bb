"""Least-squares fits from samples beside np.linalg.pinv and scipy.linalg.lstsq.

Run as ``python -m benchmarks.fit [--quick]``. Ratios above 1 mean that this library is faster.
"""

from __future__ import annotations

import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg

from benchmarks._common import measure, quick, table, write
from gradiator_np._fit import fit_jacobian
from gradiator_np.solvers._least_squares.linear import lstsq
from gradiator_np.solvers._least_squares.pinv import Pinv

BATCHES = [(10_000, 8, 6, 4), (1_000, 40, 32, 16), (100, 128, 100, 50)]
LARGE = (2_000, 1_000, 200)


def stacks() -> list[dict[str, Any]]:
    """Batches: the plain solver, with standard errors, and through the front door."""
    rng = np.random.default_rng(0)
    out = []
    for b, k, m, n in BATCHES:
        b = max(b // 20, 4) if quick() else b
        dx, df = rng.normal(size=(b, k, m)), rng.normal(size=(b, k, n))
        times = measure(
            {
                "pinv": partial(np.linalg.pinv, dx),
                "plain": partial(lstsq, dx, df),
                "solve": lambda dx=dx, df=df: Pinv().solve(dx, df),
                "errors": lambda dx=dx, df=df: Pinv().solve(dx, df).cov.stderr(),
                "front": lambda dx=dx, df=df: fit_jacobian(dx, df),
                "front errors": lambda dx=dx, df=df: fit_jacobian(dx, df).stderr,
            },
            repeats=3 if quick() else 15,
        )
        row = {"problem": f"{b} x ({k}, {m}, {n})", "np.linalg.pinv (ms)": 1e3 * times["pinv"]}
        for name in ("plain", "solve", "errors", "front", "front errors"):
            row[f"{name}: pinv / ours"] = times["pinv"] / times[name]
        row["errors / solve"] = times["errors"] / times["solve"]
        out.append(row)
    return out


def large() -> dict[str, Any]:
    """One large problem beside every suitable driver of scipy.linalg.lstsq."""
    rng = np.random.default_rng(0)
    k, m, n = (s // 8 for s in LARGE) if quick() else LARGE
    dx, df = rng.normal(size=(k, m)), rng.normal(size=(k, n))
    drivers = {
        name: partial(scipy.linalg.lstsq, dx, df, lapack_driver=name) for name in ("gelsy", "gelsd")
    }
    times = measure(
        {
            **drivers,
            "solve": lambda: Pinv().solve(dx, df),
            "front errors": lambda: fit_jacobian(dx, df).stderr,
        },
        repeats=2 if quick() else 5,
    )
    fastest = min(times[name] for name in drivers)
    return {
        "problem": f"({k}, {m}, {n})",
        "lstsq, fastest driver (s)": fastest,
        "solve / lstsq": times["solve"] / fastest,
        "front errors / lstsq": times["front errors"] / fastest,
    }


def memory() -> list[dict[str, Any]]:
    """Peak of what a fit allocates, in units of its samples, Jacobian, errors and covariance."""
    rng = np.random.default_rng(0)
    out = []
    for b, k, m, n in [*BATCHES, (1, *LARGE)]:
        b = max(b // 20, 1) if quick() else b
        dx, df = rng.normal(size=(b, k, m)), rng.normal(size=(b, k, n))
        fit_jacobian(dx, df)
        tracemalloc.start()
        estimate = fit_jacobian(dx, df)
        answer = [estimate.jac, estimate.stderr, estimate.covariance.factor]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        size = dx.nbytes + df.nbytes + sum(a.nbytes for a in answer)
        out.append({"problem": f"{b} x ({k}, {m}, {n})", "peak / inputs and outputs": peak / size})
    return out


def main() -> None:
    data = {"stacks": stacks(), "large": [large()], "memory": memory()}
    for rows in data.values():
        print(table(rows[0].keys(), (row.values() for row in rows)), end="\n\n")
    write("fit", data)


if __name__ == "__main__":
    main()
