"""Fits of noisy simulators: share of problems solved, and runs that it took, beside the peers.

Solved: the noise-free sum of squares at some run fell by 1 - tol of the best decrease that any
solver reached. Runs are counted in m + 1, at most 50 (m + 1); unsolved counts as 100.

    python -m benchmarks.least_squares [--quick] [--only=name,name]
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
import warnings

import numpy as np

from benchmarks._common import RESULTS, quick, table, write
from benchmarks.lsq_problems import problems
from gradiator_np.lsq.driver import LeastSquares, least_squares

BUDGET = 50
UNSOLVED = 100.0
LEVELS = {
    "0": ("additive", 0.0),
    "1e-6": ("additive", 1e-6),
    "1e-4": ("additive", 1e-4),
    "1e-2": ("additive", 1e-2),
    "multiplicative 1e-3": ("multiplicative", 1e-3),
    "deterministic 1e-3": ("deterministic", 1e-3),
}


class Spent(Exception):
    """The budget is used up."""


class Recorder:
    """The problem with noise; remembers the noise-free sum of squares of every run."""

    def __init__(self, problem, kind, level, seed):
        self.problem, self.kind, self.level = problem, kind, level
        self.rng = np.random.default_rng([seed, 7])
        first = problem.fun(problem.x0)
        self.unit = level * np.sqrt(np.mean(first**2))
        self.budget = BUDGET * (problem.x0.size + 1)
        self.log: list[float] = []

    def __call__(self, x):
        if len(self.log) >= self.budget:
            raise Spent
        x = np.asarray(x, float)
        r = self.problem.fun(x)
        size = float(r @ r)
        self.log.append(size if np.isfinite(size) else np.inf)
        if self.kind == "additive":
            return r + self.unit * self.rng.normal(size=r.shape)
        if self.kind == "multiplicative":
            return r * (1 + self.level * self.rng.normal(size=r.shape))
        wiggle = np.sin(1e4 * x.sum() * np.arange(1, r.size + 1))
        return r * (1 + self.level * wiggle)

    def scalar(self, x):
        r = self(x)
        return float(r @ r)


def driver(fun):
    result = least_squares(fun, fun.problem.x0, max_evals=fun.budget)
    return result.x, result.status != "budget"


def dfols(fun, has_noise=False):
    import dfols

    s = dfols.solve(
        fun, fun.problem.x0.copy(), maxfun=fun.budget, objfun_has_noise=has_noise,
        do_logging=False, print_progress=False,
    )  # fmt: skip
    return s.x, len(fun.log) < fun.budget


def pounders(fun):
    import optimagic as om

    def marked(x):
        return fun(x)

    s = om.minimize(om.mark.least_squares(marked), fun.problem.x0, algorithm="pounders",
                    algo_options={"stopping_maxiter": fun.budget})  # fmt: skip
    return s.params, True


def scipy_differences(fun, jac):
    from scipy.optimize import least_squares as trf

    return trf(fun, fun.problem.x0, jac=jac, x_scale="jac").x, True


def bobyqa(fun):
    import pybobyqa

    s = pybobyqa.solve(fun.scalar, fun.problem.x0.copy(), maxfun=fun.budget, do_logging=False,
                       print_progress=False, objfun_has_noise=fun.level > 0)  # fmt: skip
    return s.x, len(fun.log) < fun.budget


SOLVERS = {
    "least_squares": driver,
    "DFO-LS": dfols,
    "DFO-LS noise": lambda fun: dfols(fun, has_noise=True),
    "POUNDERS": pounders,
    "SciPy 2-point": lambda fun: scipy_differences(fun, "2-point"),
    "SciPy 3-point": lambda fun: scipy_differences(fun, "3-point"),
    "Py-BOBYQA": bobyqa,
}


def available(names):
    """Solvers whose packages are installed."""
    modules = {"DFO-LS": "dfols", "DFO-LS noise": "dfols", "POUNDERS": "optimagic",
               "Py-BOBYQA": "pybobyqa"}  # fmt: skip
    found = []
    for name in names:
        try:
            __import__(modules.get(name, "numpy"))
            found.append(name)
        except ImportError:
            print(f"{name}: not installed, left out")
    return found


def one(problem, kind, level, seed, solver):
    """Noise-free sums of squares of all runs, and of the point returned where it stopped."""
    fun = Recorder(problem, kind, level, seed)
    final, stopped = np.inf, False
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            x, stopped = SOLVERS[solver](fun)
            r = problem.fun(np.asarray(x, float))
            final = float(r @ r)
        except Exception:  # a peer's failure is a figure, not an end
            stopped = False
    return np.array(fun.log), final, stopped


def summarise(runs, best, tol):
    """Share solved, mean runs, share of the stops that are solved, runs used per runs needed."""
    needed, right, used = [], [], []
    for problem, log, final, stopped in runs:
        start = float(np.square(problem.fun(problem.x0)).sum())
        target = start - (1 - tol) * (start - best[problem.name])
        hits = np.flatnonzero(log <= target)
        unit = problem.x0.size + 1
        needed.append((hits[0] + 1) / unit if len(hits) else UNSOLVED)
        if stopped:
            right.append(final <= target)
            if len(hits):
                used.append(len(log) / (hits[0] + 1))
    needed = np.array(needed)
    return {
        "solved": float(np.mean(needed < UNSOLVED)),
        "runs": float(np.exp(np.mean(np.log(needed)))),
        "stopped": len(right) / len(runs),
        "stops_right": float(np.mean(right)) if right else float("nan"),
        "used": float(np.median(used)) if used else float("nan"),
        "needed": needed.tolist(),
    }


def profiles(data, path):
    """Share solved against runs/(m + 1), a panel for each noise."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    levels = list(data)
    fig, axes = plt.subplots(1, len(levels), figsize=(4 * len(levels), 3.4), sharey=True)
    for ax, level in zip(np.atleast_1d(axes), levels):
        for solver, row in data[level].items():
            needed = np.sort([v for v in row["needed"] if v < UNSOLVED])
            share = np.arange(len(needed) + 1) / len(row["needed"])
            ax.step(np.r_[1, needed, BUDGET], np.r_[share, share[-1]], where="post", label=solver)
        ax.set(xscale="log", xlim=(1, BUDGET), ylim=(0, 1.02), title=f"noise {level}",
               xlabel="runs / (m + 1)")  # fmt: skip
        ax.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("share solved to 1e-3")
    np.atleast_1d(axes)[-1].legend(fontsize=7, loc="lower right")
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def own_time():
    """Seconds of the driver's own work per iteration at m = 10, n = 50."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 10)), rng.normal(size=50)
    search = LeastSquares(np.ones(10))
    spent = []
    for _ in range(60):
        start = time.perf_counter()
        ids, points = search.ask()
        spent.append(time.perf_counter() - start)
        if not len(ids):
            break
        values = [np.tanh(a @ x / 10) + 0.1 * b + 1e-3 * rng.normal(size=50) for x in points]
        start = time.perf_counter()
        search.tell(values, ids)
        spent[-1] += time.perf_counter() - start
    return float(np.median(spent[1:]))


def main():
    chosen = problems()
    levels, seeds, solvers = dict(LEVELS), 3, available(SOLVERS)
    for arg in sys.argv[1:]:
        if arg.startswith("--only="):
            solvers = [s for s in solvers if s in arg[7:].split(",")]
        if arg.startswith("--noise="):
            levels = {k: v for k, v in levels.items() if k in arg[8:].split(",")}
        if arg.startswith("--seeds="):
            seeds = int(arg[8:])
    if quick():
        chosen, seeds = chosen[:6], 1
        levels = {k: LEVELS[k] for k in ("0", "1e-2")}
    best = {p.name: np.inf for p in chosen}
    raw = {}
    for level, (kind, size) in levels.items():
        for solver in solvers:
            runs = []
            for problem in chosen:
                for seed in range(seeds if size else 1):
                    log, final, stopped = one(problem, kind, size, seed, solver)
                    best[problem.name] = min([best[problem.name], final, *log])
                    runs.append((problem, log, final, stopped))
            raw[level, solver] = runs
            print(f"noise {level}: {solver} done", flush=True)
    results = {}
    for tol in (1e-3, 1e-5):
        rows, results[f"{tol:g}"] = [], {level: {} for level in levels}
        for (level, solver), runs in raw.items():
            row = summarise(runs, best, tol)
            results[f"{tol:g}"][level][solver] = row
            rows.append([level, solver] + [row[k] for k in
                        ("solved", "runs", "stopped", "stops_right", "used")])  # fmt: skip
        print(f"\nSolved to {tol:g}: {len(chosen)} problems, runs/(m + 1) as geometric mean\n")
        print(table(["noise", "solver", "solved", "runs", "stopped itself", "of these right",
                     "runs used / needed"], rows))  # fmt: skip
    results["own_time"] = own_time()
    print(f"\nown time per iteration, m = 10, n = 50: {1e3 * results['own_time']:.2f} ms")
    print(write("least_squares", results))
    try:
        profiles(results["0.001"], RESULTS / "least_squares.png")
    except ImportError:
        print("matplotlib is not installed: no plot")


if __name__ == "__main__":
    main()
