"""Operator-norm fit of a Jacobian with a sparsity pattern, beside SCS and Clarabel through cvxpy.

The semidefinite solvers get the largest of a row of sizes that each finishes within a minute;
the ratio is taken there. Every solver runs to a relative accuracy of 1e-4. The largest size of
the table is this library's alone. Times are CPU seconds, which other load does not stretch; the
semidefinite solvers' include cvxpy's compilation of the problem.

Run as ``python -m benchmarks.spectral [--quick]``. Threads are the environment's
(``OPENBLAS_NUM_THREADS``).
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
from benchmarks._common import table, write

from gradiator_np.solvers.solution import Constraints, Solution
from gradiator_np.solvers.spectral import Spectral

GAP = 1e-4
LIMIT = 60.0
# inputs = outputs, samples, entries a row
SIZES = [(10, 15, 3), (20, 30, 4), (30, 45, 6), (40, 60, 8), (60, 90, 10), (80, 120, 12)]
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
    place = np.zeros((n * n, len(rows)))
    place[cols * n + rows, np.arange(len(rows))] = 1.0
    jac = cp.reshape(place @ entries, (n, n), order="F")
    task = cp.Problem(cp.Minimize(cp.sigma_max(jac @ dx.T - df.T)))
    options = {
        "CLARABEL": {"tol_gap_rel": GAP, "tol_gap_abs": GAP, "time_limit": LIMIT},
        "SCS": {"eps_rel": GAP, "eps_abs": GAP, "time_limit_secs": LIMIT, "max_iters": 10**6},
    }
    task.solve(solver=solver, **options[solver])
    return float(task.value) if task.status == "optimal" else np.nan


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
    ours(dx, df, pattern)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    repeats = 1 if quick else 3
    sizes = SIZES[:2] if quick else SIZES
    running = {"CLARABEL": True, "SCS": True}
    ours(*problem(*sizes[0]))  # compile
    results = []
    for size in sizes:
        data = problem(*size)
        own, solution = timed(ours, *data, repeats=3)
        row = {"size": size, "gradiator": own, "lower": solution.info["lower"]}
        row |= {"upper": solution.info["upper"], "iterations": solution.info["iterations"]}
        for name in [name for name, alive in running.items() if alive]:
            try:
                row[name], row[f"{name}_value"] = timed(semidefinite, *data, name)
            except Exception as error:
                row[f"{name}_failed"] = str(error)
            done = row.get(name, np.inf) <= LIMIT and np.isfinite(row.get(f"{name}_value", np.nan))
            running[name] = done
        results.append(row)
    own, solution = timed(ours, *problem(*FULL), repeats=repeats)
    full = {"size": FULL, "gradiator": own, "lower": solution.info["lower"]}
    full |= {"upper": solution.info["upper"], "iterations": solution.info["iterations"]}
    results.append(full)
    memory = peak_memory(FULL)
    shown = [
        [
            "n=m={}, k={}, {} a row".format(*r["size"]),
            f"{r['gradiator']:.4f}",
            f"{1 - r['lower'] / r['upper']:.1e}",
            r["iterations"],
            *(f"{r[p]:.2f} (x{r[p] / r['gradiator']:.0f})" if p in r else "" for p in running),
        ]
        for r in results
    ]
    table(["size", "gradiator s", "gap", "iterations", *running], shown)
    print({k: round(v, 2) for k, v in memory.items()})
    write("spectral", {"rows": results, "memory": memory})


if __name__ == "__main__":
    main()
