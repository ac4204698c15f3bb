"""Minimisers of a noisy scalar, at equal runs: is one of our own worth having?

Sums of squares of the classical problems (Moré, Garbow and Hillstrom, ACM TOMS 7, 1981, 17) and of
small fits, as one number with Gaussian noise of a share of f(x0); every third one again with a
bound half way to its solution. All solvers see inputs in units of x0, so that no one's default
radius suits the units better than another's. Solved: f without noise fell by 1 - tol of its
decrease to the least value that any solver reached (data profiles, Moré and Wild, SIAM J. Optim.
20, 2009, 172), at some run among the first 20, 50, 100 (m + 1), and at the point returned.

    python -m benchmarks.scalar_minimise [--quick] [--only=name;name] [--seeds=3] [--store=FILE]

Twenty minutes; ``--store`` keeps every run in a file and makes none twice.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import optimize

from benchmarks._common import quick, table, write
from benchmarks.lsq_problems import Problem, problems
from benchmarks.lsq_runs import Ran, Spent, available, one
from benchmarks.problems import PROBLEMS as CLASSICAL
from gradiator_np import ScipyObjective
from gradiator_np._checks import UNBOUNDED, point
from gradiator_np._settings import scale_of

LEVELS = ("0", "1e-6", "1e-4", "1e-2")
BUDGETS = (20, 50, 100)
TOLERANCES = (1e-1, 1e-2, 1e-3)
#: Inputs at most: the peers' own work takes minutes a run beyond.
LARGEST = 6
#: Fits among our own problems whose runs take microseconds.
CHEAP = {
    "exp2", "exp2_misfit", "michaelis", "hill", "gompertz", "logistic", "damped", "valley5",
    "valley2_steep", "banana_sum", "power_law", "rational", "arrhenius", "antoine",
}  # fmt: skip


@dataclass(frozen=True)
class Boxed(Problem):
    """A problem in units of x0, within bounds: beyond them its residuals are infinite."""

    low: np.ndarray
    high: np.ndarray


def in_units(problem, bounded):
    """The problem over z = x / unit, and where asked for with a bound half way to its solution."""
    flat, layout = point(problem.x0)
    unit = scale_of(flat, None, layout)
    low, high = (np.full(flat.size, end) for end in UNBOUNDED)
    z0 = flat / unit
    if bounded:
        best = optimize.least_squares(lambda z: problem.fun(z * unit), z0, x_scale="jac").x
        way = best - z0
        j = int(np.argmax(np.abs(way)))
        (high if way[j] > 0 else low)[j] = z0[j] + 0.5 * way[j]

    def fun(z):
        inside = bool(np.all(z >= low) and np.all(z <= high))
        return problem.fun(z * unit) if inside else np.full(1, np.inf)

    return Boxed(problem.name + ", bounded" * bounded, fun, z0, low, high)


def everything():
    """The problems, bounded ones last."""
    named = [Problem(p.name, p.fun, p.x0) for p in CLASSICAL]
    named += [p for p in problems() if p.name in CHEAP]
    named = [p for p in named if p.x0.size <= LARGEST]
    return [in_units(p, False) for p in named] + [in_units(p, True) for p in named[::3]]


class Scalar:
    """f(z) with noise; remembers f without noise at every run, and the last point of a search."""

    def __init__(self, problem, level, seed):
        self.problem, self.level = problem, float(level)
        self.rng = np.random.default_rng([seed, 13])
        self.unit = self.level * self.value(problem.x0)
        self.budget = BUDGETS[-1] * (problem.x0.size + 1)
        self.log = []
        self.bounds = optimize.Bounds(problem.low, problem.high)
        self.bounded = bool(np.isfinite(problem.low).any() or np.isfinite(problem.high).any())

    def value(self, z):
        with np.errstate(all="ignore"):
            r = self.problem.fun(np.asarray(z, float))
            return float(r @ r)

    def __call__(self, z):
        if len(self.log) >= self.budget:
            raise Spent
        f = self.value(z)
        self.log.append(f if np.isfinite(f) else np.inf)
        # What overflows is no number to compare; a large one is.
        return min(f, 1e100) + self.unit * self.rng.normal()


def until_spent(fun, solve):
    """The point that a search returns, or its last iterate where the budget ended before it did."""
    last = [fun.problem.x0]

    def callback(z):
        last[0] = np.array(z)

    try:
        return solve(callback).x, True
    except Spent:
        return last[0], False


def bobyqa(fun):
    import pybobyqa

    s = pybobyqa.solve(
        fun, fun.problem.x0.copy(), maxfun=fun.budget, do_logging=False, print_progress=False,
        objfun_has_noise=fun.level > 0, seek_global_minimum=False,
        bounds=(fun.problem.low, fun.problem.high) if fun.bounded else None,
    )  # fmt: skip
    return s.x, len(fun.log) < fun.budget


def cobyqa(fun):
    """COBYQA, begun again at its own end while runs are left: it takes noise for convergence."""

    def run(callback):
        start = fun.problem.x0
        while True:
            start = optimize.minimize(
                fun, start, method="COBYQA", callback=callback,
                bounds=fun.bounds if fun.bounded else None,
            ).x  # fmt: skip

    return until_spent(fun, run)


def nelder_mead(fun):
    def run(callback):
        return optimize.minimize(
            fun, fun.problem.x0, method="Nelder-Mead", callback=callback,
            bounds=fun.bounds if fun.bounded else None, options={"xatol": 1e-8, "fatol": 1e-8},
        )  # fmt: skip

    return until_spent(fun, run)


def differences(step_by_noise):
    """L-BFGS-B with forward differences, at SciPy's step or that of the noise (sqrt of it)."""

    def solve(fun):
        eps = max(np.sqrt(fun.level), 1.5e-8) if step_by_noise else None

        def run(callback):
            return optimize.minimize(
                fun, fun.problem.x0, method="L-BFGS-B", callback=callback, bounds=fun.bounds,
                options={} if eps is None else {"eps": eps},
            )  # fmt: skip

        return until_spent(fun, run)

    return solve


def modelled(fun):
    """BFGS on the model of `ScipyObjective`, restarted; L-BFGS-B where there are bounds."""
    f = ScipyObjective(fun, fun.problem.x0, bounds=fun.bounds)
    method = {"method": "L-BFGS-B", "bounds": fun.bounds} if fun.bounded else {"method": "BFGS"}

    def run(callback):
        def again(start):
            return optimize.minimize(f.fun, start, jac=f.jac, callback=callback, **method)

        return f.restart(again, fun.problem.x0)

    return until_spent(fun, run)


SOLVERS = {
    "Py-BOBYQA": bobyqa,
    "COBYQA, restarted": cobyqa,
    "Nelder-Mead": nelder_mead,
    "L-BFGS-B": differences(False),
    "L-BFGS-B, step by noise": differences(True),
    "ScipyObjective, BFGS": modelled,
}


def collect(group, levels, seeds, solvers, path):
    """All runs; those that the file at ``path`` holds are not made again."""
    runs = {}
    if path is not None and path.exists():
        for line in path.read_text().splitlines():
            ran = Ran(**json.loads(line))
            runs[ran.key] = ran
    for level in levels:
        for seed in range(seeds if float(level) else 1):
            for solver in solvers:
                for problem in group:
                    key = solver, problem.name, level, seed
                    if key in runs:
                        continue
                    ran = one(problem, level, seed, solver, SOLVERS[solver], Scalar)
                    runs[ran.key] = ran
                    if path is not None:
                        with path.open("a") as file:
                            file.write(json.dumps(asdict(ran)) + "\n")
                print(f"noise {level}, seed {seed}, {solver} done", flush=True)
    return runs


def shares(runs, group, solver, level, tol, best):
    """Share solved among the first runs, for each budget, and at the point returned."""
    named = {p.name: p for p in group}
    hits, final = [], []
    for ran in runs.values():
        if (ran.solver, ran.level) != (solver, level) or ran.problem not in named:
            continue
        problem = named[ran.problem]
        start = float(np.square(problem.fun(problem.x0)).sum())
        target = start - (1 - tol) * (start - best[problem.name])
        hit = ran.needed(target)
        hits.append(np.inf if hit is None else hit / (problem.x0.size + 1))
        final.append(ran.final <= target)
    return [float(np.mean(np.array(hits) <= b)) for b in BUDGETS] + [float(np.mean(final))]


def main():
    given = dict(arg[2:].split("=", 1) for arg in sys.argv[1:] if "=" in arg)
    seeds, levels, group = int(given.get("seeds", 3)), LEVELS, everything()
    solvers = available(given["only"].split(";") if "only" in given else SOLVERS)
    if quick():
        group, seeds, levels = group[:2] + group[-1:], 1, ("0", "1e-2")
    path = Path(given["store"]) if "store" in given else None
    runs = collect(group, levels, seeds, solvers, path)
    best = {}
    for ran in runs.values():
        least = min([ran.final] + [value for _, value in ran.best])
        best[ran.problem] = min(best.get(ran.problem, np.inf), least)
    bounded = [p for p in group if p.name.endswith("bounded")]
    results = {}
    for name, part in (("all", group), ("bounded", bounded)):
        for tol in TOLERANCES:
            cells = {
                (level, solver): shares(runs, part, solver, level, tol, best)
                for level in levels
                for solver in solvers
            }
            results[f"{name}, {tol:g}"] = {", ".join(key): row for key, row in cells.items()}
            print(f"\n{len(part)} problems ({name}), solved to {tol:g}\n")
            columns = ["noise", "solver", *(f"{b} (m + 1)" for b in BUDGETS), "returned"]
            rows = [[*key, *(f"{v:.2f}" for v in row)] for key, row in cells.items()]
            print(table(columns, rows))
    print(write("scalar_minimise", results))


if __name__ == "__main__":
    main()
