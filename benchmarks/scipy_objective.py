"""SciPy's own optimisers on noisy functions: with `ScipyObjective`, and with their own differences.

Share of problems solved to 1e-3 and runs / (m + 1), as in ``benchmarks.least_squares``: residuals
for ``least_squares``, their sum of squares as a noisy scalar for ``minimize``, square systems for
``root``.

    python -m benchmarks.scipy_objective [--quick] [--seeds=1] [--largest=6]
"""

from __future__ import annotations

import sys

import numpy as np
from scipy import optimize

from benchmarks._common import quick, table, write
from benchmarks.least_squares import summarise
from benchmarks.lsq_held_out import held_out
from benchmarks.lsq_problems import problems
from benchmarks.lsq_runs import one
from gradiator_np import ScipyObjective, least_squares

LEVELS = ("0", "1e-6", "1e-4", "1e-3", "1e-2")
#: Problems of at most so many inputs: gradients of scalars take m + 1 runs and more each.
LARGEST = 6


def own(fun):
    return least_squares(fun, fun.problem.x0, max_nfev=fun.budget).x, True


def residuals(method, with_model):
    def solve(fun):
        x0 = fun.problem.x0
        if not with_model:
            return optimize.least_squares(fun, x0, method=method, x_scale="jac").x, True
        f = ScipyObjective(fun, x0)

        def again(start):
            return optimize.least_squares(f.fun, start, jac=f.jac, method=method, x_scale="jac")

        return f.restart(again, x0).x, True

    return solve


def scalar(method, with_model):
    def solve(fun):
        x0 = fun.problem.x0
        if not with_model:
            return optimize.minimize(fun.scalar, x0, method=method).x, True
        f = ScipyObjective(fun.scalar, x0)

        def again(start):
            return optimize.minimize(f.fun, start, jac=f.jac, method=method)

        return f.restart(again, x0).x, True

    return solve


def square(method, with_model):
    def solve(fun):
        x0 = fun.problem.x0
        f = ScipyObjective(fun, x0) if with_model else None
        if f is None:
            return optimize.root(fun, x0, method=method).x, True
        return optimize.root(f.fun, x0, jac=f.jac, method=method).x, True

    return solve


SOLVERS = {
    "least_squares": {"gradiator_np.least_squares": (own, own)}
    | {m: (residuals(m, True), residuals(m, False)) for m in ("trf", "lm", "dogbox")},
    "minimize": {m: (scalar(m, True), scalar(m, False))
                 for m in ("BFGS", "L-BFGS-B", "trust-constr")},
    "root": {m: (square(m, True), square(m, False)) for m in ("hybr", "lm")},
}  # fmt: skip


def main():
    given = dict(arg[2:].split("=", 1) for arg in sys.argv[1:] if "=" in arg)
    seeds, levels = int(given.get("seeds", 1)), LEVELS
    largest = int(given.get("largest", LARGEST))
    everything = [p for p in held_out() + problems() if p.x0.size <= largest]
    if quick():
        everything, seeds, levels = everything[:2] + everything[-2:], 1, ("0", "1e-2")
    systems = [p for p in everything if p.fun(p.x0).size == p.x0.size]
    runs = {}
    for task, solvers in SOLVERS.items():
        for method, pair in solvers.items():
            for level in levels:
                for source, solve in zip(("ScipyObjective", "own differences"), pair):
                    if solve is own and source != "ScipyObjective":
                        continue
                    runs[task, method, source, level] = [
                        one(p, level, seed, method, solve)
                        for p in (systems if task == "root" else everything)
                        for seed in range(seeds if level != "0" else 1)
                    ]
            print(f"{task}: {method} done", flush=True)
    best = {}
    for rows in runs.values():
        for ran in rows:
            least = min([ran.final] + [value for _, value in ran.best])
            best[ran.problem] = min(best.get(ran.problem, np.inf), least)
    group = {p.name: p for p in everything}
    results, rows = {}, {}
    for (task, method, source, level), ran in runs.items():
        row = summarise(ran, group, best, 1e-3)
        results[f"{task}, {method}, {source}, noise {level}"] = row
        cells = rows.setdefault((task, method, source if method != task else ""), [])
        cells.append(f"{row['solved']:.2f}, {row['runs']:.3g}")
    print(f"{len(everything)} problems, {len(systems)} systems; share solved, runs / (m + 1)\n")
    print(table(["task", "method", "Jacobian", *(f"noise {v}" for v in levels)],
                [[*key, *cells] for key, cells in rows.items()]))  # fmt: skip
    print(write("scipy_objective", results))


if __name__ == "__main__":
    main()
