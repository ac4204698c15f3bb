"""Operator-norm fit of a Jacobian with a sparsity pattern, beside SCS and Clarabel through cvxpy.

The semidefinite solvers get the largest of a row of sizes that each finishes within a minute;
the ratio is taken there. Every solver runs to a relative accuracy of 1e-4. Times are CPU
seconds, which other load does not stretch; the semidefinite solvers' include cvxpy's compilation
of the problem. "off" is how far a solver's optimum lies above the upper bound found here.

Run as ``python -m benchmarks.spectral [--quick]``. Threads are the environment's
(``OPENBLAS_NUM_THREADS``).
"""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks._common import quick, table, write
from gradiator_np.solvers._operator_norm.spectral import Spectral
from gradiator_np.solvers._solution import Constraints, Solution

GAP = 1e-4
LIMIT = 60.0
# inputs = outputs, samples, entries a row
SIZES = [(10, 15, 3), (30, 45, 6), (60, 90, 10), (80, 120, 12), (120, 180, 18), (200, 300, 30)]
SIZES += [(300, 450, 45)]
FULL = (200, 300, 30)


def problem(n: int, k: int, s: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    pattern = np.zeros((n, n), dtype=bool)
    for row in pattern:
        row[rng.choice(n, s, replace=False)] = True
    jac = np.where(pattern, rng.standard_normal((n, n)), 0.0)
    dx = rng.standard_normal((k, n))
    return dx, dx @ jac.T + rng.uniform(-1, 1, (k, n)), pattern


def ours(dx, df, pattern) -> Solution:
    return Spectral(gap_tol=GAP).solve(dx, df, constraints=Constraints(sparsity=pattern))


def semidefinite(dx, df, pattern, solver: str) -> float:
    """Optimum by cvxpy over the free entries alone, its time limit set to LIMIT."""
    import cvxpy as cp

    n = len(pattern)
    rows, cols = np.nonzero(pattern)
    entries = cp.Variable(len(rows))
    # vec(J) in column order, as cvxpy reshapes.
    at = (cols * n + rows, np.arange(len(rows)))
    place = sparse.csr_array((np.ones(len(rows)), at), shape=(n * n, len(rows)))
    jac = cp.reshape(place @ entries, (n, n), order="F")
    task = cp.Problem(cp.Minimize(cp.sigma_max(jac @ dx.T - df.T)))
    options = {
        "CLARABEL": {"tol_gap_rel": GAP, "tol_gap_abs": GAP, "time_limit": LIMIT},
        # At eps = GAP its optimum was off by up to 9e-4.
        "SCS": {"eps_rel": GAP / 10, "eps_abs": GAP / 10, "time_limit_secs": LIMIT},
    }
    task.solve(solver=solver, **options[solver])
    return float(task.value) if task.status in ("optimal", "optimal_inaccurate") else np.nan


def timed(fun, *arguments, repeats: int = 1):
    """Median of CPU seconds, and the value."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        value = fun(*arguments)
        seconds.append(time.process_time() - start)
    return float(np.median(seconds)), value


def peak_memory(size) -> dict[str, float]:
    """Peak of traced allocations over inputs and outputs (LAPACK's own workspace is not seen)."""
    dx, df, pattern = problem(*size)
    tracemalloc.start()
    solution = ours(dx, df, pattern)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    inputs = dx.nbytes + df.nbytes + pattern.nbytes
    outputs = solution.coef.nbytes + solution.cov.extra.nbytes + solution.info["state"].nbytes
    return {
        "peak_mb": peak / 1e6,
        "over_inputs_and_jac": peak / (inputs + solution.coef.nbytes),
        "over_inputs_and_outputs": peak / (inputs + outputs),
    }


def _peer(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return ""
    off = row[f"{name}_value"] / row["upper"] - 1
    return f"{row[name]:.2f} ({row[name] / row['gradiator']:.0f} x, off {off:.0e})"


def main() -> None:
    sizes = SIZES[:2] if quick() else SIZES
    running = {"CLARABEL": True, "SCS": True}
    ours(*problem(*sizes[0]))  # compile
    results = []
    for size in sizes:
        data = problem(*size)
        own, solution = timed(ours, *data, repeats=3)
        row: dict[str, Any] = {"size": size, "gradiator": own}
        row |= {name: solution.info[name] for name in ("lower", "upper", "iterations")}
        for name in [name for name, alive in running.items() if alive]:
            try:
                row[name], row[f"{name}_value"] = timed(semidefinite, *data, name)
            except Exception as error:
                row[f"{name}_failed"] = str(error)
            done = row.get(name, np.inf) <= LIMIT and np.isfinite(row.get(f"{name}_value", np.nan))
            running[name] = done
        results.append(row)
    memory = peak_memory(FULL)
    shown = [
        [
            "n=m={}, k={}, {} a row".format(*r["size"]),
            f"{r['gradiator']:.4f}",
            f"{1 - r['lower'] / r['upper']:.1e}",
            r["iterations"],
            *(_peer(r, name) for name in running),
        ]
        for r in results
    ]
    print(table(["size", "gradiator s", "gap", "iterations", *running], shown))
    print({k: round(v, 2) for k, v in memory.items()})
    write("spectral", {"rows": results, "memory": memory})


if __name__ == "__main__":
    main()
